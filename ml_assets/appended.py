"""What a process knows from the tables to which rows are only appended, kept up to date from their new files alone.

Records and surveys are asked at every tick and in every step, and grow with each day. No data file ever changes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import polars as pl

from ml_assets.lake import Lake

Known = TypeVar("Known")


class Appended(Generic[Known]):
    """What all rows of such tables say.

    Args:
        nothing: what is known without any rows.
        learn: what is known with some rows more. Another thread may use what was known before: it must not change.
    """

    def __init__(self, nothing: Known, learn: Callable[[Known, pl.DataFrame], Known]) -> None:
        self._nothing, self._learn = nothing, learn
        self._read: dict[Path, tuple[frozenset[str], Known]] = {}

    def of(self, lake: Lake, model: str, table: str) -> Known:
        """What the table says now."""
        place, files = lake.path(model, table), lake.files(model, table)
        before, known = self._read.get(place, (frozenset(), self._nothing))
        if not before <= files:  # many small files became one, or another table lies in its place
            before, known = frozenset(), self._nothing
        if unread := files - before:
            known = self._learn(known, lake.read_files(model, table, unread))
            self._read[place] = files, known
        return known
