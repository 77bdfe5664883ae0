"""`feedback`: predictions beside the outcomes that are known of them by now, by the day (UTC) of the request."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

import ml_assets
from ml_assets.assets.naming import INPUTS_TAG, SERVED_DAYS, asset_spec, execution, key_of, partitions_in
from ml_assets.assets.predictions import ASSET as PREDICTIONS
from ml_assets.assets.refresh import refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import MlAssetsError
from ml_assets.lake import Lake
from ml_assets.ml.feedback import OUTCOME, counted, feedback_schema, joined, latest_known, quality
from ml_assets.ml.predictions import KEY
from ml_assets.ml.schemas import outcomes_schema
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, read_latest
from ml_assets.resources import LakeResource

ASSET = "feedback"


def feedback_bases(model: Model, latest: Latest, now: datetime) -> dict[str, Basis]:
    """What each day depends on: its predictions and those before it, of which it counts only new ids; the outcomes; and
    whether its outcomes have had their time.
    """
    outcomes = digest_of([[each, record.content] for each, record in latest.of("outcomes").items() if record.rows])
    terms = [ml_assets.__version__, model.outcome_key, model.contract.target, model.spec.task, model.spec.outcome_delay]
    before, bases = "", {}
    for day, record in latest.finished(PREDICTIONS).items():
        before = digest_of([before, record.content])
        # Where nothing can be joined, nothing comes of outcomes.
        joinable = record.rows > record.details["not_joinable"]
        matured = is_over(day, model.spec.outcome_delay, now)
        bases[day] = Basis(digest_of([before, outcomes if joinable else "", matured, terms]))
    return bases


def is_over(day: str, delay: timedelta, now: datetime) -> bool:
    """Whether a day (UTC) ended so long ago.

    >>> is_over("2025-01-01", timedelta(days=1), datetime(2025, 1, 3, tzinfo=UTC))
    True
    """
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), datetime.min.time(), UTC)
    return now >= end + delay


def feedback(model: Model) -> dg.AssetsDefinition:
    schema = feedback_schema(model.contract, model.outcome_key, model.spec.task)
    spec = asset_spec(
        model,
        ASSET,
        "The first prediction of each id and version beside the outcome that is known of it by now, by the day (UTC) "
        "of the request.",
        kinds=["polars", "deltalake", "pandera"],
        schema=schema,
        skippable=True,
    ).replace_attributes(
        partitions_def=SERVED_DAYS,
        # An outcome of any day may be that of a prediction.
        deps=[
            dg.AssetDep(key_of(model, PREDICTIONS)),
            dg.AssetDep(key_of(model, "outcomes"), partition_mapping=dg.AllPartitionMapping() if model.daily else None),
        ],
    )
    checks = check_specs(spec.key, schema, blocking=True)

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        tables, now = lake.open(), datetime.now(UTC)
        before = read_latest(tables, model.name)
        asked = before.finished(PREDICTIONS)
        known = feedback_bases(model, before, now)

        def work(days: list[str]) -> Mapping[str, Made | MlAssetsError]:
            rows = {day: _counted(model, tables, day, asked) for day in days}
            ids = pl.concat(rows.values()).select(KEY + name for name in model.outcome_key).unique()
            outcomes = _outcomes(model, tables, before, ids)
            return {
                day: {ASSET: _slice(model, joined(some, outcomes, schema, model.outcome_key), asked.get(day), day, now)}
                for day, some in rows.items()
            }

        wanted = partitions_in(context)
        by_hand = INPUTS_TAG not in context.run.tags
        nothing = Basis(digest_of("no predictions"))
        bases = {each: known.get(each, nothing) for each in wanted if by_hand or each in known}
        rows = {each: asked[each].rows for each in wanted if each in asked}
        done = refresh(context, model, tables, before, {ASSET: schema}, bases, rows, work)
        for result in done.results.values():
            result["metadata"] |= _totals(done.latest)
        yield from done.result(spec.key, check_results(spec.key, schema, done.failures(ASSET)))

    return step


def _counted(model: Model, lake: Lake, day: str, asked: Mapping[str, Record]) -> pl.DataFrame:
    """The predictions of a day that count."""
    earlier = [each for each, record in asked.items() if each < day and record.rows]
    ids = [*(KEY + name for name in model.outcome_key), "version"]
    before = lake.read(model.name, PREDICTIONS, earlier, columns=ids) if earlier else pl.DataFrame()
    there = lake.read(model.name, PREDICTIONS, [day])
    kinds = {KEY + name: model.contract.types.get(name, pl.String()) for name in model.outcome_key}
    if there.is_empty():
        there = pl.DataFrame(schema=lake.types(model.name, PREDICTIONS) or dict.fromkeys(ids, pl.String()))
    return counted(there.cast(kinds), before.cast(kinds) if earlier else before, model.outcome_key)  # type: ignore[arg-type]


def _outcomes(model: Model, lake: Lake, latest: Latest, ids: pl.DataFrame) -> pl.DataFrame:
    """The latest known outcome of each of some ids. One partition of the outcomes is in memory at a time."""
    key = model.outcome_key
    wanted = ids.rename({KEY + name: name for name in key})
    kinds = {name: column.dtype.type for name, column in outcomes_schema(model.contract, key).columns.items()}
    nothing = pl.DataFrame(schema=kinds)
    found = [nothing]
    if ids.height:
        for partition, record in latest.of("outcomes").items():
            if record.rows:
                rows = lake.read(model.name, "outcomes", [partition]).cast({name: kinds[name] for name in key})
                found.append(rows.join(wanted, on=key, how="semi").select(nothing.columns).cast(kinds))
    return latest_known(pl.concat(found), key)


def _slice(model: Model, rows: pl.DataFrame, asked: Record | None, day: str, now: datetime) -> Slice:
    """A day of the table, with what it says of the predictions' coverage and quality."""
    target = model.contract.target
    predicted = asked.rows if asked else 0
    not_joinable = asked.details["not_joinable"] if asked else 0
    with_outcome = rows.drop_nulls(OUTCOME + target)
    matured = is_over(day, model.spec.outcome_delay, now)
    measured = quality(rows, target, model.spec.task, asked.details["versions"] if asked else {})
    details = {
        "predicted": predicted,
        "not_joinable": not_joinable,
        "repeated": predicted - not_joinable - rows.height,
        "joined": with_outcome.height,
        "matured": rows.height if matured else 0,
        "coverage": with_outcome.height / rows.height if rows.height else None,
        "final": "yes" if matured else f"from {_final(day, model.spec.outcome_delay)} on",
        "quality": json.dumps(measured, sort_keys=True),
    }
    return Slice(rows, details)


def _final(day: str, delay: timedelta) -> str:
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), datetime.min.time(), UTC) + delay
    return f"{end:%Y-%m-%d %H:%M} UTC"


def _totals(latest: Latest) -> dict[str, dg.MetadataValue]:
    """Of all days whose outcomes have had their time: early ones are not like the others."""
    records = [each for each in latest.of(ASSET).values() if each.details["final"] == "yes"]
    matured = sum(each.details["matured"] for each in records)
    joined_rows = sum(each.details["joined"] for each in records)
    share = f"{joined_rows:,} of {matured:,} matured predictions with an id have their outcome"
    return {
        "coverage_in_all": dg.MetadataValue.text(share + (f" ({joined_rows / matured:.1%})" if matured else "")),
        "not_joinable_in_all": dg.MetadataValue.int(sum(each.details["not_joinable"] for each in records)),
    }
