"""Aggregates of an entity's past equal what looking through all rows finds, whichever days are made together."""

import math
import statistics
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contract import Contract
from ml_assets.digests import digest_of_frame
from ml_assets.ml.groups import DAY, KNOWN, Group, Known, aggregate
from ml_assets.ml.joins import AVAILABLE_AT
from ml_assets.spec.tables import GroupSpec

FIRST = date(2025, 3, 1)
ALL = ["count", "sum", "mean", "min", "max", "std", "days_since_last"]


class Rides(pa.DataFrameModel):
    ride: str = pa.Field(metadata={"role": "key"})
    at: pl.Datetime = pa.Field(metadata={"role": ["key", "event_time"]})
    driver: str = pa.Field(metadata={"role": "entity"})
    late: float = pa.Field(nullable=True, metadata={"role": "target"})


CONTRACT = Contract.read(Rides, "contract.py")


def group(**spec: Any) -> Group:
    declared = {"name": "past", "entity": "driver", "aggregates": {"late": ALL}, "windows": ["1d", "3d"], "delay": "2h"}
    return Group(GroupSpec.model_validate(declared | spec), CONTRACT)


Report = tuple[str, str | None, int, int, float | None]  # ride, driver, day, order within it, value


def known(reports: list[Report], *, revised: bool = True) -> Known:
    schema = {"ride": pl.String, "driver": pl.String, DAY: pl.Int64, KNOWN: pl.Int64, "late": pl.Float64}
    rows = pl.DataFrame(reports, schema=schema, orient="row").with_columns(
        (pl.lit(FIRST) + pl.duration(days=DAY)).cast(pl.Date).alias(DAY), pl.from_epoch(KNOWN).alias(KNOWN)
    )
    return Known(["late"], ["ride"], rows, revised)


def made(reports: list[Report], days: list[int], **spec: Any) -> pl.DataFrame:
    return aggregate(group(**spec), [known(reports)], [FIRST + timedelta(days=each) for each in days], "UTC")


def looked_through(reports: list[Report], day: int, window: int, driver: str) -> list[tuple[int, float]]:
    """Day and value of each ride of the driver of which a value was reported last within the window."""
    latest: dict[str, Report] = {}
    for each in sorted(reports, key=lambda report: (report[2], report[3])):
        if each[2] <= day:
            latest[each[0]] = each
    return [
        (when, value)
        for _, who, when, _, value in latest.values()
        if who == driver and when > day - window and value is not None
    ]


def close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, abs_tol=1e-9))


REPORTS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.just(None),
        st.integers(0, 7),
        st.integers(0, 10_000),
        st.none() | st.floats(-1e3, 1e3),
    ),
    max_size=25,
    unique_by=lambda report: report[3],
).map(lambda reports: [(ride, "xyz"["abcdef".index(ride) // 2], *rest) for ride, _, *rest in reports])


@settings(max_examples=150, deadline=None)
@given(reports=REPORTS)
def test_windows_hold_what_looking_through_all_reports_finds(reports: list[Report]) -> None:
    rows = {(row["driver"], (row[DAY] - FIRST).days): row for row in made(reports, list(range(12))).to_dicts()}
    for day in range(12):
        for driver in "xyz":
            row = rows.get((driver, day), {})
            found = {window: looked_through(reports, day, window, driver) for window in (1, 3)}
            assert row or not found[3], "an entity with anything in its windows has a row"
            for window, inside in found.items() if row else ():
                values = [value for _, value in inside]
                got = {each: row[f"late_{each}_{window}d"] for each in ALL if each != "days_since_last"}
                assert got["count"] == len(values)
                assert got["min"] == min(values, default=None)
                assert got["max"] == max(values, default=None)
                assert close(got["sum"], math.fsum(values) if values else None)
                assert close(got["mean"], statistics.fmean(values) if values else None)
                assert (got["std"] is None) == (len(values) < 2)
                if len(values) > 1:
                    assert math.isclose(got["std"], statistics.stdev(values), rel_tol=1e-9, abs_tol=1e-7)
            if row:
                assert row["late_days_since_last"] == min((day - when for when, _ in found[3]), default=None)


@settings(max_examples=50, deadline=None)
@given(reports=REPORTS, random=st.randoms(use_true_random=False))
def test_days_made_together_or_apart_of_reports_in_any_order_have_the_same_bits(
    reports: list[Report], random: Any
) -> None:
    together = made(reports, list(range(10)))
    random.shuffle(reports)
    apart = pl.concat([made(reports, [day]) for day in range(10)])
    assert digest_of_frame(together) == digest_of_frame(apart)


def test_an_entity_that_leaves_its_windows_gets_one_last_row_without_values() -> None:
    rows = made([("a", "x", 0, 0, 4.0)], [0, 1, 2, 3, 4])
    assert rows["late_count_3d"].to_list() == [1, 1, 1, 0], "and no row after that"
    assert rows["late_mean_3d"].to_list() == [4.0, 4.0, 4.0, None]
    assert rows["late_count_1d"].to_list() == [1, 0, 0, 0]


def test_values_can_be_used_after_the_end_of_the_local_day_and_the_delay() -> None:
    days = [date(2025, 3, 9), date(2025, 3, 10)]  # New York has summer time from the ninth on
    events = known([("a", "x", 8, 0, 4.0), ("b", "x", 9, 0, 4.0)])
    rows = aggregate(group(), [events], days, "America/New_York")
    assert rows[AVAILABLE_AT].to_list() == [datetime(2025, 3, 10, 6, tzinfo=UTC), datetime(2025, 3, 11, 6, tzinfo=UTC)]


def test_a_share_is_that_of_truth_values_and_a_row_without_its_entity_counts_for_nobody() -> None:
    rows = made(
        [("a", "x", 0, 0, 1.0), ("b", "x", 0, 1, 0.0), ("c", None, 0, 2, 1.0)], [0], aggregates={"late": ["share"]}
    )
    assert rows.height == 1
    assert rows["late_share_3d"].to_list() == [0.5]


def test_the_days_that_count_for_a_row_are_those_that_were_available_and_fresh() -> None:
    days = group(freshness="2d", delay="2h").days(date(2025, 3, 10), FIRST)
    assert days == [date(2025, 3, 6), date(2025, 3, 7), date(2025, 3, 8), date(2025, 3, 9)]
    assert group().days(date(2025, 3, 1), FIRST) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"windows": ["36h"]}, "window '36h' is no whole number of days"),
        ({"windows": ["7d", "7d"]}, "windows are to be different ones"),
        ({"entity": []}, "entity are to be different ones"),
        ({"aggregates": {"late": ["mean", "mean"]}}, "aggregates of 'late'"),
        ({"aggregates": {"late": ["median"]}}, "median"),
        ({"freshness": "12h"}, "set it to 1d at least"),
        ({"name": "features"}, "has the name of a table of the platform"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        group(**spec)
