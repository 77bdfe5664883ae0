"""What became of the requests of both sides of a split: counts and histograms of fixed edges, cheap to add to."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ml_assets.serving.bundle import REFERENCE, Manifest

# Half a millisecond to half a minute, each edge three tenths above the one before: so closely is p99 known.
SECONDS = tuple(round(0.0005 * 1.3**power, 6) for power in range(42))
SHARES = tuple(each / 20 for each in range(1, 20))

Edges = dict[str, tuple[float, ...]]


def edges_of(folder: Path, manifest: Manifest) -> Edges:
    """For each score of a release's answers the edges of a histogram with about equally many of its scores in each bin.

    They are the champion's, for both sides: where its scores lie closely, a shift is seen closely.
    """
    try:
        scores = msgspec.json.decode((folder / REFERENCE).read_bytes())["scores"]
    except FileNotFoundError:
        scores = []
    if manifest.task == "multiclass":
        names = [str(each) for each in manifest.classes]
    else:
        names = ["value" if manifest.task == "regression" else "score"]
    known = [tuple(sorted(set(each.get("edges") or ()))) for each in scores]
    return {name: edges or SHARES for name, edges in zip(names, known or [()] * len(names), strict=True)}


class Observed:
    """One side during one step.

    Of a request with several rows the scores of the first one count: rows that are sent together are alike, and the
    test of their distribution takes them for independent.
    """

    def __init__(self, edges: Edges) -> None:
        self.requests = self.errors = self.invalid = 0
        self.latency = [0] * (len(SECONDS) + 1)
        self._scores = [(name, each, [0] * (len(each) + 1)) for name, each in edges.items()]

    def answered(self, seconds: float, first: dict[str, Any]) -> None:
        """Count a request that was answered.

        Args:
            first: the answer to its first row.
        """
        self.requests += 1
        self.latency[bisect_left(SECONDS, seconds)] += 1
        scores = first.get("scores", first)
        for name, edges, counts in self._scores:
            value = scores.get(name)
            if value is not None:
                counts[bisect_left(edges, value)] += 1

    def failed(self) -> None:
        """Count a request that this side could not answer, by its own fault."""
        self.requests += 1
        self.errors += 1

    def answered_invalidly(self) -> None:
        """Count a request whose answer is none."""
        self.requests += 1
        self.invalid += 1

    def to_json(self) -> dict[str, Any]:
        """In the form of `deployment.targets.Side`."""
        scores = {name: {"edges": edges, "counts": counts} for name, edges, counts in self._scores}
        return {
            "requests": self.requests,
            "errors": self.errors,
            "invalid": self.invalid,
            "golden": 0,
            "latency": {"edges": SECONDS, "counts": self.latency},
            "scores": scores,
        }


def validity(manifest: Manifest) -> Callable[[Sequence[dict[str, Any]]], bool]:
    """Whether answers are answers: numbers that are finite, shares that lie in [0, 1], labels that the release has."""
    classes, names = manifest.classes, {str(each) for each in manifest.classes}

    def value(answer: dict[str, Any]) -> bool:
        return math.isfinite(answer["value"])

    def share(answer: dict[str, Any]) -> bool:
        return 0 <= answer["score"] <= 1 and answer["label"] in classes

    def shares(answer: dict[str, Any]) -> bool:
        scores = answer["scores"]
        return scores.keys() == names and all(0 <= each <= 1 for each in scores.values()) and answer["label"] in classes

    check = {"regression": value, "binary": share}.get(manifest.task, shares)

    def valid(answers: Sequence[dict[str, Any]]) -> bool:
        try:
            return all(map(check, answers))
        except (TypeError, KeyError, AttributeError):
            return False

    return valid
