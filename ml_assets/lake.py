"""Tables of the models on Delta Lake: a partition is replaced as a whole, readers never see half a write.

Every table has the text column `_partition`: a day such as `2025-01-31`, or `all` for a table that is not partitioned.
"""

import contextlib
import fcntl
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import deltalake

PARTITION = "_partition"
WHOLE = "all"  # the only partition of a table that is not partitioned by day

# Without these a checkpoint deletes log entries after 30 days, and table versions that a model names become unreadable.
# And without a checkpoint every few versions opening a table takes longer with each of them.
# Rows are looked for by their partition alone: least and greatest value of each column in each file would only make the
# log long, which is read when a table is opened and gone through at each commit.
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.checkpointInterval": "10",
    "delta.dataSkippingNumIndexedCols": "0",
}
_MOST_FILES = 50  # of a table that grows by rows at its end; then they become one file


def by_partition(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each partition, in their order, without `_partition`."""
    parts = frame.partition_by(PARTITION, include_key=False, maintain_order=True, as_dict=True)
    return {str(partition): part for (partition,), part in parts.items()}


def _stores(there: pl.DataType, kind: pl.DataType) -> bool:
    """Whether a column of the table takes values of a type as they are; Delta knows fewer types than Polars."""
    if isinstance(kind, pl.Datetime) and isinstance(there, pl.Datetime):
        return (kind.time_zone is None) == (there.time_zone is None)
    if kind.is_unsigned_integer():
        return there.is_integer()
    return there == kind or (there == pl.String and kind in (pl.Categorical, pl.Enum))


def _widest(there: Mapping[str, pl.DataType], arrives: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """For each column of either the type that holds the values of both; text where there is no other."""
    widest = dict(there)
    for name, kind in arrives.items():
        if name not in there or _stores(there[name], kind):
            widest.setdefault(name, kind)
            continue
        both = [pl.Series(name, [], dtype=each).to_frame() for each in (there[name], kind)]
        try:
            widest[name] = pl.concat(both, how="vertical_relaxed").schema[name]
        except pl.exceptions.PolarsError:
            widest[name] = pl.String()
    return widest


def _cast(frame: pl.DataFrame, kinds: Mapping[str, pl.DataType], *, strict: bool) -> pl.DataFrame:
    """The columns of `kinds` in these types; those that the frame lacks are null."""
    return frame.select(
        pl.col(name).cast(kind, strict=strict) if name in frame.columns else pl.lit(None, kind).alias(name)
        for name, kind in kinds.items()
    )


class _Opened:
    """A table that this process has opened, perhaps long ago: opening it takes longer with each file that it has."""

    def __init__(self, path: Path) -> None:
        self._log = path / "_delta_log"
        self._table: deltalake.DeltaTable | None = None
        self._seen: tuple[int, tuple[int, ...] | None] = -1, None  # a version, and the file of its commit

    def now(self) -> "deltalake.DeltaTable":
        """The table as it is now. Another one may lie in its place, or an older state of it that was put back."""
        import deltalake

        version, commit = self._seen
        if self._table is None or commit is None or self._commit(version) != commit:
            self._table = deltalake.DeltaTable(self._log.parent)
        elif self._commit(self._table.version() + 1) is not None:
            self._table.update_incremental()
        self._seen = self._table.version(), self._commit(self._table.version())
        return self._table

    def _commit(self, version: int) -> tuple[int, ...] | None:
        try:
            found = (self._log / f"{version:020}.json").stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


_opened = functools.lru_cache(maxsize=256)(_Opened)


@dataclass(frozen=True)
class Lake:
    """The folder `root`, with one folder per model and in it one Delta table per asset."""

    root: Path

    def path(self, model: str, table: str) -> Path:
        return self.root / model / table

    def exists(self, model: str, table: str) -> bool:
        """Whether its first commit is there; a run that was killed in the middle of it leaves a log without any."""
        return (self.path(model, table) / "_delta_log" / f"{0:020}.json").is_file()

    @contextlib.contextmanager
    def alone(self, model: str, table: str) -> Iterator[None]:
        """Wait until no other process is in here for this table. Delta notices most writers that meet, but not one that
        gives the table other types meanwhile.
        """
        self.path(model, table).parent.mkdir(parents=True, exist_ok=True)
        with self.path(model, f".{table}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, also by being killed
            yield

    def _open(self, model: str, table: str) -> "deltalake.DeltaTable":
        """An existing table as it is now."""
        return _opened(self.path(model, table)).now()

    def replace(
        self, model: str, table: str, frame: pl.DataFrame, partitions: Sequence[str], *, exact: bool = True
    ) -> int:
        """Put `frame` in the place of `partitions`, in one commit; partitions without rows become empty.

        A column that gets another type, or that nothing fills any more, changes the whole table, one partition in
        memory at a time: Delta would cast the new values to the old type, or keep the column.

        Args:
            frame: rows with `_partition`, whose values lie in `partitions`.
            exact: whether the table has the frame's columns in the frame's types and no others. A table that keeps
                what arrived (False) also keeps columns that only other partitions have, and no value of it is lost:
                a column of two types becomes one that holds both.

        Returns:
            The table's version after the write.
        """
        import deltalake

        stray = set(frame.get_column(PARTITION).unique()) - set(partitions)
        if stray:
            raise ValueError(f"{model}/{table}: rows of partitions {sorted(stray)} that are not to be written")
        frame = frame.with_columns(pl.col(pl.Null).cast(pl.String))
        path = self.path(model, table)
        if not self.exists(model, table):
            path.mkdir(parents=True, exist_ok=True)
            deltalake.write_deltalake(path, frame, partition_by=[PARTITION], configuration=_CONFIGURATION)
        else:
            before = self._open(model, table)
            there = self.types(model, table)
            kinds: dict[str, pl.DataType] = dict(frame.schema) if exact else _widest(there, frame.schema)
            if (exact and set(there) - set(kinds)) or any(not _stores(there[name], kinds[name]) for name in there):
                self._rewrite(before, frame, partitions, kinds, strict=not exact)
            else:
                shared = {name: kind for name, kind in kinds.items() if name in frame.columns}
                names = ", ".join(f"'{each}'" for each in partitions)
                deltalake.write_deltalake(
                    before,
                    frame if exact else _cast(frame, shared, strict=True),
                    mode="overwrite",
                    predicate=f"{PARTITION} IN ({names})",
                    schema_mode="merge",
                )
        return int(self._open(model, table).version())

    def _rewrite(
        self,
        before: "deltalake.DeltaTable",
        frame: pl.DataFrame,
        partitions: Sequence[str],
        kinds: dict[str, pl.DataType],
        *,
        strict: bool,
    ) -> None:
        """Write the whole table in other types in one commit, with the frame in the place of its partitions."""
        import deltalake
        import pyarrow as pa

        schema = pl.DataFrame(schema=kinds).to_arrow().schema
        others = sorted({each[PARTITION] for each in before.partitions()} - set(partitions))

        def batches() -> Iterator[pa.RecordBatch]:
            yield from _cast(frame, kinds, strict=strict).to_arrow().cast(schema).to_batches()
            for each in others:
                rows = pl.scan_delta(before).filter(pl.col(PARTITION) == each).collect()
                yield from _cast(rows, kinds, strict=strict).to_arrow().cast(schema).to_batches()

        deltalake.write_deltalake(
            before.table_uri,
            pa.RecordBatchReader.from_batches(schema, batches()),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=[PARTITION],
        )

    def append(self, model: str, table: str, frame: pl.DataFrame) -> None:
        """Add rows with one commit. Where many commits made many small files, they become one."""
        import deltalake

        if not self.exists(model, table):
            path = self.path(model, table)
            path.mkdir(parents=True, exist_ok=True)
            deltalake.write_deltalake(path, frame, mode="append", configuration=_CONFIGURATION)
            return
        deltalake.write_deltalake(self._open(model, table), frame, mode="append", schema_mode="merge")
        there = self._open(model, table)
        if len(there.file_uris()) > _MOST_FILES:
            with contextlib.suppress(deltalake.exceptions.CommitFailedError):  # somebody else did it just now
                there.optimize.compact()

    def read(
        self,
        model: str,
        table: str,
        partitions: Sequence[str] | None = None,
        version: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Rows of the table, of some partitions or all, as of a version or now; empty where there is no table."""
        if not self.exists(model, table):
            return pl.DataFrame()
        table_then = self._open(model, table) if version is None else str(self.path(model, table))
        rows = pl.scan_delta(table_then, version=version)
        if partitions is not None:
            rows = rows.filter(pl.col(PARTITION).is_in(list(partitions)))
        return (rows if columns is None else rows.select(columns)).collect()

    def files(self, model: str, table: str) -> frozenset[str]:
        """Names of the files that make up a table to which rows are appended. No file ever changes, and no other one
        gets its name: who has read it need not do so again.
        """
        if not self.exists(model, table):
            return frozenset()
        return frozenset(each.rsplit("/", 1)[-1] for each in self._open(model, table).file_uris())

    def read_files(self, model: str, table: str, files: Collection[str]) -> pl.DataFrame:
        """Rows of some of its files."""
        paths = [self.path(model, table) / each for each in sorted(files)]
        kinds = self.types(model, table)
        return pl.read_parquet(paths, schema=kinds, missing_columns="insert", glob=False)

    def types(self, model: str, table: str) -> dict[str, pl.DataType]:
        """Type of each column of the table now; none where there is no table."""
        return dict(pl.Schema(self._open(model, table).schema().to_arrow())) if self.exists(model, table) else {}

    def version(self, model: str, table: str) -> int | None:
        """Version of the table now; None where there is no table."""
        return int(self._open(model, table).version()) if self.exists(model, table) else None
