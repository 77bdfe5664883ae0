"""What the server counts, as Prometheus reads it at `GET /metrics`."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ml_assets.serving.observed import SHARES
from ml_assets.serving.prediction_log import PredictionLog
from ml_assets.serving.room import Room
from ml_assets.serving.served import Served

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
NO_MODEL = ""  # of a request that names none that serves
OURS = (200, 500, 503, 504)  # statuses that a server is judged by; others are their callers' business


class Measured:
    """The counters of one server."""

    def __init__(self, served: Served, room: Room, log: PredictionLog | None = None) -> None:
        self._registry = CollectorRegistry()
        self._served = served
        self._requests = Counter(
            "ml_assets_requests",
            "Requests by status.",
            ["model", "status"],
            registry=self._registry,
        )
        self._rows = Counter("ml_assets_rows", "Rows answered.", ["model", "version"], registry=self._registry)
        self._seconds = Histogram(
            "ml_assets_request_seconds",
            "From a request's first byte to its answer.",
            ["model"],
            buckets=SECONDS,
            registry=self._registry,
        )
        waiting = Gauge("ml_assets_waiting_rows", "Rows that wait for their answer.", registry=self._registry)
        waiting.set_function(lambda: room.waiting)
        most = Gauge("ml_assets_waiting_rows_limit", "Rows that may wait at most.", registry=self._registry)
        most.set(room.most)
        self._shed = Counter(
            "ml_assets_shed_requests",
            "Requests that found no room; they are among those with status 503.",
            ["model"],
            registry=self._registry,
        )
        self._scores = Histogram(
            "ml_assets_scores",
            "Scores of the first row of each request, of the last of two classes or of each of several.",
            ["model", "name"],
            buckets=SHARES,
            registry=self._registry,
        )
        self._invalid = Counter(
            "ml_assets_invalid_answers", "Answers that are none: NaN, infinite.", ["model"], registry=self._registry
        )
        self._probes = Counter(
            "ml_assets_probes",
            "Requests that asked not to be logged; they are among the requests too.",
            ["model"],
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)  # memory, CPU, start
        self._registry.register(_Models(served))
        if log is not None:
            self._registry.register(_Log(log))
        # Looking a label up costs more than counting.
        self._by_status: dict[tuple[str, int], Counter] = {}
        self._by_model: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._by_score: dict[tuple[str, str], Histogram] = {}

    def answered(self, model: str, version: str, answers: Sequence[dict[str, Any]], seconds: float) -> None:
        """Count an answered request."""
        self.count(model, 200)
        known = self._by_model.get((model, version))
        if known is None:
            known = self._rows.labels(model, version), self._seconds.labels(model)
            self._by_model[model, version] = known
        known[0].inc(len(answers))
        known[1].observe(seconds)
        first = answers[0]
        score = first.get("score")
        for name, value in (("score", score),) if score is not None else first.get("scores", {}).items():
            self._scored(model, name, value)
        if (value := first.get("value")) is not None and not isfinite(value):
            self._invalid.labels(model).inc()

    def _scored(self, model: str, name: str, value: float) -> None:
        if not isfinite(value):
            self._invalid.labels(model).inc()
            return
        known = self._by_score.get((model, name))
        if known is None:
            known = self._by_score[model, name] = self._scores.labels(model, name)
        known.observe(value)

    def probed(self, model: str) -> None:
        """Count a request that is not logged because its caller said so."""
        self._probes.labels(model).inc()

    def shed(self, model: str) -> None:
        """Count a request for which there was no room."""
        self._shed.labels(model).inc()

    def count(self, model: str, status: int) -> None:
        """Count a request with its status."""
        known = self._by_status.get((model, status))
        if known is None:
            known = self._by_status[model, status] = self._requests.labels(model, str(status))
        known.inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        # A series that began with its first error would have no increase.
        for model in tuple(self._served.models):
            for status in OURS:
                self._requests.labels(model, str(status))
            self._shed.labels(model)
            self._invalid.labels(model)
        return generate_latest(self._registry)


class _Log(Collector):
    """What was written to the prediction log, and what was lost on the way there."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        logged = CounterMetricFamily("ml_assets_prediction_log_logged", "Requests logged.", labels=["model"])
        lost = CounterMetricFamily(
            "ml_assets_prediction_log_lost", "Requests that found no room or no disk.", labels=["model"]
        )
        for model in sorted({*self._log.logged, *self._log.lost}):
            logged.add_metric([model], self._log.logged.get(model, 0))
            lost.add_metric([model], self._log.lost.get(model, 0))
        waiting = GaugeMetricFamily("ml_assets_prediction_log_waiting", "Requests that wait to be logged.")
        waiting.add_metric([], self._log.waiting)
        yield from (logged, lost, waiting)


class _Models(Collector):
    """What serves, what is refused, and what was looked up, as of now."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        serves = GaugeMetricFamily(
            "ml_assets_model_serves", "1 for each release that serves.", labels=["model", "version", "release"]
        )
        refused = GaugeMetricFamily(
            "ml_assets_release_refused",
            "1 for each that does not serve.",
            labels=["model", "release"],
        )
        looked_up = CounterMetricFamily(
            "ml_assets_looked_up", "Rows by what was found for them.", labels=["model", "view", "outcome"]
        )
        for model, serving in sorted(self._served.models.items()):
            serves.add_metric([model, serving.scorer.manifest.version, serving.release], 1)
            for view, counts in serving.scorer.counts.items():
                for outcome, count in counts.items():
                    looked_up.add_metric([model, view, outcome], count)
        for model, said in sorted(self._served.refused.items()):
            refused.add_metric([model, said["release"]], 1)
        yield from (serves, refused, looked_up, *self._splits())

    def _splits(self) -> Iterator[Metric]:
        """Of both sides of each split, since it is as it is: two releases a model, so few series at any time."""
        weight = GaugeMetricFamily(
            "ml_assets_challenger_weight", "The challenger's share in percent.", labels=["model", "version"]
        )
        labels = ["model", "side", "version"]
        requests = CounterMetricFamily("ml_assets_side_requests", "Requests that a side was given.", labels=labels)
        failed = CounterMetricFamily(
            "ml_assets_side_failed", "Those of them that it did not answer, or invalidly.", labels=[*labels, "how"]
        )
        for model, serving in sorted(self._served.models.items()):
            if (split := serving.split) is None:
                continue
            weight.add_metric([model, split.challenger.version], split.said.weight)
            sides = ("champion", split.champion), ("challenger", split.challenger)
            for (side, loaded), seen in zip(sides, split.observed, strict=True):
                requests.add_metric([model, side, loaded.version], seen.requests)
                failed.add_metric([model, side, loaded.version, "error"], seen.errors)
                failed.add_metric([model, side, loaded.version, "invalid"], seen.invalid)
        yield from (weight, requests, failed)
