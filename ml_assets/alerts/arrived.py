"""When new content was taken in from a model's source, by its records."""

from datetime import datetime

import polars as pl

from ml_assets.appended import Appended
from ml_assets.lake import Lake
from ml_assets.records import TABLE

Arrived = dict[tuple[str, str], datetime]  # by partition and content: when it was first there


def arrivals(lake: Lake, model: str) -> list[datetime]:
    """When each content of a day (or of the snapshot) was recorded first; a day that is made again brings nothing."""
    return list(_arrived.of(lake, model, TABLE).values())


def _learn(known: Arrived, rows: pl.DataFrame) -> Arrived:
    raw = rows.filter((pl.col("asset") == "raw_data") & (pl.col("rows") > 0))
    firsts = raw.group_by("partition", "content").agg(pl.col("recorded_at").min())
    new = {(partition, content): at for partition, content, at in firsts.rows()}
    return new | {key: min(at, new.get(key, at)) for key, at in known.items()}


_arrived = Appended[Arrived]({}, _learn)
