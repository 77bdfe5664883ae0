"""Which scorer a release gets: a graph that is proven to answer like the Pipeline, or else the Pipeline itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_assets.deployment.exactness import require_exact
from ml_assets.deployment.parts import parts_of
from ml_assets.errors import ReleaseError, UnlistedError
from ml_assets.ml import skops_store
from ml_assets.serving.bundle import GRAPH, ONNX, PIPELINE, SCIKIT_LEARN
from ml_assets.serving.fitted import Fitted
from ml_assets.serving.graph import Graph
from ml_assets.spec.base import Task


@dataclass(frozen=True)
class Choice:
    """What scores.

    Attributes:
        scorer: `onnx` or `scikit-learn`; `reason` says why.
        file, content: the one file of the release that holds it.
        built_with: packages whose versions a release names.
    """

    scorer: str
    reason: str
    estimator: Graph | Fitted
    file: str
    content: bytes
    built_with: tuple[str, ...]


def choose_scorer(
    pipeline: Any, task: Task, threshold: float | None, rows: Mapping[str, pl.DataFrame], place: str
) -> Choice:
    """The fastest scorer that answers as the fitted Pipeline does.

    Args:
        threshold: from which score on a row has the second label; see `ml.threshold.decide`.
        rows: features of rows by what they are, on which a graph has to prove itself, beside threshold rows.
        place: model and version, for messages.

    Raises:
        ReleaseError: if the graph answers otherwise, or the Pipeline holds types that the server would refuse.
    """
    try:
        parts = parts_of(pipeline)
    except UnlistedError as unlisted:
        content = skops_store.dump(pipeline)
        if refused := skops_store.untrusted_types(content):
            raise ReleaseError(
                f"{place} cannot be served: it holds {', '.join(refused)}, which is not on the allow-list; choose "
                "another estimator"
            ) from None
        fitted = Fitted(pipeline, task)
        return Choice(SCIKIT_LEARN, str(unlisted), fitted, PIPELINE, content, ("scikit-learn", "skops"))
    from ml_assets.deployment.graph import graph_of

    content = graph_of(parts)
    graph = Graph.load(content)
    counts = require_exact(graph, parts, pipeline, task, rows, place, threshold)
    proof = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    reason = f"it answers like scikit-learn on {proof} rows"
    return Choice(ONNX, reason, graph, GRAPH, content, ("onnx", "onnxruntime", "scikit-learn"))
