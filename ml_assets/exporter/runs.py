"""Dagster's runs and daemons as Prometheus metrics."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from ml_assets.automation.jobs import MODEL_TAG, feedback_job_name
from ml_assets.model import Model

RESULTS = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}
SECONDS = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400)
_LATE = timedelta(minutes=1)  # a run that ends is written with a time that may lie before what was seen already
_MOST = 1000  # runs at once

Labels = tuple[str, str, str]


class Runs:
    """Runs that ended. The histogram counts from when this process began: runs of before may have been purged since,
    and counts that become fewer would look like new ones. When a job last ended how is asked of the instance, and is
    known after a restart too.
    """

    def __init__(self, instance: dg.DagsterInstance, models: Iterable[Model]) -> None:
        self._instance = instance
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "ml_assets_run_seconds",
            "Duration of runs that ended since the exporter began.",
            ["model", "job_name", "result"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._ended: dict[Labels, float] = {}
        self._seen_until = self._began = datetime.now(UTC)
        self._counted: dict[str, datetime] = {}
        for model in models:
            for job_name in (model.name, feedback_job_name(model)):
                for status, result in RESULTS.items():
                    self._seconds.labels(model.name, job_name, result)
                    asked = dg.RunsFilter(job_name=job_name, statuses=[status])
                    for record in instance.get_run_records(asked, limit=1):
                        self._ended[model.name, job_name, result] = record.end_time or 0

    def metrics(self) -> Iterator[Metric]:
        """All of it, as of now."""
        self._look()
        yield from self._registry.collect()
        ended = GaugeMetricFamily(
            "ml_assets_run_ended_timestamp_seconds",
            "When a run last ended so.",
            labels=["model", "job_name", "result"],
        )
        for labels, at in self._ended.items():
            ended.add_metric(labels, at)
        yield ended
        beat = GaugeMetricFamily(
            "ml_assets_daemon_heartbeat_timestamp_seconds", "When a Dagster daemon last gave a sign.", labels=["daemon"]
        )
        for name, said in self._instance.get_daemon_heartbeats().items():
            beat.add_metric([name.lower()], said.timestamp)
        yield beat

    def _look(self) -> None:
        """Count the runs that ended since the last look."""
        now = datetime.now(UTC)
        asked = dg.RunsFilter(statuses=list(RESULTS), updated_after=self._seen_until - _LATE)
        for record in self._instance.get_run_records(asked, limit=_MOST):
            run = record.dagster_run
            ended = record.end_time or 0
            if run.run_id in self._counted or ended < self._began.timestamp():
                continue
            self._counted[run.run_id] = now
            model = run.tags.get(MODEL_TAG) or next((key.path[0] for key in run.asset_selection or ()), "")
            labels = (model, run.job_name, RESULTS[run.status])
            self._seconds.labels(*labels).observe(ended - (record.start_time or ended))
            self._ended[labels] = max(ended, self._ended.get(labels, 0))
        self._seen_until = now
        self._counted = {each: at for each, at in self._counted.items() if now - at < 3 * _LATE}
