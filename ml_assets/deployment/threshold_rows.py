"""Rows that lie on the split values of a model's trees, where another computation would send them to another leaf."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.parts import Forest, Linear, Numbers, Parts, Tree

MOST_ROWS = 20_000  # of all features together; each feature gets an equal share, spread over the trees
ROWS_PER_SPLIT = 4
UNSEEN = "(a category that no training row has)"


@dataclass(frozen=True)
class ThresholdRows:
    """Rows that come in groups: those of one group belong to one split of a tree and differ in its feature alone.

    Attributes:
        features: as the model takes them.
        at: for each row the feature that lies on a split value.
        group: for each row the number of its group, shape (rows,).
    """

    features: pl.DataFrame
    at: list[str]
    group: np.ndarray


@dataclass
class _Path:
    """What a feature has to be for a row to reach a node: in (low, high], missing, or of some categories."""

    low: float = -np.inf
    high: float = np.inf
    missing: bool = False
    is_: set[str] = field(default_factory=set)
    is_not: set[str] = field(default_factory=set)


def threshold_rows(parts: Parts, base: pl.DataFrame) -> ThresholdRows:
    """Rows that reach a node of a tree and lie on its split value.

    For a number there are four: the largest value that goes left, which is the one nearest to the split value from
    below that the feature can have; the one before it; the next one, which goes right; and a missing one, where the
    model takes it. For a category there are two: of that category, and of none that is known.

    Args:
        base: features of some rows, at least one, which supply what a path leaves open.
    """
    if isinstance(parts.estimator, Linear):
        return ThresholdRows(base.clear(), [], np.empty(0, int))
    trees = parts.estimator.trees
    above = [_above(tree) for tree in trees]
    chosen = _chosen(parts, trees)
    edges = _edges(parts, trees, _on_the_way(trees, above, chosen))
    samples = base.rows()
    where = {name: position for position, name in enumerate(base.columns)}
    rows: list[list[Any]] = []
    at: list[str] = []
    group: list[int] = []
    for count, (number, node) in enumerate(chosen):
        tree = trees[number]
        row = list(samples[count % len(samples)])
        for name, path in _paths(parts, tree, above[number], edges[number], node).items():
            row[where[name]] = _on(path, row[where[name]])
        column = int(tree.feature[node])
        name, _ = parts.columns[column]
        for value in _around(parts, column, edges[number][node]):
            row = row.copy()
            row[where[name]] = value
            rows.append(row)
            at.append(name)
            group.append(count)
    return ThresholdRows(pl.DataFrame(rows, base.schema, orient="row"), at, np.array(group, int))


def _chosen(parts: Parts, trees: list[Tree]) -> list[tuple[int, int]]:
    """Tree and node of the splits that get rows."""
    splits = [np.flatnonzero(~tree.leaf) for tree in trees]
    number = np.repeat(np.arange(len(trees)), [len(some) for some in splits])
    node = np.concatenate(splits)
    name = np.array(parts.prepared)[
        np.concatenate([tree.feature[some] for tree, some in zip(trees, splits, strict=True)])
    ]
    chosen: list[tuple[int, int]] = []
    features = np.unique(name)
    for feature in features:
        there = np.flatnonzero(name == feature)
        most = max(1, MOST_ROWS // len(features) // ROWS_PER_SPLIT)
        spread = there[np.unique(np.linspace(0, len(there) - 1, most).astype(int))]
        chosen += zip(number[spread].tolist(), node[spread].tolist(), strict=True)
    return chosen


def _on_the_way(trees: list[Tree], above: list[np.ndarray], chosen: list[tuple[int, int]]) -> list[np.ndarray]:
    """For each tree and node whether it is chosen or lies above one that is, shape (nodes,)."""
    needed = [np.zeros(len(tree.leaf), bool) for tree in trees]
    for number, split in chosen:
        node = split
        while node >= 0 and not needed[number][node]:
            needed[number][node] = True
            node = int(above[number][node])
    return needed


def _around(parts: Parts, column: int, edge: float) -> list[Any]:
    """Values of a feature on both sides of a split."""
    _, category = parts.columns[column]
    if category is not None:
        return [category, UNSEEN]
    missing = [None] if _takes_missing(parts) else []
    if not np.isfinite(edge):  # a split by whether it is missing
        return missing
    return [edge, np.nextafter(edge, -np.inf), np.nextafter(edge, np.inf), *missing]


def _takes_missing(parts: Parts) -> bool:
    return parts.missing or any(isinstance(each, Numbers) and each.fill is not None for each in parts.blocks)


def _edges(parts: Parts, trees: list[Tree], needed: list[np.ndarray]) -> list[np.ndarray]:
    """For each tree and needed node the largest value of its feature that goes left, shape (nodes,); infinite where
    all do, or where it is a category.
    """
    edges = [np.full(len(tree.leaf), np.inf) for tree in trees]
    start = 0
    for block in parts.blocks:
        if not isinstance(block, Numbers):
            start += sum(len(some) for some in block.categories)
            continue
        for column in range(len(block.columns)):
            nodes = [
                some & (tree.feature == start + column) & np.isfinite(tree.threshold)
                for tree, some in zip(trees, needed, strict=True)
            ]
            thresholds = np.concatenate([tree.threshold[some] for tree, some in zip(trees, nodes, strict=True)])
            found = _largest(block, column, thresholds, single=isinstance(parts.estimator, Forest))
            for edge, some in zip(edges, nodes, strict=True):
                edge[some], found = found[: some.sum()], found[some.sum() :]
        start += len(block.columns)
    return edges


def _largest(block: Numbers, column: int, thresholds: np.ndarray, *, single: bool) -> np.ndarray:
    """The largest value whose prepared value is at most the threshold, by bisection over all doubles.

    Args:
        single: whether the prepared value is rounded to float32 first.
    """

    def goes_left(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            if block.mean is not None:
                values = values - block.mean[column]
            if block.scale is not None:
                values = values / block.scale[column]
            return (values.astype(np.float32).astype(np.float64) if single else values) <= thresholds

    low = np.full(len(thresholds), _rank(-np.finfo(np.float64).max))
    high = np.full(len(thresholds), _rank(np.finfo(np.float64).max))
    for _ in range(64):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        left = goes_left(_double(middle))
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return _double(low)


def _rank(value: float) -> int:
    """The position of a double among all doubles; 0.0 has 0."""
    bits = int(np.float64(value).view(np.int64))
    return bits if bits >= 0 else -(2**63) - bits


def _double(rank: np.ndarray) -> np.ndarray:
    """What `_rank` was given."""
    return np.where(rank >= 0, rank, np.int64(-(2**63)) - rank).astype(np.int64).view(np.float64)


def _above(tree: Tree) -> np.ndarray:
    """The parent of each node, shape (nodes,); -1 for the root."""
    parent = np.full(len(tree.leaf), -1)
    split = np.flatnonzero(~tree.leaf)
    parent[tree.left[split]] = parent[tree.right[split]] = split
    return parent


def _paths(parts: Parts, tree: Tree, above: np.ndarray, edge: np.ndarray, node: int) -> dict[str, _Path]:
    """What each feature on the way to a node has to be."""
    paths: dict[str, _Path] = defaultdict(_Path)
    while (parent := int(above[node])) >= 0:
        left = int(tree.left[parent]) == node
        name, category = parts.columns[tree.feature[parent]]
        path = paths[name]
        if category is not None:
            (path.is_not if left else path.is_).add(category)
        elif not left and not np.isfinite(edge[parent]):
            path.missing = True
        elif left:
            path.high = min(path.high, edge[parent])
        else:
            path.low = max(path.low, edge[parent])
        node = parent
    return paths


def _on(path: _Path, value: Any) -> Any:
    """A value that a path allows: the given one if it does."""
    if path.is_:
        return min(path.is_)
    if path.is_not:
        return UNSEEN if value in path.is_not or value is None else value
    if path.missing:
        return None
    if value is not None and path.low < value <= path.high:
        return value
    if np.isfinite(path.high):
        return path.high
    return np.nextafter(path.low, np.inf) if np.isfinite(path.low) else 0.0
