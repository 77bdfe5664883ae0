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


@dataclass(frozen=True)
class Lake:
    """The folder `root`, with one folder per model and in it one Delta table per asset."""

    root: Path

    def path(self, model: str, table: str) -> Path:
        return self.root / model / table

    def exists(self, model: str, table: str) -> bool:
        return (self.path(model, table) / "_delta_log").is_dir()

    def replace(self, model: str, table: str, frame: pl.DataFrame, partitions: Sequence[str]) -> int:
        """Put `frame` in the place of `partitions`, in one commit; partitions without rows become empty.

        Args:
            frame: rows with `_partition`, whose values lie in `partitions`.

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
            names = ", ".join(f"'{each}'" for each in partitions)
            deltalake.write_deltalake(
                path, frame, mode="overwrite", predicate=f"{PARTITION} IN ({names})", schema_mode="merge"
            )
        return int(deltalake.DeltaTable(path).version())

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
