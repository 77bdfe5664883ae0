"""What the exporter reads of the lake's records."""

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.core import Metric

from ml_assets.automation.due import due_data, due_on_record
from ml_assets.errors import SourceError
from ml_assets.exporter.pipeline import pipeline_metrics
from ml_assets.lake import WHOLE, Lake
from ml_assets.records import Record, append_records
from ml_assets.settings import Settings
from ml_assets_tests.rides import Place, noon, place

NOW = datetime.now(UTC)


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    """Values by name and labels, without those that all have."""
    found = {}
    for sample in (each for metric in metrics for each in metric.samples):
        labels = ",".join(value for name, value in sample.labels.items() if name != "model")
        found[f"{sample.name.removeprefix('ml_assets_')} {labels}".strip()] = sample.value
    return found


def told(here: Place) -> dict[str, float]:
    return values(pipeline_metrics(Settings.from_environment({"ML_ASSETS_HOME": str(here.root)}), here.model))


@pytest.fixture
def here() -> Iterator[Place]:
    with place(own_outcomes=False) as made:
        yield made


def row(day: int, km: float | None = 1.0, ride: str = "a") -> dict[str, object]:
    return {"ride": ride, "at": noon(day), "km": km, "known": noon(day), "late": False}


def test_the_newest_day_is_told_with_what_was_rejected_of_it(here: Place) -> None:
    here.put("rides/a.parquet", [row(1)])
    here.put("rides/b.parquet", [row(2), row(2), row(2, ride="b"), row(2, km=-1.0, ride="c")])
    here.refresh()
    found = told(here)
    rows = {kind: found[f"latest_day_rows {kind}"] for kind in ("raw", "cleaned", "rejected", "duplicates")}
    assert rows == {"raw": 4, "cleaned": 2, "rejected": 1, "duplicates": 1}
    assert found["latest_day_timestamp_seconds"] == datetime(2025, 1, 2, tzinfo=UTC).timestamp()
    assert found["source_is_live"] == 0, "it has an end"
    assert found["asset_materialised_timestamp_seconds features"] == pytest.approx(time.time(), abs=60)
    assert "asset_materialised_timestamp_seconds trained_model" not in found


def test_a_day_is_due_by_the_records_alone_and_no_source_is_asked(here: Place) -> None:
    here.put("rides/a.parquet", [row(1)])
    here.refresh()
    assert {name: value for name, value in told(here).items() if name.endswith(",due") and value} == {}
    here.put("rides/a.parquet", [row(1, km=2.0)])
    shutil.rmtree(here.root / "rides")
    with pytest.raises(SourceError):
        due_data(here.model, here.lake)
    assert not due_on_record(here.model, here.lake).needs
    append_records(here.lake, "rides", [Record("raw_data", "2025-01-01", "other", "other", 1, "r")])
    found = told(here)
    assert found["asset_partitions cleaned_data,due"] == found["asset_partitions features,due"] == 1
    assert found["asset_partitions raw_data,due"] == 0


def test_a_day_that_cannot_be_made_waits_or_is_refused(here: Place) -> None:
    def held(day: str, failures: int) -> Record:
        return Record("held/raw_data", day, "terms", "", 0, "r", details={"reason": "because", "failures": failures})

    append_records(here.lake, "rides", [held("2025-01-01", 0), held("2025-01-02", 1), held("2025-01-03", 2)])
    found = told(here)
    assert (found["asset_partitions raw_data,refused"], found["asset_partitions raw_data,waiting"]) == (1, 2)
    made = Record("raw_data", "2025-01-01", "i", "c", 1, "r")
    append_records(here.lake, "rides", [made])
    assert told(here)["asset_partitions raw_data,refused"] == 0


def test_the_newest_version_its_verdict_and_what_serves_are_told(here: Place) -> None:
    verdict = {"version": "4", "approved": False, "values": {"f1": 0.5, "roc_auc": 0.75}}
    serves = Record("endpoint", WHOLE, "i", "c", 1, "r", details={"version": "3"})
    append_records(here.lake, "rides", [Record("metrics", WHOLE, "i", "c", 1, "r", details=verdict), serves])
    found = told(here)
    assert (found["version_metric 4,f1"], found["version_metric 4,roc_auc"]) == (0.5, 0.75)
    assert found["version_approved 4"] == 0
    assert found["version_serves 3,local"] == 1


def test_alarms_are_those_of_the_newest_day_that_was_judged(here: Place) -> None:
    days = [(NOW.date() - timedelta(days=back)).isoformat() for back in (3, 2, 1, 0)]
    alarms = [
        ("yes", "yes", {"quality": ["f1"], "rejected": ["size"]}),
        ("yes", "from tomorrow on", {"unknown": ["zone"]}),
        ("yes", "from tomorrow on", {"drift": ["km", "both_ways"], "of_a_new_kind": ["x"]}),
        ("no", "from tomorrow on", {"stale": ["history"]}),
    ]
    append_records(
        here.lake,
        "rides",
        [
            Record("monitoring", day, "i", "c", 1, "r", details={"over": over, "final": final, "alarms": said})
            for day, (over, final, said) in zip(days, alarms, strict=True)
        ],
    )
    found = told(here)
    assert found["monitoring_alarms drift"] == 2
    assert found["monitoring_alarms of_a_new_kind"] == 1
    assert found["monitoring_alarms quality"] == 1, "of the newest day whose outcomes are known"
    assert all(found[f"monitoring_alarms {name}"] == 0 for name in ("stale", "unknown", "rejected"))
    assert found["monitoring_day_timestamp_seconds"] == datetime.fromisoformat(days[2]).replace(tzinfo=UTC).timestamp()


def test_a_year_of_records_is_told_at_once(here: Place) -> None:
    of_a_year(here.lake)
    told(here)
    started = time.perf_counter()
    assert told(here)["asset_partitions cleaned_data,due"] == 365
    assert time.perf_counter() - started < 2


def of_a_year(lake: Lake) -> None:
    first = datetime(2025, 1, 1, tzinfo=UTC)
    details = {"raw": 100, "rejected": 1, "duplicates": 0}
    for back in range(0, 365, 30):
        days = [(first + timedelta(days=back + day)).date().isoformat() for day in range(min(30, 365 - back))]
        assets = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "history", "features")
        append_records(
            lake, "rides", [Record(asset, day, "i", "c", 100, "r", details=details) for asset in assets for day in days]
        )


def test_records_are_read_while_they_are_written(here: Place) -> None:
    until, seen = threading.Event(), set()

    def write() -> None:
        for number in range(120):  # more than the files that become one
            append_records(here.lake, "rides", [Record("metrics", WHOLE, "i", "c", 1, "r", details=_of(number))])
        until.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not until.is_set():
        found = told(here)
        assert found.get("version_approved 1", 1) == 1
        seen.add(found.get("version_metric 1,f1"))
    writer.join()
    assert told(here)["version_metric 1,f1"] == 119
    assert len(seen) > 5


def _of(number: int) -> dict[str, object]:
    return {"version": "1", "approved": True, "values": {"f1": float(number)}}
