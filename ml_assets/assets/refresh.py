"""How a partitioned asset is made: some days a commit, every good day finished, bad days named at the end."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import INPUTS_TAG, is_partitioned, key_of, partitions_in, preview
from ml_assets.assets.writing import Made, Writer
from ml_assets.digests import digest_of
from ml_assets.errors import MlAssetsError
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, State
from ml_assets.sources.feed import chunks

Work = Callable[[list[str]], Mapping[str, Made | MlAssetsError]]


@dataclass(frozen=True)
class Refreshed:
    """The outcome of a step: one value per asset that was made, and what the records say afterwards."""

    latest: Latest
    results: dict[str, dict[str, Any]]

    def result(
        self, key: dg.AssetKey, checks: Iterable[dg.AssetCheckResult]
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        """What the step yields for an asset: its checks, and the asset itself if any partition of it was made."""
        asset = key.path[-1]
        if asset in self.results:
            yield dg.MaterializeResult(**self.results[asset], check_results=list(checks))
        else:
            yield from checks

    def failures(self, asset: str) -> dict[str, dict[str, int]]:
        """For each current partition of the asset its failing rows by column."""
        return {partition: record.details.get("failures", {}) for partition, record in self.latest.of(asset).items()}


def refresh(
    context: dg.AssetExecutionContext,
    model: Model,
    lake: Lake,
    latest: Latest,
    schemas: Mapping[str, pa.DataFrameSchema | None],
    bases: Mapping[str, Basis],
    rows: Mapping[str, int],
    work: Work,
    *,
    blocked: Collection[str] = (),
) -> Refreshed:
    """Make the step's partitions: a chunk of them is written and recorded while the next one is made.

    A run that a sensor, the schedule or `ml-assets` asked for makes those partitions that are due and leaves the
    others alone; a run that a person asked for makes all of them. A partition whose content stays the same is recorded
    and not written. A partition that cannot be made (`work` gives an error for it) keeps what it held. The others are
    finished and reported, and the step fails at the end with every reason.

    Args:
        latest: the records before the step; those of the step are added.
        schemas: the step's assets, each with the schema that its rows are counted against; None if `work` says it.
        bases: what each partition is made from, where that is known.
        rows: expected rows by partition, which bounds how many partitions are in memory at once.
        work: makes some partitions.
        blocked: partitions that are made only if a person asks for it.

    Raises:
        dagster.Failure: naming each partition that could not be made.
    """
    wanted = partitions_in(context)
    if INPUTS_TAG in context.run.tags:
        wanted = [
            each
            for each in wanted
            if each not in blocked
            and each in bases
            and any(latest.state(asset, each, bases[each]) is State.DUE for asset in schemas)
        ]
    writer = Writer(lake, model, schemas, bases, latest, context.run.run_id)
    refused: dict[str, str] = {}
    # A run from the command line does not wait in Dagster's queue.
    with lake.alone(model.name, next(iter(schemas))):
        try:
            _make(context, model, chunks(wanted, rows), work, writer, refused)
        finally:  # what was written before something broke off is done
            writer.finish()
    if refused:
        _fail(context, model, writer.done, refused)
    results = {
        asset: _result(context, model, asset, records, writer.samples[asset])
        for asset, records in writer.done.items()
        if records
    }
    return Refreshed(latest, results)


def _make(
    context: dg.AssetExecutionContext,
    model: Model,
    grouped: Iterable[list[str]],
    work: Work,
    writer: Writer,
    refused: dict[str, str],
) -> None:
    """Make and write chunk after chunk; why partitions could not be made is added to `refused`."""
    with ThreadPoolExecutor(1) as beside:  # while some days are written, the next ones are read and judged
        before: Future[None] | None = None
        for chunk in grouped:
            outcomes = work(chunk)
            if before is not None:
                before.result()
            made = {each: part for each, part in outcomes.items() if not isinstance(part, MlAssetsError)}
            errors = {each: error for each, error in outcomes.items() if isinstance(error, MlAssetsError)}
            refused |= {each: str(error) for each, error in errors.items()}
            before = beside.submit(writer.write, made, errors)
            if made:
                context.log.info(f"{model.name}: writing {', '.join(writer.done)}: {min(made)} to {max(made)}")
        if before is not None:
            before.result()


def _result(
    context: dg.AssetExecutionContext, model: Model, asset: str, records: dict[str, Record], sample: pl.DataFrame
) -> dict[str, Any]:
    """Keyword arguments of the asset's `MaterializeResult`, and metadata of each partition of a range."""
    if is_partitioned(context):
        for partition, record in records.items():
            numbers = {name: value for name, value in record.details.items() if isinstance(value, int | str)}
            context.add_asset_metadata(
                {"dagster/partition_row_count": record.rows} | numbers,
                asset_key=key_of(model, asset),
                partition_key=partition,
            )
    contents = [record.content for record in records.values()]
    total = sum(record.rows for record in records.values())
    return {
        "asset_key": key_of(model, asset),
        "data_version": dg.DataVersion(contents[0] if len(contents) == 1 else digest_of(contents)),
        "metadata": {
            "rows": dg.MetadataValue.int(total),
            "partitions": dg.MetadataValue.int(len(records)),
            "preview": preview(sample),
        },
    }


def _fail(
    context: dg.AssetExecutionContext, model: Model, done: dict[str, dict[str, Record]], refused: dict[str, str]
) -> None:
    """Report the good partitions, because a step that fails reports none by itself; then fail with every reason."""
    if is_partitioned(context):
        for asset, records in done.items():
            for partition, record in records.items():
                context.log_event(
                    dg.AssetMaterialization(
                        key_of(model, asset), partition=partition, metadata={"dagster/partition_row_count": record.rows}
                    )
                )
    reasons = "; ".join(f"{partition}: {reason}" for partition, reason in refused.items())
    raise dg.Failure(
        f"{model.name}: {len(refused)} partition(s) were refused and keep what they held: {reasons}",
        allow_retries=False,
    )
