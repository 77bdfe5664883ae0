"""From a release's files to answers. What is inside may change; `Scorer.load` and `Scorer.predict` are the seam."""

from pathlib import Path
from typing import Any

import msgspec

from ml_assets.errors import InvalidRequestError, ReleaseError
from ml_assets.ml import skops_store
from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.features import Features
from ml_assets.ml.training import model_inputs
from ml_assets.serving.bundle import GOLDEN, PIPELINE, Manifest, read_manifest
from ml_assets.serving.frames import frame_of

TOLERANCE = 1e-9  # between a golden row's recorded score and the one computed here


class Scorer:
    """One loaded release, which answers exactly like the model that was approved."""

    def __init__(self, manifest: Manifest, features: Features, pipeline: Any) -> None:
        self.manifest = manifest
        self._features = features
        self._pipeline = pipeline

    @classmethod
    def load(cls, folder: Path) -> "Scorer":
        """Load a release and let it answer its golden rows.

        Raises:
            ReleaseError: if a file was changed, or a golden row gets another answer than recorded.
        """
        manifest = read_manifest(folder)
        features = Features.from_json(manifest.features)
        scorer = cls(manifest, features, skops_store.load(folder / PIPELINE))
        golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
        require_equal(golden["answers"], scorer.predict(golden["rows"]), str(folder))
        return scorer

    def predict(self, rows: Any) -> list[dict[str, Any]]:
        """An answer per row: `label` and `score` (of the last class) for two classes, `label` and `scores` by class for
        several, `value` for regression.

        Raises:
            InvalidRequestError: naming row, column and value, if a row does not fit the contract.
        """
        frame = frame_of(rows, self.manifest.inputs, self.manifest.null_values)
        try:
            features = model_inputs(self._features.compute(frame))
            scores = scores_of(self._pipeline, features, self.manifest.task)  # type: ignore[arg-type]
        except Exception as error:
            raise InvalidRequestError(f"these rows cannot be scored: {error}") from error
        if self.manifest.task == "regression":
            return [{"value": value} for value in scores.tolist()]
        classes = self.manifest.classes
        labels = [classes[position] for position in scores.argmax(axis=1).tolist()]
        if self.manifest.task == "binary":
            return [{"label": label, "score": row[1]} for label, row in zip(labels, scores.tolist(), strict=True)]
        names = [str(each) for each in classes]
        return [
            {"label": label, "scores": dict(zip(names, row, strict=True))}
            for label, row in zip(labels, scores.tolist(), strict=True)
        ]


def require_equal(expected: list[dict[str, Any]], given: list[dict[str, Any]], place: str) -> None:
    """Compare answers with the recorded ones, numbers to `TOLERANCE`.

    Raises:
        ReleaseError: naming the first row that differs.
    """
    if len(expected) != len(given):
        raise ReleaseError(f"{place}: {len(given)} answers to {len(expected)} golden rows")
    for number, (wanted, got) in enumerate(zip(expected, given, strict=True)):
        if not _close(wanted, got):
            raise ReleaseError(f"{place}: golden row {number} is answered with {got}, not with {wanted}")


def _close(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(_close(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, float) and isinstance(got, int | float):
        return abs(wanted - got) <= TOLERANCE * max(1.0, abs(wanted))
    return bool(wanted == got)
