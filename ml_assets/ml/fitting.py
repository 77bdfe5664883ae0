"""One fit of a Pipeline, with weights; the same on any number of threads."""

from typing import Any

import numpy as np
import pandas as pd

from ml_assets.errors import TrainingError


def fit(
    pipeline: Any, inputs: pd.DataFrame, answer: np.ndarray, weights: np.ndarray | None, place: str, workers: int
) -> Any:
    """Fit a Pipeline in place.

    Args:
        weights: of the rows, shape (rows,).
        workers: how many of joblib's may grow trees; their number changes no tree.

    Raises:
        TrainingError: if scikit-learn refuses the parameters or rows.
    """
    from sklearn.utils.validation import has_fit_parameter

    options: dict[str, Any] = {}
    if weights is not None:
        if not has_fit_parameter(pipeline[-1], "sample_weight"):
            raise TrainingError(
                f"{place}: {type(pipeline[-1]).__name__} takes no weights; leave training.class_weights and "
                "training.sample_weights out, or choose another estimator"
            )
        options = {f"{pipeline.steps[-1][0]}__sample_weight": weights}
    of_trees = {"n_jobs", "n_estimators"} <= pipeline[-1].get_params().keys()
    try:
        if of_trees:
            pipeline[-1].set_params(n_jobs=workers)
        fitted = pipeline.fit(inputs, answer, **options)
    except ValueError as error:
        raise TrainingError(f"{place}: scikit-learn refuses to fit: {error}") from error
    if of_trees:
        # With several threads a forest adds its trees up in any order, and scores differ in the last bits.
        fitted[-1].set_params(n_jobs=1)
    return fitted
