import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from ml_assets.lake import WHOLE
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project


@pytest.fixture(scope="module")
def flights(make_project: Callable[..., Project], shared_data: Path) -> Project:
    project = make_project("flights", landing=str(shared_data))
    folder = project.settings.models / "flights"
    shutil.copytree(PROJECT_ROOT / "examples" / "flights", folder)
    spec = yaml.safe_load((folder / "defs.yaml").read_text())
    # A fifth of the trees and few folds; `benchmarks.examples` judges the model as it is.
    spec["attributes"] |= {"training": {"folds": 2}, "estimator": {"params": {"n_estimators": 20}}}
    (folder / "defs.yaml").write_text(yaml.safe_dump(spec))
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
    assert judged.details["values"]["roc_auc"] >= 0.695


def test_no_feature_is_known_only_after_departure(flights: Project) -> None:
    model = flights.model("flights")
    assert not set(model.features.inputs) & {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}


def features_with_rows(flights: Project, days: list[str] | None = None) -> pl.DataFrame:
    """Features beside the cleaned rows that they were made of."""
    key = ["time_hour", "carrier", "flight", "origin"]
    cleaned = flights.lake.read("flights", "cleaned_data", days)
    return cleaned.join(flights.lake.read("flights", "features", days), on=key, suffix="_feature", validate="1:1")


def test_the_weather_is_that_of_an_hour_before_departure(flights: Project, shared_data: Path) -> None:
    weather = pl.read_parquet(shared_data / "flights" / "weather.parquet").select("origin", "time_hour", "temp")
    an_hour_later = weather.with_columns(pl.col("time_hour") + pl.duration(hours=1)).rename({"temp": "observed"})
    rows = features_with_rows(flights).join(an_hour_later, on=["origin", "time_hour"], how="inner")
    assert rows.height > 320_000
    # the one observation with an impossible wind is rejected, and the hour before stands in for it
    odd = (pl.col("time_hour") == datetime(2013, 2, 12, 9, tzinfo=UTC)) & (pl.col("origin") == "EWR")
    assert rows.filter(~odd & pl.col("weather_temp").ne_missing(pl.col("observed"))).is_empty()


def test_a_wind_of_1048_mph_is_rejected_and_the_hour_before_stands_in(flights: Project) -> None:
    rejected = flights.lake.read("flights", "rejected_weather")
    assert rejected.height == 1
    assert "1048.36" in rejected["reasons"].item()
    weather = flights.lake.read("flights", "weather", ["2013-02-12"]).filter(pl.col("origin") == "EWR")
    assert weather["time_hour"].is_in([datetime(2013, 2, 12, 8, tzinfo=UTC)]).sum() == 0
    rows = flights.lake.read("flights", "features", ["2013-02-12"]).filter(pl.col("origin") == "EWR")
    assert rows["weather_wind_speed"].max() < 60  # type: ignore[operator]


def test_side_tables_lack_what_they_lack_and_no_row_is_lost_to_it(flights: Project) -> None:
    records = flights.latest("flights").of("features").values()
    unmatched = {
        name: sum(each.details[f"unmatched_{name}"] for each in records) for name in ("weather", "destination", "plane")
    }
    rows = flights.lake.read("flights", "cleaned_data")
    puerto_rico = rows["dest"].is_in(["SJU", "BQN", "STT", "PSE"]).sum()
    assert unmatched["destination"] == puerto_rico > 7_000
    planes = flights.lake.read("flights", "plane")["tailnum"]
    assert unmatched["plane"] == rows.height - rows["tailnum"].is_in(planes.implode()).sum()
    assert 0 < unmatched["weather"] < 1_536, (
        "fewer than have no observation of their own hour: one within 6 hours counts"
    )
    assert sum(each.rows for each in records) == rows.height


def test_months_arrive_in_text_order_and_are_trained_on_in_time_order(flights: Project, shared_data: Path) -> None:
    months = pl.read_parquet(shared_data / "flights" / "flights.parquet", columns=["month"]).to_series()
    assert months.unique(maintain_order=True).to_list()[:5] == [1, 10, 11, 12, 2]
    rows = features_with_rows(flights, ["2013-02-01", "2013-10-01"])
    assert set(rows["_partition"]) == {"2013-02-01", "2013-10-01"}
    assert rows.group_by("_partition").agg(pl.col("time_hour").min().dt.month()).sort("_partition").rows() == [
        ("2013-02-01", 2),
        ("2013-10-01", 10),
    ]


def test_midnight_is_written_as_2400_and_kept(flights: Project) -> None:
    rows = flights.lake.read("flights", "cleaned_data")
    assert (rows["dep_time"] == 2400).sum() == 29
    assert (rows["arr_time"] == 2400).sum() == 150
    assert (rows["dep_time"] == 0).sum() == 0


def test_one_number_from_two_airports_on_one_day_is_two_flights(flights: Project, shared_data: Path) -> None:
    arrived = pl.read_parquet(shared_data / "flights" / "flights.parquet").filter(pl.col("time_hour").is_not_null())
    twice = arrived.filter(pl.struct("year", "month", "day", "carrier", "flight").is_duplicated())
    assert twice.height > 20
    key = ["time_hour", "carrier", "flight", "origin"]
    kept = flights.lake.read("flights", "cleaned_data").join(twice, on=key, how="semi")
    assert kept.height == twice.height


def test_a_missing_tail_number_means_cancelled_and_reaches_no_training(flights: Project) -> None:
    rows = flights.lake.read("flights", "cleaned_data").filter(pl.col("tailnum").is_null())
    assert 0 < rows.height <= 2_512
    assert rows["dep_time"].null_count() == rows.height
    assert rows["late"].null_count() == rows.height, "without a label none of them is learnt from"


def test_the_days_on_which_clocks_change_are_whole(flights: Project) -> None:
    for day, hours in (("2013-03-10", 23), ("2013-11-03", 25)):
        weather = flights.lake.read("flights", "weather", [day])
        assert weather.filter(pl.col("origin") == "JFK").height in (hours, hours - 1)
        assert weather.select("origin", "time_hour").is_duplicated().sum() == 0
        local = flights.lake.read("flights", "raw_data", [day]).select("month", "day").unique()
        assert local.height == 1
