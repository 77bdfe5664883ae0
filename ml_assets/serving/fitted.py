"""Runs a release's fitted Pipeline by scikit-learn itself, which is slower, where no graph is made of it.

scikit-learn and pandas are imported when the first such release is loaded.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from ml_assets.errors import InvalidRequestError
from ml_assets.spec.base import Task


class Fitted:
    """A loaded Pipeline, with the face of `serving.graph.Graph`."""

    def __init__(self, pipeline: Any, task: Task) -> None:
        self._pipeline = pipeline
        self._task = task

    @classmethod
    def load(cls, path: Path, task: Task) -> Self:
        """Read a skops file.

        Raises:
            ReleaseError: if it names a type that is not allowed.
        """
        from ml_assets.ml import skops_store

        return cls(skops_store.load(path), task)

    def scores(self, features: pl.DataFrame) -> np.ndarray:
        """Probabilities of shape (rows, classes), or values of shape (rows,) for regression.

        Raises:
            InvalidRequestError: if scikit-learn refuses the rows.
        """
        from ml_assets.ml.evaluation import scores_of
        from ml_assets.ml.inputs import model_inputs

        try:
            return scores_of(self._pipeline, model_inputs(features), self._task)
        except ValueError as error:
            raise InvalidRequestError(f"these rows cannot be scored: {error}") from error

    def prepared(self, features: pl.DataFrame) -> np.ndarray:
        """What all steps before the estimator make of the features, shape (rows, prepared columns)."""
        from ml_assets.ml.inputs import model_inputs

        return np.asarray(self._pipeline[:-1].transform(model_inputs(features)), np.float64)
