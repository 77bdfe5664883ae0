"""Whether a graph answers as scikit-learn does: labels equal, scores to 1e-9 for trees and 1e-6 otherwise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.parts import Linear, Parts
from ml_assets.deployment.threshold_rows import threshold_rows
from ml_assets.errors import ReleaseError
from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.training import model_inputs
from ml_assets.serving.graph import Graph
from ml_assets.spec import Task

OF_TREES, OTHERWISE = 1e-9, 1e-6  # between two scores


def require_exact(
    graph: Graph, parts: Parts, pipeline: Any, task: Task, rows: Mapping[str, pl.DataFrame], place: str
) -> dict[str, int]:
    """Compare a graph with the Pipeline that it was made of, on given rows and on threshold rows.

    Args:
        rows: features of rows by what they are (`golden`, `held-out`), at least one in all.
        place: model and version, for messages.

    Returns:
        The number of rows by what they are, with those of the trees' split values as `threshold`.

    Raises:
        ReleaseError: naming the first row that differs, the feature, and both scores.
    """
    tolerance = OTHERWISE if isinstance(parts.estimator, Linear) else OF_TREES
    on_splits = threshold_rows(parts, pl.concat(rows.values()))
    counts = {}
    for kind, features in {"threshold": on_splits.features, **rows}.items():
        counts[kind] = features.height
        if not features.height:
            continue
        wanted, given = scores_of(pipeline, model_inputs(features), task), graph.scores(features)
        differs = _differs(wanted, given, tolerance)
        if not differs.any():
            continue
        row = int(differs.argmax())
        told = None
        if kind == "threshold":
            told = on_splits.at[row]
        elif not differs.all():
            agrees = int((~differs).argmax())
            told = _replaced(graph, pipeline, task, features[row], features[agrees], tolerance)
        feature = _prepared(graph, parts, pipeline, features[row]) or told
        where = f"feature {feature!r}, which is {features[row, feature]!r}" if feature else "the estimator"
        raise ReleaseError(
            f"{place}: the graph is not the Pipeline that was approved: {kind} row {row} gets {_told(given[row])} "
            f"instead of scikit-learn's {_told(wanted[row])}, by {where}"
        )
    return counts


def _differs(wanted: np.ndarray, given: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether the answers to a row differ, shape (rows,)."""
    close = np.abs(given - wanted) <= tolerance * np.maximum(1.0, np.abs(wanted))
    if wanted.ndim == 1:
        return np.asarray(~close)
    return np.asarray(~close.all(axis=1) | (wanted.argmax(axis=1) != given.argmax(axis=1)))


def _prepared(graph: Graph, parts: Parts, pipeline: Any, row: pl.DataFrame) -> str | None:
    """The feature that the graph prepares otherwise."""
    wanted = np.asarray(pipeline[:-1].transform(model_inputs(row)), np.float64)
    given = graph.prepared(row)
    same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    return None if same.all() else parts.prepared[int((~same[0]).argmax())]


def _replaced(
    graph: Graph, pipeline: Any, task: Task, row: pl.DataFrame, other: pl.DataFrame, tolerance: float
) -> str | None:
    """The first feature by whose value in another row the answers agree again; None if no one alone does that."""
    changed = pl.concat(row.with_columns(other.get_column(name)) for name in row.columns)
    wanted, given = scores_of(pipeline, model_inputs(changed), task), graph.scores(changed)
    agrees = ~_differs(wanted, given, tolerance)
    return row.columns[int(agrees.argmax())] if agrees.any() else None


def _told(scores: np.ndarray) -> str:
    return str([float(each) for each in np.atleast_1d(scores)])
