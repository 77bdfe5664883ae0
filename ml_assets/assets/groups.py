"""Feature groups, an asset each: aggregates of every entity's past, as known at the end of each day."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.errors import MlAssetsError
from ml_assets.lake import PARTITION, Lake, by_partition
from ml_assets.ml.groups import DAY, KNOWN, Group, Known, aggregate
from ml_assets.ml.schemas import group_schema
from ml_assets.ml.training import KNOWN_AT
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, read_latest
from ml_assets.resources import LakeResource


def group_basis(model: Model, name: str, latest: Latest, partition: str) -> Basis:
    """What a day of a group depends on: the content of the days that its windows reach."""
    group, day = model.groups[name], date.fromisoformat(partition)
    used = {
        asset: {str(each): record.content for each in days if (record := latest.get(asset, str(each)))}
        for asset, days in _reach(model, group, [day]).items()
    }
    inputs = digest_of([model.group_digest(name), used])
    return Basis(inputs)


def group_days(model: Model, name: str, partition: str) -> set[str]:
    """Days whose rows or outcomes decide about a day of a group."""
    reach = _reach(model, model.groups[name], [date.fromisoformat(partition)])
    return {str(each) for days in reach.values() for each in days}


def groups(model: Model) -> list[dg.AssetsDefinition]:
    return [_group(model, name) for name in model.groups]


def _group(model: Model, name: str) -> dg.AssetsDefinition:
    group = model.groups[name]
    schema = group_schema(group)
    spec = asset_spec(
        model,
        name,
        f"What was known of each {' and '.join(group.entity)} at the end of a day: {', '.join(group.columns)}. Can be "
        f"used {group.spec.delay} after it, until it is {group.spec.freshness} old.",
        deps=["cleaned_data", "outcomes"],
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        code=model.group_digest(name),
        partitioned=True,
        skippable=True,
    )
    checks = check_specs(spec.key, schema, blocking=True)

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables = lake.open()
        before = read_latest(tables, model.name)
        cleaned = before.finished("cleaned_data")

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            # A day that has lost its rows has no group, like one that never had any.
            days = [date.fromisoformat(each) for each in partitions if cleaned[each].rows]
            made: dict[str, pl.DataFrame] = {}
            if days:
                rows = aggregate(group, _known(model, group, tables, days), days, _zone(model))
                made = by_partition(rows.with_columns(pl.col(DAY).cast(pl.String).alias(PARTITION)).drop(DAY))
            nothing = pl.DataFrame(schema=group.schema)
            return {each: {name: Slice(made.get(each, nothing))} for each in partitions}

        wanted = [each for each in partitions_in(context) if each in cleaned]
        counts = {each: cleaned[each].rows for each in wanted}
        bases = {each: group_basis(model, name, before, each) for each in wanted}
        done = refresh(context, model, tables, before, {name: schema}, bases, counts, work)
        yield from done.result(spec.key, check_results(spec.key, schema, done.failures(name)))

    return step


def _zone(model: Model) -> str:
    """Where days end, on the clock of the event times: those without a zone are compared as they stand."""
    kind = model.contract.types[str(model.contract.event_time)]
    return model.spec.source.timezone if getattr(kind, "time_zone", None) else "UTC"


def _reach(model: Model, group: Group, days: list[date]) -> dict[str, list[date]]:
    """For each table the days of it that decide about some days of a group."""
    needed = sorted({each for day in days for each in group.needs(day)})
    if model.outcomes_feed is None or not group.values(afterwards=True):
        return {"cleaned_data": needed}
    within = parse_duration(group.spec.within).days
    earlier = [needed[0] - timedelta(days=number) for number in range(within, 0, -1)]
    return {"cleaned_data": [*earlier, *needed], "outcomes": needed}


def _known(model: Model, group: Group, lake: Lake, days: list[date]) -> list[Known]:
    """What became known of the group's columns on the days that decide about `days`.

    Columns of the rows themselves count from their day, and so do outcomes that came in the same rows. Outcomes in
    files of their own count from the day of their arrival.
    """
    reach = {asset: [str(each) for each in found] for asset, found in _reach(model, group, days).items()}
    own, later = group.values(afterwards=False), group.values(afterwards=True)
    day, key = pl.col(PARTITION).str.to_date().alias(DAY), model.contract.key
    if model.outcomes_feed is None:
        own, later = [*own, *later], []
    rows = _read(lake, model, "cleaned_data", reach["cleaned_data"], [*group.entity, *key, *model.outcome_key, *own])
    known = []
    if own:
        columns = dict.fromkeys([*group.entity, *key, *own])
        known.append(Known(own, key, rows.select(*columns, day, pl.lit(None, pl.Datetime).alias(KNOWN)), revised=False))
    if later:
        found_by = model.outcome_key
        outcomes = _read(lake, model, "outcomes", reach["outcomes"], [*found_by, *later, KNOWN_AT])
        joined = _with_their_rows(outcomes, rows, group, found_by)
        columns = dict.fromkeys([*group.entity, *found_by, *later])
        known.append(Known(later, found_by, joined.select(*columns, day, pl.col(KNOWN_AT).alias(KNOWN)), revised=True))
    return known


def _with_their_rows(outcomes: pl.DataFrame, rows: pl.DataFrame, group: Group, key: list[str]) -> pl.DataFrame:
    """Outcomes with the entity of their row: the latest with their key, of the day of their arrival or not too long
    before. That does not depend on which other days were read.
    """
    of_whom = rows.select(*dict.fromkeys([*group.entity, *key]), pl.col(PARTITION).str.to_date().alias("_event"))
    day, numbered = pl.col(PARTITION).str.to_date(), outcomes.with_row_index("_number")
    return (
        numbered.join(of_whom, on=key, how="inner")
        .filter(pl.col("_event") <= day, pl.col("_event") >= day - parse_duration(group.spec.within))
        .sort("_event", *group.entity, nulls_last=False)
        .unique("_number", keep="last", maintain_order=True)
        .drop("_number", "_event")
    )


def _read(lake: Lake, model: Model, asset: str, days: list[str], columns: list[str]) -> pl.DataFrame:
    """Some columns of some days, with `_partition`; the contract's types where the table has nothing yet."""
    wanted = list(dict.fromkeys([PARTITION, *columns]))
    if lake.exists(model.name, asset):
        return lake.read(model.name, asset, days, columns=wanted)
    types = model.contract.types | {PARTITION: pl.String(), KNOWN_AT: pl.Datetime("us", "UTC")}
    return pl.DataFrame(schema={name: types[name] for name in wanted})
