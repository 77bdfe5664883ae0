"""Side tables from file to feature: what changed is joined anew and no more, and what is missing is told."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import requests

from ml_assets.automation.due import due_data
from ml_assets.automation.reports import unreported
from ml_assets.errors import RunFailedError
from ml_assets.lake import WHOLE
from ml_assets.materialize import replay
from ml_assets_tests.project import SMALL_MODEL, Project

CONTRACT = '''

class Forecast(pa.DataFrameModel):
    """Hourly, for the whole town."""

    at: UtcTime = pa.Field(metadata={"role": "event_time"})
    wind: float = pa.Field(ge=0, le=200)


class Zones(pa.DataFrameModel):
    zone: str
    hills: float = pa.Field(ge=0, nullable=True)
'''
FEATURES = """
FEATURES += [pl.col("forecast_wind"), (pl.col("zones_hills") * pl.col("distance_km")).alias("climb")]
"""
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = [f"2025-01-{day:02}" for day in range(1, 6)]
NONE = {"min_rows": 1_000_000}  # rows without which nothing is trained
SHORT_LIVED = {"lag": "1h", "tolerance": "2h", "max_unmatched": 0.6}
HILLS = {"centre": 0.0, "north": 3.0, "south": 1.0, "east": None}  # of the harbour nothing is known


def wind(project: Project, day: int, *, plus: float = 0.0, hours: int = 24) -> Path:
    """Write one day's file of hourly wind."""
    times = [FIRST + timedelta(days=day - 1, hours=hour) for hour in range(hours)]
    frame = pl.DataFrame({"at": times, "wind": [float(day * 3 % 7 + time.hour) + plus for time in times]})
    path = project.landing / "side" / f"wind-{day:02}.parquet"
    frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC"))).write_parquet(path)
    return path


def zones(project: Project, hills: dict[str, float | None] | None = None) -> Path:
    path = project.landing / "side" / "zones.csv"
    lines = [f"{zone},{'' if height is None else height}" for zone, height in (hills or HILLS).items()]
    path.write_text("\n".join(["zone,hills", *lines]) + "\n")
    return path


def project_with_lookups(
    make_project: Callable[..., Project], name: str, *, lookups: dict[str, dict[str, Any]] | None = None, **spec: Any
) -> Project:
    """Five days of orders, with a side table by time and one by key."""
    project = make_project(name)
    changes = lookups or {}
    side = "{{ landing }}/side"
    forecast = {
        "name": "forecast",
        "contract": "contract.Forecast",
        "source": {"kind": "files", "uri": f"{side}/wind-*.parquet"},
        "lag": "14h",  # so that orders before 14:00 take their values from the day before
        "tolerance": "24h",
    } | changes.get("forecast", {})
    places = {
        "name": "zones",
        "contract": "contract.Zones",
        "source": {"kind": "files", "uri": f"{side}/zones.csv"},
        "by": {"zone": "zone"},
    } | changes.get("zones", {})
    folder = project.add_demo_model(**(SMALL_MODEL | spec), lookups=[forecast, places])
    for file, more in (("contract.py", CONTRACT), ("features.py", FEATURES)):
        (folder / file).write_text((folder / file).read_text() + more)
    project.land(5)
    (project.landing / "side").mkdir()
    return project


@pytest.fixture(scope="module")
def made(make_project: Callable[..., Project]) -> Project:
    """All made and serving; each test leaves data for which nothing is due."""
    project = project_with_lookups(make_project, "lookups", retrain={"min_new_rows": 1_000_000})
    for day in range(1, 6):
        wind(project, day)
    zones(project)
    project.materialize()
    return project


def contents(project: Project, asset: str) -> dict[str, str]:
    return {partition: record.content for partition, record in project.latest().of(asset).items()}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [each for each in after if before.get(each) != after[each]]


def due(project: Project) -> list[tuple[list[str], list[str]]]:
    return [(each.partitions, each.assets) for each in due_data(project.model(), project.lake).stretches()]


