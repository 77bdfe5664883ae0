"""Whether a single feature alone almost decides the target, which mostly means that it holds the answer."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_assets.ml.bootstrap import Interval, intervals
from ml_assets.ml.evaluation import Scored, metric
from ml_assets.spec.base import Task

BINS = 64


@dataclass(frozen=True)
class Suspect:
    """The feature that says most by itself: its ROC AUC (of several classes the one it knows best) or r2."""

    feature: str
    metric: str
    value: float
    interval: Interval


def most_telling(
    train: pl.DataFrame, truth: np.ndarray, test: pl.DataFrame, test_truth: np.ndarray, task: Task, classes: int
) -> Suspect:
    """What each feature can do alone: each value, or bin of a number, foretells what it was in the training rows.

    Bins hold equally many training rows and missing values are one of their own, so a feature need neither rise nor be
    there to be found out. What a value foretells is learnt on training rows and judged on others, so that one that
    tells all rows apart (a name, a key) is not suspected for that.

    Args:
        train, test: features, shape (rows, features).
        truth, test_truth: class positions, or values for regression.
    """
    name = "r2" if task == "regression" else "roc_auc"
    targets = (
        [(truth, test_truth)]
        if task == "regression"
        else [
            ((truth == each).astype(float), test_truth == each)
            for each in ([1] if task == "binary" else range(classes))
        ]
    )
    found: list[tuple[float, str, Scored]] = []
    for feature in train.columns:
        codes, test_codes = _codes(train.get_column(feature), test.get_column(feature))
        for learnt, judged in targets:
            foretold = _means(codes, learnt)[test_codes]
            scored = (
                Scored(judged, foretold, [], "regression")
                if task == "regression"
                else Scored(judged.astype(int), np.column_stack([1 - foretold, foretold]), [0, 1], "binary")
            )
            value = metric(scored, name)
            found.append((-math.inf if math.isnan(value) else value, feature, scored))
    value, feature, scored = max(found, key=lambda each: each[0])
    return Suspect(feature, name, value, intervals(scored, [name])[name])


def _codes(train: pl.Series, test: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Number of the value or bin of each row; 0: of a value that no training row has, 1: missing."""
    if train.dtype == pl.String:
        known = {value: code for code, value in enumerate(train.drop_nulls().unique().sort(), start=2)}
        texts = ([1 if each is None else known.get(each, 0) for each in side] for side in (train, test))
        return tuple(np.array(each, dtype=np.intp) for each in texts)  # type: ignore[return-value]
    numbers = train.drop_nulls().to_numpy()
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])) if len(numbers) else np.array([])
    sides = (
        np.where(side.is_null().to_numpy(), 1, np.searchsorted(edges, side.fill_null(0).to_numpy(), side="right") + 2)
        for side in (train, test)
    )
    return tuple(sides)  # type: ignore[return-value]


def _means(codes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean of the truth for each code; the overall mean where no row has it."""
    size = max(int(codes.max(initial=0)) + 1, BINS + 3)
    counts = np.bincount(codes, minlength=size)
    sums = np.bincount(codes, weights=truth, minlength=size)
    return np.asarray(np.divide(sums, counts, out=np.full(size, float(truth.mean())), where=counts > 0))
