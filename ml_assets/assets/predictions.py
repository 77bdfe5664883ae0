"""`predictions`: what the endpoint was asked and answered, by the day (UTC) of the request.

The server appends to a journal; here its segments become a day of the table, outside the serving process. A day is
rebuilt whole from the segments that are there and, of those that were removed since, from the rows that it has of them.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.captured import captured_of, take_in
from ml_assets.assets.naming import FIRST_SERVED_DAY, INPUTS_TAG, SERVED_DAYS, asset_spec, execution, partitions_in
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import MlAssetsError, ReleaseError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.predictions import REFUSED, Logged, predictions_schema, rows_of_entries, together
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, read_latest
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.serving.journal import Segment, segments
from ml_assets.serving.scorer import Scorer

ASSET, REFUSALS = "predictions", "rejected_predictions"
KEPT_DAYS = 7  # after which a segment whose rows are in the lake is removed


def predictions_basis(sizes: Mapping[str, int]) -> Basis:
    """What a day depends on: its segments, those that were removed too, and how much each held."""
    return Basis(digest_of(dict(sizes)))


def sizes_of_days(model: Model, latest: Latest, journal: Path, *, certain: bool = True) -> dict[str, dict[str, int]]:
    """For each day that any request was logged on, the size of each segment: as recorded, or as it is now.

    Args:
        certain: also those that a server still writes to. They grow with every request, and a sensor that went by them
            would ask for a run at every tick.
    """
    days: dict[str, dict[str, int]] = {
        day: {name: each["bytes"] for name, each in record.details["segments"].items()}
        for day, record in latest.of(ASSET).items()
    }
    for each in segments(journal / model.name):
        if certain or each.finished():
            days.setdefault(each.day, {})[each.name] = each.size
    today = str(datetime.now(UTC).date())  # a day from a clock that runs ahead waits until it has come
    return {day: sizes for day, sizes in days.items() if sizes and FIRST_SERVED_DAY <= day <= today}


def predictions(model: Model) -> dg.AssetsDefinition:
    schema = predictions_schema(model.contract, model.outcome_key, model.features, model.spec.task)
    spec = asset_spec(
        model,
        ASSET,
        "What the endpoint was asked and answered, by the day (UTC) of the request: columns, features, scores, time.",
        deps=["endpoint"],
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        skippable=True,
    ).replace_attributes(partitions_def=SERVED_DAYS)
    checks = check_specs(spec.key, schema, blocking=True)

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource, serving: ServingResource) -> Iterator[Any]:
        tables, target = lake.open(), serving.target()
        before = read_latest(tables, model.name)
        releases = target.releases / model.name
        taken = take_in(model, tables, captured_of(model, serving), target.journal / model.name, releases)
        if taken:
            context.log.info(f"{model.name}: {taken} object(s) that SageMaker captured were taken in")
        there: dict[str, list[Segment]] = {}
        for each in segments(target.journal / model.name):
            there.setdefault(each.day, []).append(each)
        sizes = sizes_of_days(model, before, target.journal)
        for each in (found for some in there.values() for found in some):
            sizes.setdefault(each.day, {})[each.name] = each.size  # of this very look
        load = functools.cache(lambda release: _load(releases / release))

        def work(days: list[str]) -> Mapping[str, Made | MlAssetsError]:
            made: dict[str, Made | MlAssetsError] = {}
            for day in days:
                record = before.get(ASSET, day)
                known = record.details["segments"] if record else {}
                made[day] = {ASSET: _day(model, tables, day, there.get(day, []), known, schema, load)}
            return made

        wanted = partitions_in(context)
        asked_for = INPUTS_TAG not in context.run.tags
        bases = {each: predictions_basis(sizes.get(each, {})) for each in wanted if asked_for or each in sizes}
        rows = {each: sum(sizes.get(each, {}).values()) // 1000 for each in wanted}  # some kilobyte a row
        done = refresh(context, model, tables, before, {ASSET: None}, bases, rows, work)
        removed = _remove_old(there, done.latest)
        for result in done.results.values():
            result["metadata"] |= _totals(done.latest) | {"removed_segments": dg.MetadataValue.int(removed)}
        yield from done.result(spec.key, check_results(spec.key, schema, done.failures(ASSET)))

    return step


def _load(folder: Path) -> Scorer:
    if not folder.is_dir():
        raise ReleaseError(f"{folder} is not there any more")
    return Scorer.load(folder)


def _day(
    model: Model,
    lake: Lake,
    day: str,
    there: list[Segment],
    known: Mapping[str, Any],
    schema: Any,
    load: Any,
) -> Slice:
    """A day of the table, with the requests that were refused on it."""
    key = {name: model.contract.types.get(name, pl.String()) for name in model.outcome_key}
    names = [each.name for each in there]
    frames, refused, told = [], [], {name: each for name, each in known.items() if name not in names}
    if told:  # their segments were removed: what the table has of them is all there is
        frames.append(_rows_of(lake, model, ASSET, day, list(told)))
        refused.append(_rows_of(lake, model, REFUSALS, day, list(told)))
    for segment in there:
        read = segment.read()
        logged: Logged = rows_of_entries(read.entries, segment.name, load, schema, key, model.spec.task)
        frames.append(logged.rows)
        refused.append(logged.refused)
        told[segment.name] = {
            "bytes": segment.size,
            "lost": read.lost,
            "torn_bytes": read.torn,
            "statuses": logged.statuses,
            "versions": logged.versions,
            **logged.counts,
        }
    empty = pl.DataFrame(schema={name: column.dtype.type for name, column in schema.columns.items()})
    rows = together([empty, *frames]).sort("received_at", "request_id", "row")
    rejected = together([pl.DataFrame(schema=REFUSED), *refused]).sort("received_at", "request_id")
    failures = count_failures(schema, rows.with_columns(pl.lit(day).alias(PARTITION))).get(day, {})
    return Slice(rows, _details(told, rows, rejected), failures, rejected=rejected)


def _rows_of(lake: Lake, model: Model, table: str, day: str, names: list[str]) -> pl.DataFrame:
    there = lake.read(model.name, table, [day])
    return there if there.is_empty() else there.filter(pl.col("segment").is_in(names)).drop(PARTITION)


def _details(told: Mapping[str, Any], rows: pl.DataFrame, rejected: pl.DataFrame) -> dict[str, Any]:
    """What is said of a day: in all, and by segment."""
    statuses: Counter[str] = Counter()
    versions: dict[str, list[Any]] = {}
    for each in told.values():
        statuses.update(each["statuses"])
        versions |= each["versions"]
    summed = ("lost", "torn_bytes", "unreadable", "without_features", "not_reproduced", "not_joinable")
    latencies = rows.unique(["request_id", "segment"]).get_column("seconds")
    reasons = rejected.group_by("status", "reason", "column").len().sort("len", "status", "reason", descending=True)
    return {
        "requests": sum(statuses.values()),
        "refused": rejected.height,
        **{name: sum(each[name] for each in told.values()) for name in summed},
        "statuses": json.dumps(dict(sorted(statuses.items()))),
        "p50_ms": _milliseconds(latencies, 0.5),
        "p99_ms": _milliseconds(latencies, 0.99),
        "reasons": reasons.head(20).to_dicts(),
        "versions": versions,
        "segments": dict(sorted(told.items())),
    }


def _milliseconds(latencies: pl.Series, share: float) -> str:
    value = latencies.quantile(share, "linear")
    return "" if value is None else f"{value * 1000:.3f}"


def _totals(latest: Latest) -> dict[str, dg.MetadataValue]:
    """Of all days."""
    records = latest.of(ASSET).values()
    names = ("requests", "refused", "lost", "unreadable", "without_features", "not_reproduced", "not_joinable")
    return {f"{name}_in_all": dg.MetadataValue.int(sum(each.details[name] for each in records)) for name in names}


def _remove_old(there: Mapping[str, list[Segment]], latest: Latest) -> int:
    """Remove finished segments of days that are long over and whose rows are in the lake; how many."""
    before = str(datetime.now(UTC).date() - timedelta(days=KEPT_DAYS))
    removed = 0
    for day, some in there.items():
        record = latest.certain(ASSET, day)
        for each in some if record is not None and day < before else ():
            taken_in = record.details["segments"].get(each.name, {}).get("bytes") if record else None
            if each.finished() and each.path.exists() and each.path.stat().st_size == each.size == taken_in:
                each.path.unlink()
                removed += 1
    return removed
