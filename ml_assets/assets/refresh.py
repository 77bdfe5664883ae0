"""How a partitioned asset is made: some days a commit, every good day finished, bad days named at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import key_of, partitions_in, preview
from ml_assets.digests import digest_of, digest_of_frame
from ml_assets.errors import MlAssetsError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import REFUSED, Latest, Record, append_records, read_latest
from ml_assets.sources.feed import chunks


@dataclass(frozen=True)
class Slice:
    """What one asset holds for one partition.

    Attributes:
        frame: the rows, without `_partition`.
        inputs: digest of everything that the rows depend on.
        failures: rows that break a check by column, where the table's own schema is not what is asked.
        volatile: columns that are no content, such as when a row was ingested.
    """

    frame: pl.DataFrame
    inputs: str
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()


Made = Mapping[str, Slice]  # by asset
Work = Callable[[list[str]], Mapping[str, Made | MlAssetsError]]


@dataclass(frozen=True)
class Refreshed:
    """The outcome of a step: one value per asset, and what the records say afterwards."""

    latest: Latest
    results: dict[str, dict[str, Any]]

    def failures(self, asset: str) -> dict[str, dict[str, int]]:
        """For each current partition of the asset its failing rows by column."""
        return {partition: record.details.get("failures", {}) for partition, record in self.latest.of(asset).items()}


def refresh(
    context: dg.AssetExecutionContext,
    model: Model,
    lake: Lake,
    schemas: Mapping[str, pa.DataFrameSchema | None],
    rows: Mapping[str, int],
    work: Work,
) -> Refreshed:
    """Make the step's partitions: a chunk of them is made, written and recorded before the next begins.

    A partition that cannot be made (`work` gives an error for it) keeps what it held. The others are finished and
    reported, and the step fails at the end with every reason.

    Args:
        schemas: the step's assets, each with the schema that its rows are counted against; None leaves that to `work`.
        rows: expected rows by partition, which bounds how many partitions are in memory at once.
        work: makes some partitions.

    Raises:
        dagster.Failure: naming each partition that could not be made.
    """
    wanted = partitions_in(context)
    done: dict[str, dict[str, Record]] = {asset: {} for asset in schemas}
    refused: dict[str, str] = {}
    samples: dict[str, pl.DataFrame] = {}
    for chunk in chunks(wanted, rows):
        made: dict[str, Made] = {}
        for partition, outcome in work(chunk).items():
            if isinstance(outcome, MlAssetsError):
                refused[partition] = str(outcome)
            else:
                made[partition] = outcome
        records = [
            Record(REFUSED, each, "", "", 0, context.run_id, details={"reason": refused[each]})
            for each in chunk
            if each in refused
        ]
        if not made:
            append_records(lake, model.name, records)
            continue
        for asset, schema in schemas.items():
            frame = pl.concat(
                [each[asset].frame.with_columns(pl.lit(name).alias(PARTITION)) for name, each in made.items()],
                how="diagonal_relaxed",
            )
            version = lake.replace(model.name, asset, frame, list(made), exact=schema is not None)
            if asset not in samples or samples[asset].is_empty():
                samples[asset] = frame
            counted = count_failures(schema, frame) if schema is not None else {}
            for partition, each in made.items():
                failures = each[asset].failures if schema is None else counted.get(partition, {})
                record = _record(asset, partition, each[asset], failures, context.run_id, version)
                records.append(record)
                done[asset][partition] = record
        append_records(lake, model.name, records)
        context.log.info(f"{model.name}: {', '.join(schemas)}: {chunk[0]} to {chunk[-1]} written")
    if refused:
        _fail(context, model, done, refused)
    latest = read_latest(lake, model.name)
    results = {
        asset: _result(context, model, asset, records, samples[asset]) for asset, records in done.items() if records
    }
    return Refreshed(latest, results)


def _record(asset: str, partition: str, made: Slice, failures: dict[str, int], run_id: str, version: int) -> Record:
    return Record(
        asset=asset,
        partition=partition,
        inputs=made.inputs,
        content=digest_of_frame(made.frame.drop(made.volatile)),
        rows=made.frame.height,
        run_id=run_id,
        version=version,
        details=made.details | {"failures": failures},
    )


def _result(
    context: dg.AssetExecutionContext, model: Model, asset: str, records: dict[str, Record], sample: pl.DataFrame
) -> dict[str, Any]:
    """Keyword arguments of the asset's `MaterializeResult`, and metadata of each partition of a range."""
    if context.has_partition_key_range or context.has_partition_key:
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
    if context.has_partition_key_range or context.has_partition_key:
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
