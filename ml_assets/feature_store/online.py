"""What the online store is to hold, and how it comes to hold it: only what differs is written.

What it is to hold follows from the tables of the lake alone: of each entity the latest row that was available, as long
as it is fresh beside the newest row. So no value moves back in time, a withdrawn row disappears, a store that was lost
is filled anew, and it makes no difference how often, or after which arrivals, it was brought up to date.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_assets.digests import digest_of_frame
from ml_assets.feature_store.types import AVAILABLE_AT_US, stored_type
from ml_assets.ml.joins import AVAILABLE_AT, Join
from ml_assets.serving.online import NO_ENTITY, OnlineStore, entity_key

if TYPE_CHECKING:
    from feast import FeatureStore

ENTITY, VALUES = "entity", "values"
SCHEMA: dict[str, pl.DataType] = {ENTITY: pl.String(), AVAILABLE_AT: pl.Datetime("us", "UTC"), VALUES: pl.String()}


@dataclass(frozen=True)
class Holding:
    """What the online store is to hold of one view.

    Attributes:
        rows: shape (entities, key columns, columns and `available_at`), sorted by entity, in the types of the store.
        next: when the next row becomes available; None if none does.
    """

    join: Join
    rows: pl.DataFrame
    next: datetime | None

    @property
    def newest(self) -> datetime | None:
        """When the newest row became available."""
        at = self.rows.get_column(AVAILABLE_AT).max()
        return at if isinstance(at, datetime) else None

    @property
    def key(self) -> list[str]:
        return list(self.join.by.values())

    def table(self) -> pl.DataFrame:
        """The same with entity and values as one text each, so that all views fit in one table."""
        entity = pl.struct(self.key).struct.json_encode() if self.key else pl.lit("{}")
        values = pl.struct(list(self.join.columns)).struct.json_encode()
        return self.rows.select(entity.alias(ENTITY), AVAILABLE_AT, values.alias(VALUES))


def mark_of(table: pl.DataFrame) -> str:
    """The mark of a view that holds what `Holding.table` gave."""
    return digest_of_frame(table.select(list(SCHEMA)))


def holding(join: Join, table: pl.DataFrame, as_of: datetime) -> Holding:
    """Of each entity the latest row that is available at `as_of`, while it is fresh beside the newest.

    Args:
        table: the view's rows; at least those within its freshness of the newest that is available.
    """
    if table.is_empty():
        table = pl.DataFrame(schema=dict(join.types))
    key = list(join.by.values())
    stored = [pl.col(name).cast(stored_type(join.types[name])) for name in (*key, *join.columns)]
    known = table.drop_nulls(key).select(*stored, AVAILABLE_AT)
    there = known.filter(pl.col(AVAILABLE_AT) <= as_of)
    if join.freshness is not None and not there.is_empty():
        there = there.filter(pl.col(AVAILABLE_AT) >= pl.col(AVAILABLE_AT).max() - join.freshness)
    # Of two with one time the last in the table, as in the join.
    latest = there.sort(AVAILABLE_AT, maintain_order=True)
    latest = latest.unique(key, keep="last", maintain_order=True).sort(key) if key else latest.tail(1)
    later = known.filter(pl.col(AVAILABLE_AT) > as_of).get_column(AVAILABLE_AT).min()
    return Holding(join, latest, later if isinstance(later, datetime) else None)


def bring_up_to_date(
    store: "FeatureStore",
    online: OnlineStore,
    holdings: Mapping[str, Holding],
    before: Mapping[str, pl.DataFrame],
    columns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, int]:
    """Write to Feast's online store what it lacks, and remove what it is not to hold any more.

    Args:
        before: for each view the table (`Holding.table`) of what was written last; also for those that are no more.
        columns: the columns that each view had then; without them, those that it has now.

    Returns:
        For each view the number of entities that were written or removed.
    """
    written = {}
    for name in before.keys() - holdings.keys():
        keys = [_key_of(each) for each in before[name].get_column(ENTITY)]
        online.drop(name, (columns or {}).get(name, ()), keys)
    for name, each in holdings.items():
        gone = [column for column in (columns or {}).get(name, ()) if column not in each.join.columns]
        added = columns is not None and name in columns and set(each.join.columns) - set(columns[name])
        written[name] = _bring(store, online, name, each, None if gone or added else before.get(name), gone)
    return written


def _bring(
    store: "FeatureStore",
    online: OnlineStore,
    name: str,
    holding: Holding,
    before: pl.DataFrame | None,
    gone: Sequence[str],
) -> int:
    table, held = holding.table(), online.marks().get(name)
    if before is not None and held != mark_of(before):
        before = None  # the store was lost, or its writer killed
    if before is not None and held == mark_of(table):
        return 0
    changed = holding.rows
    if before is not None:
        same = table.join(before.with_columns(_same=True), on=list(SCHEMA), how="left", maintain_order="left")
        changed = holding.rows.filter(same.get_column("_same").is_null())
    online.mark(name, None)  # a process that is killed from here on leaves a store that is filled anew
    if not changed.is_empty():
        _write(store, name, changed)
    if before is None:
        keys = _keys(holding.rows, holding.key)
        online.keep_only(name, list(holding.join.columns), gone, holding.key, keys)
        removed = 0
    else:
        lost = before.join(table, on=ENTITY, how="anti").get_column(ENTITY)
        online.remove(name, holding.join.columns, [_key_of(each) for each in lost])
        removed = len(lost)
    online.mark(name, mark_of(table))
    return changed.height + removed


def _write(store: "FeatureStore", name: str, rows: pl.DataFrame) -> None:
    """Write rows through Feast, over whatever is there of their entities."""
    view = store.get_feature_view(name)
    rows = rows.with_columns(pl.col(AVAILABLE_AT).cast(pl.Int64).alias(AVAILABLE_AT_US))
    created = view.batch_source.created_timestamp_column
    if created:  # which of two rows of a second is the later one: decided before
        rows = rows.with_columns(pl.col(AVAILABLE_AT).alias(created))
    if not any(key in rows.columns for key in view.join_keys):
        rows = rows.with_columns(pl.lit(NO_ENTITY[1]).alias(NO_ENTITY[0]))
    # Not `write_to_online_store`: without a warning it leaves out rows if all their values are null.
    store._get_provider().ingest_df(view, rows.to_pandas(use_pyarrow_extension_array=True))


def _keys(rows: pl.DataFrame, key: list[str]) -> Iterable[bytes]:
    if not key:
        return [entity_key([])] * rows.height
    return (entity_key(zip(key, values, strict=True)) for values in rows.select(key).iter_rows())


def _key_of(entity: str) -> bytes:
    """By its own columns: what was written last may have had others."""
    values: dict[str, Any] = json.loads(entity)
    return entity_key(values.items())
