"""What the lake's records say of a model's data, training and monitoring, as Prometheus metrics."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

from ml_assets.assets import JUDGED, SERVED, data_assets
from ml_assets.automation.due import DueData, due_on_record
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.monitored import ASSET as MONITORING
from ml_assets.monitored import judged_days
from ml_assets.records import Latest, read_latest
from ml_assets.settings import Settings

# What monitoring judges; a subject without an alarm is 0, so that a graph of it is a line.
_SUBJECTS = ("requests", "availability", "drift", "scores", "quality", "stale", "unknown", "rejected")


def pipeline_metrics(settings: Settings, model: Model) -> Iterator[Metric]:
    """Gauges of one model. No source, server or event log is asked.

    Raises:
        OSError, deltalake.exceptions.DeltaError, polars.exceptions.PolarsError: if a table cannot be read.
    """
    lake = Lake(settings.lake)
    latest = read_latest(lake, model.name)
    yield _materialised(model, latest)
    yield _days(model, latest, [due_on_record(model, lake), due_feedback(model, lake, settings.journal, certain=False)])
    yield from _latest_day(model, latest)
    yield from _versions(model, latest)
    yield from _alarms(model, latest)


def _assets(model: Model) -> list[str]:
    return [*data_assets(model), *JUDGED, *SERVED]


def _materialised(model: Model, latest: Latest) -> Metric:
    at = Gauge(
        "ml_assets_asset_materialised_timestamp_seconds",
        "When an asset was last materialised, any day of it.",
        labels=["model", "asset"],
    )
    for asset in _assets(model):
        if records := latest.of(asset).values():
            at.add_metric([model.name, asset], max(each.recorded_at for each in records).timestamp())
    return at


def _days(model: Model, latest: Latest, due: list[DueData]) -> Metric:
    """Days, or the one partition of a table without days, that do not hold what they should."""
    days = Gauge(
        "ml_assets_asset_partitions",
        "Partitions that are due by the records, wait for another attempt, or are refused until something changes.",
        labels=["model", "asset", "state"],
    )
    counts: Counter[tuple[str, str]] = Counter()
    for each in due:
        counts.update((asset, "due") for need in each.needs.values() for asset in need.assets)
    for name, problem in latest.problems().items():
        counts[name.partition(" ")[0], "refused" if problem.lasting else "waiting"] += 1
    for asset in _assets(model):
        for state in ("due", "waiting", "refused"):
            if asset not in JUDGED:  # `endpoint` and those before it follow a verdict, not days
                days.add_metric([model.name, asset, state], counts[asset, state])
    return days


def _latest_day(model: Model, latest: Latest) -> Iterator[Metric]:
    """What came of the newest day with rows, or of the snapshot."""
    rows = Gauge(
        "ml_assets_latest_day_rows",
        "Rows of the newest day that was cleaned: raw = cleaned + rejected + duplicates.",
        labels=["model", "kind"],
    )
    at = Gauge("ml_assets_latest_day_timestamp_seconds", "When that day began.", labels=["model"])
    arrived = [(day, record) for day, record in latest.of("cleaned_data").items() if record.details["raw"]]
    if arrived:
        day, record = arrived[-1]
        rows.add_metric([model.name, "cleaned"], record.rows)
        for kind in ("raw", "rejected", "duplicates"):
            rows.add_metric([model.name, kind], record.details[kind])
        if day != WHOLE:
            zone = ZoneInfo(model.spec.source.timezone)
            at.add_metric([model.name], datetime.fromisoformat(day).replace(tzinfo=zone).timestamp())
    live = Gauge("ml_assets_source_is_live", "1 if more days are to come, else 0.", labels=["model"])
    live.add_metric([model.name], model.daily and model.spec.source.end is None)
    yield from (rows, at, live)


def _versions(model: Model, latest: Latest) -> Iterator[Metric]:
    labels = ["model", "version"]
    metric = Gauge(
        "ml_assets_version_metric", "Held-out metrics of the version judged last.", labels=[*labels, "metric"]
    )
    approved = Gauge("ml_assets_version_approved", "1 if the version judged last passed its gates.", labels=labels)
    serves = Gauge(
        "ml_assets_version_serves", "1 for the version that is to serve, on record.", labels=[*labels, "target"]
    )
    if judged := latest.get("metrics", WHOLE):
        version = judged.details["version"]
        approved.add_metric([model.name, version], judged.details["approved"])
        for name, value in judged.details["values"].items():
            metric.add_metric([model.name, version, name], value)
    if (served := latest.get("endpoint", WHOLE)) and served.details["version"]:
        serves.add_metric([model.name, served.details["version"], model.spec.endpoint.target], 1)
    yield from (metric, approved, serves)


def _alarms(model: Model, latest: Latest) -> Iterator[Metric]:
    """Of the newest day that is over; of quality, of the newest whose outcomes have had their time."""
    alarms = Gauge(
        "ml_assets_monitoring_alarms",
        "Alarms of the newest day that was judged, by what they are about.",
        labels=["model", "subject"],
    )
    at = Gauge("ml_assets_monitoring_day_timestamp_seconds", "When that day began (UTC).", labels=["model"])
    over, final = judged_days(latest)
    records = latest.of(MONITORING)
    if over:
        found = dict(records[over].details["alarms"])
        found["quality"] = records[final].details["alarms"].get("quality", []) if final else []
        for subject in dict.fromkeys([*_SUBJECTS, *found]):
            alarms.add_metric([model.name, subject], len(found.get(subject, [])))
        at.add_metric([model.name], datetime.fromisoformat(over).replace(tzinfo=UTC).timestamp())
    yield from (alarms, at)
