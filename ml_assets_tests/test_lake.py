import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import polars as pl
import pytest

from ml_assets.appended import Appended
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


def test_a_table_whose_first_commit_was_cut_short_by_a_kill_is_none_and_can_be_made(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for table in ("t", "batches"):
        log = lake.path("m", table) / "_delta_log"
        log.mkdir(parents=True)
        (log / "00000000000000000000.json#1").write_text("{")  # what it is written as before it gets its name
        assert not lake.exists("m", table)
        assert lake.read("m", table).is_empty()
    lake.replace("m", "t", rows("a", 1), ["a"])
    lake.append("m", "batches", rows("a", 1))
    assert lake.read("m", "t").height == lake.read("m", "batches").height == 1


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


def test_a_column_of_another_type_changes_the_whole_table_and_loses_no_value(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    old = pl.concat([rows("a", 1), rows("b", 2)]).with_columns(gone=pl.lit("x"))
    before = lake.replace("m", "t", old, ["a", "b"])
    lake.replace("m", "t", pl.DataFrame({"x": [1.5], PARTITION: ["a"]}), ["a"])
    assert lake.read("m", "t").sort(PARTITION).select("x", PARTITION).rows() == [(1.5, "a"), (2.0, "b")]
    assert "gone" not in lake.read("m", "t").columns
    assert lake.read("m", "t", version=before).height == 2
    lake.replace("m", "t", rows("b", 3).with_columns(pl.col("x").cast(pl.Float64)), ["b"], exact=False)
    lake.replace("m", "t", rows("b", 3).select(PARTITION), ["b"], exact=False)
    assert lake.read("m", "t", ["a"])["x"].to_list() == [1.5]


@pytest.mark.parametrize(
    "kind", [pl.UInt32, pl.Datetime("ms"), pl.Datetime("us", "Europe/Berlin"), pl.Date, pl.Boolean]
)
def test_a_type_that_delta_stores_otherwise_is_no_other_table(tmp_path: Path, kind: pl.DataType) -> None:
    lake = Lake(tmp_path)
    for partition in ("a", "b"):
        lake.replace("m", "t", rows(partition, 1).with_columns(pl.col("x").cast(kind)), [partition])
    assert lake.read("m", "t").height == 2
    history = deltalake.DeltaTable(lake.path("m", "t")).history()
    assert "predicate" in history[0]["operationParameters"], "only the partition was replaced"


def test_what_arrived_in_two_types_is_kept_in_one_that_holds_both_and_other_columns_stay(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    numbers = pl.DataFrame({"x": [1.5, 2.5], "extra": ["e", "f"], PARTITION: ["a", "b"]})
    texts = pl.DataFrame({"x": ["far"], PARTITION: ["c"]})
    before = lake.replace("m", "t", numbers, ["a", "b"], exact=False)
    after = lake.replace("m", "t", texts, ["c"], exact=False)
    assert after == before + 1, "one commit"
    read = lake.read("m", "t").sort(PARTITION).select("x", "extra").rows()
    assert read == [("1.5", "e"), ("2.5", "f"), ("far", None)]
    assert lake.read("m", "t", version=before).sort(PARTITION)["x"].to_list() == [1.5, 2.5]
    lake.replace("m", "t", numbers.head(1), ["a"], exact=False)
    assert sorted(lake.read("m", "t")["x"]) == ["1.5", "2.5", "far"]
    history = deltalake.DeltaTable(lake.path("m", "t")).history(1)
    assert "predicate" in history[0]["operationParameters"], "only the partition was replaced"


def test_a_table_of_many_partitions_is_rewritten_in_one_commit(tmp_path: Path) -> None:
    lake, days = Lake(tmp_path), [f"{number:02}" for number in range(20)]
    old = pl.concat(rows(day, number, -number) for number, day in enumerate(days))
    before = lake.replace("m", "t", old, days)
    after = lake.replace("m", "t", pl.DataFrame({"x": [0.5], PARTITION: ["07"]}), ["07"])
    assert after == before + 1
    expected = {day: [0.5] if day == "07" else [-float(number), float(number)] for number, day in enumerate(days)}
    read = {
        key[0]: sorted(part["x"]) for key, part in lake.read("m", "t").partition_by(PARTITION, as_dict=True).items()
    }
    assert read == expected
    assert lake.read("m", "t", version=before).equals(lake.read("m", "t", days, version=before))
    assert lake.read("m", "t", version=before)["x"].sum() == 0


def age(table: Path, days: int) -> None:
    """Make the table's log look as if it had been written some days ago."""
    then = time.time() - days * 86_400
    for entry in (table / "_delta_log").iterdir():
        if entry.suffix == ".json":
            actions = [json.loads(line) for line in entry.read_text().splitlines()]
            for each in actions:
                if "commitInfo" in each:
                    each["commitInfo"]["timestamp"] = int(then * 1000)
            entry.write_text("\n".join(map(json.dumps, actions)))
        os.utime(entry, (then, then))


def test_a_version_stays_readable_through_two_hundred_later_ones_and_forty_days(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    named = [lake.replace("m", "t", rows("a", number), ["a"]) for number in range(150)]
    age(lake.path("m", "t"), days=40)
    for number in range(150, 220):
        lake.replace("m", "t", rows("a", number), ["a"])
    table = lake.path("m", "t")
    checkpoints = sorted((table / "_delta_log").glob("*.checkpoint.parquet"))
    assert checkpoints[-1].stat().st_mtime > time.time() - 86_400, "a checkpoint was made when the log was old"
    for number in (0, 7, 149):
        assert lake.read("m", "t", version=named[number])["x"].to_list() == [number]


def test_ageing_as_above_does_remove_versions_of_a_table_without_our_settings(tmp_path: Path) -> None:
    for number in range(220):
        deltalake.write_deltalake(
            tmp_path, rows("a", number), mode="overwrite", configuration={"delta.checkpointInterval": "100"}
        )
        if number == 149:
            age(tmp_path, days=40)
    with pytest.raises(Exception, match="No files in log segment"):
        pl.read_delta(str(tmp_path), version=7)


def test_what_another_process_wrote_is_seen(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.replace("m", "t", rows("a", 1), ["a"])
    for number in range(2, 25):  # past some checkpoints
        deltalake.write_deltalake(lake.path("m", "t"), rows("a", number), mode="append")
        assert lake.read("m", "t")["x"].sum() == sum(range(number + 1))


@pytest.mark.parametrize("later", [0, 1, 3])
def test_an_older_state_that_was_put_back_in_its_place_is_seen(tmp_path: Path, later: int) -> None:
    lake = Lake(tmp_path)
    lake.replace("m", "t", rows("a", 1), ["a"])
    kept = {each: each.read_bytes() for each in lake.path("m", "t").rglob("*") if each.is_file()}
    lake.replace("m", "t", rows("a", 2), ["a"])
    lake.append("m", "t", rows("b", 3))
    for each in [each for each in lake.path("m", "t").rglob("*") if each.is_file() and each not in kept]:
        each.unlink()
    for _ in range(later):  # and somebody else went on from there, to the same version or beyond it
        deltalake.write_deltalake(lake.path("m", "t"), rows("c", 10), mode="append")
    assert lake.read("m", "t")["x"].sum() == 1 + 10 * later
    assert lake.version("m", "t") == later


def test_another_table_in_the_place_of_one_is_seen(tmp_path: Path) -> None:
    lake, known = Lake(tmp_path), Appended(0, lambda before, new: before + int(new["x"].sum()))
    for number in (1, 2):
        lake.append("m", "t", rows("a", number))
        assert (known.of(lake, "m", "t"), lake.read("m", "t")["x"].sum()) == (number, number)
        shutil.rmtree(lake.path("m", "t"))
        assert (known.of(lake, "m", "t"), lake.version("m", "t")) == (0, None)


def test_threads_that_append_to_one_table_lose_nothing_of_each_other(tmp_path: Path) -> None:
    lake, known = Lake(tmp_path), Appended(0, lambda before, new: before + new.height)
    lake.append("m", "t", rows("a", 0))

    def append(number: int) -> None:
        lake.append("m", "t", rows("a", number))
        known.of(lake, "m", "t")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(append, range(1, 25)))
    assert sorted(lake.read("m", "t")["x"]) == list(range(25))
    assert known.of(lake, "m", "t") == 25


def test_what_is_known_of_a_growing_table_is_what_all_its_rows_say(tmp_path: Path) -> None:
    lake, known = Lake(tmp_path), Appended(0, lambda before, new: before + int(new["x"].sum()))
    for number in range(60):  # its files become one in between
        lake.append("m", "t", rows("a", number).with_columns(pl.lit("new").alias(f"y{number % 2}")))
        assert known.of(lake, "m", "t") == lake.read("m", "t")["x"].sum() == sum(range(number + 1))
    assert len(lake.files("m", "t")) < 60
