"""A source whose rows belong to partitions: which batches touch which day, and the rows of some days.

A batch may touch several days. Its time column alone is read to find out, once per fingerprint; the answer is kept in
the lake's `surveys` table, so that a tick of a sensor costs a listing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from ml_assets.appended import Appended
from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.errors import BatchContentError, MlAssetsError, SourceError
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.cleaning import ROW, SOURCE, STRAY
from ml_assets.ml.parsing import Reading, read_column, read_columns
from ml_assets.sources.batch import Batch, Calendar, Source
from ml_assets.sources.drift import drift_of, lacking
from ml_assets.sources.listing import Listing
from ml_assets.waits import wait_after

_SURVEYS = "surveys"
_SCHEMA = {
    "feed": pl.String,
    "batch": pl.String,
    "fingerprint": pl.String,
    "partition": pl.String,
    "rows": pl.Int64,
    "home": pl.Boolean,
}


class DifferentTypesError(MlAssetsError):
    """Batches of several days have different types; one day by itself may hold them all."""


@dataclass(frozen=True)
class ReadFailure:
    """Why a batch could not be read, how often in a row, and when last."""

    reason: str
    failures: int
    at: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to try again."""
        return now < self.at + wait_after(self.failures)


@dataclass(frozen=True)
class Feed:
    """One stream of rows of one model.

    Attributes:
        name: asset that it fills: `raw_data`, `outcomes` or a lookup's.
        contract: the columns that its rows carry.
        calendar: its partitions by day; None for a snapshot. Rows from outside of it stay with their batch's first
            day, to be rejected there.
    """

    model: str
    name: str
    source: Source
    contract: Contract
    calendar: Calendar | None

    @cached_property
    def listing(self) -> Listing:
        return Listing(self.source)

    @cached_property
    def digest(self) -> str:
        """Changes when the same batches could fall into other days, or be read otherwise."""
        calendar = self.calendar
        kind = str(self.contract.types[calendar.time]) if calendar else None
        return digest_of([self.source.spec.reading(), asdict(calendar) if calendar else None, kind])

    @cached_property
    def unread(self) -> dict[Batch, ReadFailure]:
        """Batches that could not be read by this process, so that they are not read again at every tick."""
        return {}

    @cached_property
    def unsettled(self) -> dict[tuple[Batch, date], list[dict[str, Any]]]:
        """Days of batches with rows of the future, as they are on one day."""
        return {}

    @cached_property
    def reading(self) -> Reading:
        spec = self.source.spec
        return Reading(tuple(spec.null_values), spec.csv_options.decimal)

    @cached_property
    def limits(self) -> dict[str, Any]:
        """What its partitions must keep, JSON-like."""
        return self.source.spec.limits.model_dump()

    @property
    def key(self) -> str:
        """Of this feed's rows in the `surveys` table; what was found by another reading does not count."""
        return f"{self.name}/{self.digest[:16]}"


