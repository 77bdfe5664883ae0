"""What all assets of a model have in common: keys, group, owners, partitions, metadata that a person wants to see."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl
from dagster_pandera import pandera_schema_to_dagster_type

import ml_assets
from ml_assets.lake import PARTITION, WHOLE
from ml_assets.model import Model

PREVIEW_ROWS = 5
# What was asked and what came of it, by the day (UTC) of the request; none was before.
FIRST_SERVED_DAY = "2025-01-01"
SERVED_DAYS = dg.DailyPartitionsDefinition(FIRST_SERVED_DAY, end_offset=1)
# On runs that ml-assets asked for itself: digest of what they are to use. Such a run makes only what is due.
INPUTS_TAG = "ml_assets/inputs"
REASON_TAG = "ml_assets/reason"
CAUSE_TAG = "ml_assets/cause"  # of one that trains: what asked for that


def key_of(model: Model, asset: str) -> dg.AssetKey:
    return dg.AssetKey([model.name, asset])


def partitions_of(model: Model) -> dg.DailyPartitionsDefinition | None:
    """The days of a daily source, up to its end or today's; None for a snapshot."""
    if not model.daily:
        return None
    source = model.spec.source
    assert source.start is not None
    first, zone = source.start.isoformat(), source.timezone
    if source.end is not None:
        after = (source.end + timedelta(days=1)).isoformat()
        return dg.DailyPartitionsDefinition(first, after, timezone=zone)
    return dg.DailyPartitionsDefinition(first, timezone=zone, end_offset=1)


def asset_spec(
    model: Model,
    asset: str,
    description: str,
    *,
    deps: Sequence[str] = (),
    kinds: Iterable[str] = (),
    schema: pa.DataFrameSchema | None = None,
    code: str = "",
    partitioned: bool = False,
    skippable: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetSpec:
    """The definition of one asset.

    Args:
        code: digest of what the asset's value is made with; shown in short as its code version.
        schema: pandera schema of its table, shown as its columns.
        skippable: whether its step may find that there is nothing to do.
    """
    shown: dict[str, Any] = dict(metadata or {})
    if schema is not None:
        with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):
            shown["dagster/column_schema"] = pandera_schema_to_dagster_type(schema).metadata["schema"]
    return dg.AssetSpec(
        key_of(model, asset),
        description=description,
        deps=[key_of(model, each) for each in deps],
        group_name=model.name,
        owners=model.spec.owners,
        kinds=set(kinds),
        code_version=code[:12] or ml_assets.__version__,
        partitions_def=partitions_of(model) if partitioned else None,
        metadata=shown,
        skippable=skippable,
        tags={"ml_assets/model": model.name},
    )


def execution(model: Model, specs: Sequence[dg.AssetSpec], checks: Sequence[dg.AssetCheckSpec]) -> dict[str, Any]:
    """How the assets of one step run: one run for a range of days, one writer per model at a time."""
    return {
        "name": "__".join([model.name, specs[0].key.path[-1]]),
        "specs": specs,
        "check_specs": checks,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "pool": model.name,
    }


def partitions_in(context: dg.AssetExecutionContext) -> list[str]:
    """Partitions that this step is to make."""
    return list(context.partition_keys) if is_partitioned(context) else [WHOLE]


def is_partitioned(context: dg.AssetExecutionContext) -> bool:
    """Whether the step makes some days. A run for some days may hold assets that have none."""
    ranged = context.has_partition_key_range or context.has_partition_key
    return ranged and context.assets_def.partitions_def is not None


def preview(frame: pl.DataFrame) -> dg.MetadataValue:
    """The first rows as a table in Markdown."""
    with pl.Config(
        tbl_formatting="MARKDOWN",
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_cols=30,
        fmt_str_lengths=80,
        tbl_width_chars=10_000,
    ):
        return dg.MetadataValue.md(str(frame.drop(PARTITION, strict=False).head(PREVIEW_ROWS)))
