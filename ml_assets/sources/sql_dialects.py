"""What differs between databases: where a local day begins, and what tells that rows changed.

PostgreSQL and SQLite are tested. Any other one is asked only for what SQL has in common.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import URL

Column = sa.ColumnElement[Any]


class Dialect:
    """A database of which no more is known than that it has `date(...)` and compares times."""

    zones = False  # whether it can tell local days in zones other than UTC

    def defaults(self, url: URL) -> dict[str, Any]:
        """Arguments of the driver's `connect`, where the URL does not say otherwise."""
        return {}

    def is_time(self, kind: sa.types.TypeEngine[Any]) -> bool:
        return isinstance(kind, sa.DateTime)

    def day(self, column: Column, zone: str) -> Column:
        """Local day of each time, as date or as text."""
        return sa.func.date(column)

    def lacking(self, column: Column) -> Column:
        """Whether there is no time."""
        return column.is_(None)

    def within(self, column: Column, first: date | None, last: date | None, zone: str) -> Column:
        """Whether a time lies in the local days from `first` to `last`; an index on the column serves it."""
        after = last + timedelta(days=1) if last else None
        return sa.and_(
            sa.true(),
            *([column >= self.midnight(column, first, zone)] if first else []),
            *([column < self.midnight(column, after, zone)] if after else []),
        )

    def midnight(self, column: Column, day: date, zone: str) -> date | datetime:
        """The first moment of a local day, in the column's own terms."""
        if not isinstance(column.type, sa.DateTime):
            return day
        # Where the clock skips midnight, fold 0 gives the moment of the skip; where midnight comes twice, the first.
        return datetime.combine(day, time(), ZoneInfo(zone) if column.type.timezone else None)

    def newest(self, column: Column) -> Column:
        return sa.func.max(column)

    def since(self, column: Column, newest: Any, overlap: timedelta) -> Column:
        return sa.and_(column >= newest - overlap)

    def traces(self, column: Column) -> list[Column]:
        """Aggregates of the watermark, in no order, of which at least one differs after rows changed."""
        counts = [sa.func.count(), sa.func.count(column), sa.func.count(sa.distinct(column))]
        return [*counts, sa.func.min(column), sa.func.max(column)]

    def selected(self, column: sa.ColumnClause[Any]) -> tuple[Column, pl.DataType]:
        """How a column is read, and its type then; what Polars has no exact type for is read as the database's text."""
        kind = column.type
        if isinstance(kind, sa.Boolean):
            return column, pl.Boolean()
        if isinstance(kind, sa.Integer):
            return column, pl.Int64()
        if isinstance(kind, sa.Float):
            return column, pl.Float64()
        if isinstance(kind, sa.DateTime):
            return column, pl.Datetime("us", "UTC" if kind.timezone else None)
        if isinstance(kind, sa.Date):
            return column, pl.Date()
        if isinstance(kind, sa.String) and not isinstance(kind, sa.Enum):
            return column, pl.String()
        return sa.cast(column, sa.Text).label(column.name), pl.String()


class Postgres(Dialect):
    """Local days in any zone; a `timestamp` without zone is taken for local time already."""

    zones = True

    def defaults(self, url: URL) -> dict[str, Any]:
        # A network that swallows packets must end in an error, not in a sensor that hangs.
        given: dict[str, Any] = {"connect_timeout": 10, "application_name": "ml-assets", "tcp_user_timeout": 60_000}
        given |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        return {name: value for name, value in given.items() if name not in url.query}

    def day(self, column: Column, zone: str) -> Column:
        zoned = isinstance(column.type, sa.DateTime) and column.type.timezone
        # Of a `timestamp`, timezone() would make the moment, not the local time.
        return sa.cast(sa.func.timezone(zone, column) if zoned else column, sa.Date)

    def traces(self, column: Column) -> list[Column]:
        seconds = sa.cast(sa.extract("epoch", column), sa.Numeric)  # exact, so that the order of a sum is no matter
        return [sa.func.count(), sa.func.count(column), sa.func.max(seconds), sa.func.sum(seconds)]


class Sqlite(Dialect):
    """Times are texts in UTC, in any form that SQLite's `date` reads, told apart to the millisecond."""

    def is_time(self, kind: sa.types.TypeEngine[Any]) -> bool:
        return isinstance(kind, sa.DateTime | sa.String | sa.types.NullType)  # a view's column has no type

    def lacking(self, column: Column) -> Column:
        return sa.func.date(column).is_(None)

    def within(self, column: Column, first: date | None, last: date | None, zone: str) -> Column:
        # Texts of one moment differ, and sort, by their form: only the days are compared.
        day = sa.func.date(column)
        return sa.and_(
            sa.true(),
            *([day >= first.isoformat()] if first else []),
            *([day <= last.isoformat()] if last else []),
        )

    def newest(self, column: Column) -> Column:
        return sa.func.max(sa.func.julianday(column))

    def since(self, column: Column, newest: Any, overlap: timedelta) -> Column:
        return sa.and_(sa.func.julianday(column) >= newest - overlap / timedelta(days=1))

    def traces(self, column: Column) -> list[Column]:
        days = sa.func.julianday(column)
        text = sa.type_coerce(column, sa.String)
        return [sa.func.count(), sa.func.count(column), sa.func.max(text), sa.func.sum(days)]

    def selected(self, column: sa.ColumnClause[Any]) -> tuple[Column, pl.DataType]:
        if isinstance(column.type, sa.DateTime | sa.Date):
            return sa.type_coerce(column, sa.String).label(column.name), pl.String()
        return super().selected(column)


def dialect_of(name: str) -> Dialect:
    """By SQLAlchemy's name of it."""
    return {"postgresql": Postgres, "sqlite": Sqlite}.get(name, Dialect)()


def as_polars(name: str, values: tuple[Any, ...], kind: pl.DataType) -> pl.Series:
    """One column of fetched rows.

    Raises:
        ValueError: naming the column, if it holds what its type does not allow.
    """
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        values = tuple(None if each is None else each.astimezone(UTC) for each in values)
    try:
        return pl.Series(name, values, dtype=kind, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"column {name!r} cannot be read as {kind}: {error}") from None
