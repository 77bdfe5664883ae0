"""A source that fails is asked again with growing waits; a tick at which nothing changed costs no listing."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_assets.errors import SourceError
from ml_assets.records import failed
from ml_assets.sources import Batch
from ml_assets.sources import listing as module
from ml_assets.sources.listing import Listing, ListingFailedError
from ml_assets.spec.sources import FilesSource
from ml_assets.waits import MOST_ATTEMPTS


class Counting:
    """A source that counts how often it is listed, and fails while it is told to."""

    spec = FilesSource(kind="files", uri="/nowhere/*.csv", list_every="15m")
    place = "demo: source"

    def __init__(self) -> None:
        self.listed = 0
        self.down = False
        self.dirty = False

    def batches(self) -> list[Batch]:
        self.listed += 1
        if self.down:
            raise SourceError("demo: source: it does not answer")
        return [Batch("a.csv", str(self.listed))]

    def changed(self) -> bool:
        return self.dirty

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        raise NotImplementedError

    def address(self, batch: Batch) -> str:
        return batch.id


class Clock:
    """`datetime.now` of the module under test, moved by hand."""

    def __init__(self) -> None:
        self.time = datetime(2025, 1, 1, tzinfo=UTC)

    def now(self, zone: object) -> datetime:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "datetime", made)
    return made


def test_a_listing_is_kept_while_nothing_changed_and_not_for_ever(clock: Clock) -> None:
    source = Counting()
    listing = Listing(source)
    for _ in range(3):
        assert listing.batches(certain=False) == [Batch("a.csv", "1")]
    assert listing.batches() == [Batch("a.csv", "2")], "who starts work asks for certainty"
    source.dirty = True
    assert listing.batches(certain=False) == [Batch("a.csv", "3")]
    source.dirty = False
    clock.time += timedelta(minutes=16)
    assert listing.batches(certain=False) == [Batch("a.csv", "4")]


def test_a_source_that_fails_is_left_alone_for_growing_times_and_is_found_when_it_is_back(clock: Clock) -> None:
    source = Counting()
    source.down = True
    listing, tries = Listing(source), []
    for _ in range(40 * 60 // 5):  # forty minutes of ticks, one every five seconds
        before = source.listed
        with pytest.raises(ListingFailedError, match="does not answer") as error:
            listing.batches(certain=False)
        if source.listed > before:
            tries.append(clock.time)
        problem = failed(str(error.value), error.value.failures, error.value.at)
        assert problem.lasting == (len(tries) >= MOST_ATTEMPTS), "the fifth failure makes it a case for a person"
        clock.time += timedelta(seconds=5)
    waits = [(later - earlier).seconds for earlier, later in itertools.pairwise(tries)]
    assert waits == [30, 60, 120, 240, 900, 900]
    source.down = False
    clock.time += timedelta(minutes=15)
    assert listing.batches(certain=False)
    assert listing.batches(certain=False)


def test_who_asks_for_certainty_does_not_wait(clock: Clock) -> None:
    source = Counting()
    source.down = True
    listing = Listing(source)
    with pytest.raises(ListingFailedError):
        listing.batches(certain=False)
    source.down = False
    assert listing.batches()
