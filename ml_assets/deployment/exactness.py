"""Whether a graph answers as scikit-learn does: labels equal, scores to 1e-9 for trees and 1e-6 otherwise."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.parts import Linear, Parts
from ml_assets.deployment.threshold_rows import ThresholdRows, threshold_rows
from ml_assets.errors import ReleaseError
from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.threshold import decide
from ml_assets.serving.graph import Graph
from ml_assets.spec.base import Task

OF_TREES, OTHERWISE = 1e-9, 1e-6  # between two scores
FEW = 30  # rows, and values, by which the feature is found that differs


def require_exact(
    graph: Graph,
    parts: Parts,
    pipeline: Any,
    task: Task,
    rows: Mapping[str, pl.DataFrame],
    place: str,
    threshold: float | None = None,
) -> dict[str, int]:
    """Compare a graph with the Pipeline that it was made of, on given rows and on threshold rows.

    Args:
        rows: features of rows by what they are (`golden`, `held-out`), at least one in all.
        place: model and version, for messages.
        threshold: from which score on a row has the second label; see `ml.threshold.decide`.

    Returns:
        The number of rows by what they are, with those of the trees' split values as `threshold`.

    Raises:
        ReleaseError: naming the first row that differs, the feature, and both scores.
    """
    tolerance = OTHERWISE if isinstance(parts.estimator, Linear) else OF_TREES

    def differ(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
        return _differ(wanted, given, tolerance, threshold)

    on_splits = threshold_rows(parts, pl.concat(rows.values()))
    counts = {}
    for kind, features in {"threshold": on_splits.features, **rows}.items():
        counts[kind] = features.height
        if not features.height:
            continue
        wanted, given = scores_of(pipeline, model_inputs(features), task), graph.scores(features)
        differs = differ(wanted, given)
        if not differs.any():
            continue
        row = int(differs.argmax())
        feature = _prepared(graph, parts, pipeline, features[row]) or _deciding(
            lambda some: differ(scores_of(pipeline, model_inputs(some), task), graph.scores(some)),
            features.filter(differs),
            features.filter(~differs),
            _at_splits(on_splits, wanted, given, differs) if kind == "threshold" else Counter(),
        )
        where = f"feature {feature!r}, which is {features[row, feature]!r}" if feature else "the estimator"
        raise ReleaseError(
            f"{place}: the graph is not the Pipeline that was approved: {kind} row {row} gets {_told(given[row])} "
            f"instead of scikit-learn's {_told(wanted[row])}, by {where}"
        )
    return counts


def _differ(wanted: np.ndarray, given: np.ndarray, tolerance: float, threshold: float | None) -> np.ndarray:
    """Whether the answers to a row differ, shape (rows,)."""
    close = np.abs(given - wanted) <= tolerance * np.maximum(1.0, np.abs(wanted))
    if wanted.ndim == 1:
        return np.asarray(~close)
    return np.asarray(~close.all(axis=1) | (decide(wanted, threshold) != decide(given, threshold)))


def _prepared(graph: Graph, parts: Parts, pipeline: Any, row: pl.DataFrame) -> str | None:
    """The feature that the graph prepares otherwise."""
    wanted = np.asarray(pipeline[:-1].transform(model_inputs(row)), np.float64)
    given = graph.prepared(row)
    same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    return None if same.all() else parts.prepared[int((~same[0]).argmax())]


def _at_splits(on_splits: ThresholdRows, wanted: np.ndarray, given: np.ndarray, differs: np.ndarray) -> Counter[str]:
    """For each feature at how many of its splits some rows differ, some agree, and the graph does not tell them apart
    as the trees do. Splits on the way to or from a wrong one make rows differ too, but hardly that way.
    """
    found: Counter[str] = Counter()
    for group in np.unique(on_splits.group[differs]):
        rows = np.flatnonzero(on_splits.group == group)
        if not differs[rows].all() and (_alike(wanted[rows]) != _alike(given[rows])).any():
            found[on_splits.at[rows[0]]] += 1
    return found


def _alike(scores: np.ndarray) -> np.ndarray:
    """Which rows have the same scores, shape (rows, rows)."""
    flat = scores.reshape(len(scores), -1)
    return np.asarray((flat[:, None] == flat[None]).all(axis=2))


def _deciding(
    differs: Callable[[pl.DataFrame], np.ndarray],
    differing: pl.DataFrame,
    agreeing: pl.DataFrame,
    at_splits: Counter[str],
) -> str | None:
    """The feature that decides whether an answer differs, as far as rows show it; None if no feature alone does.

    Its values of agreeing rows, put into differing ones, mend them, its values of differing rows break agreeing ones,
    and its splits are those where rows differ. A feature that only leads to a wrong split does less of that.
    """
    shares = {}
    for name in differing.columns if agreeing.height else ():
        mended = ~differs(_with_values_of(name, differing, agreeing))
        broken = differs(_with_values_of(name, agreeing, differing))
        shares[name] = float(mended.mean() + broken.mean() + at_splits[name] / max(1, at_splits.total()))
    return max(shares, key=shares.__getitem__) if any(shares.values()) else None


def _with_values_of(name: str, rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Some rows, each with some values that a feature has in others."""
    values = _spread(others.select(name).unique(maintain_order=True))
    return _spread(rows).drop(name).join(values, how="cross").select(rows.columns)


def _spread(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.gather_every(max(1, rows.height // FEW)).head(FEW)


def _told(scores: np.ndarray) -> str:
    return str([float(each) for each in np.atleast_1d(scores)])
