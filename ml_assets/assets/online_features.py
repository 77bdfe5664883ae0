"""`online_features`: what the endpoint looks up, in Feast's online store. Only what changed is written."""

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.joined import in_order
from ml_assets.assets.naming import INPUTS_TAG, asset_spec, execution, preview
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.feature_store.online import SCHEMA, Holding, bring_up_to_date, holding, mark_of
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.schemas import ONLINE
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, append_records, read_latest
from ml_assets.resources import FeatureStoreResource, LakeResource
from ml_assets.serving.online import OnlineStore

ASSET = "online_features"


def online_basis(model: Model, latest: Latest, now: datetime) -> Basis:
    """What the online store depends on: how each view is defined, and the content of the partitions that may count."""
    views = {
        name: [
            join.by,
            join.columns,
            {column: str(join.types[column]) for column in join.columns},
            str(join.freshness),
            {each: latest.of(name)[each].content for each in _partitions(model, latest, name, now)},
        ]
        for name, join in model.views.items()
    }
    inputs = digest_of(views)
    return Basis(inputs)


def is_behind(record: Record, online: OnlineStore, now: datetime) -> bool:
    """Whether the store does not hold what the record says, or a row has become available since.

    Raises:
        OnlineStoreError: if the store does not answer.
    """
    after = record.details["next"]
    held = online.marks()
    lost = any(held.get(view) != mark for view, mark in record.details["marks"].items())
    return lost or (after is not None and now >= datetime.fromisoformat(after))


def holdings_of(model: Model, lake: Lake, latest: Latest, as_of: datetime) -> dict[str, Holding]:
    """What the online store is to hold at some moment, by view."""
    return {
        name: holding(join, in_order(lake.read(model.name, name, _partitions(model, latest, name, as_of))), as_of)
        for name, join in model.views.items()
    }


def _partitions(model: Model, latest: Latest, name: str, now: datetime) -> list[str]:
    """Partitions that may hold the latest fresh row of an entity: from a day that is available as a whole on, and
    before it as far as the view's freshness reaches.
    """
    there = [each for each, record in latest.finished(name).items() if record.rows]
    freshness = model.views[name].freshness
    if freshness is None or WHOLE in there:
        return there
    tomorrow = now.date() + timedelta(days=1)  # whatever the time zone, no day that has begun is later
    ended = (now - model.delay_of(name)).date() - timedelta(days=2)
    newest = max((each for each in there if each <= str(ended)), default=None)
    first = date.fromisoformat(newest) - freshness - timedelta(days=1) if newest else date.min
    return [each for each in there if str(first) <= each <= str(tomorrow)]


def online_features(model: Model) -> dg.AssetsDefinition:
    spec = asset_spec(
        model,
        ASSET,
        "What the endpoint looks up, in Feast's online store: of each entity the latest values that are available. "
        "Here as one line of text per entity and view.",
        deps=list(model.views),
        kinds=["feast", "deltalake", "pandera"],
        schema=ONLINE,
        skippable=True,
    )
    checks = check_specs(spec.key, ONLINE, blocking=True)

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, feature_store: FeatureStoreResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        tables, online = lake.open(), feature_store.online(model)
        with tables.alone(model.name, ASSET):  # and only then look at the clock: time does not run back in the store
            now, latest = datetime.now(UTC), read_latest(tables, model.name)
            before, inputs = latest.get(ASSET, WHOLE), online_basis(model, latest, now).inputs
            due = before is None or before.inputs != inputs or is_behind(before, online, now)
            if before is not None and INPUTS_TAG in context.run.tags and not due:
                yield from check_results(spec.key, ONLINE, before.details["failures"])
                return
            holdings = holdings_of(model, tables, latest, now)
            store = feature_store.apply(model, tables)
            columns = before.details["columns"] if before else {}
            written = bring_up_to_date(store, online, holdings, _held(model, tables, columns), columns)
            table = pl.concat(
                [pl.DataFrame(schema=SCHEMA | {PARTITION: pl.String()})]
                + [each.table().with_columns(pl.lit(view).alias(PARTITION)) for view, each in holdings.items()]
            )
            version = tables.replace(model.name, ASSET, table, list({*holdings, *columns}))
            marks = {view: mark_of(each.table()) for view, each in holdings.items()}
            nexts = [each.next for each in holdings.values() if each.next]
            details: dict[str, Any] = {
                "marks": marks,
                "columns": {view: list(join.columns) for view, join in model.views.items()},
                "next": min(nexts).isoformat() if nexts else None,
                "failures": count_failures(ONLINE, table),
            }
            record = Record(
                ASSET, WHOLE, inputs, digest_of(marks), table.height, context.run.run_id, version, details=details
            )
            append_records(tables, model.name, [record])
        for view, count in written.items():
            context.log.info(f"{model.name}: {view}: {count:,} of {holdings[view].rows.height:,} entities written")
        yield dg.MaterializeResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(record.content),
            metadata={
                "rows": dg.MetadataValue.int(table.height),
                "written": dg.MetadataValue.int(sum(written.values())),
                **{f"entities_{view}": dg.MetadataValue.int(each.rows.height) for view, each in holdings.items()},
                "next": dg.MetadataValue.text(details["next"] or "nothing is waiting to become available"),
                "feast": dg.MetadataValue.text(f"feast -c {feature_store.folder(model)} feature-views list"),
                "preview": preview(table),
            },
            check_results=list(check_results(spec.key, ONLINE, details["failures"])),
        )

    return step


def _held(model: Model, lake: Lake, views: Collection[str]) -> dict[str, pl.DataFrame]:
    """What was written last of each view."""
    rows = lake.read(model.name, ASSET, list(views)) if views else pl.DataFrame()
    return {view: rows.filter(pl.col(PARTITION) == view).select(list(SCHEMA)) for view in views}
