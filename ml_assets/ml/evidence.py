"""All that is measured of a model version before its gates are asked; what takes time only if one of them needs it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ml_assets.ml.bootstrap import UNKNOWN, Interval, calibration_interval, intervals
from ml_assets.ml.comparison import Comparison, compare
from ml_assets.ml.evaluation import Scored, calibration_error, measure, metric
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.slices import Slices, judge_slices
from ml_assets.ml.splits import Sides
from ml_assets.ml.suspicion import Suspect, most_telling
from ml_assets.ml.trained_on import TrainedOn
from ml_assets.ml.training import encode
from ml_assets.spec.base import LOWER_IS_BETTER, METRICS, Task
from ml_assets.spec.judging import Gates
from ml_assets.spec.judging import Metrics as Judging

MOST_TRAINING_ROWS = 10_000  # of which the gap and single features are measured


@dataclass(frozen=True)
class Measured:
    """A value and its interval."""

    value: float
    interval: Interval = UNKNOWN


@dataclass(frozen=True)
class Evidence:
    """What is known of a model version.

    Attributes:
        test: its answers on held-out rows.
        metrics, intervals: all of the task, on these rows.
        seen: how many of these rows it was trained on, by the record that is kept with it; None: there is none.
        training: the primary metric on training rows.
        calibration: the calibration error.
        milliseconds: to score one row.
        suspect: the feature that says most by itself.
    """

    test: Scored
    primary: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    seen: int | None
    comparison: Comparison
    slices: Slices
    training: Measured | None = None
    calibration: Measured | None = None
    milliseconds: Measured | None = None
    suspect: Suspect | None = None


@dataclass(frozen=True)
class Judged:
    """A fitted model and how it answers.

    Attributes:
        threshold: of a binary task.
        trained_on: the record that is kept with it; None if there is none.
    """

    version: str
    pipeline: Any
    classes: list[Any]
    threshold: float | None
    digest: str
    trained_on: TrainedOn | None


@dataclass(frozen=True)
class Rows:
    """Labelled rows and their sides."""

    frame: pl.DataFrame
    sides: Sides
    features: list[str]
    target: str
    place: str = ""


@dataclass(frozen=True)
class Champion:
    """What the newest version is compared with: a version, or why there is none to compare with."""

    model: Judged | None = None
    comparison: Comparison = field(default_factory=lambda: Comparison("no champion", "there is no champion yet"))


def gather(
    model: Judged,
    champion: Champion,
    rows: Rows,
    task: Task,
    primary: str,
    judging: Judging,
    gates: Gates,
    *,
    now: TrainedOn,
    milliseconds: Callable[[pl.DataFrame], tuple[float, Interval]] | None = None,
) -> Evidence:
    """Measure a model on its held-out rows.

    Args:
        now: rows as they are made now, in the terms of what is kept with versions.
        milliseconds: measures how long one row of the given features takes to be scored.
    """
    held_out = rows.frame[rows.sides.test]
    test = score(model, held_out, rows, task)
    features = held_out.select(rows.features)
    columns = list(dict.fromkeys([*judging.slices, *rows.features]))
    train = _some(rows.sides.train) if gates.train_test_gap is not None or gates.leak is not None else rows.sides.train
    suspect, training = None, None
    if gates.train_test_gap is not None:
        fitted = score(model, rows.frame[train], rows, task)
        training = Measured(metric(fitted, primary), intervals(fitted, [primary])[primary])
    if gates.leak is not None:
        learnt = rows.frame[train]
        _, truth = encode(learnt.get_column(rows.target), task, rows.place, model.classes)
        suspect = most_telling(learnt.select(rows.features), truth, features, test.truth, task, len(model.classes))
    return Evidence(
        test,
        primary,
        measure(test),
        intervals(test, METRICS[task]),
        None if model.trained_on is None else int(model.trained_on.has_seen(held_out).sum()),
        against(champion, model, test, held_out, rows, task, primary, gates.min_rows, now),
        judge_slices(test, held_out.select(columns), judging.slices, primary, judging.slice_rows),
        training,
        Measured(calibration_error(test), calibration_interval(test)) if task != "regression" else None,
        Measured(*milliseconds(features)) if milliseconds and gates.milliseconds_per_row is not None else None,
        suspect,
    )


def against(
    champion: Champion,
    model: Judged,
    test: Scored,
    held_out: pl.DataFrame,
    rows: Rows,
    task: Task,
    primary: str,
    fewest: int,
    now: TrainedOn,
) -> Comparison:
    """The comparison of a model with the champion on held-out rows that neither was trained on."""
    other = champion.model
    if other is None:
        return champion.comparison

    def inconclusive(reason: str) -> Comparison:
        return Comparison("inconclusive", f"the champion, version {other.version}, {reason}", other.version, primary)

    if other.digest == model.digest:
        return Comparison(
            "same model", f"it is the same model as the champion, version {other.version}", other.version, primary
        )
    if other.trained_on is None:
        return inconclusive("has no record of the rows that it was trained on")
    if obstacle := other.trained_on.obstacle(now):
        return inconclusive(f"cannot be scored on today's rows: {obstacle}")
    seen = other.trained_on.has_seen(held_out)
    if model.trained_on is not None:
        seen |= model.trained_on.has_seen(held_out)
    common = np.flatnonzero(~seen)
    taken = test.take(common)
    if len(common) < fewest:
        return compare(taken, taken, primary, other.version, fewest, held_out=held_out.height)
    champions = score(other, held_out[common], rows, task, list(other.trained_on.features))
    return compare(taken, champions, primary, other.version, fewest, held_out=held_out.height)


def score(model: Judged, some: pl.DataFrame, rows: Rows, task: Task, features: list[str] | None = None) -> Scored:
    """Answers of a model for some labelled rows."""
    _, truth = encode(some.get_column(rows.target), task, rows.place, model.classes)
    inputs = model_inputs(some.select(features or rows.features))
    return Scored.by(model.pipeline, inputs, truth, model.classes, task, model.threshold)


def gap(evidence: Evidence) -> Measured:
    """By how much the primary metric is better on training rows; the interval as if both sides varied alone."""
    assert evidence.training is not None
    sign = -1.0 if evidence.primary in LOWER_IS_BETTER else 1.0
    train, test = evidence.training.value, evidence.metrics[evidence.primary]
    value = sign * (train - test)
    below, above = (
        math.hypot(*(abs(each[end] - middle) for each, middle in zip(_both(evidence), (train, test), strict=True)))
        for end in (0, 1)
    )
    return Measured(value, (value - max(below, above), value + max(below, above)))


def _both(evidence: Evidence) -> tuple[Interval, Interval]:
    assert evidence.training is not None
    return evidence.training.interval, evidence.intervals[evidence.primary]


def _some(positions: np.ndarray) -> np.ndarray:
    """A fixed random part of many rows."""
    if len(positions) <= MOST_TRAINING_ROWS:
        return positions
    return np.sort(np.random.default_rng(0).choice(positions, MOST_TRAINING_ROWS, replace=False))
