"""Intervals of metrics by the bootstrap, alone and of two models on the same rows, computed for all resamples at once.

A resample is how often each row was drawn. Every metric is a function of sums over rows, so the sums of many resamples
are one product of matrices; for ROC AUC the rows are sorted once. Rows are drawn as if they were independent.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from ml_assets.ml.evaluation import Scored, calibration_sums
from ml_assets.spec.base import LOWER_IS_BETTER

RESAMPLES = 1000
LEVEL = 0.95
MOST_ROWS = 20_000
_AT_ONCE = 300_000  # drawn rows that are looked at together: 2.4 MB, about what a processor's cache holds

Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


def intervals(scored: Scored, names: Sequence[str], seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """The interval of each metric at `LEVEL`; see `percentiles`.

    Above `MOST_ROWS` a fixed random part of the rows is used, which gives wider intervals.
    """
    random = np.random.default_rng(seed)
    (scored,) = _fewer([scored], random)
    values = metric_values(scored, names)
    drawn = [values(counts) for counts in draws(len(scored.truth), resamples, random)]
    return {name: percentiles(np.concatenate([each[name] for each in drawn]), len(scored.truth)) for name in names}


def differences(one: Scored, other: Scored, name: str, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """By how much `one` is better than `other` in a metric on each resample of the same rows; shape (resamples,).

    Positive is better, also of a metric that is better when lower. What a resample cannot give is NaN.
    """
    random = np.random.default_rng(seed)
    one, other = _fewer([one, other], random)
    ones, others = metric_values(one, [name]), metric_values(other, [name])
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    return np.concatenate(
        [sign * (ones(counts)[name] - others(counts)[name]) for counts in draws(len(one.truth), resamples, random)]
    )


def calibration_interval(scored: Scored, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Interval of the calibration error, by the basic bootstrap: resampling adds to it what chance already added."""
    random = np.random.default_rng(seed)
    (scored,) = _fewer([scored], random)
    apart, rows = calibration_sums(scored), len(scored.truth)
    drawn = [np.abs(counts @ apart).sum(axis=1) / rows for counts in draws(rows, resamples, random)]
    value = float(np.abs(apart.sum(axis=0)).sum() / rows)
    low, high = percentiles(np.concatenate(drawn), rows)
    return max(0.0, 2 * value - high), max(0.0, 2 * value - low)


def spread(scored: Scored, name: str, seed: int = 0, resamples: int = 100, most_rows: int = 4_000) -> float:
    """Standard error of a metric. Above `most_rows` it is that of a random part, scaled to all rows."""
    random, rows = np.random.default_rng(seed), len(scored.truth)
    (scored,) = _fewer([scored], random, most_rows)
    values = metric_values(scored, [name])
    drawn = np.concatenate([values(counts)[name] for counts in draws(len(scored.truth), resamples, random)])
    drawn = drawn[~np.isnan(drawn)]
    return float(drawn.std() * math.sqrt(len(scored.truth) / rows)) if len(drawn) > 1 else math.nan


def percentiles(values: np.ndarray, rows: int, level: float = LEVEL) -> Interval:
    """Percentile interval of resampled values (Efron and Tibshirani 1993, chapter 13), widened for few rows.

    Without the widening it holds the truth too seldom, as a normal interval does beside one by Student's t: the
    expanded percentile interval of Hesterberg (2015, The American Statistician 69:4, section 5.2).
    """
    from scipy.special import stdtrit

    values = values[~np.isnan(values)]
    if not len(values) or rows < 2:
        return UNKNOWN
    wide = float(stdtrit(rows - 1, (1 - level) / 2)) * math.sqrt(rows / (rows - 1))
    tail = NormalDist().cdf(wide)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def draws(rows: int, resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each row is drawn, in as many resamples with replacement; arrays of shape (some resamples, rows)."""
    at_once = max(1, _AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        yield np.stack([np.bincount(random.integers(0, rows, rows), minlength=rows) for _ in range(some)]).astype(float)


def metric_values(scored: Scored, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The metrics as functions of counts of shape (resamples, rows); each gives shape (resamples,)."""
    if scored.task == "regression":
        return _of_values(scored, names)
    counted = _of_answers(scored) if set(names) - {"roc_auc"} else None
    areas = (
        [_area(scored.scores[:, each], scored.truth == each) for each in _ranked(scored)] if "roc_auc" in names else []
    )

    def values(counts: np.ndarray) -> dict[str, np.ndarray]:
        found = counted(counts) if counted else {}
        if areas:
            found["roc_auc"] = np.mean([area(counts) for area in areas], axis=0)
        return {name: found[name] for name in names}

    return values


def _ranked(scored: Scored) -> Sequence[int]:
    """Classes whose ROC AUC counts: the positive one, or each against the rest."""
    return [1] if scored.task == "binary" else range(len(scored.classes))


def _of_values(scored: Scored, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Of regression, from sums of errors and of the truth around its mean, whose squares stay small."""
    error, centred = scored.truth - scored.scores, scored.truth - scored.truth.mean()
    columns = np.column_stack([error**2, np.abs(error), centred, centred**2])

    def values(counts: np.ndarray) -> dict[str, np.ndarray]:
        rows = counts.shape[1]
        squares, absolute, total, of_truth = (counts @ columns).T
        around = of_truth - total**2 / rows
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.where(around > 1e-12 * of_truth, 1 - squares / around, np.nan)
        found = {"rmse": np.sqrt(squares / rows), "mae": absolute / rows, "r2": explained}
        return {name: found[name] for name in names}

    return values


def _of_answers(scored: Scored) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Accuracy, precision, recall and F1, from the counts of each class as truth, as answer and as both."""
    every = np.arange(len(scored.classes))
    truth, answers = scored.truth[:, None] == every, scored.answers[:, None] == every
    columns = np.hstack([truth & answers, truth, answers]).astype(float)
    judged = [1] if scored.task == "binary" else list(every)

    def values(counts: np.ndarray) -> dict[str, np.ndarray]:
        right, true, called = np.split(counts @ columns, 3, axis=1)

        def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
            shares = np.divide(of, whole, out=np.zeros_like(of), where=whole > 0)
            return np.asarray(shares[:, judged].mean(axis=1))

        return {
            "accuracy": right.sum(axis=1) / counts.shape[1],
            "precision": share(right, called),
            "recall": share(right, true),
            "f1": share(2 * right, true + called),
        }

    return values


def _area(scores: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """ROC AUC, as the share of pairs that are in the right order, where equal scores count half (Mann and Whitney)."""
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], positive[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    tied = len(starts) < len(ordered)

    def values(counts: np.ndarray) -> np.ndarray:
        drawn = counts[:, order]
        above = drawn * positive
        below = drawn - above
        if tied:
            above, below = np.add.reduceat(above, starts, axis=1), np.add.reduceat(below, starts, axis=1)
        before = np.cumsum(below, axis=1)
        pairs = np.einsum("ij,ij->i", above, before - below / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(pairs / (above.sum(axis=1) * before[:, -1]))

    return values


def _fewer(scored: list[Scored], random: np.random.Generator, most: int = MOST_ROWS) -> list[Scored]:
    """The same rows of each, at most so many."""
    rows = len(scored[0].truth)
    if rows <= most:
        return scored
    some = random.choice(rows, most, replace=False)
    return [each.take(some) for each in scored]
