"""What SageMaker captured becomes part of the prediction log: object by object, each once, by its ETag."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ml_assets.appended import Appended
from ml_assets.deployment.sagemaker_captured import Captured, ReleaseOf
from ml_assets.lake import Lake
from ml_assets.ml.predictions import TIME
from ml_assets.model import Model
from ml_assets.resources import ServingResource
from ml_assets.rollouts import LakeJournal, serving_history

TABLE = "captured"


def captured_of(model: Model, serving: ServingResource) -> Captured | None:
    """Where a model's requests are captured; None where they are not.

    Raises:
        SettingsError, TargetError: if the settings of SageMaker, or of AWS, are not there.
    """
    said = model.spec.endpoint
    if said.target != "sagemaker" or not said.sagemaker.capture:
        return None
    target: Any = serving.target_of(model)
    found: Captured = target.captured()
    return found


def not_taken_in(model: Model, lake: Lake, captured: Captured, *, certain: bool = True) -> dict[str, str]:
    """ETags by key of the objects that are not in the log yet.

    Raises:
        TargetError: if S3 does not list them.
    """
    known = {key: etag for key, (_, etag) in _known.of(lake, model.name, TABLE).items()}
    return captured.objects(known, certain=certain)


def take_in(model: Model, lake: Lake, captured: Captured | None, journal: Path, releases: Path) -> int:
    """Put what was captured since the last time into a model's journal; how many objects that were.

    An object is noted once its segments are there. If a crash comes in between, it is taken in again, which changes
    nothing.

    Raises:
        TargetError: if S3 does not give it.
    """
    fresh = {} if captured is None else not_taken_in(model, lake, captured)
    if not fresh or captured is None:
        return 0
    release_of = _releases(model, lake, releases)
    for key in fresh:
        captured.take_in(key, journal, release_of)
    rows = pl.DataFrame({"key": list(fresh), "etag": list(fresh.values())})
    lake.append(model.name, TABLE, rows.with_columns(pl.lit(datetime.now(UTC), TIME).alias("at")))
    return len(fresh)


def _releases(model: Model, lake: Lake, releases: Path) -> ReleaseOf:
    """The release that answered as a version: the one of it that served then, else any of it that is there."""
    history = serving_history(LakeJournal(lake, model.name).states())
    there = sorted(each.name for each in releases.glob("*-*") if each.is_dir())

    def release_of(version: str, at: datetime) -> str:
        then = history.filter((pl.col("from") <= at) & (pl.col("to").is_null() | (pl.col("to") > at)))
        served = [name for row in (then, history) for side in ("challenger", "stable") for name in row[side].to_list()]
        known = [name for name in (*served, *there) if name and name.partition("-")[0] == version]
        return known[0] if known else f"{version}-unknown"

    return release_of


_Known = dict[str, tuple[datetime, str]]  # when an object was taken in last, and its ETag then


def _with(known: _Known, rows: pl.DataFrame) -> _Known:
    more = {key: (at, etag) for key, etag, at in rows.sort("at").select("key", "etag", "at").iter_rows()}
    return known | {key: max(said, known.get(key, said)) for key, said in more.items()}


_known: Appended[_Known] = Appended({}, _with)


def days_of(objects: Mapping[str, str]) -> dict[str, list[str]]:
    """By the day in their keys, what there is to take in."""
    days: dict[str, list[str]] = {}
    for key, etag in objects.items():
        parts = key.split("/")[-5:-2]  # <yyyy>/<mm>/<dd>/<hh>/<file>
        days.setdefault("-".join(parts), []).append(f"{key} {etag}")
    return days
