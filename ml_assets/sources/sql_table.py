"""What is asked of a table within one transaction: its days, its latest changes, the rows of one day."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import sqlalchemy as sa

from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch, Calendar
from ml_assets.sources.sql_dialects import Dialect, as_polars, dialect_of
from ml_assets.spec.sources import SqlSource

ROWS_AT_ONCE = 20_000  # fetched and turned into columns together


@dataclass(frozen=True)
class Table:
    """A table with the columns that it has now.

    Attributes:
        where: model, key, database and table, for messages.
    """

    connection: sa.Connection
    spec: SqlSource
    calendar: Calendar | None
    where: str
    clause: sa.TableClause

    @classmethod
    def reflect(cls, connection: sa.Connection, spec: SqlSource, calendar: Calendar | None, where: str) -> "Table":
        """Look the table up.

        Raises:
            SourceError: if the watermark or the event time is not among its columns, or is no time.
        """
        schema, _, name = spec.table.rpartition(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # types that SQLAlchemy does not know are read as text
            found = sa.inspect(connection).get_columns(name, schema or None)
        # A domain is what it is made of.
        columns = [sa.column(each["name"], getattr(each["type"], "data_type", each["type"])) for each in found]
        table = cls(connection, spec, calendar, where, sa.table(name, *columns, schema=schema or None))
        if not table.dialect.is_time(table.watermark.type):
            raise SourceError(
                f"{where}: the watermark {spec.watermark!r} is a {table.watermark.type}; it must be a timestamp, so "
                "that two changes on one day differ"
            )
        if calendar and not (table.dialect.is_time(table.time.type) or isinstance(table.time.type, sa.Date)):
            raise SourceError(
                f"{where}: the event time {calendar.time!r} is a {table.time.type}; make it a timestamp or a date, in "
                "the table or in a view"
            )
        return table

    @property
    def dialect(self) -> Dialect:
        return dialect_of(self.connection.dialect.name)

    @property
    def watermark(self) -> sa.ColumnClause[Any]:
        return self._column(self.spec.watermark, "`watermark`")

    @property
    def time(self) -> sa.ColumnClause[Any]:
        assert self.calendar is not None
        return self._column(self.calendar.time, "the event time of its calendar")

    def newest(self) -> Any:
        """The largest watermark; None if there is none."""
        return self.connection.scalar(sa.select(self.dialect.newest(self.watermark)).select_from(self.clause))

    def recent(self, newest: Any) -> list[Any]:
        """Traces of what changed since shortly before `newest`: a transaction may commit an older watermark late."""
        query = sa.select(*self.dialect.traces(self.watermark)).select_from(self.clause)
        if newest is not None:
            query = query.where(self.dialect.since(self.watermark, newest, parse_duration(self.spec.overlap)))
        return list(self.connection.execute(query).one())

    def batches(self) -> list[Batch]:
        """The days that have rows, or the whole table unless it is empty."""
        traces = self.dialect.traces(self.watermark)
        if self.calendar is None:
            found = list(self.connection.execute(sa.select(*traces).select_from(self.clause)).one())
            return [Batch(self.spec.table, digest_of(found))] if found[0] else []
        local_day = self.dialect.day(self.time, self.calendar.timezone)
        query = sa.select(local_day, *traces).select_from(self.clause).where(self._on(None)).group_by(local_day)
        days: dict[date, list[list[Any]]] = {}
        for day, *found in self.connection.execute(query):
            days.setdefault(self._home(day), []).append([day, *found])
        return [
            Batch(str(day), digest_of(sorted(found, key=str)), str(day), sum(each[1] for each in found))
            for day, found in sorted(days.items())
        ]

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of one batch; none if they were deleted since it was listed."""
        wanted = self.clause.columns if columns is None else [self._column(each, "the contract") for each in columns]
        expressions, types = zip(*(self.dialect.selected(each) for each in wanted), strict=True)
        schema = {each.name: kind for each, kind in zip(wanted, types, strict=True)}
        query = sa.select(*expressions).select_from(self.clause)
        if batch.day is not None:
            query = query.where(self._on(date.fromisoformat(batch.day)))
        streamed = self.connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
        frames = [
            pl.DataFrame([as_polars(name, values, schema[name]) for name, values in zip(schema, columns, strict=True)])
            for columns in (zip(*rows, strict=True) for rows in streamed.partitions())
        ]
        return pl.concat([pl.DataFrame(schema=schema), *frames])

    def _on(self, day: date | None) -> sa.ColumnElement[bool]:
        """Whether a row belongs to a partition; without `day`, to any.

        Rows without a time belong to the first one, where they are rejected in sight of everybody. With `clip` so does
        what lies before it, and to the last one what lies after it.
        """
        assert self.calendar is not None
        calendar, last = self.calendar, self._last
        open_start = calendar.clip and day in (None, calendar.first)
        open_end = calendar.clip and calendar.last is not None and day in (None, last)
        within = self.dialect.within(
            self.time,
            None if open_start else day or calendar.first,
            None if open_end else day or last,
            calendar.timezone,
        )
        return sa.or_(within, self.dialect.lacking(self.time)) if day in (None, calendar.first) else within

    def _home(self, day: date | str | None) -> date:
        """The partition of what `_on(None)` finds on a day."""
        assert self.calendar is not None
        if day is None:
            return self.calendar.first
        day = date.fromisoformat(day) if isinstance(day, str) else day
        return min(max(day, self.calendar.first), self._last)

    @property
    def _last(self) -> date:
        assert self.calendar is not None
        return self.calendar.last or datetime.now(ZoneInfo(self.calendar.timezone)).date()

    def _column(self, name: str, wanted_by: str) -> sa.ColumnClause[Any]:
        if name not in self.clause.columns:
            has = ", ".join(self.clause.columns.keys())
            raise SourceError(f"{self.where} has no column {name!r}, which is {wanted_by}; it has {has}. Mend either")
        return self.clause.columns[name]
