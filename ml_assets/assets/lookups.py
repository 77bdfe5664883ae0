"""Side tables, an asset each: what is known of a place, a plane or a product, or of the weather at some time."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.assets.arriving import Arriving
from ml_assets.assets.naming import asset_spec, execution
from ml_assets.checks import check_results, check_specs, conservation_result, conservation_spec
from ml_assets.ml.schemas import lookup_schema
from ml_assets.model import Model
from ml_assets.resources import LakeResource


def lookups(model: Model) -> list[dg.AssetsDefinition]:
    return [_lookup(model, name) for name in model.lookups]


def _lookup(model: Model, name: str) -> dg.AssetsDefinition:
    lookup, feed = model.lookups[name], model.lookup_feeds[name]
    schema = lookup_schema(lookup)
    how = f"the latest known {lookup.spec.lag} before" if lookup.timed else "the row with the same key"
    spec = asset_spec(
        model,
        name,
        f"Side table of {model.name}, unique by {', '.join(lookup.contract.key)}. Joined to a row: {how}.",
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        code=model.lookup_digest(name),
        partitioned=feed.calendar is not None,
        skippable=True,
        metadata={"source": lookup.spec.source.where},
    )
    checks = [*check_specs(spec.key, schema, blocking=True), conservation_spec(spec.key)]
    table = Arriving(feed, schema, model.lookup_digest(name), lookup.available)

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        done = table.refresh(context, model, lake.open())
        results = [*check_results(spec.key, schema, done.failures(name))]
        yield from done.result(spec.key, [*results, conservation_result(spec.key, done.latest.of(name))])

    return step
