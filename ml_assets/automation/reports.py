"""Days that lie in the lake, finished, and of which Dagster has to be told."""

import dagster as dg

from ml_assets.assets import data_assets, partitioned_assets
from ml_assets.assets.naming import key_of
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import read_latest


def unreported(instance: dg.DagsterInstance, model: Model, lake: Lake) -> list[dg.AssetMaterialization]:
    """Materialisations that Dagster does not know of, because their run died before it could say so."""
    latest, events = read_latest(lake, model.name), []
    for asset in data_assets(model):
        key, records = key_of(model, asset), latest.of(asset)
        daily = model.daily and asset in partitioned_assets(model)
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
