"""`cleaned_data` and `rejected_rows`: rows that keep the contract, and the others with every reason.

raw = cleaned + rejected + duplicates, for every day, is a blocking check.
"""

from collections.abc import Iterator, Mapping

import dagster as dg

from ml_assets.assets.naming import asset_spec, execution, partitions_in
from ml_assets.assets.refresh import Made, Slice, refresh
from ml_assets.checks import check_results, check_specs, conservation_result, conservation_spec
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError
from ml_assets.ml.cleaning import Cleaned, clean
from ml_assets.ml.schemas import REJECTED
from ml_assets.model import Model
from ml_assets.records import read_latest
from ml_assets.resources import LakeResource


def cleaned_inputs(model: Model, raw_content: str) -> str:
    """What a cleaned partition depends on."""
    return digest_of([raw_content, model.cleaning_digest])


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
    )
    checks = [
        *check_specs(cleaned.key, contract.schema, blocking=True),
        *check_specs(rejected.key, REJECTED, blocking=True),
        conservation_spec(cleaned.key),
    ]

    @dg.multi_asset(**execution(model, [cleaned, rejected], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[dg.MaterializeResult]:
        tables = lake.open()
        before = read_latest(tables, model.name)
        raw_records = before.of("raw_data")

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            raw = tables.read(model.name, "raw_data", [each for each in partitions if each in raw_records])
            made: dict[str, Made | MlAssetsError] = {}
            place = f"{model.name}/cleaned_data"
            done = clean(raw, contract, null_values=model.spec.source.null_values, hook=model.hook, place=place)
            for each in partitions:
                if each not in raw_records:
                    made[each] = BatchRefusedError(f"raw_data has no such partition; materialise {model.name}/raw_data")
                    continue
                rows = done.get(each) or Cleaned.empty(contract)
                made[each] = rows if isinstance(rows, BatchRefusedError) else _slices(each, rows)
            return made

        def _slices(partition: str, done: Cleaned) -> Made:
            inputs = cleaned_inputs(model, raw_records[partition].content)
            details = {
                "raw": raw_records[partition].rows,
                "rejected": done.rejected.height,
                "duplicates": done.duplicates,
            }
            return {
                "cleaned_data": Slice(done.rows, inputs, details),
                "rejected_rows": Slice(done.rejected, inputs),
            }

        rows = {each: record.rows for each, record in raw_records.items() if each in set(partitions_in(context))}
        schemas = {"cleaned_data": contract.schema, "rejected_rows": REJECTED}
        done = refresh(context, model, tables, schemas, rows, work)
        yield dg.MaterializeResult(
            **done.results["cleaned_data"],
            check_results=[
                *check_results(cleaned.key, contract.schema, done.failures("cleaned_data")),
                conservation_result(cleaned.key, done.latest.of("cleaned_data")),
            ],
        )
        yield dg.MaterializeResult(
            **done.results["rejected_rows"],
            check_results=list(check_results(rejected.key, REJECTED, done.failures("rejected_rows"))),
        )

    return step
