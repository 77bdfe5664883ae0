"""A model's job, and the run requests for parts of it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from ml_assets.assets import SERVED
from ml_assets.assets.naming import CAUSE_TAG, INPUTS_TAG, REASON_TAG, key_of
from ml_assets.lake import WHOLE
from ml_assets.model import Model

RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
MODEL_TAG = "ml_assets/model"


def model_job(model: Model) -> Any:
    """Everything of one model, from raw data to endpoint. Runs request parts of it."""
    return dg.define_asset_job(
        model.name,
        selection=dg.AssetSelection.groups(model.name) - _served(model),
        description=f"Refresh {model.name}, from raw data to endpoint.",
        tags={MODEL_TAG: model.name},
    )


def feedback_job_name(model: Model) -> str:
    return f"{model.name}_feedback"


def feedback_job(model: Model) -> Any:
    """What became of the endpoint's answers: a job of its own, because its days are those of requests."""
    return dg.define_asset_job(
        feedback_job_name(model),
        selection=_served(model),
        description=f"Predictions of {model.name}, and what came true.",
        tags={MODEL_TAG: model.name},
    )


def _served(model: Model) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(key_of(model, each) for each in SERVED))


def run_request(
    model: Model, assets: Sequence[str], partitions: Sequence[str] | None, reason: str, digest: str, cause: str = ""
) -> dg.RunRequest:
    """One run that makes `assets`, for a contiguous stretch of partitions if the source is daily.

    Args:
        cause: what asked for a training, if one is among them.
    """
    tags = {MODEL_TAG: model.name, REASON_TAG: reason[:250], INPUTS_TAG: digest[:40]} | range_tags(model, partitions)
    tags |= {CAUSE_TAG: cause} if cause else {}
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


def feedback_request(
    model: Model, assets: Sequence[str], days: Sequence[str], reason: str, digest: str
) -> dg.RunRequest:
    """One run of the job of feedback, for a contiguous stretch of days of requests."""
    tags = {MODEL_TAG: model.name, REASON_TAG: reason[:250], INPUTS_TAG: digest[:40]}
    tags |= {RANGE_START_TAG: days[0], RANGE_END_TAG: days[-1]}
    return dg.RunRequest(
        job_name=feedback_job_name(model), asset_selection=[key_of(model, each) for each in assets], tags=tags
    )
