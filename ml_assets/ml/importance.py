"""How much a model relies on each feature: what it loses when the feature's values are shuffled among the rows."""

from typing import Any

import numpy as np
import pandas as pd

from ml_assets.ml.evaluation import Scored, metric
from ml_assets.spec.base import LOWER_IS_BETTER, Task

ROWS = 500
REPEATS = 2


def permutation_importances(
    pipeline: Any,
    inputs: pd.DataFrame,
    truth: np.ndarray,
    classes: list[Any],
    task: Task,
    threshold: float | None,
    name: str,
) -> dict[str, tuple[float, float]]:
    """Loss in a metric for each feature, the greatest first: mean and standard deviation over the repeats.

    On `ROWS` of the rows, because each feature is shuffled and scored `REPEATS` times (scikit-learn's
    `permutation_importance`; Breiman 2001). Features that say the same share the loss between them.
    """
    from sklearn.inspection import permutation_importance

    sign = -1.0 if name in LOWER_IS_BETTER else 1.0

    def loss(fitted: Any, rows: pd.DataFrame, answer: np.ndarray) -> float:
        value = metric(Scored.by(fitted, rows, answer, classes, task, threshold), name)
        return 0.0 if np.isnan(value) else sign * value

    random = np.random.default_rng(0)
    some = np.sort(random.permutation(len(truth))[:ROWS])
    found = permutation_importance(
        pipeline, inputs.iloc[some], truth[some], scoring=loss, n_repeats=REPEATS, random_state=0
    )
    ranked = np.argsort(-found.importances_mean, kind="stable")
    return {
        str(inputs.columns[each]): (float(found.importances_mean[each]), float(found.importances_std[each]))
        for each in ranked
    }
