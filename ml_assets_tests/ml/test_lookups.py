from datetime import date, datetime, timedelta
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_assets.contract import Contract
from ml_assets.ml.joins import join_table
from ml_assets.ml.lookups import Lookup, refused
from ml_assets.spec.tables import LookupSpec

NOON = datetime(2025, 3, 1, 12)


class Readings(pa.DataFrameModel):
    at: pl.Datetime = pa.Field(metadata={"role": "event_time"})
    station: str
    wind: float = pa.Field(nullable=True)


class Zoned(pa.DataFrameModel):
    at: Annotated[pl.Datetime, "us", "UTC"] = pa.Field(metadata={"role": "event_time"})
    wind: float = pa.Field(nullable=True)


class Prices(pa.DataFrameModel):
    day: pl.Date = pa.Field(metadata={"role": "event_time"})
    price: float


class Places(pa.DataFrameModel):
    code: str
    height: float = pa.Field(nullable=True)


def lookup(contract: Any, **spec: Any) -> Lookup:
    source = {"kind": "files", "uri": "side/*.parquet"}
    declared = LookupSpec.model_validate({"name": "side", "contract": "contract.Side", "source": source, **spec})
    read = Contract.read_lookup(contract, "contract.py")
    time = [read.event_time] if read.event_time else []
    return Lookup(declared, read.with_key([*declared.by.values(), *time]))


WIND = lookup(Readings, by={"origin": "station"}, lag="1h", tolerance="3h")


