"""What MLflow keeps per model version: the fitted Pipeline, its verdict and the aliases `candidate` and `champion`."""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from ml_assets.digests import digest_of, digest_of_model
from ml_assets.errors import TrackingError
from ml_assets.ml import skops_store
from ml_assets.ml.features import Features
from ml_assets.ml.trained_on import TrainedOn, digest_of_files
from ml_assets.ml.verdict import Verdict
from ml_assets.provenance import CODE, FACTS
from ml_assets.spec.base import Task

VERDICT_TAG = "ml_assets.verdict"
FACTS_TAG = "ml_assets.facts"  # digest of what a version was made from, which its MLflow run holds
REPLACED_TAG = "ml_assets.replaced"
TRAINED_ON = "trained_on"  # tag of a version, and folder of its run
CANDIDATE, CHAMPION = "candidate", "champion"
# A version is UNFINISHED until the lake has a record of it: its training may still fail, or be killed.
STATE_TAG = "ml_assets.training"
UNFINISHED, RECORDED = "unfinished", "recorded"
_SECONDS_TO_ANSWER = 10
_REQUIREMENTS = ("scikit-learn", "skops", "pandas", "numpy")


@dataclass(frozen=True)
class Registry:
    """The MLflow registry at `tracking_uri`, which may hold a password.

    Attributes:
        s3_endpoint_url: S3-compatible server of artefacts; None for AWS.
    """

    tracking_uri: str = field(repr=False)
    s3_endpoint_url: str | None = None

    @property
    def address(self) -> str:
        """As SQLAlchemy takes it: where psycopg 3 is installed too, `postgresql://` would mean that."""
        return re.sub(r"^postgresql://", "postgresql+psycopg2://", self.tracking_uri.rstrip("/"))

    @property
    def shown(self) -> str:
        """Without user and password, for messages."""
        return re.sub(r"//[^/]*@", "//***@", self.tracking_uri)

    @cached_property
    def client(self) -> Any:
        # MLflow reads these whenever it uses them.
        os.environ |= {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        if self.s3_endpoint_url:
            os.environ["MLFLOW_S3_ENDPOINT_URL"] = self.s3_endpoint_url
        import mlflow

        mlflow.set_tracking_uri(self.address)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return mlflow.MlflowClient(self.address)

    def reach(self) -> Any:
        """The client, once it is certain that MLflow answers: by itself it tries for minutes.

        Raises:
            TrackingError: if it does not answer, or refuses the credentials.
        """
        advice = "look at ML_ASSETS_MLFLOW_URI"
        try:
            if self.tracking_uri.startswith("http"):
                import requests

                advice += ", MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                answer = requests.get(f"{self.address}/health", timeout=_SECONDS_TO_ANSWER)
                answer.raise_for_status()
            elif self.tracking_uri.startswith("postgresql"):
                import sqlalchemy

                options = {"connect_timeout": _SECONDS_TO_ANSWER}
                sqlalchemy.create_engine(self.address, connect_args=options).connect().close()
            client = self.client
            client.search_experiments(max_results=1)
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"MLflow's database {self.shown} needs the package {error.name}; install ml-assets[postgres]"
            ) from None
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise TrackingError(f"MLflow at {self.shown} does not answer: {lines[0]}; {advice}") from None
        return client

    def register(
        self,
        model: str,
        run_id: str,
        pipeline: Any,
        features: Features,
        task: Task,
        threshold: float | None,
        tags: Mapping[str, str],
    ) -> str:
        """Log the Pipeline to the active run `run_id` and register it, with its threshold as a tag.

        The signature says what the features are, never what a sample of rows looked like. The version is UNFINISHED
        from its first moment on, until `settle` is told of its record.

        Returns:
            The new version.

        Raises:
            TrackingError: if MLflow, or where it keeps its artefacts, does not take the model.
        """
        import mlflow.sklearn

        _ = self.client
        refused = skops_store.untrusted_types(skops_store.dump(pipeline))
        tags = {STATE_TAG: UNFINISHED, "mlflow_run": run_id, **tags}
        if threshold is not None:
            tags["threshold"] = repr(threshold)
        try:
            info = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                serialization_format="skops",
                skops_trusted_types=[*skops_store.TRUSTED, *refused],
                pip_requirements=[f"{name}=={installed_version(name)}" for name in _REQUIREMENTS],
                signature=_signature(features, task),
                registered_model_name=model,
                tags=tags,
            )
        except Exception as error:
            raise TrackingError(f"{model}: MLflow at {self.shown} does not take the model: {error}") from error
        return str(info.registered_model_version)

    def settle(self, model: str, experiment_id: str, recorded: str | None) -> None:
        """Let the `recorded` version count, as candidate, and remove what attempts left that never got as far.

        To be used where nobody trains the same model.

        Args:
            recorded: version that the newest record names.
        """
        unfinished = f"tags.`{STATE_TAG}` = '{UNFINISHED}'"
        for each in self.client.search_model_versions(f"name = '{model}' AND {unfinished}"):
            if str(each.version) == recorded:
                self.accept(model, recorded)
            else:
                self.client.delete_model_version(model, each.version)
        for logged in self.client.search_logged_models([experiment_id], unfinished):
            self.client.delete_logged_model(logged.model_id)

    def accept(self, model: str, version: str) -> None:
        """Make a version that the lake has a record of the candidate; doing it again changes nothing."""
        found = self.client.get_model_version(model, version)
        if found.tags.get(STATE_TAG) == UNFINISHED:
            self.client.set_registered_model_alias(model, CANDIDATE, version)
            logged = str(found.source).removeprefix("models:/")  # the version is the logged model, by another name
            self.client.set_logged_model_tags(logged, {STATE_TAG: RECORDED})
            self.client.set_model_version_tag(model, version, STATE_TAG, RECORDED)

    def facts(self, model: str, version: str) -> dict[str, Any]:
        """What a version was made from, as its training wrote it down.

        Raises:
            TrackingError: if there is no such version, or that was not written down, or was changed since.
        """
        import mlflow

        found = self._version(model, version).tags
        if FACTS_TAG not in found:
            raise TrackingError(f"{model} version {version} was trained before ml-assets wrote down what from")
        text = mlflow.artifacts.load_text(f"runs:/{found['mlflow_run']}/{FACTS}")
        facts: dict[str, Any] = json.loads(text)
        if digest_of(facts) != found[FACTS_TAG]:
            raise TrackingError(f"{model} version {version}: {FACTS} in MLflow was changed after the training")
        return facts

    def code(self, model: str, version: str, facts: Mapping[str, Any], folder: Path) -> None:
        """Put the files that declared a version's model into a folder.

        Raises:
            TrackingError: if they are not those that the facts name.
        """
        import mlflow

        folder.mkdir(parents=True)
        run = self._version(model, version).tags["mlflow_run"]
        for name, digest in facts["code"]["files"].items():
            content = mlflow.artifacts.load_text(f"runs:/{run}/{CODE}/{name}").encode()
            if hashlib.sha256(content).hexdigest() != digest:
                raise TrackingError(
                    f"{model} version {version}: {CODE}/{name} in MLflow was changed after the training"
                )
            (folder / name).write_bytes(content)

    def digest(self, model: str, version: str) -> str:
        """Digest of the Pipeline and threshold that are stored."""
        threshold = self._version(model, version).tags.get("threshold")
        return digest_of_model(self.load(model, version), None if threshold is None else float(threshold))

    def _version(self, model: str, version: str) -> Any:
        found = {str(each.version): each for each in self.client.search_model_versions(f"name = '{model}'")}
        if version not in found:
            there = ", ".join(sorted(found, key=int)) or "none"
            raise TrackingError(f"MLflow at {self.shown} has no version {version} of {model}; there are: {there}")
        return found[version]

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
        run, uri = tags["mlflow_run"], self.address
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
            self.client.get_model_version_download_uri(model, version), tracking_uri=self.address
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

    def set_champion(self, model: str, version: str | None) -> None:
        """Make a version the champion, and keep with it which one it replaced; None: no version is."""
        before = self.champion(model)
        if version is None:
            if before is not None:
                self.client.delete_registered_model_alias(model, CHAMPION)
            return
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
