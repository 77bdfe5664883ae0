"""What every kind of source is: a list of batches with their fingerprints, and the rows of one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import polars as pl

from ml_assets.spec.sources import AnySource


@dataclass(frozen=True, order=True)
class Batch:
    """One object, page or slice as it arrived.

    Attributes:
        id: its name, relative to the fixed part of the source's address.
        fingerprint: changes when its content does; it is cheap and reads no content where the source can tell.
        day: the partition to which all its rows belong, where the source knows it without reading.
        rows: their number, where `day` is known.
    """

    id: str
    fingerprint: str
    day: str | None = None
    rows: int = 0


@dataclass(frozen=True)
class Calendar:
    """The partitions of a source by day: which column says when, and from which day to which.

    Attributes:
        time: column whose local day is the partition.
        first: the first partition.
        last: the last one of a source that is complete; None for today's.
        clip: whether what lies before the first or after the last day belongs to these days instead of to none: what
            happened on the last days becomes known after them.
    """

    time: str
    timezone: str
    first: date
    last: date | None = None
    clip: bool = False


class Source(Protocol):
    """One place where rows arrive.

    Attributes:
        spec: how it was declared.
        place: model and key in its YAML, for messages.
    """

    @property
    def spec(self) -> AnySource: ...

    @property
    def place(self) -> str: ...

    def batches(self) -> list[Batch]:
        """Everything that is there now, in name order; empty while nothing has arrived.

        Raises:
            SourceError: if the place does not exist, refuses the credentials, or does not answer after some tries.
        """

    def changed(self) -> bool:
        """Whether anything may have changed since `batches` was last asked, told more cheaply than by listing.

        True where that cannot be told. It only saves work: nothing depends on its never missing a change.
        """

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of one batch, text as text and typed values with their own types.

        Args:
            columns: read only these, where the source allows it.

        Raises:
            SourceError: if the batch is gone, empty, damaged, or not of the declared form.
        """

    def address(self, batch: Batch) -> str:
        """Where the batch lies, for people."""