def test_one_run_makes_them_all_and_the_features_hold_what_was_known(made: Project) -> None:
    latest = made.latest()
    assert list(latest.of("forecast")) == DAYS
    assert list(latest.of("zones")) == [WHOLE]
    runs = {
        record.run_id for asset in ("raw_data", "forecast", "zones", "features") for record in latest.of(asset).values()
    }
    assert len(runs) == 1
    rows = made.lake.read("late_deliveries", "features").join(
        made.lake.read("late_deliveries", "cleaned_data").select("order_id", "ordered_at", "zone", "distance_km"),
        on="order_id",
    )
    for row in rows.sample(200, seed=1).iter_rows(named=True):
        known = row["ordered_at_right"] - timedelta(hours=14)
        day = (known - FIRST).days + 1
        assert row["forecast_wind"] == (day * 3 % 7 + known.hour if day >= 1 else None)
        height = HILLS.get(row["zone_right"])
        away = row["distance_km_right"]
        assert row["climb"] == (None if height is None or away is None else pytest.approx(height * away))
    assert due(made) == []


def test_unmatched_rows_are_counted_by_day_and_in_all(made: Project) -> None:
    cleaned = made.lake.read("late_deliveries", "cleaned_data")
    records = made.latest().of("features")
    harbour = cleaned.filter(pl.col("zone") == "harbour").height
    assert sum(record.details["unmatched_zones"] for record in records.values()) == harbour > 0
    with made.active(), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["late_deliveries", "features"]))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
    assert f"{harbour:,} of {cleaned.height:,} rows" in str(metadata["unmatched_in_all_zones"].value)
    lineage = metadata["dagster/column_lineage"].value.deps_by_column  # type: ignore[union-attr]
    assert {(each.asset_key.path[-1], each.column_name) for each in lineage["climb"]} == {
        ("zones", "hills"),
        ("cleaned_data", "distance_km"),
    }


def test_a_request_carries_keys_and_the_columns_of_side_tables_are_looked_up(made: Project) -> None:
    served = made.latest().get("endpoint", WHOLE)
    assert served is not None
    row = {
        **{"ordered_at": "2025-02-01T18:40:00Z", "zone": "harbour", "vehicle": "bike", "weather": "snow"},
        **{"distance_km": 4.2, "items": 3, "order_value": 41.5, "preparation_minutes": 17.0},
        **{"promised_minutes": 32.0, "new_customer": False},
    }
    address = f"{served.details['address']}"
    answers = [
        requests.post(address, json={"rows": [row | more]}, timeout=10)
        for more in ({"ordered_at": "2025-01-06T18:40:00Z"}, {"zone": "north"}, {"zones_hills": 3.0})
    ]
    assert [each.status_code for each in answers] == [200, 200, 422]
    missing = [each.json()["predictions"][0]["missing"] for each in answers[:2]]
    assert missing == [{"zones": "unknown"}, {"forecast": "stale"}], "of the harbour nothing is known"
    assert "'zones_hills' is looked up in zones; do not send it, but zone" in answers[2].json()["error"]


def test_a_corrected_day_of_a_side_table_refreshes_the_days_that_take_values_from_it(made: Project) -> None:
    cleaned, features = contents(made, "cleaned_data"), contents(made, "features")
    wind(made, 2, plus=0.5)
    [(days, assets)] = due(made)
    assert (days, assets) == (["2025-01-02", "2025-01-03"], ["forecast", "features"])
    made.materialize()
    assert contents(made, "cleaned_data") == cleaned
    assert changed(features, contents(made, "features")) == ["2025-01-02", "2025-01-03"]
    assert due(made) == []
    wind(made, 2)
    made.materialize()
    assert contents(made, "features") == features, "put back, it is as before"


def test_a_changed_side_table_without_days_is_joined_anew_by_one_run(made: Project) -> None:
    features = contents(made, "features")
    zones(made, HILLS | {"north": 4.0})
    [(days, assets)] = due(made)
    assert (days, assets) == (DAYS, ["zones", "features"])
    made.materialize()
    assert changed(features, contents(made, "features")) == DAYS
    zones(made)
    made.materialize()
    assert contents(made, "features") == features


def test_a_side_table_with_equal_content_changes_nothing_behind_it(made: Project) -> None:
    features, version = made.latest().of("features"), made.lake.version("late_deliveries", "features")
    path = made.landing / "side" / "zones.csv"
    path.write_text(path.read_text() + "\n")
    assert due(made)
    made.materialize()
    assert made.latest().of("features") == features
    assert made.lake.version("late_deliveries", "features") == version
    assert due(made) == []


