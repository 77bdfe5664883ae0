"""Feature groups through the assets: nothing known later changes a feature, and only what changed is made again."""

from datetime import timedelta
from typing import Any

import polars as pl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ml_assets.assets.trained_model import training_inputs
from ml_assets.lake import PARTITION
from ml_assets.records import read_latest
from ml_assets_tests.rides import DAYS, Place, Row, noon, place

RIDES = [
    {"ride": ride, "at": noon(day), "km": float(day), "known": None, "late": None} for day in DAYS for ride in "ab"
]
REPORTS = [
    {"ride": ride, "at": None, "km": None, "known": noon(day), "late": day % 2 == 0}
    for ride, day in [("b", 2), ("a", 2), ("a", 3), ("a", 4)]
]


def land(rides: Place, rows: list[Row], reports: list[Row]) -> None:
    rides.put("rides/0.parquet", rows)
    rides.put("outcomes/0.parquet", reports)
    rides.refresh()


def features(rides: Place, until: int) -> dict[str, str]:
    """Content of the features of each day of January up to one."""
    return {day: each for day, each in rides.contents()["features"].items() if day <= f"2025-01-{until:02}"}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, len(RIDES) + len(REPORTS) - 1),
    value=st.sampled_from([9.5, 11.0, 12.25]),
    cut_off=st.sampled_from(list(DAYS)),
)
def test_what_became_known_after_a_day_changes_nothing_of_it(which: int, value: float, cut_off: int) -> None:
    rows, reports = [dict(each) for each in RIDES], [dict(each) for each in REPORTS]
    changed: dict[str, Any] = [*rows, *reports][which]
    known = changed["known"] if which >= len(rows) else changed["at"]
    # The rows of a day are seen by their own features; its outcomes, and rows of later days, by those of later days.
    assume(known > noon(cut_off) if which < len(rows) else known >= noon(cut_off))
    with place(own_outcomes=True) as before, place(own_outcomes=True) as after:
        land(before, RIDES, REPORTS)
        if which >= len(rows):
            changed["late"] = not changed["late"]
        else:
            changed["km"] = value
        land(after, rows, reports)
        assert features(before, cut_off) == features(after, cut_off)
        assert before.contents()["history"] != after.contents()["history"], "and it does change what comes after"


def test_what_was_known_before_a_day_changes_its_features_and_asks_for_a_training() -> None:
    with place(own_outcomes=True) as rides:
        land(rides, RIDES, REPORTS)
        before = rides.contents()
        trained = training_inputs(rides.model, read_latest(rides.lake, "rides"))
        land(rides, RIDES, [REPORTS[0] | {"late": False}, *REPORTS[1:]])  # reported on the second
        after = rides.contents()
        assert [day for day in before["history"] if before["history"][day] != after["history"][day]] == [
            "2025-01-02",
            "2025-01-03",
        ], "windows of two days"
        changed = [day for day in before["features"] if before["features"][day] != after["features"][day]]
        assert changed == ["2025-01-03", "2025-01-04"]
        assert rides.refresh() == []
        assert training_inputs(rides.model, read_latest(rides.lake, "rides")) != trained


def test_a_row_gets_the_latest_values_that_were_available() -> None:
    with place(own_outcomes=True) as rides:
        early = [each | {"at": each["at"] - timedelta(hours=11, minutes=30)} for each in RIDES]  # half past midnight
        land(rides, early, REPORTS)
        rows = rides.lake.read("rides", "features").filter(pl.col("ride") == "a").sort(PARTITION)
        counted = rows["history_km_count_1d"].to_list()
        assert counted == [None, None, 1.0, 1.0], "the day before counts from one o'clock on"
        assert rows["history_km_sum_2d"].to_list() == [None, None, 1.0, 3.0]
        assert rows["history_late_share_1d"].to_list() == [None, None, None, 1.0]


def test_a_new_day_makes_only_itself_and_a_deleted_one_what_reached_it() -> None:
    with place(own_outcomes=True) as rides:
        last = noon(DAYS[-1])
        land(rides, [each for each in RIDES if each["at"] != last], REPORTS)
        versions = rides.versions()["history"]
        rides.put("rides/9.parquet", [each for each in RIDES if each["at"] == last])
        assert rides.refresh() == [["2025-01-04"]]
        records = read_latest(rides.lake, "rides").of("history")
        assert {day: each.version == versions for day, each in records.items()} == {
            "2025-01-01": True,
            "2025-01-02": True,
            "2025-01-03": True,
            "2025-01-04": False,
        }
        with_it = rides.tables()["history"]
        rides.put("rides/9.parquet", None)
        rides.refresh()
        assert [each[PARTITION] for each in rides.tables()["history"]] == [
            each[PARTITION] for each in with_it if each[PARTITION] != "2025-01-04"
        ]
