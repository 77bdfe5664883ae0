"""Side tables and feature groups beside the rows: which of their partitions count, and the rows with their columns."""

import polars as pl

from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.joins import join_table
from ml_assets.model import Model
from ml_assets.records import Latest


def joined_used(model: Model, latest: Latest, partition: str) -> dict[str, dict[str, str]]:
    """For each side table and group the content of its partitions from which a partition of the rows takes values."""
    used: dict[str, dict[str, str]] = {name: {} for name in model.joined}
    for name in model.joined:
        for each in model.joined_partitions(name, partition):
            if record := latest.get(name, each):
                used[name][each] = record.content
    return used


def with_joined(
    model: Model, lake: Lake, rows: pl.DataFrame, partitions: list[str]
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """Cleaned rows of some partitions with the columns of all side tables and groups.

    Returns:
        The rows in their order, and for each table whether each row found a row in it.
    """
    matched = {}
    for name, table in (model.lookups | model.groups).items():
        days = sorted({day for each in partitions for day in model.joined_partitions(name, each)})
        there = in_order(lake.read(model.name, name, days))
        rows, matched[name] = join_table(rows, there, table.join, model.contract.event_time)
    return rows, matched


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of some partitions, day after day, whichever was written last: of two with one time the later's counts."""
    return rows if rows.is_empty() else rows.sort(PARTITION, maintain_order=True)