@dataclass
class Survey:
    """What is there now: for each partition the batches that touch it with their number of rows there.

    Attributes:
        homes: first day of each batch.
        unreadable: batches that cannot be read, and why.
        blocked: partitions that wait for such a batch.
        drift: for each batch that `read_partitions` has read, how it differs from the contract and was taken
            nevertheless; sentences for people. Batches without a difference are left out.
    """

    feed: str
    partitions: dict[str, dict[Batch, int]] = field(default_factory=dict)
    homes: dict[Batch, str] = field(default_factory=dict)
    unreadable: dict[Batch, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    drift: dict[str, list[str]] = field(default_factory=dict)

    def rows(self, partition: str) -> int:
        return sum(self.partitions.get(partition, {}).values())

    def sizes(self) -> dict[str, int]:
        """Rows of each batch, in all partitions together; 0 for those of a snapshot, which are not counted."""
        sizes: dict[str, int] = {}
        for touching in self.partitions.values():
            for batch, rows in touching.items():
                sizes[batch.id] = sizes.get(batch.id, 0) + rows
        return sizes

    def fingerprint(self, partition: str) -> str:
        """Changes when a batch that touches the partition is added, changed or removed, or read otherwise."""
        touching = self.partitions.get(partition, {})
        return digest_of([self.feed, sorted([each.id, each.fingerprint, rows] for each, rows in touching.items())])


def survey(feed: Feed, lake: Lake, *, certain: bool = True) -> Survey:
    """List the source and find the days of every batch that is new or changed.

    A batch that cannot be read blocks the days that it touched before: they keep what they hold until it is mended.

    Args:
        certain: see `Listing.batches`.
    """
    found = Survey(feed.key)
    batches = feed.listing.batches(certain=certain)
    if feed.calendar is None:
        if batches:
            found.partitions[WHOLE] = dict.fromkeys(batches, 0)
        return found
    known = _surveyed.of(lake, feed.model, _SURVEYS)
    fresh: list[pl.DataFrame] = []
    for batch in batches:
        if batch.day is not None:
            found.partitions.setdefault(batch.day, {})[batch] = batch.rows
            found.homes[batch] = batch.day
            continue
        days = known.days.get((feed.key, batch.id, batch.fingerprint)) or feed.unsettled.get((batch, _today(feed)))
        if days is None:
            try:
                counted, settled = _tried(feed, batch, certain=certain)
            except SourceError as error:
                found.unreadable[batch] = str(error)
                found.blocked |= dict.fromkeys(known.touched.get((feed.name, batch.id), ()), str(error))
                continue
            days = counted.to_dicts()
            if settled:
                fresh.append(counted)
            else:
                feed.unsettled[batch, _today(feed)] = days
        for day in days:
            found.partitions.setdefault(str(day["partition"]), {})[batch] = int(str(day["rows"]))
            if day["home"]:
                found.homes[batch] = str(day["partition"])
    if fresh:
        lake.append(feed.model, _SURVEYS, pl.concat(fresh))
    return found


@dataclass(frozen=True)
class _Surveyed:
    """What the `surveys` table says.

    Attributes:
        days: of a batch, by key of the feed, name and fingerprint.
        touched: partitions that a batch touched, whatever its fingerprint and reading, by name of the feed and its own.
    """

    days: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    touched: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def with_rows(self, rows: pl.DataFrame) -> "_Surveyed":
        more = _Surveyed(dict(self.days), dict(self.touched))
        for feed, batch, fingerprint, *day in rows.select(list(_SCHEMA)).iter_rows():
            which, name = (feed, batch, fingerprint), (feed.split("/")[0], batch)
            more.days[which] = [*more.days.get(which, ()), dict(zip(("partition", "rows", "home"), day, strict=True))]
            more.touched[name] = more.touched.get(name, set()) | {day[0]}
        return more


_surveyed = Appended(_Surveyed(), _Surveyed.with_rows)


def _tried(feed: Feed, batch: Batch, *, certain: bool) -> tuple[pl.DataFrame, bool]:
    """What `_days_of` gives. A batch that could not be read is read again at growing intervals, or for certainty."""
    earlier, now = feed.unread.get(batch), datetime.now(UTC)
    if earlier is not None and not certain and earlier.holds(now):
        raise SourceError(earlier.reason)
    try:
        days = _days_of(feed, batch)
    except SourceError as error:
        feed.unread[batch] = ReadFailure(str(error), earlier.failures + 1 if earlier else 1, now)
        raise
    feed.unread.pop(batch, None)
    return days


def read_partitions(feed: Feed, found: Survey, partitions: Sequence[str]) -> pl.DataFrame:
    """Rows of all batches that touch `partitions`, with `_partition`, `_source` and `_row`, in the contract's types
    where a batch is typed and as text where it is text.

    Raises:
        SourceError: if a batch cannot be read, or a column of it cannot be what the contract says.
        DifferentTypesError: if there are several partitions, and batches with different types among theirs. The types
            of a day are to depend on its own batches alone.
    """
    wanted = set(partitions)
    touching = sorted({batch for each in partitions for batch in found.partitions.get(each, {})})
    frames = []
    for batch in touching:
        arrived = feed.source.read(batch)
        rows = _typed(feed, batch, arrived)
        if drift := drift_of(feed.contract, arrived):
            found.drift[batch.id] = drift
        if feed.calendar is None:
            day: pl.Series | pl.Expr = pl.lit(WHOLE)
            stray: pl.Series | pl.Expr = pl.lit(False)
        else:
            days = _local_days(rows.get_column(feed.calendar.time), feed)
            _refuse_other_days(days, feed, batch)
            day, stray = days.fill_null(found.homes[batch]), days.is_null()
        rows = rows.with_row_index(ROW).with_columns(
            pl.col(ROW).cast(pl.Int64), day.alias(PARTITION), stray.alias(STRAY), pl.lit(batch.id).alias(SOURCE)
        )
        inside = rows.get_column(PARTITION).is_in(wanted)
        frames.append(rows if inside.all() else rows.filter(inside))
    if len(partitions) > 1 and len({tuple(each.select(*feed.contract.types).schema.items()) for each in frames}) > 1:
        raise DifferentTypesError(f"{feed.source.place}: batches with different types; read these days one by one")
    if not frames:
        own: dict[str, Any] = {PARTITION: pl.String, SOURCE: pl.String, ROW: pl.Int64, STRAY: pl.Boolean}
        return pl.DataFrame(schema=dict(feed.contract.types) | own)
    return pl.concat(frames, how="diagonal_relaxed")


def _days_of(feed: Feed, batch: Batch) -> tuple[pl.DataFrame, bool]:
    """Rows per day of one batch, shape of `_SCHEMA`; its home is its first day.

    Also whether that is settled: a row of tomorrow is stray today, and belongs to its day tomorrow.
    """
    assert feed.calendar is not None
    time = feed.calendar.time
    try:
        times = feed.source.read(batch, [time]).get_column(time)
    except SourceError:
        _refuse_lacking(feed, batch, feed.source.read(batch).columns)  # it may have got another name
        raise
    settled = feed.calendar.last is not None or not (_dates(times, feed) > _today(feed)).any()
    days = _local_days(times, feed)
    first = days.min()
    if first is None:
        raise BatchContentError(
            f"{feed.source.place}: {feed.source.address(batch)}: no row has a {time} from "
            f"{feed.calendar.first} on; mend the file, or source.start"
        )
    counts = days.fill_null(first).value_counts().rename({days.name: "partition", "count": "rows"})
    counted = counts.sort("partition").select(
        feed=pl.lit(feed.key),
        batch=pl.lit(batch.id),
        fingerprint=pl.lit(batch.fingerprint),
        partition="partition",
        rows=pl.col("rows").cast(pl.Int64),
        home=pl.col("partition") == first,
    )
    return counted, settled


def _local_days(times: pl.Series, feed: Feed) -> pl.Series:
    """Day of each time in the feed's zone as text; null where it is no time or lies outside of the calendar.

    The calendar begins with the first partition and ends with the last one, or today.
    """
    calendar = feed.calendar
    assert calendar is not None
    days = _dates(times, feed)
    if calendar.clip:
        days = days.clip(calendar.first, calendar.last)
    return days.set(~days.is_between(calendar.first, calendar.last or _today(feed)), None).dt.to_string("%Y-%m-%d")


def _refuse_other_days(days: pl.Series, feed: Feed, batch: Batch) -> None:
    """Rows of another day than the source said would be lost: no partition would read them."""
    others = days.filter(days != batch.day) if batch.day is not None else days.clear()
    if feed.calendar is not None and len(others):
        time = feed.calendar.time
        raise BatchContentError(
            f"{feed.source.place}: {feed.source.address(batch)}: by the contract {time} is a "
            f"{feed.contract.types[time]}, by which {len(others):,} of its rows lie on other days, such as "
            f"{others[0]}; give {time} the same type at both places: with a time zone, or without"
        )


def _dates(times: pl.Series, feed: Feed) -> pl.Series:
    """Local date of each time; null where it is none."""
    assert feed.calendar is not None
    _, parsed = read_column(times, feed.contract.types[feed.calendar.time], feed.reading)
    if not isinstance(parsed.dtype, pl.Datetime):
        return parsed
    return (parsed.dt.convert_time_zone(feed.calendar.timezone) if parsed.dtype.time_zone else parsed).dt.date()


def _today(feed: Feed) -> date:
    assert feed.calendar is not None
    return datetime.now(ZoneInfo(feed.calendar.timezone)).date()


def _refuse_lacking(feed: Feed, batch: Batch, columns: Sequence[str]) -> None:
    if missing := lacking(feed.contract, columns):
        raise BatchContentError(f"{feed.source.place}: {feed.source.address(batch)} {missing}")


def _typed(feed: Feed, batch: Batch, rows: pl.DataFrame) -> pl.DataFrame:
    where = f"{feed.source.place}: {feed.source.address(batch)}"
    _refuse_lacking(feed, batch, rows.columns)
    reserved = [name for name in rows.columns if name.startswith("_")]
    if reserved:
        raise BatchContentError(
            f"{where}: column names that begin with _ are kept for the platform: {', '.join(reserved)}"
        )
    if all(kind == pl.String for kind in rows.schema.values()):
        return rows
    columns = []
    # A column of the contract's type stays as it arrived.
    others = {name: kind for name, kind in feed.contract.types.items() if rows.schema[name] != kind}
    for name, (series, typed) in read_columns(rows, others, feed.reading).items():
        if typed.null_count() > series.null_count():
            example = series.filter(typed.is_null() & series.is_not_null())[0]
            raise BatchContentError(
                f"{where}: column {name!r} arrived as {series.dtype} with {example!r}, the contract says "
                f"{feed.contract.types[name]}; "
                "mend the file, or the contract"
            )
        columns.append(typed)
    unknown = [_as_text(rows.get_column(name)) for name in rows.columns if name not in feed.contract.types]
    rows = rows.with_columns([*columns, *unknown])
    if (mark := feed.reading.decimal) != ".":  # beside text it becomes text, which is read with this mark
        floats = [name for name, kind in feed.contract.types.items() if kind.is_float()]
        rows = rows.with_columns(pl.col(floats).cast(pl.String).str.replace(".", mark, literal=True))
    return rows


def _as_text(series: pl.Series) -> pl.Series:
    """A column that the contract does not know, as text: its type may be another one in the next batch."""
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        texts = [None if each is None else json.dumps(each, default=str) for each in series.to_list()]
        return pl.Series(series.name, texts, dtype=pl.String)
    return series.cast(pl.String)


def chunks(
    partitions: Sequence[str], rows: Mapping[str, int], most_rows: int = 250_000, most: int = 31
) -> list[list[str]]:
    """Partitions grouped by commit: a large initial load writes several days at once and stays small in memory.

    >>> chunks(["a", "b", "c"], {"a": 3, "b": 3, "c": 3}, most_rows=6)
    [['a', 'b'], ['c']]
    """
    grouped: list[list[str]] = []
    size = 0
    for each in partitions:
        if not grouped or size + rows.get(each, 0) > most_rows or len(grouped[-1]) == most:
            grouped.append([])
            size = 0
        grouped[-1].append(each)
        size += rows.get(each, 0)
    return grouped
