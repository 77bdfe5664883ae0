"""How good a fitted model is on given rows: scores and metrics. Intervals are in `bootstrap.py`."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.ml.threshold import decide
from ml_assets.spec.base import METRICS, Task

CALIBRATION_BINS = 10


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


def calibration_error(scored: Scored) -> float:
    """Expected calibration error: how far scores are from the shares that they foretell, on average over the rows
    (Naeini, Cooper and Hauskrecht 2015, AAAI). Chance makes it greater than zero also where scores are probabilities.
    """
    return float(np.abs(calibration_sums(scored).sum(axis=0)).sum() / len(scored.truth))


def calibration_sums(scored: Scored) -> np.ndarray:
    """By how much each row's score is above what came true, in the column of its bin; shape (rows, bins).

    Bins hold about equally many rows; rows with equal scores are in one bin.
    """
    scores, came_true = foretold(scored)
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, scores, side="right")
    return np.asarray((scores - came_true)[:, None] * (bins[:, None] == np.arange(len(edges) + 1)))


def foretold(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """What is foretold of each row as a probability, and whether it came true; two arrays of shape (rows,)."""
    if scored.task == "binary":
        return scored.scores[:, 1], (scored.truth == 1).astype(float)
    return scored.scores.max(axis=1), (scored.scores.argmax(axis=1) == scored.truth).astype(float)


def _roc_auc(scored: Scored) -> float:
    from sklearn.metrics import roc_auc_score

    present = len(np.unique(scored.truth))
    if scored.task == "binary":
        return float(roc_auc_score(scored.truth, scored.scores[:, 1])) if present == 2 else float("nan")
    if present < len(scored.classes):
        return float("nan")
    return float(roc_auc_score(scored.truth, scored.scores, multi_class="ovr", labels=range(len(scored.classes))))
