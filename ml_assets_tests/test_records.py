"""What could not be made: refused by its data until something changes, or failed and tried again with growing waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.errors import (
    BatchContentError,
    BatchRefusedError,
    MlAssetsError,
    SourceError,
    SourceUnavailableError,
)
from ml_assets.lake import Lake
from ml_assets.records import Basis, Latest, Record, State, append_records, held, read_latest, writing

DAY, START = "2025-01-01", datetime(2025, 1, 1, tzinfo=UTC)
BASIS = Basis("inputs", "terms")


@pytest.mark.parametrize("error", [BatchRefusedError("6 of 10 rows"), BatchContentError("a.csv is empty")])
def test_what_its_data_refused_is_due_again_only_on_other_terms(error: MlAssetsError) -> None:
    latest = Latest([held("raw_data", DAY, BASIS.terms, error, None, "run")])
    later = datetime.now(UTC) + timedelta(days=365)
    assert latest.state("raw_data", DAY, BASIS, later) is State.REFUSED
    assert latest.state("raw_data", DAY, Basis("inputs", "other limits")) is State.DUE
    assert latest.state("features", DAY, BASIS) is State.DUE, "another asset was not refused"
    (problem,) = latest.problems().values()
    assert problem.lasting


@pytest.mark.parametrize(
    "error", [SourceUnavailableError("it does not answer"), SourceError("the credentials are refused")]
)
def test_what_the_source_did_not_give_is_tried_again_with_growing_waits_for_ever(error: MlAssetsError) -> None:
    record: Record | None = None
    waits = []
    for number in range(1, 8):
        record = replace(held("raw_data", DAY, BASIS.terms, error, record, "run"), recorded_at=START)
        latest = Latest([record])
        (problem,) = latest.problems().values()
        assert problem.lasting == (number >= 5), "from the fifth failure on it is a case for a person"
        waits.append(
            next(
                seconds
                for seconds in range(0, 3600, 5)
                if latest.state("raw_data", DAY, BASIS, START + timedelta(seconds=seconds)) is State.DUE
            )
        )
    assert waits == [30, 60, 120, 240, 900, 900, 900]


def test_a_partition_that_was_made_after_all_is_no_problem_any_more() -> None:
    refused = replace(held("raw_data", DAY, "terms", BatchRefusedError("no"), None, "run"), recorded_at=START)
    made = Record("raw_data", DAY, "inputs", "content", 3, "run", recorded_at=START + timedelta(minutes=1))
    latest = Latest([refused, made])
    assert latest.problems() == {}
    assert latest.state("raw_data", DAY, BASIS) is State.FRESH


def test_the_record_that_was_made_last_counts_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for minutes in (2, 1, 3):
        written = Record("raw_data", DAY, str(minutes), "", 3, "run", recorded_at=START + timedelta(minutes=minutes))
        append_records(lake, "m", [written])
        record = read_latest(lake, "m").get("raw_data", DAY)
        assert record is not None
        assert record.inputs == str(max(2, minutes))


def test_what_a_step_adds_to_its_records_is_no_part_of_what_the_next_one_reads(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    append_records(lake, "m", [Record("raw_data", DAY, "inputs", "content", 3, "run")])
    read_latest(lake, "m").add([Record("raw_data", DAY, "others", "content", 3, "run")])
    record = read_latest(lake, "m").get("raw_data", DAY)
    assert record is not None
    assert record.inputs == "inputs"


def test_a_partition_is_unfinished_until_it_is_recorded_however_the_records_were_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    append_records(lake, "m", [Record("raw_data", DAY, "inputs", "content", 3, "run")])
    assert read_latest(lake, "m").unfinished("raw_data") == []
    append_records(lake, "m", [writing("raw_data", DAY, "run")])
    assert read_latest(lake, "m").unfinished("raw_data") == [DAY]
    append_records(lake, "m", [Record("raw_data", DAY, "inputs", "content", 3, "run")])
    assert read_latest(lake, "m").unfinished("raw_data") == []
