"""Two processes that make days of one model at the same time, such as a sensor's run and one from the command line."""

import threading
from typing import Any

import pytest

from ml_assets.lake import Lake
from ml_assets_tests.rides import Row, noon, place


def ride(name: str, day: int) -> Row:
    return {"ride": name, "at": noon(day), "km": 1.5, "known": noon(day), "late": True}


def test_no_row_is_lost_where_one_changes_the_type_of_a_table_into_which_the_other_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with place(own_outcomes=False) as there:
        there.put("rides/1.parquet", [ride("a", 1)])
        there.refresh()
        there.put("rides/2.csv", [ride("b", 2)])
        rewrite, others = Lake._rewrite, []

        def meanwhile(*given: Any, **options: Any) -> None:
            if not others:
                there.put("rides/3.parquet", [ride("c", 3)])
                others.append(threading.Thread(target=there.refresh))
                others[0].start()
                others[0].join(2)  # it ends, or waits for this one
            rewrite(*given, **options)

        monkeypatch.setattr(Lake, "_rewrite", meanwhile)
        there.refresh()
        others[0].join()
        there.refresh()
        for table in ("raw_data", "cleaned_data", "features"):
            assert [each["ride"] for each in there.tables()[table]] == ["a", "b", "c"], table
