from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ml_assets.lake import WHOLE
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project


@pytest.fixture(scope="module")
def flights(make_project: Callable[..., Project], shared_data: Path) -> Project:
    project = make_project("flights", models=PROJECT_ROOT / "examples", landing=str(shared_data))
    project.materialize("flights")
    return project


def test_the_year_is_365_daily_partitions_ingested_by_one_run(flights: Project) -> None:
    raw = flights.latest("flights").of("raw_data")
    assert (min(raw), max(raw), len(raw)) == ("2013-01-01", "2013-12-31", 365)
    assert len({record.run_id for record in raw.values()}) == 1
    with flights.active(), dg.DagsterInstance.get() as instance:
        for asset in ("raw_data", "cleaned_data", "features", "outcomes"):
            assert len(instance.get_materialized_partitions(dg.AssetKey(["flights", asset]))) == 365


def test_no_row_is_lost(flights: Project) -> None:
    cleaned = flights.latest("flights").of("cleaned_data").values()
    assert sum(each.details["raw"] for each in cleaned) == 336_776
    assert sum(each.rows for each in cleaned) == 336_776 - 5_750
    rejected = flights.lake.read("flights", "rejected_rows")
    assert rejected.height == 5_750, "the cancelled flights without a schedule"
    assert rejected["reasons"].str.contains("time_hour").all()


def test_a_day_is_a_day_in_new_york(flights: Project) -> None:
    day = flights.lake.read("flights", "raw_data", ["2013-07-04"])
    scheduled = day.filter(pl.col("time_hour").is_not_null())
    assert scheduled.select(pl.col("month", "day")).unique().rows() == [("7", "4")]
    assert scheduled["time_hour"].max() > datetime(2013, 7, 5, tzinfo=UTC)  # type: ignore[operator]


def test_it_is_trained_to_august_and_judged_from_october_and_reaches_its_reference(flights: Project) -> None:
    trained, judged = (flights.latest("flights").get(each, WHOLE) for each in ("trained_model", "metrics"))
    assert trained is not None
    assert judged is not None
    rows = flights.lake.read("flights", "features").join(
        flights.lake.read("flights", "outcomes").filter(pl.col("late").is_not_null()),
        on=["time_hour", "carrier", "flight", "origin"],
    )
    months = rows.select(pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.month()).to_series()
    counts = trained.details["counts"]
    assert counts["trained_on"] == (months <= 8).sum()
    assert counts["validation"] == (months == 9).sum()
    assert counts["test"] == (months >= 10).sum()
    assert judged.details["values"]["roc_auc"] >= 0.60


def test_no_feature_is_known_only_after_departure(flights: Project) -> None:
    model = flights.model("flights")
    assert not set(model.features.inputs) & {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}
