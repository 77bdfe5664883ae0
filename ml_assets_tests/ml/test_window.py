from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_assets.durations import parse_duration
from ml_assets.ml.splits import Columns, split_rows
from ml_assets.ml.window import within
from ml_assets.spec.training import Split

NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moments", "window", "kept", "day"),
    [
        ([NOON, NOON - timedelta(hours=5), NOON - timedelta(hours=6)], "6h", [0, 1], "2025-03-10"),
        ([NOON.replace(tzinfo=None), None, datetime(2025, 3, 3, 13)], "7d", [0, 2], "2025-03-03"),
        ([date(2025, 3, 1), date(2025, 3, 2), date(2025, 3, 3)], "2d", [1, 2], "2025-03-01"),
        ([date(2025, 3, 3), date(2025, 3, 2)], "6h", [0], "2025-03-02"),
        ([None], "7d", [], None),
    ],
)
def test_rows_of_the_window(moments: list[Any], window: str, kept: list[int], day: str | None) -> None:
    rows = pl.DataFrame({"at": moments, "row": range(len(moments))})
    found = within(rows, "at", parse_duration(window))
    assert found.rows["row"].to_list() == kept
    assert found.left_out == len(moments) - len(kept)
    assert found.first_day("UTC") == day


def test_its_day_is_that_of_the_sources_time_zone() -> None:
    found = within(pl.DataFrame({"at": [NOON]}), "at", timedelta(hours=18))
    assert (found.first_day("UTC"), found.first_day("America/New_York")) == ("2025-03-09", "2025-03-09")
    assert found.first_day("Asia/Tokyo") == "2025-03-10"


def test_a_row_stays_on_its_side_while_the_window_moves_on() -> None:
    """Or a champion would be compared on rows that it was trained on."""
    rows = pl.DataFrame({"id": range(400), "at": [NOON + timedelta(hours=each) for each in range(400)]})
    sides: dict[int, str] = {}
    for newest in (200, 300, 400):
        frame = within(rows.head(newest), "at", timedelta(hours=150)).rows
        split = split_rows(frame, Split(by="random", test=0.3), Columns(["id"], "at"), "m")
        assert len(split.train) + len(split.test) == 150
        for side in ("train", "test"):
            for each in frame["id"].gather(getattr(split, side)):
                assert sides.setdefault(each, side) == side
