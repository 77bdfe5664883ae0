"""What MLflow keeps per model version: the fitted Pipeline, its verdict and the aliases `candidate` and `champion`."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from ml_assets.ml import skops_store
from ml_assets.ml.features import Features
from ml_assets.ml.trained_on import TrainedOn, digest_of_files
from ml_assets.ml.verdict import Verdict
from ml_assets.spec import Task

VERDICT_TAG = "ml_assets.verdict"
REPLACED_TAG = "ml_assets.replaced"
TRAINED_ON = "trained_on"  # tag of a version, and folder of its run
CANDIDATE, CHAMPION = "candidate", "champion"
_REQUIREMENTS = ("scikit-learn", "skops", "pandas", "numpy")


@dataclass(frozen=True)
class Registry:
    """The MLflow registry at `tracking_uri`."""

    tracking_uri: str

    @cached_property
    def client(self) -> Any:
        import mlflow

        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        mlflow.set_tracking_uri(self.tracking_uri)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        return mlflow.MlflowClient(self.tracking_uri)

    def register(
        self, model: str, run_id: str, pipeline: Any, features: Features, task: Task, threshold: float | None
    ) -> str:
        """Log the Pipeline to the active run `run_id` and register it, as `candidate`, with its threshold as a tag.

        The signature says what the features are, never what a sample of rows looked like.

        Returns:
            The new version.
        """
        import mlflow.sklearn

        _ = self.client
        refused = skops_store.untrusted_types(skops_store.dump(pipeline))
        info = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format="skops",
            skops_trusted_types=[*skops_store.TRUSTED, *refused],
            pip_requirements=[f"{name}=={installed_version(name)}" for name in _REQUIREMENTS],
            signature=_signature(features, task),
            registered_model_name=model,
        )
        version = str(info.registered_model_version)
        self.client.set_model_version_tag(model, version, "mlflow_run", run_id)
        if threshold is not None:
            self.client.set_model_version_tag(model, version, "threshold", repr(threshold))
        self.client.set_registered_model_alias(model, CANDIDATE, version)
        return version

    def keep_trained_on(self, model: str, version: str, run_id: str, trained_on: TrainedOn) -> None:
        """Keep with a version what it was trained on, in the MLflow run that made it."""
        self.log_files(run_id, {f"{TRAINED_ON}/{name}": content for name, content in trained_on.files.items()})
        self.client.set_model_version_tag(model, version, TRAINED_ON, trained_on.digest)

    def trained_on(self, model: str, version: str) -> TrainedOn | None:
        """What a version was trained on; None if that was not kept with it, or was changed since."""
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        tags = self.client.get_model_version(model, version).tags
        if TRAINED_ON not in tags:
            return None
        run, uri = tags["mlflow_run"], self.tracking_uri
        with tempfile.TemporaryDirectory() as temporary:
            try:
                folder = mlflow.artifacts.download_artifacts(
                    run_id=run, artifact_path=TRAINED_ON, dst_path=temporary, tracking_uri=uri
                )
                files = {each.name: each.read_bytes() for each in Path(folder).iterdir()}
            except (MlflowException, OSError):
                return None
        return TrainedOn.from_files(files) if digest_of_files(files) == tags[TRAINED_ON] else None

    def threshold(self, model: str, version: str) -> float | None:
        """The threshold that a version was registered with."""
        text = self.client.get_model_version(model, version).tags.get("threshold")
        return float(text) if text else None

    def log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Add files to a run, by their paths in it; the run may have ended."""
        with tempfile.TemporaryDirectory() as temporary:
            for path, content in files.items():
                file = Path(temporary) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self.client.log_artifacts(run_id, temporary)

    def load(self, model: str, version: str) -> Any:
        """The Pipeline of a version, read from its skops file, also if the allow-list does not let it serve."""
        import mlflow.artifacts

        folder = mlflow.artifacts.download_artifacts(
            self.client.get_model_version_download_uri(model, version), tracking_uri=self.tracking_uri
        )
        return skops_store.load(Path(folder) / "model.skops", to_judge=True)

    def record_verdict(self, verdict: Verdict) -> None:
        text = json.dumps(verdict.to_json())
        self.client.set_model_version_tag(verdict.model, verdict.version, VERDICT_TAG, text)

    def verdict(self, model: str, version: str) -> Verdict | None:
        """The verdict of a version; None if none fell yet.

        Raises:
            NotApprovedError: if it was changed after it fell.
        """
        text = self.client.get_model_version(model, version).tags.get(VERDICT_TAG)
        return Verdict.from_json(json.loads(text)) if text else None

    def set_champion(self, model: str, version: str) -> None:
        """Make a version the champion, and keep with it which one it replaced."""
        before = self.champion(model)
        if before not in (None, version):
            self.client.set_model_version_tag(model, version, REPLACED_TAG, before)
        self.client.set_registered_model_alias(model, CHAMPION, version)

    def champion(self, model: str) -> str | None:
        """Version that has the alias `champion`."""
        aliases: Mapping[str, Any] = self.client.get_registered_model(model).aliases
        return str(aliases[CHAMPION]) if CHAMPION in aliases else None

    def replaced_by(self, model: str, version: str) -> str | None:
        """The champion before the time when `version` became it."""
        replaced = self.client.get_model_version(model, version).tags.get(REPLACED_TAG)
        return str(replaced) if replaced else None

    def rival(self, model: str, version: str) -> str | None:
        """The version that `version` has to be compared with: the champion, or the one that it replaced."""
        champion = self.champion(model)
        return self.replaced_by(model, version) if champion == version else champion


def _signature(features: Features, task: Task) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = Schema(
        [
            ColSpec("double" if name in features.numeric else "string", name, required=name not in features.numeric)
            for name in features.names
        ]
    )
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec("double" if task == "regression" else "long")]))
