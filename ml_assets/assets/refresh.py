"""How a partitioned asset is made: some days a commit, every good day finished, bad days named at the end."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import INPUTS_TAG, is_partitioned, key_of, partitions_in, preview
from ml_assets.digests import digest_of, digest_of_frame
from ml_assets.errors import MlAssetsError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, State, append_records, held, writing
from ml_assets.sources.feed import chunks


@dataclass(frozen=True)
class Slice:
    """What one asset holds for one partition.

    Attributes:
        frame: the rows, without `_partition`.
        failures: rows that break a check by column, where the table's own schema is not what is asked.
        volatile: columns that are no content, such as when a row was ingested.
        rejected: rows for the table `rejected_<asset>`, where that is no asset of its own.
    """

    frame: pl.DataFrame
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()
    rejected: pl.DataFrame | None = None


Made = Mapping[str, Slice]  # by asset
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
    """Make the step's partitions: a chunk of them is made, written and recorded before the next begins.

    A run that a sensor, the schedule or `ml-assets` asked for makes those partitions that are due and leaves the
    others alone; a run that a person asked for makes all of them. A partition whose content stays the same is recorded
    and not written. A partition that cannot be made (`work` gives an error for it) keeps what it held. The others are
    finished and reported, and the step fails at the end with every reason.

    Args:
        latest: the records before the step; those of the step are added.
        schemas: the step's assets, each with the schema that its rows are counted against; None leaves that to `work`.
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
    main = next(iter(schemas))
    done: dict[str, dict[str, Record]] = {asset: {} for asset in schemas}
    refused: dict[str, str] = {}
    samples: dict[str, pl.DataFrame] = {}
    for chunk in chunks(wanted, rows):
        made: dict[str, Made] = {}
        records: list[Record] = []
        for partition, outcome in work(chunk).items():
            if isinstance(outcome, MlAssetsError):
                refused[partition] = str(outcome)
                terms = bases[partition].terms if partition in bases else ""
                records.append(held(main, partition, terms, outcome, latest.held(main, partition), context.run_id))
            else:
                made[partition] = outcome
        append_records(lake, model.name, [writing(asset, each, context.run_id) for asset in schemas for each in made])
        for asset, schema in schemas.items() if made else ():
            slices = {partition: each[asset] for partition, each in made.items()}
            frame = _table(slices)
            contents = {each: digest_of_frame(part.frame.drop(part.volatile)) for each, part in slices.items()}
            _write_rejected(lake, model, asset, slices)
            versions = _write(lake, model, asset, frame, contents, latest, exact=schema is not None)
            if asset not in samples or samples[asset].is_empty():
                samples[asset] = frame
            counted = count_failures(schema, frame) if schema is not None else {}
            for partition, each in slices.items():
                failures = each.failures if schema is None else counted.get(partition, {})
                record = Record(
                    asset=asset,
                    partition=partition,
                    inputs=bases[partition].inputs,
                    content=contents[partition],
                    rows=each.frame.height,
                    run_id=context.run_id,
                    version=versions[partition],
                    details=each.details | {"failures": failures},
                )
                records.append(record)
                done[asset][partition] = record
        append_records(lake, model.name, records)
        latest.add(records)
        if made:
            context.log.info(f"{model.name}: {', '.join(schemas)}: {min(made)} to {max(made)} written")
    if refused:
        _fail(context, model, done, refused)
    results = {
        asset: _result(context, model, asset, records, samples[asset]) for asset, records in done.items() if records
    }
    return Refreshed(latest, results)


def _table(slices: Mapping[str, Slice]) -> pl.DataFrame:
    frames = [each.frame.with_columns(pl.lit(name).alias(PARTITION)) for name, each in slices.items()]
    return pl.concat(frames, how="diagonal_relaxed")


def _write_rejected(lake: Lake, model: Model, asset: str, slices: Mapping[str, Slice]) -> None:
    rejected = {each: part.rejected for each, part in slices.items() if part.rejected is not None}
    if rejected:
        frame = pl.concat([rows.with_columns(pl.lit(each).alias(PARTITION)) for each, rows in rejected.items()])
        lake.replace(model.name, f"rejected_{asset}", frame, list(rejected))


def _write(
    lake: Lake,
    model: Model,
    asset: str,
    frame: pl.DataFrame,
    contents: Mapping[str, str],
    latest: Latest,
    *,
    exact: bool,
) -> dict[str, int]:
    """Write the partitions whose content is another one than before, in one commit; the version that holds each.

    Args:
        latest: the records before. They are to be believed only if the table's last write is among them: somebody
            else may have written to it, or put back an older table.
    """
    recorded = max((each.version for each in latest.of(asset).values()), default=None)
    believed = contents if lake.version(model.name, asset) == recorded else ()
    before = {each: latest.certain(asset, each) for each in believed}
    versions = {each: record.version for each, record in before.items() if record and record.content == contents[each]}
    changed = [each for each in contents if each not in versions]
    if changed:
        rows = frame if not versions else frame.filter(pl.col(PARTITION).is_in(changed))
        version = lake.replace(model.name, asset, rows, changed, exact=exact)
        versions |= dict.fromkeys(changed, version)
    return versions


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
