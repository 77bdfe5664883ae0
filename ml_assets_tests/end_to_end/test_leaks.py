"""No leak: what became known after a training's cut-off leaves its rows as they are, whatever it was."""

import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.demo.business import FIRST_DAY, Business
from ml_assets.digests import digest_of_frame
from ml_assets.lake import Lake
from ml_assets.loading import load_model
from ml_assets.ml.training import label
from ml_assets.spec.model import ModelSpec
from ml_assets_tests.project import DEMO
from ml_assets_tests.steps import refresh

DAYS = 6
CUT_OFF = datetime(2025, 1, 5, 15, tzinfo=UTC)
BUSINESS = Business(orders_per_day=25, restaurants=6, couriers=4, broken=0.0, repeated=0.0)


@cache
def landed() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Orders and reports of all days."""
    days = [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]
    return pl.concat([BUSINESS.orders(each) for each in days]), pl.concat([BUSINESS.outcomes(each) for each in days])


def training_table(orders: pl.DataFrame, reports: pl.DataFrame) -> pl.DataFrame:
    """What a training at the cut-off learns from, by the demo's own model with its groups."""
    with tempfile.TemporaryDirectory() as folder:
        landing = Path(folder) / "late_deliveries"
        for name, frame, time in (("orders", orders, "ordered_at"), ("outcomes", reports, "reported_at")):
            (landing / name).mkdir(parents=True)
            for day, part in frame.group_by(pl.col(time).dt.date().alias("_day"), maintain_order=True):
                part.write_parquet(landing / name / f"{day[0]}.parquet")
        declared = (DEMO / "defs.yaml").read_text().replace("{{ landing }}", folder)
        spec = yaml.safe_load(declared)["attributes"]
        spec["source"]["end"] = str(FIRST_DAY + timedelta(days=DAYS - 1))
        model, lake = load_model(ModelSpec.model_validate(spec, strict=False), DEMO), Lake(Path(folder) / "lake")
        refresh(model, lake)
        features, outcomes = (lake.read(model.name, each) for each in ("features", "outcomes"))
        return label(
            features, outcomes, key=model.outcome_key, target="late", cut_off=CUT_OFF, order=model.contract.key
        ).frame


@cache
def undisturbed() -> pl.DataFrame:
    return training_table(*landed())


def changed(orders: pl.DataFrame, column: str, rows: list[int]) -> pl.DataFrame:
    """Other values of a column in some rows."""
    there = pl.int_range(pl.len()).is_in(rows)
    other = {
        "distance_km": pl.col("distance_km").fill_null(1.0) + 1.5,
        "restaurant_id": pl.lit("r000"),
        "minutes_late": 20 - pl.col("minutes_late"),
        "late": ~pl.col("late"),
    }[column]
    return orders.with_columns(pl.when(there).then(other).otherwise(column).alias(column))


def some(frame: pl.DataFrame, time: str, picks: list[float], *, later: bool) -> list[int]:
    """Positions of rows before or after the cut-off."""
    known = pl.col(time) > CUT_OFF if later else pl.col(time) < CUT_OFF
    there = frame.with_row_index("_row").filter(known).get_column("_row").to_list()
    return [there[int(each * len(there))] for each in picks]


PICKS = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=9)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(picks=PICKS, column=st.sampled_from(["distance_km", "restaurant_id", "minutes_late", "late"]))
def test_what_became_known_after_the_cut_off_changes_nothing(picks: list[float], column: str) -> None:
    orders, reports = landed()
    if column in ("minutes_late", "late"):
        reports = changed(reports, column, some(reports, "reported_at", picks, later=True))
    else:
        orders = changed(orders, column, some(orders, "ordered_at", picks, later=True))
    assert digest_of_frame(training_table(orders, reports)) == digest_of_frame(undisturbed())


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(pick=st.floats(0, 1, exclude_max=True), column=st.sampled_from(["distance_km", "late"]))
def test_what_was_known_before_it_does(pick: float, column: str) -> None:
    orders, reports = landed()
    if column == "late":
        reports = changed(reports, column, some(reports, "reported_at", [pick], later=False))
    else:
        labelled = reports.filter(pl.col("reported_at") <= CUT_OFF, pl.col("late").is_not_null())
        known = orders.with_row_index("_row").join(labelled, on="order_id", how="semi").get_column("_row").to_list()
        orders = changed(orders, column, [known[int(pick * len(known))]])
    assert digest_of_frame(training_table(orders, reports)) != digest_of_frame(undisturbed())


def test_an_early_outcome_reaches_the_features_of_later_rows() -> None:
    orders, reports = landed()
    first = some(reports, "reported_at", [0.0], later=False)
    before, after = undisturbed(), training_table(orders, changed(reports, "minutes_late", first))
    assert before["late"].equals(after["late"])
    history = [name for name in before.columns if name.endswith("minutes_late_mean_7d")]
    assert not before.select(history).equals(after.select(history))
