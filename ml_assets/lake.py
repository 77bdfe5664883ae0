"""Tables of the models on Delta Lake: a partition is replaced as a whole, readers never see half a write.

Every table has the text column `_partition`: a day such as `2025-01-31`, or `all` for a table that is not partitioned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

PARTITION = "_partition"
WHOLE = "all"  # the only partition of a table that is not partitioned by day

# Without these a checkpoint deletes log entries after 30 days, and table versions that a model names become unreadable.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false", "delta.logRetentionDuration": "interval 36500 days"}


def _stores(there: pl.DataType, kind: pl.DataType) -> bool:
    """Whether a column of the table takes values of a type as they are; Delta knows fewer types than Polars."""
    if isinstance(kind, pl.Datetime) and isinstance(there, pl.Datetime):
        return (kind.time_zone is None) == (there.time_zone is None)
    if kind.is_unsigned_integer():
        return there.is_integer()
    return there == kind or (there == pl.String and kind in (pl.Categorical, pl.Enum))


def _common(one: pl.DataFrame, other: pl.DataFrame) -> list[str]:
    return [name for name in one.columns if name in other.columns]


@dataclass(frozen=True)
class Lake:
    """The folder `root`, with one folder per model and in it one Delta table per asset."""

    root: Path

    def path(self, model: str, table: str) -> Path:
        return self.root / model / table

    def exists(self, model: str, table: str) -> bool:
        return (self.path(model, table) / "_delta_log").is_dir()

    def replace(
        self, model: str, table: str, frame: pl.DataFrame, partitions: Sequence[str], *, exact: bool = True
    ) -> int:
        """Put `frame` in the place of `partitions`, in one commit; partitions without rows become empty.

        A column that has another type than in the table, or is in the table only, changes the whole table: Delta would
        cast the new values to the old type, or keep a column that nothing fills any more.

        Args:
            frame: rows with `_partition`, whose values lie in `partitions`.
            exact: whether the table has the frame's columns and no others, as it does unless sources add some.

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
        elif self._is_another_table(model, table, frame, exact):
            others = self.read(model, table).filter(~pl.col(PARTITION).is_in(list(partitions)))
            kept = others.select(pl.col(name).cast(frame.schema[name], strict=False) for name in _common(others, frame))
            whole = pl.concat([frame, kept], how="diagonal")
            deltalake.write_deltalake(path, whole, mode="overwrite", schema_mode="overwrite", partition_by=[PARTITION])
        else:
            names = ", ".join(f"'{each}'" for each in partitions)
            deltalake.write_deltalake(
                path, frame, mode="overwrite", predicate=f"{PARTITION} IN ({names})", schema_mode="merge"
            )
        return int(deltalake.DeltaTable(path).version())

    def _is_another_table(self, model: str, table: str, frame: pl.DataFrame, exact: bool) -> bool:
        there = pl.scan_delta(str(self.path(model, table))).collect_schema()
        gone = exact and any(name not in frame.columns for name in there)
        return gone or any(
            not _stores(kind, frame.schema[name]) for name, kind in there.items() if name in frame.columns
        )

    def append(self, model: str, table: str, frame: pl.DataFrame) -> None:
        """Add rows with one commit."""
        import deltalake

        path = self.path(model, table)
        path.mkdir(parents=True, exist_ok=True)
        deltalake.write_deltalake(path, frame, mode="append", schema_mode="merge", configuration=_CONFIGURATION)

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
        rows = pl.scan_delta(str(self.path(model, table)), version=version)
        if partitions is not None:
            rows = rows.filter(pl.col(PARTITION).is_in(list(partitions)))
        return (rows if columns is None else rows.select(columns)).collect()

    def version(self, model: str, table: str) -> int | None:
        """Version of the table now; None where there is no table."""
        import deltalake

        return deltalake.DeltaTable(self.path(model, table)).version() if self.exists(model, table) else None
