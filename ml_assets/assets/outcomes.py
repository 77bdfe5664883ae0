"""`outcomes`: what became known after the event, and when it became known.

Partitioned by arrival where outcomes come in files of their own, and like the rows where they come with them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.arriving import Arriving, arriving_basis
from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import Refreshed, refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs, conservation_result, conservation_spec
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError
from ml_assets.lake import PARTITION, Lake, by_partition
from ml_assets.ml.days import end_of_day
from ml_assets.ml.schemas import outcomes_schema
from ml_assets.ml.training import KNOWN_AT
from ml_assets.model import Model
from ml_assets.records import Basis, read_latest
from ml_assets.resources import LakeResource


def outcomes_basis(model: Model, source: str) -> Basis:
    """What a partition of the outcomes depends on, and what may refuse it.

    Args:
        source: fingerprint of its batches, or content of the cleaned rows that the outcomes came with.
    """
    if model.outcomes_feed is not None:
        return arriving_basis(model.outcomes_feed, source, model.outcomes_digest)
    inputs = digest_of([source, model.outcomes_digest])
    return Basis(inputs)


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
    """Outcomes from a source of their own, cleaned by the same contract."""
    feed = model.outcomes_feed
    assert feed is not None
    known_at = pl.col(str(model.contract.known_at)).cast(pl.Datetime("us", "UTC")).alias(KNOWN_AT)

    def finish(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(known_at).select(list(schema.columns))

    return Arriving(feed, schema, model.outcomes_digest, finish).refresh(context, model, tables)


def _same_row(context: dg.AssetExecutionContext, model: Model, tables: Lake, schema: pa.DataFrameSchema) -> Refreshed:
    """Outcomes from the rows' own columns: known at the contract's `known_at`, or from the end of the event's day."""
    before = read_latest(tables, model.name)
    cleaned_records = before.finished("cleaned_data")

    def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
        missing = f"cleaned_data has no such partition; materialise {model.name}/cleaned_data"
        made: dict[str, Made | MlAssetsError] = {
            each: BatchRefusedError(missing) for each in partitions if each not in cleaned_records
        }
        there = [each for each in partitions if each in cleaned_records]
        if there:
            cleaned = tables.read(model.name, "cleaned_data", there)
            known = cleaned.with_columns(_known_at(model).alias(KNOWN_AT)).select(PARTITION, *schema.columns)
            days, nothing = by_partition(known), known.clear().drop(PARTITION)
            made |= {each: {"outcomes": _slice(model, days.get(each, nothing))} for each in there}
        return made

    wanted = set(partitions_in(context))
    rows = {each: record.rows for each, record in cleaned_records.items() if each in wanted}
    bases = {each: outcomes_basis(model, cleaned_records[each].content) for each in rows}
    return refresh(context, model, tables, before, {"outcomes": schema}, bases, rows, work)


def _slice(model: Model, rows: pl.DataFrame) -> Slice:
    """A day of the table. An outcome that came with its row may be null: it may come later."""
    return Slice(rows, {"labelled": rows.get_column(model.contract.target).count()})


def _known_at(model: Model) -> pl.Expr:
    kind = pl.Datetime("us", "UTC")
    if model.contract.known_at:
        return pl.col(model.contract.known_at).cast(kind)
    if not model.daily:
        return pl.lit(None, kind)
    return end_of_day(pl.col(PARTITION).str.to_date(), model.spec.source.timezone)
