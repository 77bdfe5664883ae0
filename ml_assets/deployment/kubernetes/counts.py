"""What became of the requests of each side, from the metrics of its pods.

A pod serves one release and counts from its start. So of each pod it is kept what it had counted when a step began, and
what came since is added up for each side. A pod that is gone takes its counts along; a container that was started anew
begins at nought, and the request that it died of counts as failed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_assets.deployment.kubernetes.cluster import Cluster
from ml_assets.deployment.kubernetes.names import RELEASE
from ml_assets.deployment.kubernetes.pods import SERVERS
from ml_assets.deployment.targets import Histogram, Observation, Side
from ml_assets.errors import TargetError

REQUESTS, SECONDS = "ml_assets_requests", "ml_assets_request_seconds"
INVALID, SCORES = "ml_assets_invalid_answers", "ml_assets_scores"


@dataclass(frozen=True)
class Counted:
    """What a pod has counted.

    Attributes:
        pod: its uid.
        restarts: of its server.
        side: None while it answers nobody, and so does not say either.
    """

    pod: str
    release: str
    restarts: int
    side: Side | None

    def to_json(self) -> dict[str, Any]:
        return {"restarts": self.restarts, "side": asdict(self.side or Side())}

    def since(self, before: Mapping[str, Any] | None) -> Side:
        """What came after it had counted `before`, which `to_json` gave; None: it was not there then."""
        restarts = self.restarts - (before["restarts"] if before else 0)
        if self.side is None or before is None or restarts:
            return self._died(self.side or Side(), restarts)
        return _combined(self.side, Side.from_json(before["side"]), -1)

    def _died(self, side: Side, restarts: int) -> Side:
        return replace(side, requests=side.requests + restarts, errors=side.errors + restarts)


def count(cluster: Cluster, pods: Iterable[dict[str, Any]], key: str | None) -> list[Counted]:
    """What all pods have counted; those that answer requests are asked.

    Raises:
        TargetUnavailableError: if one does not say.
    """
    found = []
    for pod in pods:
        about, statuses = pod["metadata"], pod.get("status", {}).get("containerStatuses", [])
        restarts = sum(each["restartCount"] for each in statuses if each["name"] in SERVERS)
        side = side_of(cluster.of_pod(about["name"], "/metrics", key).decode()) if answers(pod) else None
        found.append(Counted(about["uid"], about["labels"][RELEASE], restarts, side))
    return found


def answers(pod: dict[str, Any]) -> bool:
    """Whether a pod is ready, and is to stay."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def observation(
    counted: Sequence[Counted], before: Mapping[str, Any], champion: str | None, challenger: str | None, *, shadow: bool
) -> Observation:
    """Both sides since each pod had counted `before`, by uid."""
    sides = [
        _sum([each.since(before.get(each.pod)) for each in counted if each.release == release])
        for release in (champion, challenger)
    ]
    return Observation(*_comparable(*sides), shadow)


def side_of(text: str) -> Side:
    """What a server has counted, from its metrics in Prometheus' text format.

    A caller's fault (4xx) is no request here: it says nothing about the release.
    """
    from prometheus_client.parser import text_string_to_metric_families

    answered = errors = invalid = 0
    latency: dict[float, float] = {}
    scores: dict[str, dict[float, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            if sample.name == f"{REQUESTS}_total":
                answered += int(value) if labels["status"] == "200" else 0
                errors += int(value) if labels["status"] >= "500" else 0
            elif sample.name == f"{INVALID}_total":
                invalid += int(value)
            elif sample.name == f"{SECONDS}_bucket":
                _add(latency, labels["le"], value)
            elif sample.name == f"{SCORES}_bucket":
                _add(scores.setdefault(labels["name"], {}), labels["le"], value)
    return Side(
        answered + errors,
        errors=errors,
        invalid=invalid,
        latency=_histogram(latency),
        scores={name: _histogram(each) for name, each in scores.items()},
    )


def _add(buckets: dict[float, float], edge: str, value: float) -> None:
    buckets[float(edge)] = buckets.get(float(edge), 0.0) + value


def _histogram(buckets: Mapping[float, float]) -> Histogram:
    """From how many values are at most each edge, the last of which is infinite."""
    if not buckets:
        return Histogram()
    edges = sorted(buckets)
    below = [int(buckets[edge]) for edge in edges]
    return Histogram(tuple(edges[:-1]), tuple(b - a for a, b in zip([0, *below], below, strict=False)))


def _sum(sides: Sequence[Side]) -> Side:
    total = Side()
    for each in sides:
        total = _combined(total, each, 1)
    return total


def _combined(one: Side, other: Side, sign: int) -> Side:
    def histogram(a: Histogram, b: Histogram) -> Histogram:
        if not sum(b.counts):
            return a
        if not sum(a.counts) and not a.edges:
            return b
        if a.edges != b.edges:
            raise TargetError("pods of one release count by other edges; do all run the same image?")
        return Histogram(a.edges, tuple(x + sign * y for x, y in zip(a.counts, b.counts, strict=True)))

    return Side(
        one.requests + sign * other.requests,
        one.errors + sign * other.errors,
        one.invalid + sign * other.invalid,
        one.golden + sign * other.golden,
        histogram(one.latency, other.latency),
        {
            name: histogram(one.scores.get(name, Histogram()), other.scores.get(name, Histogram()))
            for name in one.scores.keys() | other.scores.keys()
        },
    )


def _comparable(champion: Side, challenger: Side) -> tuple[Side, Side]:
    """Both sides by the edges that both have: at those each knows exactly how many of its values lie below.

    Servers of two images, or of two releases, may have other edges. Where they share none, nothing can be compared.
    """
    latency = _shared(champion.latency, challenger.latency)
    names = champion.scores.keys() | challenger.scores.keys()
    scores = {
        name: _shared(champion.scores.get(name, Histogram()), challenger.scores.get(name, Histogram()))
        for name in names
    }
    return (
        replace(champion, latency=latency[0], scores={name: each[0] for name, each in scores.items()}),
        replace(challenger, latency=latency[1], scores={name: each[1] for name, each in scores.items()}),
    )


def _shared(one: Histogram, other: Histogram) -> tuple[Histogram, Histogram]:
    if one.edges == other.edges or not one.edges or not other.edges:
        return one, other
    edges = tuple(sorted(set(one.edges) & set(other.edges)))
    return _coarser(one, edges), _coarser(other, edges)


def _coarser(histogram: Histogram, edges: tuple[float, ...]) -> Histogram:
    counts, taken = [], 0
    for edge in edges:
        below = sum(histogram.counts[: histogram.edges.index(edge) + 1])
        counts.append(below - taken)
        taken = below
    return Histogram(edges, (*counts, sum(histogram.counts) - taken))
