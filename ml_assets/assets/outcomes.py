"""`outcomes`: what became known after the event, and when it became known.

Partitioned by arrival where outcomes come in files of their own, and like the rows where they come with them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import Made, Refreshed, Slice, refresh
from ml_assets.checks import check_results, check_specs, conservation_result, conservation_spec
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError, SourceError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.cleaning import Cleaned, clean
from ml_assets.ml.limits import exceeded
from ml_assets.ml.schemas import outcomes_schema
from ml_assets.ml.training import KNOWN_AT
from ml_assets.model import Model
from ml_assets.records import Basis, read_latest
from ml_assets.resources import LakeResource
from ml_assets.sources.feed import read_partitions, survey

REJECTED_TABLE = "rejected_outcomes"  # the quarantine of outcomes that arrive in files of their own


def outcomes_inputs(model: Model, *, fingerprint: str | None = None, cleaned_content: str | None = None) -> str:
    """What a partition of the outcomes depends on: its batches, or the cleaned rows that they came with."""
    return digest_of([fingerprint, cleaned_content, model.outcomes_digest])


def outcomes_basis(model: Model, *, fingerprint: str | None = None, cleaned_content: str | None = None) -> Basis:
    """What a partition of the outcomes depends on, and what may refuse it."""
    inputs = outcomes_inputs(model, fingerprint=fingerprint, cleaned_content=cleaned_content)
    limits = model.spec.outcomes.limits.model_dump() if model.spec.outcomes else None
    return Basis(inputs, digest_of([inputs, limits]))


def outcomes(model: Model) -> dg.AssetsDefinition:
    schema = outcomes_schema(model.contract, model.outcome_key)
    arrives = model.outcomes_feed is not None
    spec = asset_spec(
        model,
        "outcomes",
        "What became known after the event, and when. "
        + ("By the day of arrival." if arrives else "It came in the same rows."),
        deps=[] if arrives else ["cleaned_data"],
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        code=model.outcomes_digest,
        partitioned=True,
        skippable=True,
        metadata={"source": model.spec.outcomes.where} if model.spec.outcomes else None,
    )
    checks = check_specs(spec.key, schema, blocking=True)
    if arrives:
        checks.append(conservation_spec(spec.key))
    make = _arriving if arrives else _same_row

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        done = make(context, model, lake.open(), schema)
        results = list(check_results(spec.key, schema, done.failures("outcomes")))
        if arrives:
            results.append(conservation_result(spec.key, done.latest.of("outcomes")))
        yield from done.result(spec.key, results)

    return step


def _arriving(context: dg.AssetExecutionContext, model: Model, tables: Lake, schema: pa.DataFrameSchema) -> Refreshed:
    """Outcomes from files of their own, cleaned by the same contract."""
    feed = model.outcomes_feed
    assert feed is not None
    assert feed.calendar is not None
    assert model.spec.outcomes is not None
    time, limits = feed.calendar.time, model.spec.outcomes.limits
    found = survey(feed, tables)
    for batch, reason in found.unreadable.items():
        context.log.error(f"{batch.id}: {reason}")

    def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
        made: dict[str, Made | MlAssetsError] = {}
        for each in partitions:
            try:
                if each in found.blocked:
                    raise SourceError(found.blocked[each])
                rows = read_partitions(feed, found, [each])
                place = f"{model.name}/outcomes"
                done = clean(rows, feed.contract, **asdict(feed.reading), place=place).get(each)
            except MlAssetsError as error:
                made[each] = error
                continue
            if isinstance(done, BatchRefusedError):
                made[each] = done
                continue
            done = done or Cleaned.empty(feed.contract)
            if broken := exceeded(limits, rows, done, found.sizes()):
                made[each] = BatchRefusedError(f"{model.name}/outcomes {each}: {broken}")
                continue
            quarantine = done.rejected.with_columns(pl.lit(each).alias(PARTITION))
            tables.replace(model.name, REJECTED_TABLE, quarantine, [each])
            known = pl.col(time).cast(pl.Datetime("us", "UTC")).alias(KNOWN_AT)
            frame = done.rows.with_columns(known).select(list(schema.columns))
            counts = {"raw": rows.height, "rejected": done.rejected.height, "duplicates": done.duplicates}
            made[each] = {"outcomes": Slice(frame, counts)}
        return made

    wanted = partitions_in(context)
    rows = {each: found.rows(each) for each in wanted}
    bases = {each: outcomes_basis(model, fingerprint=found.fingerprint(each)) for each in wanted}
    return refresh(context, model, tables, {"outcomes": schema}, bases, rows, work, blocked=found.blocked)


def _same_row(context: dg.AssetExecutionContext, model: Model, tables: Lake, schema: pa.DataFrameSchema) -> Refreshed:
    """Outcomes from the rows' own columns: known at the contract's `known_at`, or from the end of the event's day."""
    cleaned_records = read_latest(tables, model.name).of("cleaned_data")

    def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
        cleaned = tables.read(model.name, "cleaned_data", [each for each in partitions if each in cleaned_records])
        made: dict[str, Made | MlAssetsError] = {}
        for each in partitions:
            if each not in cleaned_records:
                made[each] = BatchRefusedError(
                    f"cleaned_data has no such partition; materialise {model.name}/cleaned_data"
                )
                continue
            rows = cleaned.filter(pl.col(PARTITION) == each)
            frame = rows.with_columns(_known_at(model).alias(KNOWN_AT)).select(list(schema.columns))
            made[each] = {"outcomes": Slice(frame)}
        return made

    wanted = set(partitions_in(context))
    rows = {each: record.rows for each, record in cleaned_records.items() if each in wanted}
    bases = {each: outcomes_basis(model, cleaned_content=cleaned_records[each].content) for each in rows}
    return refresh(context, model, tables, {"outcomes": schema}, bases, rows, work)


def _known_at(model: Model) -> pl.Expr:
    kind = pl.Datetime("us", "UTC")
    if model.contract.known_at:
        return pl.col(model.contract.known_at).cast(kind)
    if not model.daily:
        return pl.lit(None, kind)
    zone = model.spec.source.timezone
    midnight = (pl.col(PARTITION).str.to_date() + timedelta(days=1)).cast(pl.Datetime("us"))
    # Where summer time begins at midnight, the day begins at one.
    starts = [
        each.dt.replace_time_zone(zone, non_existent="null", ambiguous="earliest")
        for each in (midnight, midnight + timedelta(hours=1))
    ]
    return pl.coalesce(starts).dt.convert_time_zone("UTC")
