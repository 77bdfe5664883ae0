"""Rows that `raw_data` has read and validated, handed on to `cleaned_data` in the same process.

A new day is thus read and validated once. Of many days only those of the last chunk are ever held; `cleaned_data` reads
the others from the lake, as it does after a restart. What is handed on is known by its content, so it makes no
difference to what comes out.
"""

import polars as pl

from ml_assets.digests import digest_of
from ml_assets.lake import Lake
from ml_assets.ml.cleaning import Read
from ml_assets.model import Model
from ml_assets.records import Latest

_held: dict[str, Read] = {}


def hand_on(model: Model, lake: Lake, latest: Latest, partitions: list[str], read: Read) -> None:
    """Keep what was read of some partitions, if the table holds the same: it may have had to make text of a column."""
    forget()
    types = lake.types(model.name, "raw_data")
    numbered = read.numbered
    if all(types.get(name) == kind for name, kind in _text_as_text(numbered.schema).items()):
        _held[_key(model, latest, partitions)] = read


def take(model: Model, latest: Latest, partitions: list[str]) -> Read | None:
    """What was read of these partitions, if it is what the records say; whatever else is held is forgotten."""
    read = _held.get(_key(model, latest, partitions))
    forget()
    return read


def forget() -> None:
    """Hand nothing on."""
    _held.clear()


def _key(model: Model, latest: Latest, partitions: list[str]) -> str:
    records = latest.finished("raw_data")
    contents = [[each, records[each].content if each in records else None] for each in sorted(partitions)]
    return digest_of([model.name, model.cleaning_digest, contents])


def _text_as_text(schema: pl.Schema) -> dict[str, pl.DataType]:
    """The types of what arrived, as a table stores them."""
    return {
        name: pl.String() if kind in (pl.Categorical, pl.Enum) else kind
        for name, kind in schema.items()
        if not name.startswith("_")
    }
