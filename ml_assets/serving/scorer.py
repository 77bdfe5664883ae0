"""From a release's files to answers. What is inside may change; `Scorer.load` and `Scorer.predict` are the seam."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from ml_assets.errors import InvalidRequestError, MlAssetsError, OnlineStoreError, ReleaseError
from ml_assets.ml.features import Features
from ml_assets.ml.threshold import decide
from ml_assets.serving.bundle import GOLDEN, GRAPH, ONNX, PIPELINE, Manifest, read_manifest
from ml_assets.serving.fitted import Fitted
from ml_assets.serving.frames import frame_of
from ml_assets.serving.graph import Graph
from ml_assets.serving.look_up import LookedUp, look_up
from ml_assets.serving.online import OnlineStore
from ml_assets.serving.quick import Quick

TOLERANCE = 1e-9  # between a golden row's recorded score and the one computed here


class Answered(NamedTuple):
    """Answers to some rows, and what was looked up for them: one row for each, None where nothing is looked up."""

    answers: list[dict[str, Any]]
    looked_up: pl.DataFrame | None = None


class Scorer:
    """One loaded release, which answers exactly like the model that was approved."""

    def __init__(
        self, manifest: Manifest, features: Features, estimator: Graph | Fitted, online: OnlineStore | None
    ) -> None:
        self.manifest = manifest
        self.features = features
        self.estimator = estimator
        self._online = online
        self._quick = Quick.of(manifest, features, estimator)
        self._counts: dict[str, Counter[str]] = {view.name: Counter() for view in manifest.views}
        self._counting = threading.Lock()

    @classmethod
    def load(cls, folder: Path, online: OnlineStore | None = None) -> "Scorer":
        """Load a release and let it answer its golden rows.

        Args:
            online: where the columns of side tables and groups are looked up.

        Raises:
            ReleaseError: if a file was changed, or a golden row gets another answer than recorded.
        """
        manifest = read_manifest(folder)
        features = Features.from_json(manifest.features)
        scorer = cls(manifest, features, _estimator(folder, manifest), online)
        golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
        require_equal(golden["answers"], scorer.predict(golden["rows"], golden["looked_up"]), str(folder))
        return scorer

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """For each side table and group how many rows found their entity in it, and how many did not, and why."""
        with self._counting:
            return {view: dict(counts) for view, counts in self._counts.items()}

    def predict(self, rows: Any, looked_up: Any = None) -> list[dict[str, Any]]:
        """The answers of `answer`."""
        return self.answer(rows, looked_up).answers

    def answer(self, rows: Any, looked_up: Any = None) -> Answered:
        """An answer per row: `label` and `score` (of the last class) for two classes, `label` and `scores` by class for
        several, `value` for regression; and `missing`, if a side table or group had nothing for the row.

        Args:
            rows: the request's rows.
            looked_up: for each row what was looked up for it then, to get the same answer again; None: look it up.

        Raises:
            InvalidRequestError: naming row, column and value, if a row does not fit the contract.
            OnlineStoreError: if the online store does not answer.
        """
        quick = self._quick.scores(rows) if self._quick is not None and looked_up is None else None
        if quick is not None:
            return Answered(self._answers(quick), None)
        frame, missing = self.read(rows, looked_up)
        try:
            answers = self.answers_of(self.features.compute(frame))
        except MlAssetsError:
            raise
        except Exception as error:
            raise InvalidRequestError(f"these rows cannot be scored: {error}") from error
        for answer, without in zip(answers, missing, strict=True):
            if without:
                answer["missing"] = without
        beside = [column.name for column in self.manifest.beside]
        return Answered(answers, frame.select(beside) if beside else None)

    def read(self, rows: Any, looked_up: Any = None) -> tuple[pl.DataFrame, list[dict[str, str]]]:
        """Rows with all columns that the features read, and for each the views that had nothing for it, and why."""
        manifest = self.manifest
        beside = manifest.beside
        if isinstance(rows, list):
            _refuse_looked_up(rows, manifest)
        frame = frame_of(rows, manifest.inputs, manifest.null_values)
        if not beside:
            return frame, [{}] * frame.height
        if looked_up is not None:
            if not isinstance(looked_up, list) or len(looked_up) != frame.height:
                raise InvalidRequestError("`looked_up` is to be a list with an object for each row")
            return frame.hstack(frame_of(looked_up, beside, ())), [{}] * frame.height
        if self._online is None:
            raise OnlineStoreError(f"{manifest.model} looks columns up, and no online store is set")
        found: LookedUp = look_up(self._online, manifest.views, frame, manifest.event_time)
        with self._counting:
            for view, counts in found.counts.items():
                self._counts[view] += counts
        return frame.hstack(found.columns), found.missing

    def answers_of(self, features: pl.DataFrame) -> list[dict[str, Any]]:
        """An answer for each row of features."""
        return self._answers(self.estimator.scores(features))

    def _answers(self, scores: Any) -> list[dict[str, Any]]:
        if self.manifest.task == "regression":
            return [{"value": value} for value in scores.tolist()]
        classes = self.manifest.classes
        labels = [classes[position] for position in decide(scores, self.manifest.threshold).tolist()]
        if self.manifest.task == "binary":
            return [{"label": label, "score": row[1]} for label, row in zip(labels, scores.tolist(), strict=True)]
        names = [str(each) for each in classes]
        return [
            {"label": label, "scores": dict(zip(names, row, strict=True))}
            for label, row in zip(labels, scores.tolist(), strict=True)
        ]


def _estimator(folder: Path, manifest: Manifest) -> Graph | Fitted:
    """What scores, from the one file that the release has for it."""
    name = GRAPH if manifest.scorer == ONNX else PIPELINE
    if name not in manifest.files:
        raise ReleaseError(
            f"{folder}: the scorer is {manifest.scorer}, and there is no {name}; build the release again"
        )
    if name == GRAPH:
        return Graph.load((folder / GRAPH).read_bytes())
    return Fitted.load(folder / PIPELINE, manifest.task)  # type: ignore[arg-type]


def _refuse_looked_up(rows: list[Any], manifest: Manifest) -> None:
    """What the server looks up itself is not sent: training did not see what a caller believes."""
    views = {column.name: view for view in manifest.views for column in view.columns.values()}
    for number, row in enumerate(rows):
        for name in views.keys() & row.keys() if isinstance(row, dict) else ():
            view = views[name]
            raise InvalidRequestError(
                f"row {number}: column {name!r} is looked up in {view.name}; do not send it, but "
                f"{', '.join(view.keys) or manifest.event_time}"
            )


def require_equal(expected: list[dict[str, Any]], given: list[dict[str, Any]], place: str) -> None:
    """Compare answers with the recorded ones, numbers to `TOLERANCE`.

    Raises:
        ReleaseError: naming the first row that differs.
    """
    if len(expected) != len(given):
        raise ReleaseError(f"{place}: {len(given)} answers to {len(expected)} golden rows")
    for number, (wanted, got) in enumerate(zip(expected, given, strict=True)):
        if not same_answer(wanted, got):
            raise ReleaseError(f"{place}: golden row {number} is answered with {got}, not with {wanted}")


def same_answer(wanted: Any, got: Any) -> bool:
    """Whether an answer is the recorded one, numbers to `TOLERANCE`."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(same_answer(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, float) and isinstance(got, int | float):
        return abs(wanted - got) <= TOLERANCE * max(1.0, abs(wanted))
    return bool(wanted == got)
