"""Tables that arrive in a source of their own and are read, judged and cleaned in one step: outcomes and side tables.

Their rows that break the contract lie in `rejected_<asset>`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import dagster as dg
import pandera.polars as pa
import polars as pl

from ml_assets.assets.naming import partitions_in
from ml_assets.assets.refresh import Refreshed, refresh
from ml_assets.assets.writing import Made, Slice
from ml_assets.digests import digest_of
from ml_assets.errors import BatchRefusedError, MlAssetsError, SourceError
from ml_assets.lake import Lake, by_partition
from ml_assets.ml.cleaning import Cleaned, clean, read_rows
from ml_assets.ml.limits import exceeded
from ml_assets.model import Model
from ml_assets.records import Basis, read_latest
from ml_assets.sources.feed import Feed, Survey, read_partitions, survey


def arriving_basis(feed: Feed, fingerprint: str, digest: str) -> Basis:
    """What a partition depends on, and what may refuse it.

    Args:
        fingerprint: of the partition's batches.
        digest: of how they are read and judged.
    """
    inputs = digest_of([fingerprint, digest])
    return Basis(inputs, feed.limits)


@dataclass(frozen=True)
class Arriving:
    """One such table.

    Attributes:
        feed: where it arrives; its name is the asset's.
        digest: of how its rows are read and judged.
        finish: makes of cleaned rows what the table holds.
    """

    feed: Feed
    schema: pa.DataFrameSchema
    digest: str
    finish: Callable[[pl.DataFrame], pl.DataFrame]

    @property
    def place(self) -> str:
        return f"{self.feed.model}/{self.feed.name}"

    def refresh(self, context: dg.AssetExecutionContext, model: Model, lake: Lake) -> Refreshed:
        """Make the step's partitions."""
        found, latest = survey(self.feed, lake), read_latest(lake, model.name)
        for batch, reason in found.unreadable.items():
            context.log.error(f"{batch.id}: {reason}")

        def work(partitions: list[str]) -> Mapping[str, Made | MlAssetsError]:
            blocked = {each: SourceError(found.blocked[each]) for each in partitions if each in found.blocked}
            made: dict[str, Made | MlAssetsError] = dict(blocked)
            done = self._read(found, [each for each in partitions if each not in blocked])
            for each, (rows, cleaned) in ((each, part) for each, part in done.items() if isinstance(part, tuple)):
                counts = {"raw": rows, "rejected": cleaned.rejected.height, "duplicates": cleaned.duplicates}
                made[each] = {self.feed.name: Slice(self.finish(cleaned.rows), counts, rejected=cleaned.rejected)}
            return made | {each: part for each, part in done.items() if isinstance(part, MlAssetsError)}

        wanted = partitions_in(context)
        rows = {each: found.rows(each) for each in wanted}
        bases = {each: arriving_basis(self.feed, found.fingerprint(each), self.digest) for each in wanted}
        done = refresh(
            context, model, lake, latest, {self.feed.name: self.schema}, bases, rows, work, blocked=found.blocked
        )
        for name, drift in sorted(found.drift.items()):
            context.log.warning(f"{self.feed.source.place}: {name}: {'; '.join(drift)}")
        return done

    def _read(self, found: Survey, partitions: list[str]) -> dict[str, tuple[int, Cleaned] | MlAssetsError]:
        """For each partition the number of raw rows and what became of them, or why it is refused."""
        if self.feed.calendar is None and not found.partitions:
            where = self.feed.source.spec.where
            return {each: SourceError(f"{self.place}: nothing has landed at {where} yet") for each in partitions}
        try:
            rows = read_partitions(self.feed, found, partitions)
            read = read_rows(rows, self.feed.contract, **asdict(self.feed.reading), place=self.place)
            cleaned = clean(read, self.feed.contract, place=self.place)
        except MlAssetsError as error:
            if len(partitions) == 1:
                return {partitions[0]: error}
            # One bad batch must not hold up the days that it does not touch.
            return {each: part for name in partitions for each, part in self._read(found, [name]).items()}
        days = by_partition(rows)
        return {each: self._judged(found, each, days.get(each), cleaned.get(each)) for each in partitions}

    def _judged(
        self, found: Survey, partition: str, rows: pl.DataFrame | None, cleaned: Cleaned | BatchRefusedError | None
    ) -> tuple[int, Cleaned] | MlAssetsError:
        if rows is None or cleaned is None:
            return 0, Cleaned.empty(self.feed.contract)
        if isinstance(cleaned, BatchRefusedError):
            return cleaned
        if broken := exceeded(self.feed.source.spec.limits, rows, cleaned.judged, found.sizes()):
            return BatchRefusedError(f"{self.place} {partition}: {broken}")
        return rows.height, cleaned
