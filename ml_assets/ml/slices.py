"""How good a model is on parts of the held-out rows: by the values of declared columns, and the worst part of all."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl

from ml_assets.ml.bootstrap import LEVEL, spread
from ml_assets.ml.evaluation import Scored, metric
from ml_assets.spec.base import LOWER_IS_BETTER

MOST_VALUES = 20  # of a column, the most frequent ones; a column of numbers with more is cut into quarters
FEWEST_OF_A_CLASS = 10  # rows of each of two classes, or a slice says nothing
_BOUNDED = frozenset({"accuracy", "precision", "recall", "f1", "roc_auc"})


@dataclass(frozen=True)
class Slice:
    """One part of the rows and the metric on it.

    Attributes:
        low, high: interval that holds for all slices that were looked at together.
        declared: whether the spec names its column.
    """

    column: str
    name: str
    rows: int
    value: float
    low: float
    high: float
    declared: bool


@dataclass(frozen=True)
class Slices:
    """All slices that have enough rows.

    Attributes:
        looked_at: how many; so many chances to find a bad one by chance, which the intervals allow for.
        worst: the one that is worst beyond doubt: whose interval ends worst on its better side.
    """

    metric: str
    every: tuple[Slice, ...]
    worst: Slice | None

    @property
    def looked_at(self) -> int:
        return len(self.every)

    @property
    def declared(self) -> list[Slice]:
        return [each for each in self.every if each.declared]


def judge_slices(scored: Scored, rows: pl.DataFrame, declared: Sequence[str], name: str, fewest: int) -> Slices:
    """The metric on each value, or quarter, of each column of held-out rows.

    Whoever looks at a hundred slices finds a bad one by chance. So all intervals hold at `LEVEL` together: by the
    bootstrap's standard error, at a level divided by their number (Bonferroni).

    Args:
        rows: declared columns and features of the rows of `scored`, in their order.
        declared: columns that the spec names.
        name: of the metric.
        fewest: rows that a slice needs.
    """
    measured = []
    for column, label, positions in parts(rows, fewest):
        part = scored.take(positions)
        if scored.task == "binary" and np.bincount(part.truth, minlength=2).min() < FEWEST_OF_A_CLASS:
            continue
        value, error = metric(part, name), spread(part, name)
        if not math.isnan(value) and not math.isnan(error):
            measured.append((column, label, len(positions), value, error))
    if not measured:
        return Slices(name, (), None)
    wide = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * len(measured)))
    found = tuple(
        Slice(column, label, count, value, *_around(name, value, wide, error, count), column in declared)
        for column, label, count, value, error in measured
    )
    worst = max(found, key=lambda each: each.low) if name in LOWER_IS_BETTER else min(found, key=lambda each: each.high)
    return Slices(name, found, worst)


def _around(name: str, value: float, wide: float, error: float, rows: int) -> tuple[float, float]:
    """A value's interval, normal on the scale on which it has no end: near 1 a share varies less upwards than down."""
    if name in _BOUNDED:
        inside = min(max(value, 0.5 / rows), 1 - 0.5 / rows)
        within = inside * (1 - inside)
        odds = math.log(inside / (1 - inside))
        reach = wide * (error or math.sqrt(within / rows)) / within
        low, high = (1 / (1 + math.exp(-each)) for each in (odds - reach, odds + reach))
        return min(low, value), max(high, value)
    if name in LOWER_IS_BETTER and value > 0:
        factor = math.exp(wide * error / value)
        return value / factor, value * factor
    return value - wide * error, value + wide * error


def parts(rows: pl.DataFrame, fewest: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Column, name and row positions of each slice with enough rows; none that holds all rows, which is no part."""
    for column in rows.columns:
        for label, positions in _parts_of(rows.get_column(column)):
            if fewest <= len(positions) < rows.height:
                yield column, label, positions


def _parts_of(values: pl.Series) -> Iterator[tuple[str, np.ndarray]]:
    missing = values.is_null()
    if missing.any():
        yield f"{values.name} is missing", missing.arg_true().to_numpy()
    if values.dtype.is_numeric() and values.n_unique() > MOST_VALUES:
        edges = [float(values.quantile(share) or 0.0) for share in (0.25, 0.5, 0.75)]
        quarter = np.searchsorted(edges, values.fill_null(0).cast(pl.Float64).to_numpy(), side="right")
        for number, label in enumerate(_between(values.name, edges)):
            yield label, np.flatnonzero((quarter == number) & ~missing.to_numpy())
        return
    counts = values.drop_nulls().value_counts(sort=True, name="rows")
    for value in counts.head(MOST_VALUES).get_column(values.name).sort():
        yield (
            f"{values.name} = {_figure(value) if isinstance(value, float) else value}",
            (values == value).fill_null(False).arg_true().to_numpy(),
        )


def _between(name: str, edges: Sequence[float]) -> list[str]:
    """Names of the quarters, with as many digits as tell the edges apart."""
    for digits in (4, 8, 17):
        first, second, third = (f"{each:.{digits}g}" for each in edges)
        if len({first, second, third}) == len(set(edges)):
            break
    return [f"{name} < {first}", f"{first} ≤ {name} < {second}", f"{second} ≤ {name} < {third}", f"{name} ≥ {third}"]


def _figure(value: float) -> str:
    """Short where that is the value, and else whole, so that two values never look alike."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