def test_broken_rows_of_a_side_table_are_kept_with_their_reasons(made: Project) -> None:
    path = wind(made, 4)
    frame = pl.read_parquet(path)
    storm = pl.DataFrame(
        {"at": [FIRST + timedelta(days=3, hours=5, minutes=30)], "wind": [1048.36]}, schema=frame.schema
    )
    pl.concat([frame, storm]).write_parquet(path)
    made.materialize()
    rejected = made.lake.read("late_deliveries", "rejected_forecast")
    assert rejected.height == 1
    assert "1048.36" in rejected["reasons"].item()
    record = made.latest().get("forecast", "2025-01-04")
    assert record is not None
    assert (record.rows, record.details["raw"], record.details["rejected"]) == (24, 25, 1)
    with made.active():
        assert replay(made.settings, made.model(), lambda line: None)[1] >= 1
    wind(made, 4)
    made.materialize()
    assert made.lake.read("late_deliveries", "rejected_forecast").is_empty()


def test_dagster_is_told_of_a_side_table_whose_run_died(made: Project) -> None:
    with made.active(), dg.DagsterInstance.get() as instance:
        assert unreported(instance, made.model(), made.lake) == []
        instance.wipe_assets([dg.AssetKey(["late_deliveries", "zones"]), dg.AssetKey(["late_deliveries", "forecast"])])
        told = unreported(instance, made.model(), made.lake)
    assert {(each.asset_key.path[-1], each.partition) for each in told} == {
        ("zones", None),
        *(("forecast", day) for day in DAYS),
    }


def test_features_wait_for_a_side_table_that_never_came_and_heal_by_themselves(
    make_project: Callable[..., Project],
) -> None:
    project = project_with_lookups(make_project, "late-lookup", training=NONE)
    for day in range(1, 6):
        wind(project, day)
    with pytest.raises(RunFailedError, match=r"the lookup 'zones' holds nothing yet; look at .*zones\.csv"):
        project.materialize()
    assert contents(project, "cleaned_data").keys() == set(DAYS)
    assert not contents(project, "features")
    assert due(project) == [], "asked for again only once there is something new"
    zones(project)
    project.materialize()
    assert contents(project, "features").keys() == set(DAYS)


def test_a_day_with_too_many_unmatched_rows_is_refused_alone_until_its_side_table_changes(
    make_project: Callable[..., Project],
) -> None:
    project = project_with_lookups(make_project, "unmatched", lookups={"forecast": SHORT_LIVED}, training=NONE)
    for day in (1, 2, 4, 5):
        wind(project, day)
    zones(project)
    with pytest.raises(RunFailedError, match=r"features 2025-01-03: .* find no row in the lookup 'forecast'"):
        project.materialize()
    assert contents(project, "features").keys() == set(DAYS) - {"2025-01-03"}
    assert due(project) == []
    assert "features 2025-01-03" in due_data(project.model(), project.lake).problems
    wind(project, 3)
    project.materialize()
    assert contents(project, "features").keys() == set(DAYS)
    assert not due_data(project.model(), project.lake).problems


def test_a_side_table_may_lie_in_a_database(make_project: Callable[..., Project]) -> None:
    import sqlalchemy

    project = make_project("lookup-sql")
    url = f"sqlite:///{project.root / 'town.db'}"
    project.variables["ML_ASSETS_DATABASE_TOWN"] = url
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table zones (zone text, hills real, changed_at text)")
        connection.exec_driver_sql("insert into zones values ('north', 3.0, '2025-01-01 00:00:00')")
    source = {"kind": "sql", "database": "town", "table": "zones", "watermark": "changed_at"}
    folder = project.add_demo_model(
        training=NONE,
        lookups=[{"name": "zones", "contract": "contract.Zones", "source": source, "by": {"zone": "zone"}}],
    )
    for file, more in (("contract.py", CONTRACT), ("features.py", 'FEATURES += [pl.col("zones_hills")]')):
        (folder / file).write_text((folder / file).read_text() + more)
    project.land(5)
    project.materialize()
    cleaned = project.lake.read("late_deliveries", "cleaned_data")
    features = project.lake.read("late_deliveries", "features")
    assert features["zones_hills"].is_not_null().sum() == (cleaned["zone"] == "north").sum() > 0
    with engine.begin() as connection:
        connection.exec_driver_sql("insert into zones values ('south', 1.0, '2025-02-01 00:00:00')")
    project.materialize()
    features = project.lake.read("late_deliveries", "features")
    assert features["zones_hills"].is_not_null().sum() == cleaned["zone"].is_in(["north", "south"]).sum()
