from pathlib import Path

import polars as pl
import pytest

from ml_assets.lake import PARTITION, Lake
from ml_assets.records import Record, append_records, read_latest


def rows(partition: str, *values: int) -> pl.DataFrame:
    return pl.DataFrame({"x": values, PARTITION: [partition] * len(values)}, schema_overrides={"x": pl.Int64})


def test_a_partition_is_replaced_as_a_whole_and_earlier_versions_stay_readable(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.read("m", "t").is_empty()
    first = lake.replace("m", "t", pl.concat([rows("a", 1, 2), rows("b", 3)]), ["a", "b"])
    second = lake.replace("m", "t", rows("a", 9), ["a"])
    assert lake.read("m", "t", ["a"])["x"].to_list() == [9]
    assert lake.read("m", "t", ["b"])["x"].to_list() == [3]
    assert sorted(lake.read("m", "t", version=first)["x"]) == [1, 2, 3]
    assert lake.version("m", "t") == second


def test_a_partition_without_rows_becomes_empty_and_a_new_column_is_taken_up(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.replace("m", "t", pl.concat([rows("a", 1), rows("b", 2)]), ["a", "b"])
    lake.replace("m", "t", rows("a"), ["a"])
    lake.replace("m", "t", rows("b", 5).with_columns(y=pl.lit("new")), ["b"])
    assert lake.read("m", "t").select("x", "y").rows() == [(5, "new")]


def test_rows_of_a_partition_that_is_not_to_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'b'"):
        Lake(tmp_path).replace("m", "t", rows("b", 1), ["a"])


def test_of_several_records_the_latest_counts(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for inputs in ("old", "new"):
        append_records(lake, "m", [Record("raw_data", "a", inputs, "c", 1, "run", details={"n": 1, "why": None})])
    latest = read_latest(lake, "m")
    record = latest.get("raw_data", "a")
    assert record is not None
    assert (record.inputs, record.details) == ("new", {"n": 1, "why": None})
    assert latest.get("features", "a") is None
