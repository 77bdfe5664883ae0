"""`online_features`: what the endpoint looks up, in Feast's online store. Only what changed is written."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from ml_assets.assets.naming import asset_spec, execution, preview
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError
from ml_assets.feature_store.online import Holding, bring_up_to_date, holding, mark_of
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.schemas import ONLINE
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, append_records, read_latest
from ml_assets.resources import FeatureStoreResource, LakeResource
from ml_assets.serving.online import OnlineStore

ASSET = "online_features"


def online_basis(model: Model, latest: Latest, now: datetime) -> Basis:
    """What the online store depends on: how each view is defined, and the content of the partitions that may count."""
    views = {
        name: [
            join.by,
            join.columns,
            {column: str(join.types[column]) for column in join.columns},
            str(join.freshness),
            {each: latest.of(name)[each].content for each in _partitions(model, latest, name, now)},
        ]
        for name, join in model.views.items()
    }
    inputs = digest_of(views)
    return Basis(inputs, inputs)


def is_behind(record: Record, online: OnlineStore, now: datetime) -> bool:
    """Whether the store does not hold what the record says, or a row has become available since.

    Raises:
        OnlineStoreError: if the store does not answer.
    """
    after = record.details["next"]
    held = online.marks()
    lost = any(held.get(view) != mark for view, mark in record.details["marks"].items())
    return lost or (after is not None and now >= datetime.fromisoformat(after))


def holdings_of(model: Model, lake: Lake, latest: Latest, as_of: datetime) -> dict[str, Holding]:
    """What the online store is to hold at some moment, by view."""
    return {
        name: holding(join, lake.read(model.name, name, _partitions(model, latest, name, as_of)), as_of)
        for name, join in model.views.items()
    }


def _partitions(model: Model, latest: Latest, name: str, now: datetime) -> list[str]:
    """Partitions that may hold the latest fresh row of an entity: the newest that has begun, and those within the
    view's freshness before it.
    """
    there = [each for each, record in latest.finished(name).items() if record.rows]
    if WHOLE in there:
        return there
    tomorrow = str(now.date() + timedelta(days=1))  # whatever the time zone, a day that has begun is not after it
    begun = [each for each in there if each <= tomorrow]
    freshness = model.views[name].freshness
    assert freshness is not None
    # A row of a day may become available days after it (a group's delay, a side table's lag).
    late = model.delay_of(name)
    newest = max((each for each in begun if _start(each) + late <= now), default=None)
    if newest is None:
        return begun
    first = date.fromisoformat(newest) - freshness - timedelta(days=2)
    return [each for each in begun if each >= str(first)]


def _start(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
