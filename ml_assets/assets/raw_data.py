"""`raw_data`: rows as they arrived, with where they came from. A day holds the rows of all batches that touch it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.handover import hand_on
from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import acceptance, acceptance_spec, check_results, check_specs
from ml_assets.errors import BatchRefusedError, MlAssetsError, SourceError
from ml_assets.lake import PARTITION, by_partition
from ml_assets.ml.cleaning import Judged, judge, read_rows
from ml_assets.ml.limits import exceeded
from ml_assets.model import Model
from ml_assets.records import Basis, Problem, read_latest
from ml_assets.resources import LakeResource
from ml_assets.sources.feed import Survey, read_partitions, survey

INGESTED_AT = "_ingested_at"


def raw_basis(model: Model, fingerprint: str) -> Basis:
    """What a partition of the raw rows depends on, and what may refuse it."""
    return Basis(fingerprint, [model.rows_contract.digest, model.rows_feed.limits])


def _provenance(found: Survey, partition: str) -> dict[str, Any]:
    """The batches of a partition, and how they differ from the contract; a sentence or two of it, for people."""
    batches = {each.id: each.fingerprint for each in sorted(found.partitions.get(partition, {}))}
    drift = [f"{name}: {said}" for name in batches for said in found.drift.get(name, [])]
    return {"batches": batches} | ({"drift": "; ".join(drift[:10])} if drift else {})


def raw_data(model: Model) -> dg.AssetsDefinition:
    contract = model.rows_contract.arriving
    spec = asset_spec(
        model,
        "raw_data",
        f"Rows of {model.name} as they arrived, column for column, with batch, row number and time of ingestion.",
        kinds=["polars", "deltalake"],
        schema=contract.schema,
        partitioned=True,
        skippable=True,
        metadata={"source": model.spec.source.where},
    )
    # Rows that break the contract are expected here: they go to rejected_rows, and the checks only warn.
    checks = [*check_specs(spec.key, contract.schema, blocking=False), acceptance_spec(spec.key)]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables = lake.open()
        found, latest = survey(model.rows_feed, tables), read_latest(tables, model.name)
        if not model.daily and not found.partitions:
            raise SourceError(f"{model.name}: source: nothing has landed at {model.spec.source.where} yet")
        for batch, reason in found.unreadable.items():
            context.log.error(f"{batch.id}: {reason}")

        sizes = found.sizes()
        last: dict[str, Any] = {}  # what the last chunk read

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            blocked = {each: SourceError(found.blocked[each]) for each in partitions if each in found.blocked}
            readable = [each for each in partitions if each not in blocked]
            made: dict[str, Made | MlAssetsError] = dict(blocked)
            last.clear()
            for each, rows in (_read(readable) if readable else {}).items():
                made[each] = rows if isinstance(rows, MlAssetsError) else {"raw_data": rows}
            return made

        def _read(partitions: list[str]) -> dict[str, Slice | MlAssetsError]:
            try:
                rows = read_partitions(model.rows_feed, found, partitions)
                read = read_rows(
                    rows, model.rows_contract, **asdict(model.rows_feed.reading), place=f"{model.name}/raw_data"
                )
                judged = judge(read)
            except MlAssetsError as error:
                if len(partitions) == 1:
                    return {partitions[0]: error}
                # One bad batch must not hold up the days that it does not touch.
                return {each: made for name in partitions for each, made in _read([name]).items()}
            last.update(partitions=partitions, read=read)
            stamped = rows.with_columns(pl.lit(datetime.now(UTC)).alias(INGESTED_AT))
            days, nothing = by_partition(stamped), stamped.clear().drop(PARTITION)
            return {each: _slice(each, days.get(each, nothing), judged.get(each, Judged())) for each in partitions}

        def _slice(partition: str, frame: pl.DataFrame, judged: Judged | BatchRefusedError) -> Slice | MlAssetsError:
            if isinstance(judged, BatchRefusedError):
                return judged
            if broken := exceeded(model.spec.source.limits, frame, judged, sizes):
                return BatchRefusedError(f"{model.name}/raw_data {partition}: {broken}")
            # A column that only files of other days have is none of this day's: it must not matter which days are made
            # together.
            unknown = [name for name in frame.columns if name not in contract.types and not name.startswith("_")]
            rows = frame.drop(name for name in unknown if frame[name].null_count() == frame.height)
            return Slice(rows, _provenance(found, partition), judged.failures, volatile=(INGESTED_AT,))

        wanted = partitions_in(context)
        rows = {each: found.rows(each) for each in wanted}
        bases = {each: raw_basis(model, found.fingerprint(each)) for each in wanted}
        done = refresh(context, model, tables, latest, {"raw_data": None}, bases, rows, work, blocked=found.blocked)
        if last:
            hand_on(model, tables, done.latest, **last)
        for name, drift in sorted(found.drift.items()):
            context.log.warning(f"{model.rows_feed.source.place}: {name}: {'; '.join(drift)}")
        failures = done.failures("raw_data")
        unreadable = {each.id: Problem(reason, "Land it again") for each, reason in found.unreadable.items()}
        results = [
            *check_results(spec.key, contract.schema, failures, severity=dg.AssetCheckSeverity.WARN),
            dg.AssetCheckResult(asset_key=spec.key, **acceptance(done.latest.problems() | unreadable)),
        ]
        yield from done.result(spec.key, results)

    return step
