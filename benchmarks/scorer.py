"""What scoring costs, as a graph beside scikit-learn: features in, probabilities out; no frame, no HTTP.

.venv/bin/python -W ignore -m benchmarks.scorer [--rounds 20]

A forest of 100 trees of depth 10 on 12 numbers and 6 texts, some of them missing. The two take turns of twenty calls,
for one row and for a hundred; milliseconds are medians. Fails if an answer differs in one bit.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.graph import graph_of
from ml_assets.deployment.parts import parts_of
from ml_assets.ml.features import Features
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.training import build_pipeline
from ml_assets.serving.fitted import Fitted
from ml_assets.serving.graph import Graph
from ml_assets.spec.training import Estimator

ROWS, NUMBERS, TEXTS, CATEGORIES = 20_000, 12, 6, 10
FOREST = Estimator(params={"n_estimators": 100, "max_depth": 10, "random_state": 0, "n_jobs": 1})
SIZES = (1, 100)
TURN = 20  # calls


def rows() -> tuple[pl.DataFrame, np.ndarray]:
    """Features, and classes that depend on them."""
    random = np.random.default_rng(0)
    numbers = {f"number_{each}": random.normal(size=ROWS) for each in range(NUMBERS)}
    texts = {f"text_{each}": random.integers(0, CATEGORIES, ROWS).astype(str).tolist() for each in range(TEXTS)}
    frame = pl.DataFrame(numbers | texts)
    signal = frame.select(pl.sum_horizontal(list(numbers)[:4]) + (pl.col("text_0") < "4").cast(pl.Float64))
    gone = [pl.Series(random.random(ROWS) < 0.05) for _ in frame.columns]
    missing = [
        pl.when(some).then(None).otherwise(pl.col(name)).alias(name)
        for name, some in zip(frame.columns, gone, strict=True)
    ]
    return frame.select(missing), (signal.to_series().to_numpy() + random.normal(size=ROWS) > 0).astype(int)


def taking_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of one call of each way, and of its CPU; a turn is `TURN` calls after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way()
            before = time.process_time()
            for _ in range(TURN):
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
            cpu[name].append((time.process_time() - before) / TURN)
    return {name: (statistics.median(seconds[name]), statistics.median(cpu[name])) for name in ways}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args().rounds
    frame, answer = rows()
    features = Features(tuple(map(pl.col, frame.columns)), dict(frame.schema))
    pipeline = build_pipeline(features, FOREST, "binary", "benchmark").fit(model_inputs(frame), answer)
    graph, fitted = Graph.load(graph_of(parts_of(pipeline))), Fitted(pipeline, "binary")
    assert np.array_equal(graph.scores(frame), fitted.scores(frame)), "an answer differs"
    print(f"100 trees of depth 10, {len(frame.columns)} features; medians")
    for size in SIZES:
        some = frame.head(size)
        ways = {"graph": lambda some=some: graph.scores(some), "scikit-learn": lambda some=some: fitted.scores(some)}
        taken = taking_turns(ways, rounds)
        for name, (seconds, cpu) in taken.items():
            print(f"{size:>4} row(s)  {name:<13} {seconds * 1000:8.3f} ms, {cpu * 1000:8.3f} ms of CPU")
        print(f"             {taken['scikit-learn'][1] / taken['graph'][1]:.0f} times less CPU")


if __name__ == "__main__":
    main()
