"""How much each row counts while a model is fitted: by its class, by a column, or by both. Metrics weigh nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ml_assets.errors import TrainingError
from ml_assets.spec.training import ClassWeights


def weights_of_rows(rows: pl.DataFrame, column: str, key: Sequence[str], place: str) -> np.ndarray:
    """The weights of a column, shape (rows,).

    Raises:
        TrainingError: naming the first row whose weight is missing or negative; or if all are zero.
    """
    weights = rows.get_column(column).cast(pl.Float64)
    if (odd := (~(weights.is_finite() & (weights >= 0)).fill_null(False)).arg_true()).len():
        first = odd[0]
        told = ", ".join(f"{name} {rows.get_column(name)[first]!r}" for name in key)
        raise TrainingError(
            f"{place}: training.sample_weights: {column!r} is {rows.get_column(column)[first]} in the row with {told} "
            f"(and {odd.len() - 1:,} others); a weight is a number that is not negative. Let the contract or `clean` "
            "see to it"
        )
    if not weights.sum():
        raise TrainingError(f"{place}: training.sample_weights: {column!r} is 0 in all {rows.height:,} training rows")
    return weights.to_numpy()


def weights_of_classes(answer: np.ndarray, classes: Sequence[Any], wanted: ClassWeights, place: str) -> np.ndarray:
    """The weight of each row's class, shape (rows,); 1 for a class that is not named.

    `balanced` gives each class the same sum, as scikit-learn does: rows / (classes * rows of the class).

    Args:
        answer: position of each row's class, shape (rows,).

    Raises:
        TrainingError: if a weight is of a class that there is not.
    """
    if wanted == "balanced":
        counts = np.bincount(answer, minlength=len(classes))
        return np.asarray((len(answer) / (len(classes) * np.maximum(counts, 1)))[answer])
    names = [str(each) for each in classes]
    if unknown := [label for label in wanted if label not in names]:
        raise TrainingError(
            f"{place}: training.class_weights names {unknown[0]!r}; the classes are {', '.join(names[:20])}"
        )
    return np.array([wanted.get(name, 1.0) for name in names], dtype=np.float64).take(answer)
