"""What each materialisation used and made: the `batches` table, by which every refresh decides what is due.

An asset says which partitions it is about to write, writes their data, and writes their records. If a crash comes in
between, these partitions count as not done and are done again, which changes nothing: also if by then the source has
again what an older record says.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from typing import Any

import msgspec
import polars as pl

from ml_assets.appended import Appended
from ml_assets.digests import digest_of
from ml_assets.errors import BatchContentError, MlAssetsError, SourceError
from ml_assets.lake import Lake
from ml_assets.waits import MOST_ATTEMPTS, wait_after

TABLE = "batches"
_HELD = "held/"  # before an asset's name, in the record of a partition of it that could not be made
_WRITING = "writing/"  # and in that of a partition that is about to be written


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


@dataclass(frozen=True)
class Basis:
    """What a partition of an asset is made from, as it is now.

    Attributes:
        inputs: digest of everything that its value depends on.
        limits: what else decides whether it is refused, JSON-like.
    """

    inputs: str
    limits: Any = None

    @cached_property
    def terms(self) -> str:
        """Digest of everything that decides whether it is refused; most partitions are never asked for it."""
        return digest_of([self.inputs, self.limits])


class State(Enum):
    """What the records say of one asset's partition, beside what it should be made from."""

    FRESH = "made from what is there"
    DUE = "to be made"
    REFUSED = "refused, and nothing changed since"
    WAITING = "failed, and to be tried again later"


def held(asset: str, partition: str, terms: str, error: MlAssetsError, before: Record | None, run_id: str) -> Record:
    """The record of a partition that could not be made.

    What its data or its contract refused is not tried again on the same terms. What failed because a source did not
    give the data (it is down, or refuses the credentials, which a person may mend there) is, with growing waits.

    Args:
        terms: digest of everything that decided; another one is another attempt.
        before: what is held already, if anything.
    """
    failed = isinstance(error, SourceError) and not isinstance(error, BatchContentError)
    earlier = before.details["failures"] if before is not None and before.inputs == terms else 0
    details = {"reason": str(error), "failures": earlier + 1 if failed else 0}
    return Record(_HELD + asset, partition, terms, "", 0, run_id, details=details)


def writing(asset: str, partition: str, run_id: str) -> Record:
    """The record of a partition that is about to be written: older ones do not say any more what it holds."""
    return Record(_WRITING + asset, partition, "", "", 0, run_id)


@dataclass(frozen=True)
class Problem:
    """Something that cannot be made, and what that waits for.

    Attributes:
        lasting: whether it is a case for a person; it may pass by itself otherwise.
    """

    reason: str
    waits_for: str
    lasting: bool = True

    def __str__(self) -> str:
        return f"{self.reason}. {self.waits_for}"


def problem_of(held: Record) -> Problem:
    """What a held partition is, for people."""
    if held.details["failures"]:
        return failed(held.details["reason"], held.details["failures"], held.recorded_at)
    return Problem(held.details["reason"], "It is asked for again when its data, contract or limits change")


def failed(reason: str, failures: int, last: datetime) -> Problem:
    """What did not answer `failures` times, `last` being the last."""
    again = last + wait_after(failures)
    said = f"It failed {failures} time(s); the next attempt is at {again:%H:%M:%S} UTC"
    return Problem(reason, said, lasting=failures >= MOST_ATTEMPTS)


