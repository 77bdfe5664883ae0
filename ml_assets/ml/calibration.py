"""Scores that are probabilities: a calibrator behind a fitted classifier, fitted on rows that it did not see."""

from typing import Any

import numpy as np
import pandas as pd

from ml_assets.spec.training import Calibration


def responses_of(pipeline: Any, inputs: pd.DataFrame) -> np.ndarray:
    """What a calibrator maps to probabilities: decision values, or probabilities where the classifier has no others.

    Returns:
        Shape (rows, 1) for two classes, else (rows, classes).
    """
    if hasattr(pipeline, "decision_function"):
        values = np.asarray(pipeline.decision_function(inputs), dtype=np.float64)
        return values.reshape(len(values), -1)
    values = np.asarray(pipeline.predict_proba(inputs), dtype=np.float64)
    return values[:, 1:] if values.shape[1] == 2 else values


def calibrate(
    pipeline: Any, method: Calibration, responses: np.ndarray, answer: np.ndarray, weights: np.ndarray | None
) -> Any:
    """The Pipeline with its classifier replaced by a calibrated one, scikit-learn's `CalibratedClassifierCV`.

    That class itself can only calibrate on folds that together hold each row once, which folds by time do not.

    Args:
        pipeline: fitted on all training rows.
        responses: `responses_of` rows by Pipelines that were not fitted on them; shape (rows, 1) or (rows, classes).
        answer: class positions of these rows, shape (rows,).
        weights: of these rows, shape (rows,).
    """
    from sklearn.base import clone
    from sklearn.calibration import CalibratedClassifierCV, _fit_calibrator
    from sklearn.pipeline import Pipeline

    *prepared, (name, classifier) = pipeline.steps
    calibrated = CalibratedClassifierCV(clone(classifier), method=method, ensemble=False)
    calibrated.classes_ = classifier.classes_
    calibrated.calibrated_classifiers_ = [
        _fit_calibrator(classifier, responses, answer, classifier.classes_, method, xp=np, sample_weight=weights)
    ]
    return Pipeline([*prepared, (name, calibrated)])
