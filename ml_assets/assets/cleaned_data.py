"""`cleaned_data` and `rejected_rows`: rows that keep the contract, and the others with every reason.

raw = cleaned + rejected + duplicates, for every day, is a blocking check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.handover import take
from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs, conservation_result, conservation_spec
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError
from ml_assets.lake import PARTITION, by_partition
from ml_assets.ml.cleaning import SOURCE, STRAY, Cleaned, clean, read_rows
from ml_assets.ml.limits import exceeded
from ml_assets.ml.schemas import REJECTED
from ml_assets.ml.validation import rowwise
from ml_assets.model import Model
from ml_assets.records import Basis, read_latest
from ml_assets.resources import LakeResource


def cleaned_inputs(model: Model, raw_content: str) -> str:
    """What a cleaned partition depends on."""
    return digest_of([raw_content, model.cleaning_digest])


def cleaned_basis(model: Model, raw_content: str) -> Basis:
    """What a cleaned partition depends on, and what may refuse it."""
    return Basis(cleaned_inputs(model, raw_content), model.rows_feed.limits)


def cleaned_data(model: Model) -> dg.AssetsDefinition:
    contract = model.rows_contract
    cleaned = asset_spec(
        model,
        "cleaned_data",
        "Rows that keep the contract: typed, unique by key, in key order. A row without a label stays.",
        deps=["raw_data"],
        kinds=["polars", "deltalake", "pandera"],
        schema=contract.schema,
        code=model.cleaning_digest,
        partitioned=True,
        skippable=True,
    )
    rejected = asset_spec(
        model,
        "rejected_rows",
        "Rows that break the contract, kept with every reason: column, check and value.",
        deps=["raw_data"],
        kinds=["polars", "deltalake", "pandera"],
        schema=REJECTED,
        code=model.cleaning_digest,
        partitioned=True,
        skippable=True,
    )
    checks = [
        *check_specs(cleaned.key, contract.schema, blocking=True),
        *check_specs(rejected.key, REJECTED, blocking=True),
        conservation_spec(cleaned.key),
    ]

    @dg.multi_asset(**execution(model, [cleaned, rejected], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables = lake.open()
        # `clean` has just validated each row that it keeps; a check over several rows may see others than it did then.
        known: dict[str, int] | None = {} if rowwise(contract.schema) else None
        before = read_latest(tables, model.name)
        raw_records, place = before.finished("raw_data"), f"{model.name}/cleaned_data"

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            missing = f"raw_data has no such partition; materialise {model.name}/raw_data"
            made: dict[str, Made | MlAssetsError] = {
                each: BatchRefusedError(missing) for each in partitions if each not in raw_records
            }
            there = [each for each in partitions if each in raw_records]
            if there:
                read = take(model, before, there)
                if read is None:
                    raw = tables.read(model.name, "raw_data", there)
                    read = read_rows(raw, contract, **asdict(model.rows_feed.reading), place=place)
                done = clean(read, contract, hook=model.hook, place=place)
                days = by_partition(read.numbered.select(PARTITION, SOURCE, STRAY))
                for each in there:
                    rows = done.get(each) or Cleaned.empty(contract)
                    made[each] = rows if isinstance(rows, BatchRefusedError) else _judged(each, rows, days.get(each))
            return made

        def _judged(partition: str, done: Cleaned, raw: pl.DataFrame | None) -> Made | MlAssetsError:
            broken = exceeded(model.spec.source.limits, raw, done.judged) if raw is not None else None
            return BatchRefusedError(f"{place} {partition}: {broken}") if broken else _slices(partition, done)

        def _slices(partition: str, done: Cleaned) -> Made:
            details = {
                "raw": raw_records[partition].rows,
                "rejected": done.rejected.height,
                "duplicates": done.duplicates,
            }
            return {
                "cleaned_data": Slice(done.rows, details, failures=known),
                "rejected_rows": Slice(done.rejected),
            }

        wanted = set(partitions_in(context))
        rows = {each: record.rows for each, record in raw_records.items() if each in wanted}
        bases = {each: cleaned_basis(model, raw_records[each].content) for each in rows}
        schemas = {"cleaned_data": contract.schema, "rejected_rows": REJECTED}
        done = refresh(context, model, tables, before, schemas, bases, rows, work)
        yield from done.result(
            cleaned.key,
            [
                *check_results(cleaned.key, contract.schema, done.failures("cleaned_data")),
                conservation_result(cleaned.key, done.latest.of("cleaned_data")),
            ],
        )
        yield from done.result(rejected.key, check_results(rejected.key, REJECTED, done.failures("rejected_rows")))

    return step
