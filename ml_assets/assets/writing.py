"""Made partitions are written: a chunk of them in one commit a table, and then their records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import PREVIEW_ROWS
from ml_assets.digests import digest_of_frame
from ml_assets.errors import MlAssetsError
from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.validation import count_failures
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Record, append_records, held, writing


@dataclass(frozen=True)
class Slice:
    """What one asset holds for one partition.

    Attributes:
        frame: the rows, without `_partition`.
        failures: rows that break a check by column, where that is known already; else they are counted against the
            table's schema.
        volatile: columns that are no content, such as when a row was ingested.
        rejected: rows for the table `rejected_<asset>`, where that is no asset of its own.
    """

    frame: pl.DataFrame
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] | None = None
    volatile: tuple[str, ...] = ()
    rejected: pl.DataFrame | None = None


Made = Mapping[str, Slice]  # by asset


class Writer:
    """Writes what a step made, one chunk after the other.

    Attributes:
        done: the new record of each partition, by asset.
        samples: for each asset some rows, if any were made.
    """

    def __init__(
        self,
        lake: Lake,
        model: Model,
        schemas: Mapping[str, pa.DataFrameSchema | None],
        bases: Mapping[str, Basis],
        latest: Latest,
        run_id: str,
    ) -> None:
        self._lake, self._model, self._schemas, self._bases = lake, model, schemas, bases
        self._latest, self._run_id = latest, run_id
        self._unrecorded: list[Record] = []
        self.done: dict[str, dict[str, Record]] = {asset: {} for asset in schemas}
        self.samples: dict[str, pl.DataFrame] = {}

    def write(self, made: Mapping[str, Made], errors: Mapping[str, MlAssetsError]) -> None:
        """Write the partitions of `made`; note why those of `errors` could not be made."""
        # In one commit with the records of the chunk before: a table gets longer with each.
        begun = [writing(asset, each, self._run_id) for asset in self._schemas for each in made]
        append_records(self._lake, self._model.name, [*self._unrecorded, *begun])
        self._unrecorded = [self._held(each, error) for each, error in errors.items()]
        for asset in self._schemas if made else ():
            records = self._write_asset(asset, {partition: each[asset] for partition, each in made.items()})
            self.done[asset] |= records
            self._unrecorded.extend(records.values())
        self._latest.add(self._unrecorded)

    def finish(self) -> None:
        """Record what the last chunk wrote."""
        append_records(self._lake, self._model.name, self._unrecorded)

    def _held(self, partition: str, error: MlAssetsError) -> Record:
        main = next(iter(self._schemas))
        terms = self._bases[partition].terms if partition in self._bases else ""
        return held(main, partition, terms, error, self._latest.held(main, partition), self._run_id)

    def _write_asset(self, asset: str, slices: Mapping[str, Slice]) -> dict[str, Record]:
        schema, frame = self._schemas[asset], _table(slices)
        contents = {each: digest_of_frame(part.frame.drop(part.volatile)) for each, part in slices.items()}
        _write_rejected(self._lake, self._model, asset, slices)
        versions = _write_changed(
            self._lake, self._model, asset, frame, contents, self._latest, exact=schema is not None
        )
        if asset not in self.samples or self.samples[asset].is_empty():
            self.samples[asset] = frame.head(PREVIEW_ROWS)
        known = {each: part.failures for each, part in slices.items() if part.failures is not None}
        counted = count_failures(schema, frame) if schema is not None and len(known) < len(slices) else {}
        return {
            partition: Record(
                asset=asset,
                partition=partition,
                inputs=self._bases[partition].inputs,
                content=contents[partition],
                rows=each.frame.height,
                run_id=self._run_id,
                version=versions[partition],
                details=each.details | {"failures": known.get(partition, counted.get(partition, {}))},
            )
            for partition, each in slices.items()
        }


def _table(slices: Mapping[str, Slice]) -> pl.DataFrame:
    frames = [each.frame.with_columns(pl.lit(name).alias(PARTITION)) for name, each in slices.items()]
    return pl.concat(frames, how="diagonal_relaxed")


def _write_rejected(lake: Lake, model: Model, asset: str, slices: Mapping[str, Slice]) -> None:
    rejected = {each: part.rejected for each, part in slices.items() if part.rejected is not None}
    if rejected:
        frame = pl.concat([rows.with_columns(pl.lit(each).alias(PARTITION)) for each, rows in rejected.items()])
        lake.replace(model.name, f"rejected_{asset}", frame, list(rejected))


def _write_changed(
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
