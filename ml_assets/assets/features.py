"""`features`: the model's features of each cleaned row, with what identifies it. No outcome is among them."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.joined import joined_used, with_joined
from ml_assets.assets.naming import asset_spec, execution, key_of, partitions_in
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError
from ml_assets.lake import PARTITION, by_partition
from ml_assets.ml.lookups import refused
from ml_assets.ml.schemas import features_schema
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, read_latest
from ml_assets.resources import LakeResource


def features_basis(model: Model, cleaned_content: str, used: Mapping[str, Mapping[str, str]]) -> Basis:
    """What a partition of the features depends on, and what may refuse it.

    Args:
        used: for each side table and group the content of its partitions that count.
    """
    joined = [[each.digest, used[name]] for name, each in (model.lookups | model.groups).items()]
    weights = model.spec.training.sample_weights
    inputs = digest_of([cleaned_content, model.features.digest, joined, *([weights] if weights else [])])
    return Basis(inputs, [each.spec.max_unmatched for each in model.lookups.values()])


def features(model: Model) -> dg.AssetsDefinition:
    weights = model.spec.training.sample_weights
    schema = features_schema(model.contract, model.features, weights)
    spec = asset_spec(
        model,
        "features",
        "Features of each cleaned row, computed by the same expressions that the endpoint uses.",
        deps=["cleaned_data", *model.joined],
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        code=model.features.digest,
        partitioned=True,
        skippable=True,
    )
    checks = check_specs(spec.key, schema, blocking=True)
    identifying = [name for name in model.contract.carried_with(weights) if name not in model.features.names]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables = lake.open()
        before = read_latest(tables, model.name)
        cleaned_records = before.finished("cleaned_data")

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            made: dict[str, Made | MlAssetsError] = {}
            for each in partitions:
                if each not in cleaned_records:
                    made[each] = BatchRefusedError(
                        f"cleaned_data has no such partition; materialise {model.name}/cleaned_data"
                    )
                elif empty := [name for name in model.lookups if not before.of(name)]:
                    made[each] = BatchRefusedError(
                        f"{model.name}/features {each}: the lookup {empty[0]!r} holds nothing yet; look at "
                        f"{model.lookups[empty[0]].spec.source.where}, or materialise {model.name}/{empty[0]}"
                    )
            there = [each for each in partitions if each not in made]
            if not there:
                return made
            cleaned = tables.read(model.name, "cleaned_data", there)
            rows, matched = with_joined(model, tables, cleaned, there)
            computed = pl.concat(
                [rows.select(PARTITION, *identifying), model.features.compute(rows), _unmatched(matched)],
                how="horizontal",
            )
            days, nothing = by_partition(computed), computed.clear().drop(PARTITION)
            return made | {each: _slice(each, days.get(each, nothing)) for each in there}

        def _slice(partition: str, rows: pl.DataFrame) -> Made | MlAssetsError:
            unmatched = {name: int(rows.get_column(_UNMATCHED + name).sum()) for name in model.joined}
            if broken := refused(model.lookups, unmatched, rows.height):
                return BatchRefusedError(f"{model.name}/features {partition}: {broken}")
            frame = rows.drop(_UNMATCHED + name for name in model.joined)
            return {"features": Slice(frame, {f"unmatched_{name}": count for name, count in unmatched.items()})}

        wanted = set(partitions_in(context))
        rows = {each: record.rows for each, record in cleaned_records.items() if each in wanted}
        bases = {
            each: features_basis(model, cleaned_records[each].content, joined_used(model, before, each))
            for each in rows
        }
        done = refresh(context, model, tables, before, {"features": schema}, bases, rows, work)
        for result in done.results.values():
            result["metadata"] |= {"dagster/column_lineage": _lineage(model)} | _shares(model, done.latest)
        yield from done.result(spec.key, check_results(spec.key, schema, done.failures("features")))

    return step


_UNMATCHED = "_unmatched_"  # before a side table's name: whether a row found nothing in it


def _unmatched(matched: Mapping[str, pl.Series]) -> pl.DataFrame:
    return pl.DataFrame([(~found).alias(_UNMATCHED + name) for name, found in matched.items()])


def _shares(model: Model, latest: Latest) -> dict[str, dg.MetadataValue]:
    """Share of the rows of all days that found no row in each side table or group."""
    records = latest.of("features").values()
    rows = sum(each.rows for each in records)
    unmatched = {name: sum(each.details.get(f"unmatched_{name}", 0) for each in records) for name in model.joined}
    return {
        f"unmatched_in_all_{name}": dg.MetadataValue.text(f"{count:,} of {rows:,} rows ({count / max(rows, 1):.1%})")
        for name, count in unmatched.items()
    }


def _lineage(model: Model) -> dg.TableColumnLineage:
    """For each feature the columns that it reads, and in which table they are."""
    own = {name: dg.TableColumnDep(key_of(model, "cleaned_data"), name) for name in model.contract.beforehand}
    for lookup in model.lookups.values():
        own |= {
            renamed: dg.TableColumnDep(key_of(model, lookup.name), name) for name, renamed in lookup.columns.items()
        }
    for group in model.groups.values():
        own |= {
            renamed: dg.TableColumnDep(key_of(model, group.name), name) for name, renamed in group.join.columns.items()
        }
    return dg.TableColumnLineage(
        {name: [own[each] for each in columns] for name, columns in model.features.lineage.items()}
    )
