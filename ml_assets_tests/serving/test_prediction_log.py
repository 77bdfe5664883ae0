"""The queue between requests and the log's files: bounded, drained by a thread, and no loss is silent."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from ml_assets.serving.journal import Entry, segments
from ml_assets.serving.prediction_log import FRAME_ENTRIES, NotLoggedError, PredictionLog
from ml_assets_tests.project import wait_until

NOON = 1_767_268_800_000_000  # of the first of January 2026
DAY = 86_400_000_000


def entry(number: int, at: int = NOON) -> Entry:
    return Entry(at + number, str(number), 200, "1", "1-abc", 0.001, body=b"x" * 100)


def ids(folder: Path) -> list[str]:
    return [each.id for segment in segments(folder) for each in segment.read().entries]


def lost(folder: Path) -> int:
    return sum(segment.read().lost for segment in segments(folder))


def test_entries_come_to_the_files_of_their_model_and_day(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.start()
    for number in range(2 * FRAME_ENTRIES + 1):
        assert log.append("a", entry(number))
    assert log.append("b", entry(0, NOON + DAY))
    assert log.append("b", entry(1, NOON)), "it was received before midnight and answered after it"
    log.close()
    assert ids(tmp_path / "a") == [str(number) for number in range(2 * FRAME_ENTRIES + 1)]
    assert [(each.day, each.count) for each in segments(tmp_path / "b")] == [("2026-01-01", 1), ("2026-01-02", 1)]
    assert log.health() == {"mode": "on", "waiting": 0, "logged": 2 * FRAME_ENTRIES + 3, "lost": 0}


@pytest.mark.parametrize("bound", [{"most_entries": 3}, {"most_bytes": 500}])
def test_what_finds_no_room_is_dropped_and_counted_in_the_files_too(tmp_path: Path, bound: dict[str, int]) -> None:
    log = PredictionLog(tmp_path, **bound)
    assert [log.append("a", entry(number)) for number in range(5)] == [True] * 3 + [False] * 2
    assert (log.waiting, log.lost) == (3, {"a": 2})
    log.start()
    log.close()
    assert ids(tmp_path / "a") == ["0", "1", "2"]
    assert lost(tmp_path / "a") == 2


def test_segments_are_finished_by_size_and_by_time(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, segment_bytes=1000, segment_seconds=0.3)
    log.start()
    for number in range(40):
        log.append("a", entry(number))
        time.sleep(0.005)
    full = [each for each in segments(tmp_path / "a") if each.count]
    assert full, "by size, while it is asked"
    wait_until(lambda: all(each.count for each in segments(tmp_path / "a")), 5, "the last one is finished by time")
    assert sorted(ids(tmp_path / "a"), key=int) == [str(number) for number in range(40)]
    log.close()


def test_a_disk_that_fails_is_counted_and_said_and_taken_up_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_text("no folder")
    log = PredictionLog(tmp_path)
    log.start()
    for number in range(3):
        assert log.append("a", entry(number)), "no request waits for the disk"
    wait_until(lambda: log.lost == {"a": 3}, 5, "what could not be written is counted")
    assert "File exists" in log.health()["error"]
    assert [each.message for each in caplog.records] == [
        f"prediction log: 3 requests more were not logged (the disk says: {log.health()['error']})"
    ]
    (tmp_path / "a").unlink()
    time.sleep(1.1)
    log.append("a", entry(3))
    log.close()
    assert ids(tmp_path / "a") == ["3"]
    assert lost(tmp_path / "a") == 3
    assert "error" not in log.health()


def test_durably_means_on_the_disk_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", lambda handle: synced.append(len(ids(tmp_path / "a"))))

    async def many(log: PredictionLog) -> list[Any]:
        waiting = [log.append_durably("a", entry(number)) for number in range(20)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    log = PredictionLog(tmp_path, durable=True)
    log.start()
    assert asyncio.run(many(log)) == [None] * 20
    assert synced[-1] == 20, "all were written before the last fsync"
    assert len(synced) < 20, "requests that wait share one"
    log.close()
    (tmp_path / "b").write_text("no folder")
    broken = PredictionLog(tmp_path / "b", durable=True, most_entries=5)
    broken.start()
    failed = asyncio.run(many(broken))
    assert all(isinstance(each, NotLoggedError) for each in failed)
    assert {"is full" in str(each) for each in failed} == {True, False}
    assert broken.lost == {"a": 20}
    broken.close()
