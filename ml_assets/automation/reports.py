"""Days that lie in the lake, finished, and of which Dagster has to be told."""

from collections.abc import Sequence

import dagster as dg

from ml_assets.assets import SERVED, data_assets, partitioned_assets
from ml_assets.assets.naming import key_of
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import read_latest


def unreported(
    instance: dg.DagsterInstance, model: Model, lake: Lake, assets: Sequence[str] | None = None
) -> list[dg.AssetMaterialization]:
    """Materialisations that Dagster does not know of, because their run died before it could say so.

    Args:
        assets: of these; by default of the data assets.
    """
    latest, events = read_latest(lake, model.name), []
    for asset in data_assets(model) if assets is None else assets:
        key, records = key_of(model, asset), latest.of(asset)
        daily = asset in SERVED or (model.daily and asset in partitioned_assets(model))
        if daily:
            missing = sorted(set(records) - set(instance.get_materialized_partitions(key)))
        else:
            missing = [WHOLE] if records and instance.get_latest_materialization_event(key) is None else []
        for partition in missing:
            record = records[partition]
            events.append(
                dg.AssetMaterialization(
                    key,
                    partition=partition if daily else None,
                    description=f"Made by run {record.run_id[:8]}, which died before it could say so.",
                    metadata={"dagster/partition_row_count": record.rows},
                    tags={"dagster/data_version": record.content},
                )
            )
    return events
