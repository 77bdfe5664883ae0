"""A table or view of a SQL database, as batches: one for each local day of the event time, or one snapshot.

A day's fingerprint is made of aggregates of the watermark, so that it also changes when rows are deleted, moved to
another day or committed late. A day is read whole, never from a watermark on: what was missed once would stay missing.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import sqlalchemy as sa

from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch, Calendar
from ml_assets.sources.retries import with_retries
from ml_assets.sources.sql_dialects import dialect_of
from ml_assets.sources.sql_errors import explained, secrets_of
from ml_assets.sources.sql_table import Table
from ml_assets.spec.sources import SqlSource

T = TypeVar("T")


@dataclass
class SqlTable:
    """Batches of one model's table.

    Attributes:
        url: SQLAlchemy's, with its password; None if the environment names none.
        calendar: its partitions by day; None for a snapshot.
    """

    spec: SqlSource
    place: str
    url: str | None = field(repr=False)
    calendar: Calendar | None
    _seen: tuple[Any, list[Any]] | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def batches(self) -> list[Batch]:
        with self._lock:
            self._seen = None  # a listing that fails leaves nothing to compare with

            def both(table: Table) -> tuple[tuple[Any, list[Any]], list[Batch]]:
                # In this order a commit in between is listed, and at worst listed once more.
                newest = table.newest()
                return (newest, table.recent(newest)), table.batches()

            self._seen, found = self._ask(both)
            return found

    def changed(self) -> bool:
        with self._lock:
            if self._seen is None:
                return True
            newest, recent = self._seen
            return self._ask(lambda table: table.recent(newest)) != recent

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        return self._ask(lambda table: table.read(batch, columns))

    def address(self, batch: Batch) -> str:
        return self.spec.where if batch.day is None else f"{self.spec.where} of {batch.day}"

    @property
    def _where(self) -> str:
        return f"{self.place}: {self.spec.where}"

    @property
    def _variable(self) -> str:
        return f"ML_ASSETS_DATABASE_{self.spec.database.upper()}"

    def _ask(self, question: Callable[[Table], T]) -> T:
        """The answer, from one transaction that only reads; asked again if it fails for a passing reason."""
        engine, secrets = self._engine
        options = {"postgresql_readonly": True} if engine.dialect.name == "postgresql" else {}

        def once() -> T:
            with (
                explained(self._where, self._variable, secrets),
                engine.connect().execution_options(**options) as connection,
            ):
                return question(Table.reflect(connection, self.spec, self.calendar, self._where))

        return with_retries(once)

    @cached_property
    def _engine(self) -> tuple[sa.Engine, list[str]]:
        """SQLAlchemy's engine, and what none of its messages may hold."""
        if not self.url:
            raise SourceError(f"{self._where}: set {self._variable} to the database's SQLAlchemy URL")
        try:
            url = sa.make_url(self.url)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg2")  # SQLAlchemy 2.1 would choose psycopg 3
            dialect = dialect_of(url.get_backend_name())
            # Connections are not kept: none is stale after a restart of the server, none idle between ticks.
            engine = sa.create_engine(
                url, poolclass=sa.pool.NullPool, hide_parameters=True, connect_args=dialect.defaults(url)
            )
        except (sa.exc.ArgumentError, ValueError):  # their texts may quote the URL
            raise SourceError(
                f"{self._where}: {self._variable} is no SQLAlchemy URL; write one like "
                "postgresql://user:password@host:5432/database, with special characters percent-encoded"
            ) from None
        except ImportError as error:
            raise SourceError(
                f"{self._where}: {self._variable} needs a driver that is not installed ({error.name}); for PostgreSQL: "
                "pip install 'ml-assets[postgres]'"
            ) from None
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            # Connecting would create it.
            raise SourceError(f"{self._where}: the file {url.database} does not exist; mend {self._variable}")
        zone = self.calendar.timezone if self.calendar else "UTC"
        if zone != "UTC" and not dialect.zones:
            raise SourceError(
                f"{self._where}: {url.get_backend_name()} cannot tell the days of {zone}; use `timezone: UTC`, or "
                "PostgreSQL"
            )
        return engine, secrets_of(url)
