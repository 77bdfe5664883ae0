"""A model's job, and the run requests for parts of it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from ml_assets.assets.naming import INPUTS_TAG, key_of
from ml_assets.lake import WHOLE
from ml_assets.model import Model

RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
MODEL_TAG, REASON_TAG = "ml_assets/model", "ml_assets/reason"


def model_job(model: Model) -> Any:
    """Everything of one model, from raw data to endpoint. Runs request parts of it."""
    return dg.define_asset_job(
        model.name,
        selection=dg.AssetSelection.groups(model.name),
        description=f"Refresh {model.name}, from raw data to endpoint.",
        tags={MODEL_TAG: model.name},
    )


def run_request(
    model: Model, assets: Sequence[str], partitions: Sequence[str] | None, reason: str, digest: str
) -> dg.RunRequest:
    """One run that makes `assets`, for a contiguous stretch of partitions if the source is daily."""
    tags = {MODEL_TAG: model.name, REASON_TAG: reason[:250], INPUTS_TAG: digest[:40]} | range_tags(model, partitions)
    return dg.RunRequest(asset_selection=[key_of(model, each) for each in assets], tags=tags)


def by_hand(model: Model, assets: Sequence[str], partitions: Sequence[str], reason: str) -> dg.RunRequest:
    """One run that makes `assets` whether they are due or not, as a person may ask in the UI."""
    tags = {MODEL_TAG: model.name, REASON_TAG: reason} | range_tags(model, partitions)
    return dg.RunRequest(asset_selection=[key_of(model, each) for each in assets], tags=tags)


def range_tags(model: Model, partitions: Sequence[str] | None) -> dict[str, str]:
    """Tags that make one run cover a stretch of days."""
    if not model.daily or not partitions or list(partitions) == [WHOLE]:
        return {}
    return {RANGE_START_TAG: partitions[0], RANGE_END_TAG: partitions[-1]}
