"""What each materialisation used and made: the `batches` table, by which every refresh decides what is due.

An asset writes its record right after its data. If a crash comes between the two, the partition counts as not done and
is done again, which changes nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_assets.lake import Lake

TABLE = "batches"
REFUSED = "refused"  # stands for an asset in the record of a partition that could not be made


@dataclass(frozen=True)
class Record:
    """One asset, one partition.

    Attributes:
        inputs: digest of everything that the value depends on; the partition is due when it would be another one.
        content: digest of the value.
        details: what people and later assets want to know, JSON-like.
        version: Delta version of the table after the write.
    """

    asset: str
    partition: str
    inputs: str
    content: str
    rows: int
    run_id: str
    version: int = -1
    details: dict[str, Any] = field(default_factory=dict)
    recorded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


_SCHEMA: dict[str, Any] = {
    "asset": pl.String,
    "partition": pl.String,
    "inputs": pl.String,
    "content": pl.String,
    "rows": pl.Int64,
    "run_id": pl.String,
    "version": pl.Int64,
    "details": pl.String,
    "recorded_at": pl.Datetime("us", "UTC"),
}


class Latest:
    """The latest record of each asset and partition of one model."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._by_asset: dict[str, dict[str, Record]] = {}
        for each in records:
            self._by_asset.setdefault(each.asset, {})[each.partition] = each

    def of(self, asset: str) -> dict[str, Record]:
        """Records of one asset by partition, in partition order."""
        return dict(sorted(self._by_asset.get(asset, {}).items()))

    def get(self, asset: str, partition: str) -> Record | None:
        return self._by_asset.get(asset, {}).get(partition)


def append_records(lake: Lake, model: str, records: Sequence[Record]) -> None:
    """Write records, all in one commit."""
    if records:
        rows = [{name: getattr(each, name) for name in _SCHEMA if name != "details"} for each in records]
        details = [json.dumps(each.details, sort_keys=True, default=str) for each in records]
        frame = pl.DataFrame(rows, schema={name: kind for name, kind in _SCHEMA.items() if name != "details"})
        lake.append(model, TABLE, frame.with_columns(details=pl.Series(details, dtype=pl.String)).select(list(_SCHEMA)))


def read_latest(lake: Lake, model: str) -> Latest:
    """The latest records of a model; none before its first materialisation."""
    rows = lake.read(model, TABLE)
    if rows.is_empty():
        return Latest()
    rows = rows.sort("recorded_at").unique(["asset", "partition"], keep="last")
    return Latest(Record(**(row | {"details": json.loads(row["details"])})) for row in rows.to_dicts())
