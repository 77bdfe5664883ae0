"""How good Pipelines are on rows of the folds that they were not fitted on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.errors import TrainingError
from ml_assets.ml.compute import Compute
from ml_assets.ml.fitting import fit
from ml_assets.spec.base import Task


@dataclass(frozen=True)
class Fold:
    """Positions of the rows to learn from and to be judged on, and weights of the former."""

    learn: np.ndarray
    judge: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True)
class Terms:
    """How a fold is judged.

    Attributes:
        threshold: the stated one, if there is.
        metric: what the score is.
        responses: whether what the Pipeline said of each row is wanted too, for a calibration.
    """

    task: Task
    classes: list[Any]
    threshold: float | None
    metric: str
    responses: bool
    place: str


@dataclass(frozen=True)
class Judged:
    """A fold's score, and the Pipeline's responses on its judged rows if they are wanted."""

    score: float
    responses: np.ndarray | None


@dataclass(frozen=True)
class CrossValidation:
    """The training rows, ready to judge any number of Pipelines on the same folds.

    Attributes:
        inputs: of all training rows.
        answer: shape (rows,).
    """

    inputs: pd.DataFrame
    answer: np.ndarray
    folds: Sequence[Fold]
    terms: Terms
    compute: Compute

    def judge(self, pipeline: Any) -> list[Judged]:
        """The folds of an unfitted Pipeline, in order.

        Raises:
            TrainingError: if scikit-learn does not fit it.
        """
        (folds,) = self._judge([pipeline], self.terms)
        if isinstance(folds, TrainingError):
            raise folds
        return folds

    def scores(self, pipelines: Sequence[Any | TrainingError]) -> Iterator[list[float] | TrainingError]:
        """The folds' scores of each unfitted Pipeline; or why there is none, or scikit-learn does not fit it."""
        terms = replace(self.terms, responses=False)
        judged = self._judge([each for each in pipelines if not isinstance(each, TrainingError)], terms)
        for each in pipelines:
            folds = each if isinstance(each, TrainingError) else next(judged)
            yield folds if isinstance(folds, TrainingError) else [fold.score for fold in folds]

    def _judge(self, pipelines: Sequence[Any], terms: Terms) -> Iterator[list[Judged] | TrainingError]:
        calls = [(self.inputs, self.answer, fold, pipeline, terms) for pipeline in pipelines for fold in self.folds]
        results = self.compute.map(_judge, calls)
        for _ in pipelines:
            folds = [next(results) for _ in self.folds]
            yield next((each for each in folds if isinstance(each, TrainingError)), folds)


def _judge(
    threads: int, inputs: pd.DataFrame, answer: np.ndarray, fold: Fold, pipeline: Any, terms: Terms
) -> Judged | TrainingError:
    """One fold; it may run in another process."""
    from sklearn.base import clone

    from ml_assets.ml.calibration import responses_of
    from ml_assets.ml.evaluation import Scored, metric

    try:
        fitted = fit(
            clone(pipeline), inputs.iloc[fold.learn], answer[fold.learn], fold.weights, terms.place, workers=threads
        )
    except TrainingError as error:
        return error
    judged = inputs.iloc[fold.judge]
    scored = Scored.by(fitted, judged, answer[fold.judge], terms.classes, terms.task, terms.threshold)
    return Judged(metric(scored, terms.metric), responses_of(fitted, judged) if terms.responses else None)
