import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import pandera.polars as pa
import polars as pl
import pytest

from ml_assets.contract import Contract
from ml_assets.digests import digest_of_frame
from ml_assets.errors import SourceError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.cleaning import Cleaned, clean, read_rows
from ml_assets.sources import Calendar, open_source
from ml_assets.sources.feed import DifferentTypesError, Feed, read_partitions, survey
from ml_assets.spec.sources import FilesSource

CALENDAR = Calendar("at", "America/New_York", date(2025, 1, 2))
UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Rows(pa.DataFrameModel):
    at: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]})
    km: float = pa.Field(metadata={"role": "request"})
    late: bool = pa.Field(metadata={"role": "target"})


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2025, 1, day, hour, tzinfo=UTC)


def frame(*times: datetime | None) -> pl.DataFrame:
    size = len(times)
    return pl.DataFrame(
        {"at": times, "km": [1.0] * size, "late": [True] * size}, schema_overrides={"at": pl.Datetime("us", "UTC")}
    )


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    (tmp_path / "landing").mkdir()
    source = open_source(FilesSource(kind="files", uri=f"{tmp_path}/landing/*.parquet"), "demo: source")
    return Feed("demo", "raw_data", source, Contract.read(Rows, "demo"), CALENDAR)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def land(tmp_path: Path, name: str, *times: datetime | None) -> None:
    frame(*times).write_parquet(tmp_path / "landing" / f"{name}.parquet")