class Latest:
    """The latest record of each asset and partition of one model."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._by_asset: dict[str, dict[str, Record]] = {}
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        """Take more records in; of a partition's the one that was made last counts, in whatever order they come."""
        for each in records:
            of_asset = self._by_asset.setdefault(each.asset, {})
            before = of_asset.get(each.partition)
            if before is None or before.recorded_at <= each.recorded_at:
                of_asset[each.partition] = each

    def copy(self) -> "Latest":
        copy = Latest()
        copy._by_asset = {asset: dict(records) for asset, records in self._by_asset.items()}
        return copy

    def of(self, asset: str) -> dict[str, Record]:
        """Records of one asset by partition, in partition order."""
        return dict(sorted(self._by_asset.get(asset, {}).items()))

    def get(self, asset: str, partition: str) -> Record | None:
        return self._by_asset.get(asset, {}).get(partition)

    def certain(self, asset: str, partition: str) -> Record | None:
        """The latest record, if nothing may have been written since."""
        record, begun = self.get(asset, partition), self.get(_WRITING + asset, partition)
        return None if record and begun and record.recorded_at < begun.recorded_at else record

    def finished(self, asset: str) -> dict[str, Record]:
        """As `of`, without partitions that a killed run may have written since."""
        return {each: record for each, record in self.of(asset).items() if self.certain(asset, each)}

    def unfinished(self, asset: str) -> list[str]:
        """Partitions that a killed run may have written; the next refresh finishes them."""
        return sorted(each for each in self.partitions(asset) if self.certain(asset, each) is None)

    def partitions(self, asset: str) -> set[str]:
        """Every partition of which the asset's table may hold rows."""
        return set(self._by_asset.get(asset, {})) | set(self._by_asset.get(_WRITING + asset, {}))

    def held(self, asset: str, partition: str) -> Record | None:
        """Why a partition could not be made the last time that it failed."""
        return self.get(_HELD + asset, partition)

    def problems(self) -> dict[str, Problem]:
        """Partitions that could not be made the last time, by asset and partition."""
        problems = {}
        for name, records in self._by_asset.items():
            asset = name.removeprefix(_HELD)
            for partition, held in records.items() if asset != name else ():
                record = self.get(asset, partition)
                if record is None or record.recorded_at < held.recorded_at:
                    problems[f"{asset} {partition}"] = problem_of(held)
        return problems

    def state(self, asset: str, partition: str, basis: Basis, now: datetime | None = None) -> State:
        """Whether a partition is to be made, if it would be made from `basis`."""
        record, held = self.certain(asset, partition), self.held(asset, partition)
        if record is not None and record.inputs == basis.inputs:
            return State.FRESH
        if held is None or held.inputs != basis.terms:
            return State.DUE
        if not held.details["failures"]:
            return State.REFUSED
        again = held.recorded_at + wait_after(held.details["failures"])
        return State.DUE if (now or datetime.now(UTC)) >= again else State.WAITING


def append_records(lake: Lake, model: str, records: Sequence[Record]) -> None:
    """Write records, all in one commit."""
    if records:
        rows = [{name: getattr(each, name) for name in _SCHEMA if name != "details"} for each in records]
        details = [json.dumps(each.details, sort_keys=True, default=str) for each in records]
        frame = pl.DataFrame(rows, schema={name: kind for name, kind in _SCHEMA.items() if name != "details"})
        lake.append(model, TABLE, frame.with_columns(details=pl.Series(details, dtype=pl.String)).select(list(_SCHEMA)))


def read_latest(lake: Lake, model: str) -> Latest:
    """The latest records of a model; none before its first materialisation."""
    return _latest.of(lake, model, TABLE).copy()


def _with(latest: Latest, rows: pl.DataFrame) -> Latest:
    more = latest.copy()
    more.add(_records(rows))
    return more


_latest = Appended(Latest(), _with)


def _records(rows: pl.DataFrame) -> Iterator[Record]:
    """Those of some rows that may count."""
    rows = rows.select(list(_SCHEMA)).sort("recorded_at").unique(["asset", "partition"], keep="last")
    # Of what was about to be written, only what was not recorded since says anything.
    begun = pl.col("asset").str.starts_with(_WRITING)
    written = pl.col("recorded_at").max().over(pl.col("asset").str.strip_prefix(_WRITING), "partition")
    columns = rows.filter(~begun | (written == pl.col("recorded_at"))).to_dict(as_series=False)
    columns["details"] = [msgspec.json.decode(each) for each in columns["details"]]
    return (Record(*values) for values in zip(*columns.values(), strict=True))
