"""What a model was approved with: distributions of its features and scores, for comparison with what comes later."""

from typing import Any

import numpy as np
import polars as pl

BINS = 20
CATEGORIES = 50


def reference_of(features: pl.DataFrame, scores: np.ndarray) -> dict[str, Any]:
    """Distributions as JSON.

    Args:
        features: of the rows that the model was trained on.
        scores: shape (rows,) of held-out rows: of the last class of two, or values of regression; shape (rows, classes)
            of several.

    Returns:
        `features` by name and `scores` (by position of the class, if there are several), each a distribution: of
        numbers the `edges` of bins with equally many rows (less where values repeat) and their `counts`, the first and
        the last bin without an end; of texts `counts` by category, those beyond the most frequent as `other`. `rows`
        are all of them, `nulls` those without a value.
    """
    several = scores if scores.ndim == 2 else scores[:, None]
    columns = [pl.Series(values) for values in several.T]
    return {
        "features": {name: distribution(features.get_column(name)) for name in features.columns},
        "scores": [distribution(each) for each in columns],
    }


def distribution(values: pl.Series) -> dict[str, Any]:
    """The distribution of one column."""
    known = values.drop_nulls()
    said: dict[str, Any] = {"rows": len(values), "nulls": values.null_count()}
    if values.dtype == pl.String:
        # Of equally frequent ones the same stay, whatever their order was.
        ordered = sorted(known.value_counts().rows(), key=lambda each: (-each[1], each[0]))
        rest = sum(count for _, count in ordered[CATEGORIES:])
        return said | {"kind": "text", "counts": dict(ordered[:CATEGORIES]), "other": rest}
    numbers = known.cast(pl.Float64).to_numpy()
    numbers = numbers[np.isfinite(numbers)]
    said["nulls"] = len(values) - len(numbers)
    inner = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])) if len(numbers) else np.empty(0)
    counts = np.bincount(np.searchsorted(inner, numbers, side="right"), minlength=len(inner) + 1)
    return said | {"kind": "number", "edges": inner.tolist(), "counts": counts.tolist()}
