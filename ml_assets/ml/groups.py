"""Feature groups: aggregates of an entity's past rows over windows of whole days, as known at the end of each day.

A row counts from the day on which it became known. Windows are summed from partial sums of single days, oldest first,
so that the same rows give the same bits whichever days are made together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.ml.days import end_of_day
from ml_assets.ml.joins import AVAILABLE_AT, Join
from ml_assets.spec.tables import GroupSpec

DAY, KNOWN = "_day", "_known"  # of an event: the day from which it counts, and the moment in it
_NEVER = np.iinfo(np.int64).max
Floats = np.ndarray


@dataclass(frozen=True)
class Group:
    """A feature group of a model."""

    spec: GroupSpec
    contract: Contract

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def entity(self) -> list[str]:
        return self.spec.entities

    @cached_property
    def columns(self) -> dict[str, pl.DataType]:
        """Type of each column that it computes, by its name in the group's own table."""
        return {
            _column(value, aggregate, window): pl.Int64() if aggregate in _COUNTS else pl.Float64()
            for value, aggregates in self.spec.aggregates.items()
            for aggregate in aggregates
            for window in ([""] if aggregate == "days_since_last" else self.spec.windows)
        }

    @property
    def counts(self) -> list[str]:
        """Columns that are never null: nothing in a window is a count of zero."""
        counted = [value for value, aggregates in self.spec.aggregates.items() if "count" in aggregates]
        return [_column(value, "count", window) for value in counted for window in self.spec.windows]

    @property
    def types(self) -> dict[str, pl.DataType]:
        """Type of each column by its name beside the rows."""
        return {f"{self.name}_{name}": kind for name, kind in self.columns.items()}

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns and types of its table."""
        keys = {name: self.contract.types[name] for name in self.entity}
        return keys | {AVAILABLE_AT: pl.Datetime("us", "UTC")} | self.columns

    @property
    def join(self) -> Join:
        """How its rows join others: the latest one that was available at the event, until it is too old."""
        return Join(
            by={name: name for name in self.entity},
            columns={name: f"{self.name}_{name}" for name in self.columns},
            types=self.schema,
            freshness=parse_duration(self.spec.freshness),
        )

    @property
    def longest(self) -> int:
        """Days of the longest window."""
        return max(parse_duration(each).days for each in self.spec.windows)

    @cached_property
    def digest(self) -> str:
        """Changes when the same rows could give other values."""
        return digest_of([self.spec.model_dump(), {name: str(kind) for name, kind in self.schema.items()}])

    def values(self, *, afterwards: bool) -> list[str]:
        """Columns that it aggregates: those known only afterwards, or the others."""
        return [name for name in self.spec.aggregates if (name in self.contract.afterwards) == afterwards]

    def needs(self, day: date) -> list[date]:
        """Days whose rows decide about the group of `day`. One more than the longest window, because an entity gets a
        last row, with nothing in its windows, when its last row has left them.
        """
        return [day - timedelta(days=number) for number in range(self.longest, -1, -1)]

    def days(self, day: date, first: date) -> list[date]:
        """Days whose group a row of `day` may take values from."""
        reach = parse_duration(self.spec.freshness) + parse_duration(self.spec.delay)
        earliest = max(day - timedelta(days=math.ceil(reach / timedelta(days=1)) + 1), first)
        return [earliest + timedelta(days=number) for number in range((day - earliest).days)]


_COUNTS = frozenset({"count", "days_since_last"})


def _column(value: str, aggregate: str, window: str) -> str:
    return "_".join([value, aggregate, *([window] if window else [])])


@dataclass(frozen=True)
class Known:
    """What became known of some of a group's columns.

    Attributes:
        values: these columns.
        key: columns that identify a row.
        rows: entity, key and values, with `_day`, from which they count, and `_known`, their order within a day.
        revised: whether a row may become known again, with other values: by then only these count.
    """

    values: list[str]
    key: list[str]
    rows: pl.DataFrame
    revised: bool


def aggregate(group: Group, known: Sequence[Known], days: Sequence[date], zone: str) -> pl.DataFrame:
    """The group of each day: a row per entity with anything in the windows that end with the day, or that had until
    the day before.

    Args:
        known: what became known of its columns, on the days that decide about `days`.
        days: days to compute.
        zone: where days begin and end.

    Returns:
        Shape (entities and days, columns of `Group.schema` and `_day`), sorted by day and entity.
    """
    found = [_Events.read(group, each) for each in known]
    made = []
    for day in days:
        tables = [each.on(day) for each in found]
        table = tables[0]
        for other in tables[1:]:
            table = table.join(other, on=group.entity, how="full", coalesce=True)
        made.append(table.with_columns(pl.lit(day).alias(DAY)))
    whole = pl.concat(made)
    available = end_of_day(pl.col(DAY), zone) + parse_duration(group.spec.delay)
    return (
        whole.with_columns(available.alias(AVAILABLE_AT), pl.col(group.counts).fill_null(0))
        .select(*group.schema, DAY)
        .sort(DAY, *group.entity)
    )


@dataclass(frozen=True)
class _Events:
    """What became known of some columns, sorted by entity and day, as arrays.

    Attributes:
        entities: the distinct entities, in order.
        entity: position in `entities` of each event's entity.
        day: day from which it counts, as a number.
        until: day from which a later event of the same row counts instead.
        values: for each column its values as floats, NaN where null.
    """

    group: Group
    entities: pl.DataFrame
    entity: np.ndarray
    day: np.ndarray
    until: np.ndarray
    values: dict[str, Floats]

    @classmethod
    def read(cls, group: Group, known: Known) -> "_Events":
        rows = known.rows.drop_nulls(group.entity).sort(*group.entity, DAY, *known.key, KNOWN, nulls_last=True)
        day = pl.col(DAY).cast(pl.Int32).cast(pl.Int64)
        following = day.shift(-1).over(known.key, order_by=[DAY, KNOWN]) if known.revised else pl.lit(None, pl.Int64)
        entities = rows.select(group.entity).unique(maintain_order=True)
        numbered = rows.join(
            entities.with_row_index("_entity"), on=group.entity, how="left", maintain_order="left"
        ).select("_entity", day=day, until=following.fill_null(_NEVER))
        floats = rows.select(pl.col(name).cast(pl.Float64).fill_null(math.nan) for name in known.values)
        return cls(
            group,
            entities,
            numbered["_entity"].cast(pl.Int64).to_numpy(),
            numbered["day"].to_numpy(),
            numbered["until"].to_numpy(),
            {name: floats[name].to_numpy() for name in known.values},
        )

    def on(self, day: date) -> pl.DataFrame:
        """The group of one day, of these columns: entity and columns."""
        last = (day - date(1970, 1, 1)).days
        counts = (self.day <= last) & (self.day >= last - self.group.longest) & (self.until > last)
        entity, days = self.entity[counts], self.day[counts]
        present = np.unique(entity)
        where = np.searchsorted(present, entity)
        columns: dict[str, np.ndarray] = {}
        for name, values in self.values.items():
            columns |= self._aggregated(name, where, days, values[counts], len(present), last)
        table = self.entities[present]
        return table.with_columns(
            pl.Series(name, array, dtype=pl.Float64).fill_nan(None).cast(self.group.columns[name])
            for name, array in columns.items()
        )

    def _aggregated(
        self, name: str, entity: np.ndarray, days: np.ndarray, values: Floats, size: int, last: int
    ) -> dict[str, np.ndarray]:
        known = ~np.isnan(values)
        partial = _Partial.of(entity[known], days[known], values[known])
        wanted = self.group.spec.aggregates[name]
        columns = {}
        for window in self.group.spec.windows:
            total = _Total.over(partial, size, last - parse_duration(window).days + 1, last)
            for each in wanted:
                if each != "days_since_last":
                    columns[_column(name, each, window)] = total.value(each)
        if "days_since_last" in wanted:
            since = np.full(size, math.nan)
            inside = partial.day > last - self.group.longest
            since[partial.entity[inside]] = last - partial.day[inside]  # in order of days: the latest stays
            columns[_column(name, "days_since_last", "")] = since
        return columns


@dataclass(frozen=True)
class _Partial:
    """Number, sum, squared deviations, least and greatest value of each entity and day."""

    entity: np.ndarray
    day: np.ndarray
    count: np.ndarray
    total: Floats
    squares: Floats
    least: Floats
    most: Floats

    @classmethod
    def of(cls, entity: np.ndarray, day: np.ndarray, values: Floats) -> "_Partial":
        """Of values sorted by entity and day."""
        if not len(values):
            nothing = np.empty(0, np.int64)
            return cls(nothing, nothing, nothing, *([np.empty(0)] * 4))
        starts = np.flatnonzero(np.r_[True, (entity[1:] != entity[:-1]) | (day[1:] != day[:-1])])
        count = np.diff(np.r_[starts, len(values)])
        total = np.add.reduceat(values, starts)
        deviations = values - np.repeat(total / count, count)
        return cls(
            entity[starts],
            day[starts],
            count,
            total,
            np.add.reduceat(deviations * deviations, starts),
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
        )


@dataclass
class _Total:
    """The same of each entity over a window. Variances of two parts are merged as by Chan, Golub and LeVeque (1979)."""

    count: np.ndarray
    total: Floats
    squares: Floats
    least: Floats
    most: Floats

    @classmethod
    def over(cls, partial: _Partial, size: int, first: int, last: int) -> "_Total":
        made = cls(
            np.zeros(size, np.int64),
            np.zeros(size),
            np.zeros(size),
            np.full(size, math.inf),
            np.full(size, -math.inf),
        )
        for day in range(first, last + 1):
            made._add(partial, np.flatnonzero(partial.day == day))
        return made

    def _add(self, partial: _Partial, rows: np.ndarray) -> None:
        """Add one day, in which each entity has one row."""
        entity = partial.entity[rows]
        count, more = self.count[entity], partial.count[rows]
        apart = partial.total[rows] / more - np.divide(
            self.total[entity], count, out=np.zeros(len(rows)), where=count > 0
        )
        self.squares[entity] += partial.squares[rows] + apart * apart * count * more / (count + more)
        self.count[entity] += more
        self.total[entity] += partial.total[rows]
        self.least[entity] = np.minimum(self.least[entity], partial.least[rows])
        self.most[entity] = np.maximum(self.most[entity], partial.most[rows])

    def value(self, aggregate: str) -> np.ndarray:
        """Float64, NaN where there is none: of no rows, or the standard deviation (of a sample) of a single one."""
        some = self.count > 0
        if aggregate == "count":
            return self.count.astype(float)
        if aggregate in ("mean", "share"):
            return _where(some, self.total / np.maximum(self.count, 1))
        if aggregate == "std":
            return _where(self.count > 1, np.sqrt(self.squares / np.maximum(self.count - 1, 1)))
        return _where(some, {"sum": self.total, "min": self.least, "max": self.most}[aggregate])


def _where(holds: np.ndarray, values: Floats) -> Floats:
    return np.where(holds, values, math.nan)