def readings(*rows: tuple[datetime | None, str | None, float | None]) -> pl.DataFrame:
    schema = {"at": pl.Datetime("us"), "station": pl.String, "wind": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def join(rows: pl.DataFrame, table: pl.DataFrame, side: Lookup = WIND) -> tuple[pl.DataFrame, pl.Series]:
    """Rows with the columns of a cleaned side table, as the assets join them."""
    return join_table(rows, side.available(table), side.join, "time")


def events(*rows: tuple[datetime | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"time": pl.Datetime("us"), "origin": pl.String}, orient="row")


@pytest.mark.parametrize(
    ("age", "found"),
    [
        (timedelta(minutes=59), False),  # not known yet
        (timedelta(hours=1), True),
        (timedelta(hours=3), True),
        (timedelta(hours=3, seconds=1), False),  # too old
        (timedelta(hours=1, microseconds=-1), False),  # known from the next whole second on
        (-timedelta(hours=1), False),
    ],
)
def test_a_row_counts_from_when_it_is_known_until_it_is_too_old(age: timedelta, found: bool) -> None:
    joined, matched = join(events((NOON, "JFK")), readings((NOON - age, "JFK", 7.0)))
    assert matched.to_list() == [found]
    assert joined["side_wind"].to_list() == [7.0 if found else None]
    assert joined["side_at"].to_list() == [NOON - age if found else None]


def test_the_latest_known_row_of_the_same_key_counts_even_if_its_value_is_null() -> None:
    table = readings(
        (NOON - timedelta(hours=1), "LGA", 3.0),
        (NOON - timedelta(hours=2), "JFK", None),
        (NOON - timedelta(hours=3), "JFK", 9.0),
        (NOON - timedelta(minutes=5), "JFK", 8.0),
    )
    joined, matched = join(events((NOON, "JFK"), (NOON, "EWR")), table)
    assert joined["side_wind"].to_list() == [None, None]
    assert matched.to_list() == [True, False]


def test_rows_keep_their_order_and_number_and_nulls_match_nothing() -> None:
    rows = events((NOON, "JFK"), (None, "JFK"), (NOON, None), (NOON - timedelta(hours=5), "JFK"), (NOON, "JFK"))
    table = readings(
        (NOON - timedelta(hours=1), "JFK", 1.0), (NOON - timedelta(hours=1), None, 2.0), (None, "JFK", 3.0)
    )
    joined, matched = join(rows, table)
    assert_frame_equal(joined.select("time", "origin"), rows)
    assert matched.to_list() == [True, False, False, False, True]


def test_a_table_that_holds_nothing_leaves_everything_unmatched() -> None:
    joined, matched = join_table(events((NOON, "JFK")), pl.DataFrame(), WIND.join, "time")
    assert joined.row(0, named=True) == {"time": NOON, "origin": "JFK", "side_at": None, "side_wind": None}
    assert matched.to_list() == [False]


def test_without_an_event_time_the_key_alone_counts() -> None:
    places = lookup(Places, by={"origin": "code"})
    table = pl.DataFrame({"code": ["JFK", "LGA", None], "height": [4.0, None, 6.0]})
    joined, matched = join(events((NOON, "LGA"), (None, "JFK"), (NOON, None), (NOON, "XXX")), table, places)
    assert joined["side_height"].to_list() == [None, 4.0, None, None]
    assert matched.to_list() == [True, True, False, False]


def test_without_a_key_the_time_alone_counts() -> None:
    prices = lookup(Prices, lag="1d", tolerance="7d")
    table = pl.DataFrame({"day": [date(2025, 2, 27), date(2025, 2, 28), date(2025, 3, 1)], "price": [1.0, 2.0, 3.0]})
    joined, _ = join(events((NOON, "JFK")), table, prices)
    assert joined["side_price"].to_list() == [2.0], "that of the first of March is known on the second"


def test_times_with_different_zones_are_the_same_moments() -> None:
    zoned = lookup(Zoned, tolerance="1h")
    table = pl.DataFrame({"at": [NOON], "wind": [5.0]}).with_columns(pl.col("at").dt.replace_time_zone("UTC"))
    local = pl.DataFrame({"time": [NOON]}).with_columns(
        pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    )
    assert join(local, table, zoned)[0]["side_wind"].to_list() == [5.0]


HOURS = st.integers(0, 12).map(lambda hour: NOON + timedelta(minutes=30 * hour))
KEYS = st.sampled_from(["JFK", "LGA", None])


@given(
    rows=st.lists(st.tuples(HOURS | st.none(), KEYS), max_size=12),
    table=st.lists(st.tuples(HOURS, KEYS, st.floats(0, 9) | st.none()), max_size=12, unique_by=lambda row: row[:2]),
)
def test_it_finds_what_looking_through_all_rows_finds(
    rows: list[tuple[datetime | None, str | None]], table: list[tuple[datetime, str | None, float | None]]
) -> None:
    def best(time: datetime | None, origin: str | None) -> tuple[bool, float | None]:
        known = [
            (at, wind)
            for at, station, wind in table
            if time is not None
            and origin is not None
            and station == origin
            and time - timedelta(hours=3) <= at <= time - timedelta(hours=1)
        ]
        return (True, max(known, key=lambda each: each[0])[1]) if known else (False, None)

    joined, matched = join(events(*rows), readings(*table))
    assert list(zip(matched.to_list(), joined["side_wind"].to_list(), strict=True)) == [best(*each) for each in rows]


FIRST = date(2025, 1, 1)


def test_the_days_that_count_begin_where_the_tolerance_ends() -> None:
    side = lookup(Zoned, tolerance="6h")
    assert side.days("2025-03-05", "America/New_York", FIRST) == ["2025-03-04", "2025-03-05"]
    assert lookup(Zoned, tolerance="2d").days("2025-03-05", "UTC", FIRST) == ["2025-03-03", "2025-03-04", "2025-03-05"]


def test_a_day_of_23_hours_lets_one_day_more_count() -> None:
    day = lookup(Zoned, tolerance="24h").days("2025-03-10", "America/New_York", FIRST)
    assert day == ["2025-03-08", "2025-03-09", "2025-03-10"], "the ninth has no two o'clock"
    naive = lookup(Readings, by={"origin": "station"}, tolerance="24h")
    assert naive.days("2025-03-10", "America/New_York", FIRST) == ["2025-03-09", "2025-03-10"]


def test_no_day_before_the_calendar_counts() -> None:
    assert lookup(Zoned, tolerance="3d").days("2025-01-02", "UTC", FIRST) == ["2025-01-01", "2025-01-02"]


def test_too_many_unmatched_rows_are_refused_with_the_numbers() -> None:
    side = {"wind": lookup(Zoned, max_unmatched=0.1)}
    assert refused(side, {"wind": 10}, 100) is None
    assert refused(side, {"wind": 0}, 0) is None
    told = str(refused(side, {"wind": 11}, 100))
    assert "11 of 100 rows (11.0%)" in told
    assert "'wind'" in told
    assert "max_unmatched is 10.0%" in told
