"""What a model was approved with: distributions of its features and scores, for comparison with what comes later."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.day_spread import EVERY_SECOND, spread_of
from ml_assets.ml.days import weekdays

BINS = 20
CATEGORIES = 50
NAMED = 10_000  # categories whose names are kept beside those that are counted
DAYS = 7


def reference_of(
    features: pl.DataFrame,
    scores: np.ndarray,
    days: np.ndarray | None = None,
    scored_on: np.ndarray | None = None,
) -> dict[str, Any]:
    """Distributions as JSON.

    Args:
        features: of the rows that the model was trained on.
        scores: shape (rows,) of held-out rows: of the last class of two, or values of regression; shape (rows, classes)
            of several.
        days: shape (rows of features,), the date of each row, datetime64[D]; None: it has none.
        scored_on: shape (rows of scores,), the same of the held-out rows.

    Returns:
        `features` by name and `scores` (by position of the class, if there are several), each a distribution; see
        `distribution`. With days also `days`, how much these differ: of `features` and of `scores`, see `spread_of`.
    """
    several = scores if scores.ndim == 2 else scores[:, None]
    columns = [pl.Series(values) for values in several.T]
    said: dict[str, Any] = {
        "features": {name: distribution(features.get_column(name), _weekdays(days)) for name in features.columns},
        "scores": [distribution(each, _weekdays(scored_on)) for each in columns],
    }
    if days is not None and scored_on is not None:
        said["days"] = {
            "features": spread_of(list(said["features"].values()), features.get_columns(), days),
            "scores": spread_of(said["scores"], columns, scored_on),
        }
    return said


def _weekdays(days: np.ndarray | None) -> np.ndarray | None:
    return None if days is None else weekdays(pl.Series(days), "UTC")


def distribution(values: pl.Series, weekdays: np.ndarray | None = None) -> dict[str, Any]:
    """The distribution of one column.

    Returns:
        `rows` are all that were counted, `nulls` those without a value.

        Of numbers (`kind` number) the `edges` of bins with equally many rows (less where values repeat) and their
        `counts`, the first and the last bin without an end, an edge being part of the bin above it; `at` says how many
        lie exactly on each edge, so that a value that repeats is told from its neighbours.

        Of texts (`kind` text) `counts` by category, and how many rows have another one, as `other`. Where there are
        more than the 50 most frequent ones, these are chosen on every second row and all counts are of the remaining
        rows: counted on the rows that they were chosen on, they would seem more frequent than they are. `rare` are the
        names of the others, None if they are more than 10,000.

        With weekdays, `weekdays` are the seven distributions of Monday to Sunday in the same bins or categories.
    """
    return _of_texts(values, weekdays) if values.dtype == pl.String else _of_numbers(values, weekdays)


def finite(values: pl.Series) -> np.ndarray:
    """Numbers and truth values as floats, NaN for all that are none; shape (rows,)."""
    numbers = values.cast(pl.Float64).to_numpy()  # nulls become NaN
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _of_numbers(values: pl.Series, weekdays: np.ndarray | None) -> dict[str, Any]:
    numbers = finite(values)
    known = numbers[~np.isnan(numbers)]
    # Quantiles that are values of rows: one that repeats lies on an edge.
    shares = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(known, shares, method="inverted_cdf")) if len(known) else np.empty(0)

    def counted(part: pl.Series) -> dict[str, Any]:
        some = part.to_numpy()
        known = some[~np.isnan(some)]
        below, above = (np.searchsorted(edges, known, side=side) for side in ("left", "right"))
        return {
            "rows": len(some),
            "nulls": len(some) - len(known),
            "counts": np.bincount(above, minlength=len(edges) + 1).tolist(),
            "at": np.bincount(below[above > below], minlength=len(edges)).tolist(),
        }

    return {"kind": "number", "edges": edges.tolist()} | _with_weekdays(pl.Series(numbers), weekdays, counted)


def _of_texts(values: pl.Series, weekdays: np.ndarray | None) -> dict[str, Any]:
    ordered = _by_frequency(values)
    counted_rows = slice(None)
    if len(ordered) > CATEGORIES:
        some = _by_frequency(values.gather_every(2))[:CATEGORIES]
        rare = sorted({name for name, _ in ordered} - {name for name, _ in some})
        ordered, counted_rows = some, EVERY_SECOND
    else:
        rare = []
    names = [name for name, _ in ordered]

    def counted(texts: pl.Series) -> dict[str, Any]:
        found = dict(_by_frequency(texts))
        counts = {name: found.get(name, 0) for name in names}
        known = len(texts) - texts.null_count()
        return {
            "rows": len(texts),
            "nulls": texts.null_count(),
            "counts": counts,
            "other": known - sum(counts.values()),
        }

    about = {"kind": "text", "rare": rare if len(rare) <= NAMED else None}
    some_days = None if weekdays is None else weekdays[counted_rows]
    return about | _with_weekdays(values[counted_rows], some_days, counted)


def _by_frequency(texts: pl.Series) -> list[tuple[str, int]]:
    """Categories and their counts; of equally frequent ones the same come first, whatever their order was."""
    return sorted(texts.drop_nulls().value_counts().rows(), key=lambda each: (-each[1], each[0]))


def _with_weekdays(
    values: pl.Series, weekdays: np.ndarray | None, counted: Callable[[pl.Series], dict[str, Any]]
) -> dict[str, Any]:
    said = counted(values)
    if weekdays is not None:
        said["weekdays"] = [counted(values.filter(pl.Series(weekdays == day))) for day in range(1, DAYS + 1)]
    return said
