"""Whether a release gives rows the features and scores that training gave them, and which feature differs if not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.inputs import model_inputs
from ml_assets.serving.scorer import Scorer

TOLERANCE = 1e-6  # of a score, and of a feature as the estimator sees it: scaled, imputed, encoded


@dataclass(frozen=True)
class Difference:
    """The first row in which something differs.

    Attributes:
        feature: its name; `estimator` if all features agree and the scores do not.
        what: `type of <column>` (a column that it reads), `column`, `type` or `value` (of the feature itself),
            `prepared` or `number of columns` (as the fitted Pipeline scales or encodes it), or `score`.
    """

    feature: str
    what: str
    row: int
    offline: Any
    served: Any

    def __str__(self) -> str:
        return f"feature {self.feature!r}: {self.what} is {self.served!r} when served and {self.offline!r} in training"


def differences(
    scorer: Scorer,
    rows: list[dict[str, Any]],
    pipeline: Any,
    offline: pl.DataFrame,
    inputs: Mapping[str, pl.DataType],
) -> list[Difference]:
    """Everything in which a release differs from training, for some rows.

    Args:
        scorer: the release, with an online store.
        rows: the rows as a caller sends them.
        pipeline: the fitted Pipeline of the approved version.
        offline: its features of the same rows, in the same order, as they lie in the lake.
        inputs: type of each column that features may read.
    """
    frame, _ = scorer.read(rows)
    served = scorer.features.compute(frame)
    found = [*_inputs(scorer, frame, inputs), *_features(served, offline)]
    if found:
        return found
    found = list(_prepared(scorer, pipeline, served, offline))
    return found or list(_scores(scorer, rows, pipeline, offline))


def _inputs(scorer: Scorer, frame: pl.DataFrame, inputs: Mapping[str, pl.DataType]) -> Iterator[Difference]:
    for feature, columns in scorer.features.lineage.items():
        for name in columns:
            if frame.schema[name] != inputs[name]:
                yield Difference(feature, f"type of {name}", 0, str(inputs[name]), str(frame.schema[name]))


def _features(served: pl.DataFrame, offline: pl.DataFrame) -> Iterator[Difference]:
    for name in offline.columns:
        if name not in served.columns:
            yield Difference(name, "column", 0, "there", "missing")
            continue
        ours, theirs = offline.get_column(name), served.get_column(name)
        if ours.dtype != theirs.dtype:
            yield Difference(name, "type", 0, str(ours.dtype), str(theirs.dtype))
        elif (row := _first(_bits(ours).ne_missing(_bits(theirs)))) is not None:
            yield Difference(name, "value", row, ours[row], theirs[row])


def _bits(values: pl.Series) -> pl.Series:
    """Floats as the integers of the same bits, so that 0.0 is not -0.0."""
    if not values.dtype.is_float():
        return values
    return values.reinterpret(dtype=pl.Int32() if values.dtype == pl.Float32 else pl.Int64())


def _prepared(scorer: Scorer, trained: Any, served: pl.DataFrame, offline: pl.DataFrame) -> Iterator[Difference]:
    ours = np.asarray(trained[:-1].transform(model_inputs(offline)), np.float64)
    theirs = scorer.estimator.prepared(served)
    names = [str(each).partition("__")[2] for each in trained[:-1].get_feature_names_out()]
    if ours.shape != theirs.shape:
        yield Difference(names[-1], "number of columns", 0, ours.shape[1], theirs.shape[1])
        return
    for column, name in enumerate(names):
        far = ~np.isclose(theirs[:, column], ours[:, column], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if far.any():
            row = int(far.argmax())
            yield Difference(name, "prepared", row, float(ours[row, column]), float(theirs[row, column]))


def _scores(scorer: Scorer, rows: list[dict[str, Any]], pipeline: Any, offline: pl.DataFrame) -> Iterator[Difference]:
    task = scorer.manifest.task
    ours = scores_of(pipeline, model_inputs(offline), task)  # type: ignore[arg-type]
    for row, answer in enumerate(scorer.predict(rows)):
        wanted, given = _numbers(ours[row], answer, scorer.manifest.classes)
        if not np.allclose(given, wanted, rtol=0, atol=TOLERANCE):
            yield Difference("estimator", "score", row, list(wanted), list(given))
            return


def _numbers(scores: Any, answer: dict[str, Any], classes: Sequence[Any]) -> tuple[list[float], list[float]]:
    """The scores of one row as training and as the answer give them."""
    if "value" in answer:
        return [float(scores)], [answer["value"]]
    if "score" in answer:
        return [float(scores[1])], [answer["score"]]
    return [float(each) for each in scores], [answer["scores"][str(each)] for each in classes]


def _first(holds: pl.Series) -> int | None:
    return holds.arg_true()[0] if holds.any() else None
