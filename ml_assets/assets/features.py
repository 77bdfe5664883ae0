"""`features`: the model's features of each cleaned row, with what identifies it. No outcome is among them."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.naming import asset_spec, execution, key_of, partitions_in
from ml_assets.assets.refresh import Made, Slice, refresh
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError
from ml_assets.lake import PARTITION
from ml_assets.ml.schemas import features_schema
from ml_assets.model import Model
from ml_assets.records import Basis, read_latest
from ml_assets.resources import LakeResource


def features_inputs(model: Model, cleaned_content: str) -> str:
    """What a partition of the features depends on."""
    return digest_of([cleaned_content, model.features.digest])


def features_basis(model: Model, cleaned_content: str) -> Basis:
    """What a partition of the features depends on, which alone decides."""
    inputs = features_inputs(model, cleaned_content)
    return Basis(inputs, inputs)


def features(model: Model) -> dg.AssetsDefinition:
    schema = features_schema(model.contract, model.features)
    lineage = dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(key_of(model, "cleaned_data"), column) for column in columns]
            for name, columns in model.features.lineage.items()
        }
    )
    spec = asset_spec(
        model,
        "features",
        "Features of each cleaned row, computed by the same expressions that the endpoint uses.",
        deps=["cleaned_data"],
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        code=model.features.digest,
        partitioned=True,
        skippable=True,
    )
    checks = check_specs(spec.key, schema, blocking=True)
    identifying = [name for name in model.contract.carried if name not in model.features.names]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables = lake.open()
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
                frame = pl.concat([rows.select(identifying), model.features.compute(rows)], how="horizontal")
                made[each] = {"features": Slice(frame)}
            return made

        wanted = set(partitions_in(context))
        rows = {each: record.rows for each, record in cleaned_records.items() if each in wanted}
        bases = {each: features_basis(model, cleaned_records[each].content) for each in rows}
        done = refresh(context, model, tables, {"features": schema}, bases, rows, work)
        for result in done.results.values():
            result["metadata"]["dagster/column_lineage"] = lineage
        yield from done.result(spec.key, check_results(spec.key, schema, done.failures("features")))

    return step