def test_a_day_is_a_local_day_and_a_batch_may_touch_several(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    land(tmp_path, "a", at(3), at(4, 3), at(5))
    found = survey(feed, lake)
    assert {day: found.rows(day) for day in found.partitions} == {"2025-01-03": 2, "2025-01-05": 1}
    rows = read_partitions(feed, found, ["2025-01-03"])
    assert rows["at"].to_list() == [at(3), at(4, 3)]
    assert rows["_row"].to_list() == [0, 1]


def test_rows_without_a_day_stay_with_their_batchs_first_day_and_are_marked(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    land(tmp_path, "a", at(3), None, at(1), datetime(2199, 1, 1, tzinfo=UTC))
    found = survey(feed, lake)
    assert list(found.partitions) == ["2025-01-03"]
    rows = read_partitions(feed, found, ["2025-01-03"])
    assert rows["_stray"].to_list() == [False, True, True, True]


def test_a_day_is_made_of_all_batches_that_touch_it_and_its_fingerprint_follows_each(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    land(tmp_path, "a", at(3), at(4))
    before = survey(feed, lake)
    land(tmp_path, "b", at(4))
    after = survey(feed, lake)
    assert after.fingerprint("2025-01-03") == before.fingerprint("2025-01-03")
    assert after.fingerprint("2025-01-04") != before.fingerprint("2025-01-04")
    assert read_partitions(feed, after, ["2025-01-04"])["_source"].to_list() == ["a.parquet", "b.parquet"]
    assert PARTITION in read_partitions(feed, after, ["2025-01-09"]).columns


def test_a_batch_that_cannot_be_read_any_more_blocks_the_days_that_it_touched(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    land(tmp_path, "a", at(3))
    land(tmp_path, "b", at(4))
    survey(feed, lake)
    (tmp_path / "landing" / "a.parquet").write_bytes(b"garbage")
    found = survey(feed, lake)
    assert set(found.blocked) == {"2025-01-03"}
    assert "a.parquet cannot be read" in found.blocked["2025-01-03"]
    assert "2025-01-04" in found.partitions


def test_a_column_that_arrives_in_another_type_is_taken_without_loss_or_refused(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    frame(at(3)).with_columns(km=pl.lit("2.5")).write_parquet(tmp_path / "landing" / "a.parquet")
    rows = read_partitions(feed, survey(feed, lake), ["2025-01-03"])
    assert rows["km"].to_list() == [2.5]
    frame(at(3)).with_columns(km=pl.lit("far")).write_parquet(tmp_path / "landing" / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet: column 'km' arrived as String with 'far', the contract says"):
        read_partitions(feed, survey(feed, lake), ["2025-01-03"])


def test_a_missing_column_is_named_with_those_that_are_there(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    frame(at(3)).drop("km").write_parquet(tmp_path / "landing" / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet lacks the column 'km' of the contract; it has at, late"):
        read_partitions(feed, survey(feed, lake), ["2025-01-03"])


def test_another_calendar_is_another_reading_of_the_same_batches(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    land(tmp_path, "a", at(1), at(3), at(4))
    before = survey(feed, lake)
    assert {day: before.rows(day) for day in before.partitions} == {"2025-01-03": 2, "2025-01-04": 1}
    earlier = survey(replace(feed, calendar=replace(CALENDAR, first=date(2025, 1, 1))), lake)
    assert {day: earlier.rows(day) for day in earlier.partitions} == dict.fromkeys(
        ["2025-01-01", "2025-01-03", "2025-01-04"], 1
    )
    assert earlier.fingerprint("2025-01-03") != before.fingerprint("2025-01-03")
    shorter = survey(replace(feed, calendar=replace(CALENDAR, last=date(2025, 1, 3))), lake)
    assert {day: shorter.rows(day) for day in shorter.partitions} == {"2025-01-03": 3}


def test_a_row_of_the_future_is_looked_for_again_and_outcomes_after_the_end_belong_to_the_last_day(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    land(tmp_path, "a", at(3), datetime(2199, 1, 1, tzinfo=UTC))
    survey(feed, lake)
    assert lake.read("demo", "surveys").is_empty(), "not settled, so not remembered"
    closed = replace(feed, calendar=replace(CALENDAR, last=date(2025, 1, 4), clip=True))
    found = survey(closed, lake)
    assert {day: found.rows(day) for day in found.partitions} == {"2025-01-03": 1, "2025-01-04": 1}


def test_columns_that_the_contract_does_not_know_are_kept_as_text(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    for name, value in (("a", 7), ("b", "A0"), ("c", [1, 2])):
        frame(at(3)).with_columns(voucher=pl.Series([value])).write_parquet(tmp_path / "landing" / f"{name}.parquet")
    rows = read_partitions(feed, survey(feed, lake), ["2025-01-03"])
    assert rows["voucher"].to_list() == ["7", "A0", "[1, 2]"]


def test_a_column_that_was_renamed_is_named_with_its_likely_new_name(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    for old, new in (("km", "KM_"), ("km", "distance"), ("at", "At")):
        frame(at(3)).rename({old: new}).write_parquet(tmp_path / "landing" / "a.parquet")
        with pytest.raises(
            SourceError, match=rf"lacks the column '{old}' \(perhaps renamed to '{new}'\) of the contract"
        ):
            refused(feed, lake)


def refused(feed: Feed, lake: Lake) -> None:
    found = survey(feed, lake)
    for reason in found.unreadable.values():
        raise SourceError(reason)
    read_partitions(feed, found, ["2025-01-03"])


def test_what_differs_from_the_contract_and_is_taken_nevertheless_is_told(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    land(tmp_path, "a", at(3))
    other = frame(at(3)).select(
        "late", pl.col("at").cast(pl.Datetime("ms", "UTC")), km=pl.lit("5.00E+05"), more=pl.lit(1)
    )
    other.write_parquet(tmp_path / "landing" / "b.parquet")
    found = survey(feed, lake)
    assert read_partitions(feed, found, ["2025-01-03"])["km"].to_list() == [1.0, 500_000.0]
    assert list(found.drift) == ["b.parquet"]
    new, order, time, number = found.drift["b.parquet"]
    assert new.startswith("new column 'more'")
    assert order == "columns in another order than the contract's: late, at, km"
    assert time.startswith("column 'at' arrived as Datetime(time_unit='ms'")
    assert number.startswith("column 'km' arrived as text, the contract says Float64")


def test_columns_in_another_order_or_with_blanks_around_their_names_change_nothing(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    path, read = tmp_path / "landing" / "a.parquet", []
    for each in (
        frame(at(3)),
        frame(at(3)).select("late", "km", "at"),
        frame(at(3)).rename({"at": " at ", "km": "km "}),
    ):
        each.write_parquet(path)
        read.append(digest_of_frame(read_partitions(feed, survey(feed, lake), ["2025-01-03"])))
    assert len(set(read)) == 1


@pytest.mark.parametrize(
    ("km", "said"),
    [
        (pl.Series([2**53 + 1]), "arrived as Int64 with 9007199254740993, the contract says Float64"),
        (pl.Series([[1.5]]), r"arrived as List\(Float64\)"),
        (pl.Series(["1,5"]), "arrived as String with '1,5'"),
    ],
)
def test_a_typed_value_that_would_change_refuses_the_batch(
    feed: Feed, lake: Lake, tmp_path: Path, km: pl.Series, said: str
) -> None:
    frame(at(3)).with_columns(km=km).write_parquet(tmp_path / "landing" / "a.parquet")
    with pytest.raises(SourceError, match=rf"a.parquet: column 'km' {said}"):
        read_partitions(feed, survey(feed, lake), ["2025-01-03"])


def test_a_batch_that_cannot_be_read_is_not_read_at_every_tick_and_is_found_when_it_is_mended(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "landing" / "a.parquet"
    path.write_bytes(b"PAR1 garbage")
    (batch,) = survey(feed, lake, certain=False).unreadable
    assert feed.unread[batch].failures == 1
    for _ in range(3):
        assert "cannot be read as parquet" in survey(feed, lake, certain=False).unreadable[batch]
    assert feed.unread[batch].failures == 1, "a tick every few seconds reads nothing"
    survey(feed, lake)
    assert feed.unread[batch].failures == 2, "who starts work reads it again"
    land(tmp_path, "a", at(3))
    found = survey(feed, lake, certain=False)
    assert found.unreadable == {}
    assert set(found.partitions) == {"2025-01-03"}


def test_an_infinite_number_holds_up_no_batch_because_its_row_is_rejected_later(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    typed = frame(at(3), at(3, 13), at(3, 14)).with_columns(km=pl.Series([1.0, float("inf"), float("nan")]))
    typed.write_parquet(tmp_path / "landing" / "a.parquet")
    rows = read_partitions(feed, survey(feed, lake), ["2025-01-03"])
    done = clean(read_rows(rows, feed.contract, place="m"), feed.contract, place="m")["2025-01-03"]
    assert isinstance(done, Cleaned)
    assert done.rows["km"].to_list() == [1.0]
    assert [json.loads(each)[0]["check"] for each in done.rejected["reasons"]] == ["is a Float64", "not_nullable"]


def test_typed_numbers_beside_text_with_another_decimal_mark_are_read_as_what_they_are(
    feed: Feed, lake: Lake, tmp_path: Path
) -> None:
    uri = f"{tmp_path}/landing/*"
    source = open_source(FilesSource.model_validate({"kind": "files", "uri": uri, "csv": {"decimal": ","}}), "demo")
    feed = replace(feed, source=source)
    frame(at(3)).with_columns(km=pl.Series([1.5])).write_parquet(tmp_path / "landing" / "a.parquet")
    text = frame(at(3, 13), at(4)).with_columns(km=pl.lit("2,5"))
    text.write_csv(tmp_path / "landing" / "b.csv", datetime_format="%FT%TZ")
    found, kilometres = survey(feed, lake), []
    for day in ("2025-01-03", "2025-01-04"):
        read = read_rows(read_partitions(feed, found, [day]), feed.contract, decimal=",", place="demo")
        assert read.reasons.is_empty()
        kilometres += read.parsed["km"].to_list()
    assert kilometres == [1.5, 2.5, 2.5]


def test_days_with_batches_of_different_types_are_read_one_by_one(feed: Feed, lake: Lake, tmp_path: Path) -> None:
    """Or the types of a day, and so its digest, would depend on the days that it is made with."""
    source = open_source(FilesSource(kind="files", uri=f"{tmp_path}/landing/*"), "demo")
    feed = replace(feed, source=source)
    frame(at(3)).write_parquet(tmp_path / "landing" / "a.parquet")
    frame(at(4)).write_csv(tmp_path / "landing" / "b.csv", datetime_format="%FT%TZ")
    found = survey(feed, lake)
    with pytest.raises(DifferentTypesError):
        read_partitions(feed, found, ["2025-01-03", "2025-01-04"])
    types = [read_partitions(feed, found, [day]).schema["km"] for day in ("2025-01-03", "2025-01-04")]
    assert types == [pl.Float64, pl.String]
