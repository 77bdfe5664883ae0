"""How much the days of a reference differ from each other: what a later day may differ by without drift.

The rows of a day may share values (its weather, an entity's past), so a day differs from all days by more than its
number of rows lets expect. How much more is seen in the days themselves.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ml_assets.ml.days import weekdays
from ml_assets.ml.drift import LEAST_DAYS, LEAST_ROWS, Cells, edges_and_counts, psi_of

MOST_DAYS = 400
# The share of days on which a column differs by at most what is usual for it. Near the end, since some columns differ
# a little on most days and a lot on a few: divided by what nine of ten days have, the rain of one storm would set the
# limit of all columns.
USUAL = 0.97
# What is usual at least, also of a constant column: ratios of less say nothing about what `least` lets be an alarm. And
# what chance alone gives a column of ten cells on three of a hundred days of n rows: 18.5, of chi-square with 9 degrees
# of freedom, less their mean, by n. By chance some columns seem calmer than that, and would set the limit of all.
LEAST_USUAL, BY_CHANCE = 0.02, 9.5
EVERY_SECOND = slice(1, None, 2)  # the rows that are counted where others chose the categories


def spread_of(
    references: Sequence[Mapping[str, Any]], columns: Sequence[pl.Series], days: np.ndarray
) -> dict[str, Any]:
    """What is usual for each column, and for each day the largest difference of any column, as JSON.

    Each day is compared with all others, as a later day will be with all of them: PSI (see `ml.drift.compare`) of the
    day beside the reference without it, divided by what is usual on the other days; of all columns the largest. Days
    of fewer than 50 rows are left out, and those that would have fewer than 50 to be compared with. (Leaving out:
    Barber et al. 2021, "Predictive Inference with the Jackknife+", whose plain jackknife this is.)

    Args:
        references: of each column, as `distribution` made it with weekdays.
        columns: the values, shape (rows,) each.
        days: the date of each row, datetime64[D].

    Returns:
        By `none` (beside all days) and `weekday` (beside the same days of the week): `days`, how many there are. From
        20 on also `usual`, a number for each column (None where it has too few such days), and `maxima`, a number for
        each of these days, at most the last 400.
    """
    dates, day, rows = np.unique(days, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(rows >= LEAST_ROWS)[-MOST_DAYS:]
    by_weekday = weekdays(pl.Series(dates[kept].astype("datetime64[D]")), "UTC") - 1 if len(kept) else np.empty(0, int)
    found: dict[str, list[np.ndarray]] = {"none": [], "weekday": []}
    if len(kept) < LEAST_DAYS:
        return {by: {"days": len(kept)} for by in found}
    least = max(LEAST_USUAL, BY_CHANCE / float(np.median(rows[kept])))
    for reference, values in zip(references, columns, strict=True):
        cell, named = _cell_of_each_row(reference, values)
        size = len(named) + 1  # the last one is nulls
        theirs = _counted(day, cell, len(dates), size)[kept]
        own = theirs
        if reference["rows"] < len(values):
            own = _counted(day[EVERY_SECOND], cell[EVERY_SECOND], len(dates), size)[kept]
        week = np.stack([_counts(each, reference) for each in reference["weekdays"]])
        ordered = reference["kind"] == "number"
        found["none"].append(_beside_others(np.append(named, reference["nulls"]) - own, theirs, ordered))
        found["weekday"].append(_beside_others(week[by_weekday] - own, theirs, ordered))
    return {by: _said(np.stack(each), least) for by, each in found.items()}


def _cell_of_each_row(reference: Mapping[str, Any], values: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's cell, and the reference's rows in each; a row without a value has the number after."""
    counts = _counts(reference, reference)[:-1]
    if reference["kind"] == "number":
        numbers = values.cast(pl.Float64).to_numpy()
        cell = np.searchsorted(edges_and_counts(reference)[0], numbers, side="right")
        return np.where(np.isfinite(numbers), cell, len(counts)), counts
    names = list(reference["counts"])
    known = values.cast(pl.String).replace_strict(names, range(len(names)), default=len(names), return_dtype=pl.Int64)
    return np.where(values.is_null().to_numpy(), len(counts), known.to_numpy()), counts


def _counts(part: Mapping[str, Any], reference: Mapping[str, Any]) -> np.ndarray:
    """Rows of a reference, or of its weekday, in each cell; the last one is nulls."""
    if reference["kind"] == "number":
        return np.append(edges_and_counts({**reference, **part})[1], part["nulls"])
    return np.asarray([*part["counts"].values(), part["other"], part["nulls"]], float)


def _counted(day: np.ndarray, cell: np.ndarray, days: int, size: int) -> np.ndarray:
    """Rows by day and cell; shape (days, cells)."""
    return np.bincount(day * size + cell, minlength=days * size).reshape(days, size).astype(float)


def _beside_others(others: np.ndarray, theirs: np.ndarray, ordered: bool) -> np.ndarray:
    """PSI of each day beside the reference without it, shape (days,); NaN where that has too few rows."""
    found = np.full(len(theirs), math.nan)
    enough = others.sum(axis=1) >= LEAST_ROWS
    cells = Cells(others[enough, :-1], theirs[enough, :-1], ordered)
    found[enough] = psi_of(cells, others[enough, -1], theirs[enough, -1])
    return found


def _said(psi: np.ndarray, least: float) -> dict[str, Any]:
    """Of the PSI of each column and day, shape (columns, days); `least` is usual for every column."""
    usual, ratios = zip(*(_usual(each, least) for each in psi), strict=True) if len(psi) else ((), [np.empty(0)])
    of_days = np.stack(ratios)
    of_days = of_days[:, ~np.isnan(of_days).all(axis=0)]
    if of_days.shape[1] < LEAST_DAYS:
        return {"days": of_days.shape[1]}
    maxima = np.nanmax(of_days, axis=0)
    return {"days": len(maxima), "usual": list(usual), "maxima": [round(float(each), 4) for each in maxima]}


def _usual(psi: np.ndarray, least: float) -> tuple[float | None, np.ndarray]:
    """What is usual of a column, and the PSI of each day divided by what is usual on the others; shape (days,)."""
    there = ~np.isnan(psi)
    number = int(there.sum())
    if number < LEAST_DAYS:
        return None, np.full(len(psi), math.nan)
    ordered = np.sort(psi[there])
    at, without = (math.ceil(USUAL * each) - 1 for each in (number, number - 1))
    others = np.where(psi <= ordered[without], ordered[without + 1], ordered[without])
    return round(max(least, float(ordered[at])), 4), psi / np.maximum(least, others)
