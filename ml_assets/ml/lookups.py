"""Side tables joined to rows: by key, or by key and the latest time that was known at the event."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import polars as pl

from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.spec import LookupSpec

_AT, _KNOWN, _POSITION, _MATCHED = "_at", "_known", "_position", "_matched"


@dataclass(frozen=True)
class Join:
    """How the rows of another table find those that they belong to.

    Attributes:
        by: column of the rows: column of the table that must be equal.
        columns: columns of the table, each with its name beside the rows.
        types: type of each column of the table.
        time: column of the table that says when; the latest row known at the event counts. None: there is one per key.
        lag: how long after its time a row is known.
        tolerance: how old a row may be at the event, at most.
    """

    by: dict[str, str]
    columns: dict[str, str]
    types: Mapping[str, pl.DataType]
    time: str | None
    lag: timedelta
    tolerance: timedelta


@dataclass(frozen=True)
class Lookup:
    """A side table of a model.

    Attributes:
        contract: its columns; the key is what it is joined by, with the event time if it has one.
    """

    spec: LookupSpec
    contract: Contract

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def timed(self) -> bool:
        """Whether its rows are of some time, so that the latest one known at the event counts."""
        return self.contract.event_time is not None

    @property
    def columns(self) -> dict[str, str]:
        """Its columns beside those that it is joined by, each with its name beside the rows."""
        by = set(self.spec.by.values())
        return {name: f"{self.name}_{name}" for name in self.contract.types if name not in by}

    @property
    def types(self) -> dict[str, pl.DataType]:
        """Type of each column by its name beside the rows."""
        return {renamed: self.contract.types[name] for name, renamed in self.columns.items()}

    @property
    def join(self) -> Join:
        """How its rows join others."""
        return Join(
            by=self.spec.by,
            columns=self.columns,
            types=self.contract.types,
            time=self.contract.event_time,
            lag=parse_duration(self.spec.lag),
            tolerance=parse_duration(self.spec.tolerance),
        )

    @cached_property
    def digest(self) -> str:
        """Changes when the same rows could be joined otherwise."""
        return digest_of([self.name, self.spec.by, self.spec.lag, self.spec.tolerance, self.contract.digest])

    def days(self, day: str, zone: str, first: date) -> list[str]:
        """Days of the side table whose rows may count for an event of `day`, both as text.

        Args:
            zone: time zone of the days.
            first: first day of the calendar; what happened before is kept there.
        """
        assert self.contract.event_time is not None
        last = date.fromisoformat(day)
        naive = getattr(self.contract.types[self.contract.event_time], "time_zone", None) is None
        local = UTC if naive else ZoneInfo(zone)
        begin = datetime.combine(last, time(), local).astimezone(UTC) - parse_duration(self.spec.tolerance)
        earliest = max(begin.astimezone(local).date(), first)
        return [str(earliest + timedelta(days=number)) for number in range((last - earliest).days + 1)]


def join_table(
    rows: pl.DataFrame, table: pl.DataFrame, join: Join, event_time: str | None
) -> tuple[pl.DataFrame, pl.Series]:
    """Put the columns of another table beside the rows that they belong to.

    A timed row counts from its time plus `lag` on, until it is older than `tolerance`. Nulls match nothing.

    Args:
        rows: shape (n, ...), with the columns that `by` names and the event time.
        table: rows of the other table, unique by what it is joined by.
        event_time: column of the rows that says when.

    Returns:
        The rows in their order with the other columns, and whether each found a row, shape (n,).
    """
    renamed = [pl.col(name).alias(each) for name, each in join.columns.items()]
    left, right = list(join.by), [f"_by_{name}" for name in join.by.values()]
    keys = [pl.col(name).alias(f"_by_{name}") for name in join.by.values()]
    if table.is_empty():
        table = pl.DataFrame(schema=dict(join.types))
    at = [] if join.time is None else [_moment(pl.col(str(event_time))).alias(_AT)]
    known_from = [] if join.time is None else [(_moment(pl.col(join.time)) + join.lag).alias(_KNOWN)]
    marked = table.select(*keys, *renamed, *known_from, pl.lit(True).alias(_MATCHED))
    numbered = rows.select(pl.int_range(pl.len()).alias(_POSITION), *left, *at)
    asked, known = numbered.drop_nulls(), marked.drop_nulls([*right, *([_KNOWN] if known_from else [])])
    if known_from:
        found = asked.sort(_AT).join_asof(
            known.sort(_KNOWN),
            left_on=_AT,
            right_on=_KNOWN,
            by_left=left or None,
            by_right=right or None,
            strategy="backward",
            tolerance=join.tolerance - join.lag,
            check_sortedness=False,  # sorted a line above; Polars cannot tell within groups
        )
    else:
        found = asked.join(known, left_on=left, right_on=right, how="left")
    others = list(join.columns.values())
    beside = numbered.select(_POSITION).join(
        found.select(_POSITION, _MATCHED, *others), on=_POSITION, how="left", maintain_order="left"
    )
    return rows.hstack(beside.select(*others)), beside.get_column(_MATCHED).is_not_null()


def _moment(column: pl.Expr) -> pl.Expr:
    """A time or a date, as microseconds of the same clock: UTC if it has a time zone."""
    return column.cast(pl.Datetime("us"))


def refused(lookups: Mapping[str, Lookup], unmatched: Mapping[str, int], rows: int) -> str | None:
    """Which lookup leaves more rows unmatched than it may, and what to do; None if none does."""
    for name, lookup in lookups.items():
        count, spec = unmatched[name], lookup.spec
        most = spec.max_unmatched
        if rows and count / rows > most:
            return (
                f"{count:,} of {rows:,} rows ({count / rows:.1%}) find no row in the lookup {name!r}, and its "
                f"max_unmatched is {most:.1%}; mend {spec.source.where}, or set max_unmatched in defs.yaml"
            )
    return None
