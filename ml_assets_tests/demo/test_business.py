from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_assets.demo.business import FIRST_DAY, Business, land

MONTH = [FIRST_DAY + timedelta(days=each) for each in range(31)]
BUSINESS = Business()
ORDERS = pl.concat([BUSINESS.orders(day).with_columns(day=pl.lit(day)) for day in MONTH])
OUTCOMES = pl.concat([BUSINESS.outcomes(day) for day in MONTH])


def test_a_day_is_always_the_same_and_another_seed_is_another_business() -> None:
    assert Business().orders(MONTH[3]).equals(BUSINESS.orders(MONTH[3]))
    assert not Business(seed=8).orders(MONTH[3]).equals(BUSINESS.orders(MONTH[3]))


def test_its_mistakes_come_at_the_stated_rates() -> None:
    rows = ORDERS.height
    broken = ORDERS.filter(
        (pl.col("distance_km") <= 0)
        | (pl.col("distance_km") > 100)
        | (pl.col("vehicle") == "rocket")
        | (pl.col("items") < 1)
        | pl.col("restaurant_id").is_null()
    )
    assert abs(broken.height / rows - BUSINESS.broken) < 0.003
    assert abs(ORDERS["weather"].null_count() / rows - BUSINESS.missing) < 0.006
    assert abs((rows - ORDERS["order_id"].n_unique()) / rows - BUSINESS.repeated) < 0.003


def test_outcomes_arrive_later_in_files_of_their_own_once_each_and_some_never() -> None:
    assert OUTCOMES["order_id"].is_unique().all()
    first = pl.col("ordered_at").min()
    both = ORDERS.group_by("order_id").agg(first).join(OUTCOMES, on="order_id")
    delay = both["reported_at"] - both["ordered_at"]
    assert delay.min() >= timedelta(hours=1)  # type: ignore[operator]
    assert (both["reported_at"].dt.date() > both["ordered_at"].dt.date()).mean() > 0.2
    early = ORDERS.filter(pl.col("day") < MONTH[25])["order_id"].unique()
    never = 1 - early.is_in(OUTCOMES["order_id"].implode()).mean()  # type: ignore[operator]
    assert abs(never - BUSINESS.unreported) < 0.01


def test_it_is_busier_at_the_weekend() -> None:
    daily = ORDERS.group_by("day").len()
    weekend = daily.filter(pl.col("day").dt.weekday() >= 5)["len"].mean()
    assert weekend > 1.15 * daily.filter(pl.col("day").dt.weekday() < 5)["len"].mean()  # type: ignore[operator]


def test_drift_begins_on_its_day_and_makes_orders_later() -> None:
    drifting = Business(drift_from=MONTH[20])
    assert drifting.orders(MONTH[19]).equals(BUSINESS.orders(MONTH[19]))
    before, after = (each.outcomes(MONTH[24])["late"].mean() for each in (BUSINESS, drifting))
    assert after > before + 0.15  # type: ignore[operator]


def test_files_are_landed_in_one_move_below_the_landing_folder(tmp_path: Path) -> None:
    written = land(BUSINESS, tmp_path, FIRST_DAY, 2)
    assert sorted(each.relative_to(tmp_path).as_posix() for each in written) == [
        "orders/2025-01-01.parquet",
        "orders/2025-01-02.parquet",
        "outcomes/2025-01-01.parquet",
        "outcomes/2025-01-02.parquet",
    ]
    assert sorted(tmp_path.rglob("*.*")) == sorted(written)
