"""How good a fitted model is on given rows: scores, metrics and their bootstrap intervals."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.ml.threshold import decide
from ml_assets.spec import METRICS, Task

RESAMPLES = 200
LEVEL = 0.95


@dataclass(frozen=True)
class Scored:
    """Answers of a model beside the truth.

    Attributes:
        truth: shape (rows,), class positions, or values for regression.
        scores: shape (rows, classes) of probabilities, or (rows,) of values for regression.
        classes: target values in the order of the columns of `scores`.
        threshold: of a binary task; see `decide`.
    """

    truth: np.ndarray
    scores: np.ndarray
    classes: list[Any]
    task: Task
    threshold: float | None = None

    @classmethod
    def by(
        cls,
        pipeline: Any,
        inputs: pd.DataFrame,
        truth: np.ndarray,
        classes: list[Any],
        task: Task,
        threshold: float | None = None,
    ) -> "Scored":
        """Score `inputs` with a fitted Pipeline."""
        return cls(truth, scores_of(pipeline, inputs, task), classes, task, threshold)

    @property
    def answers(self) -> np.ndarray:
        """Class positions, or the values themselves; shape (rows,)."""
        return self.scores if self.task == "regression" else decide(self.scores, self.threshold)

    def take(self, rows: np.ndarray) -> "Scored":
        return replace(self, truth=self.truth[rows], scores=self.scores[rows])


def scores_of(pipeline: Any, inputs: pd.DataFrame, task: Task) -> np.ndarray:
    """Probabilities of shape (rows, classes); for regression values of shape (rows,).

    An estimator without probabilities gives 1 for the class that it chooses.
    """
    if task == "regression":
        return np.asarray(pipeline.predict(inputs), dtype=np.float64)
    if hasattr(pipeline, "predict_proba"):
        return np.asarray(pipeline.predict_proba(inputs), dtype=np.float64)
    return np.asarray(np.eye(len(pipeline.classes_))[pipeline.predict(inputs)])


def measure(scored: Scored) -> dict[str, float]:
    """All metrics of the task, by name."""
    return {name: metric(scored, name) for name in METRICS[scored.task]}


def metric(scored: Scored, name: str) -> float:
    """One metric. Several classes: macro averages, ROC AUC one against the rest.

    What the rows cannot give (ROC AUC of one class alone) is NaN, which passes no gate.
    """
    from sklearn import metrics

    truth, answers = scored.truth, scored.answers
    if name == "rmse":
        return float(np.sqrt(np.mean((truth - answers) ** 2)))
    if name == "mae":
        return float(np.mean(np.abs(truth - answers)))
    if name == "r2":
        return float(metrics.r2_score(truth, answers)) if len(truth) > 1 else float("nan")
    if name == "accuracy":
        return float(np.mean(truth == answers))
    if name == "roc_auc":
        return _roc_auc(scored)
    options: dict[str, Any] = {"average": "binary" if scored.task == "binary" else "macro", "zero_division": 0}
    if scored.task == "multiclass":
        options["labels"] = range(len(scored.classes))
    return float(getattr(metrics, f"{name}_score")(truth, answers, **options))


def _roc_auc(scored: Scored) -> float:
    from sklearn.metrics import roc_auc_score

    present = len(np.unique(scored.truth))
    if scored.task == "binary":
        return float(roc_auc_score(scored.truth, scored.scores[:, 1])) if present == 2 else float("nan")
    if present < len(scored.classes):
        return float("nan")
    return float(roc_auc_score(scored.truth, scored.scores, multi_class="ovr", labels=range(len(scored.classes))))


def interval(scored: Scored, name: str, seed: int = 0, most_rows: int = 20_000) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric at `LEVEL` (Efron and Tibshirani 1993, chapter 13).

    Rows are resampled with replacement `RESAMPLES` times. Above `most_rows` a fixed random part of the rows is used,
    which gives a wider, so a more careful, interval.
    """
    random = np.random.default_rng(seed)
    size = len(scored.truth)
    if size > most_rows:
        scored = scored.take(random.choice(size, most_rows, replace=False))
        size = most_rows
    values = np.array([metric(scored.take(random.integers(0, size, size)), name) for _ in range(RESAMPLES)])
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
