"""How long one row takes to be scored, by what will serve: the graph, or scikit-learn where there can be none."""

import time
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.parts import parts_of
from ml_assets.errors import UnlistedError
from ml_assets.ml.bootstrap import Interval, draws
from ml_assets.serving.fitted import Fitted
from ml_assets.serving.graph import Graph
from ml_assets.spec.base import Task

ROWS, SECONDS = 200, 2.0


def milliseconds_per_row(pipeline: Any, task: Task, features: pl.DataFrame) -> tuple[float, Interval]:
    """Median time of single rows in milliseconds, and the bootstrap interval of it.

    `ROWS` rows are timed, or as many as `SECONDS` allow, one after another, after one that is not.
    """
    scorer: Graph | Fitted
    try:
        parts = parts_of(pipeline)
    except UnlistedError:
        scorer = Fitted(pipeline, task)
    else:
        from ml_assets.deployment.graph import graph_of

        scorer = Graph.load(graph_of(parts))
    scorer.scores(features[:1])
    taken, begun = [], time.perf_counter()
    for row in range(min(ROWS, features.height)):
        one, start = features[row], time.perf_counter()
        scorer.scores(one)
        taken.append(1000 * (time.perf_counter() - start))
        if time.perf_counter() - begun > SECONDS:
            break
    times = np.array(taken)
    random = np.random.default_rng(0)
    medians = [
        np.median(np.repeat(times, counts.astype(int))) for drawn in draws(len(times), 200, random) for counts in drawn
    ]
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(times)), (float(low), float(high))
