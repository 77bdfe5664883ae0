"""Losses of predictions whose outcomes have become known, as a rollout compares both sides by them.

A loss lies in [0, 1]: the Brier score of two classes, and half of it of several (Brier 1950, "Verification of forecasts
expressed in terms of probability"); of a value its error e as e / (e + scale).
"""

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ml_assets.ml.feedback import OUTCOME, scored
from ml_assets.spec.base import Task


class Losses(NamedTuple):
    """How many predictions of one release, and the sum of their losses."""

    predictions: int = 0
    total: float = 0.0


def losses_of(
    feedback: pl.DataFrame,
    release: str,
    begin: datetime,
    end: datetime | None,
    *,
    target: str,
    task: Task,
    classes: list[Any],
    scale: float = 1.0,
) -> Losses:
    """Of what a release predicted in a time. None are counted if an outcome is of no class that it knows.

    Args:
        feedback: rows of the table `feedback`.
        end: None: until now.
        classes: those of the release, in the order of its scores.
        scale: of values, the error that is half of the worst.
    """
    asked = pl.col("received_at")
    within = asked >= begin if end is None else (asked >= begin) & (asked < end)
    came = OUTCOME + target
    rows = feedback.filter(pl.col("release") == release, within, pl.col(came).is_not_null())
    known = scored(rows, rows.get_column(came), task, classes) if rows.height else None
    if known is None:
        return Losses()
    if task == "regression":
        error = np.abs(known.scores - known.truth)
        return Losses(rows.height, float(np.sum(error / (error + scale))))
    missed = known.scores - (known.truth[:, None] == np.arange(known.scores.shape[1]))
    return Losses(rows.height, float(np.sum(missed**2) / 2))
