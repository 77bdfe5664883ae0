"""The limits of a model's spec: what a partition's rows must keep before anything of them is written."""

from collections.abc import Mapping

import polars as pl

from ml_assets.ml.cleaning import SOURCE, STRAY, Judged
from ml_assets.ml.validation import TABLE
from ml_assets.spec.sources import Limits


def exceeded(limits: Limits, rows: pl.DataFrame, judged: Judged, sizes: Mapping[str, int] | None = None) -> str | None:
    """Which limit a partition breaks and what to do; None if it keeps them all.

    Rows without a day of their own (`_stray`) are no fault of the day that they were put with. They are measured
    against the batch that they arrived in.

    Args:
        rows: the partition's raw rows, with `_source` and `_stray`.
        judged: what became of them.
        sizes: rows of each batch, in all partitions; None where batches were measured before.
    """
    if rows.is_empty():
        return None  # its batches were removed, which is no broken batch
    strays = rows.filter(STRAY)
    own, advice = rows.height - strays.height, "mend the data or the contract, or set limits in defs.yaml"
    if own < limits.min_rows:
        return f"{own:,} rows, and limits.min_rows is {limits.min_rows:,}; {advice}"
    rejected = max(judged.rejected - strays.height, 0)
    if own and rejected / own > limits.rejected:
        worst = sorted(judged.failures.items(), key=lambda each: (-each[1], each[0]))[:5]
        told = ", ".join(f"{'whole rows' if name == TABLE else name} {count:,}" for name, count in worst)
        return (
            f"{rejected:,} of {own:,} rows ({rejected / own:.1%}) break the contract, and limits.rejected is "
            f"{limits.rejected:.1%}. Broken rows by column: {told}; {advice}"
        )
    for name, most in limits.columns.items():
        share = judged.failures.get(name, 0) / rows.height
        if share > most:
            return (
                f"{judged.failures[name]:,} of {rows.height:,} rows ({share:.1%}) break a check of column {name!r}, "
                f"and limits.columns.{name} is {most:.1%}; {advice}"
            )
    for batch, count in strays.group_by(SOURCE).len().sort(SOURCE).iter_rows():
        size = (sizes or {}).get(batch, 0)
        if size and count / size > limits.rejected:
            return (
                f"{count:,} of {size:,} rows of {batch} ({count / size:.1%}) have no time within the calendar of the "
                f"source, and limits.rejected is {limits.rejected:.1%}; {advice}"
            )
    return None
