"""Random Pipelines as graphs: each must answer like scikit-learn, on rows that it knows, on others and on its splits.

.venv/bin/python -W ignore -m ml_assets_tests.drills.exactness --pipelines 200 --seed 1

Every row is asked in a batch and some alone. Prints for each estimator how many Pipelines and rows there were and the
largest difference between two scores.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from hypothesis import HealthCheck, Phase, given, seed, settings
from threadpoolctl import threadpool_limits

from ml_assets.deployment.exactness import OF_TREES, OTHERWISE, require_exact
from ml_assets.deployment.graph import graph_of
from ml_assets.deployment.parts import Linear, parts_of
from ml_assets.deployment.threshold_rows import threshold_rows
from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.inputs import model_inputs
from ml_assets.serving.graph import Graph
from ml_assets_tests.pipelines import ESTIMATORS, Fitted, fitted

HEAD = """\
| estimator | Pipelines | known rows | other rows | threshold rows | largest difference |
|---|---|---|---|---|---|"""
ALONE = 10  # rows of each Pipeline that are also asked one by one


@dataclass
class Shown:
    """What was compared for one estimator."""

    pipelines: int = 0
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    largest: float = 0.0


def compare(example: Fitted, shown: Shown) -> None:
    """Hold one Pipeline's graph against it, and count."""
    parts = parts_of(example.pipeline)
    graph = Graph.load(graph_of(parts))
    rows = {"fitted": example.known, "other": example.others}
    counts = require_exact(graph, parts, example.pipeline, example.task, rows, example.name)
    tolerance = OTHERWISE if isinstance(parts.estimator, Linear) else OF_TREES
    splits = threshold_rows(parts, pl.concat(rows.values())).features
    everything = pl.concat([*rows.values(), splits])
    wanted, given_ = scores_of(example.pipeline, model_inputs(everything), example.task), graph.scores(everything)
    if example.task != "regression":
        # `predict` looks at raw scores: those of two classes can differ where their probabilities are equal to the bit.
        tied = (wanted == wanted.max(axis=1, keepdims=True)).sum(axis=1) > 1
        labels = example.pipeline.predict(model_inputs(everything))
        assert (tied | (given_.argmax(axis=1) == labels)).all(), "another label than scikit-learn's own"
    alone = np.concatenate([graph.scores(everything[row]) for row in range(ALONE)])
    assert np.allclose(alone, given_[:ALONE], rtol=tolerance, atol=tolerance), "a row alone gets another score"
    shown.pipelines += 1
    for kind, count in counts.items():
        shown.rows[kind] += count
    shown.largest = max(shown.largest, float((np.abs(given_ - wanted) / np.maximum(1, np.abs(wanted))).max()))


def told(name: str, shown: Shown) -> str:
    """A line of the table."""
    rows = " | ".join(f"{shown.rows[kind]:,}" for kind in ("fitted", "other", "threshold"))
    return f"| {name} | {shown.pipelines} | {rows} | {shown.largest:.1g} |"


def drill(pipelines: int, first: int, tell: Callable[[str], None] = print) -> dict[str, Shown]:
    """Compare so many random Pipelines, as many of each estimator.

    Args:
        first: the seed.
    """
    shown = {kind.__name__: Shown() for kind in ESTIMATORS}
    for kind in ESTIMATORS:

        @seed(first)
        @settings(
            max_examples=pipelines // len(ESTIMATORS),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(fitted(kind))
        def run(example: Fitted) -> None:
            compare(example, shown[example.name])

        with threadpool_limits(1):  # with a thread per core each small tree waits for the slowest
            run()
    tell(HEAD)
    for name, each in shown.items():
        tell(told(name, each))
    return shown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pipelines", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    drill(chosen.pipelines, chosen.seed)


if __name__ == "__main__":
    main()
