"""Dagster's event log in SQLite, which writes what belongs together in one transaction.

A run over many days plans and reports an event for each day of each asset. Dagster hands such events over as batches;
its own SQLite log stores them one by one, each over two new connections, which took longer than the work on rows.
Files and tables are Dagster's own: either log reads what the other one wrote.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from dagster import DagsterEventType, EventLogEntry, StringSource
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData, serialize_value
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

# Dagster hands over batches only where this says how large one may be; its events wait in memory until then.
BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
PLANNED_CHECK = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
BATCHED = {DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_MATERIALIZATION_PLANNED, PLANNED_CHECK}
TIMEOUT = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}

Stored = Sequence[tuple[EventLogEntry, int]]  # events, each with its id in the index


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` of the instance in a folder; a dagster.yaml names it."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        # Here, because each process that opens the instance comes by: command line, daemon, web server, run.
        os.environ.setdefault(BATCH_SIZE, "1000")
        return cls(str(Path(config_value["home"]) / "history" / "runs"), inst_data=inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store what a run plans, or its materialisations; other events one by one."""
        if len({each.run_id for each in events}) > 1 or not {each.dagster_event_type for each in events} <= BATCHED:
            super().store_event_batch(events)
            return
        inserts = [self.prepare_insert_event(each) for each in events]
        with self.run_connection(events[0].run_id) as run:
            for insert in inserts:
                run.execute(insert)
        with self.index_transaction() as index:
            keys: list[Any] = [index.execute(insert).inserted_primary_key for insert in inserts]
            stored = [(event, key[0]) for event, key in zip(events, keys, strict=True)]
            self._store_assets(index, [each for each in stored if each[0].dagster_event_type in ASSET_EVENTS])
            self._store_planned_checks(index, [each for each in stored if each[0].dagster_event_type is PLANNED_CHECK])

    def _store_assets(self, index: Connection, stored: Stored) -> None:
        """Tags of each event, and of each asset the latest one."""
        if stored:
            self._store_asset_event_tags(index, *zip(*stored, strict=True))
        for event, event_id in {each[0].get_dagster_event().asset_key: each for each in stored}.values():
            self._store_asset_event(index, event, event_id)

    def _store_planned_checks(self, index: Connection, stored: Stored) -> None:
        """A row for each check and each day of the run, as `_store_asset_check_evaluation_planned` writes them."""
        rows: list[dict[str, Any]] = []
        for event, event_id in stored:
            planned: Any = event.get_dagster_event().event_specific_data
            row = {
                "asset_key": planned.asset_key.to_string(),
                "check_name": planned.check_name,
                "run_id": event.run_id,
                "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
                "evaluation_event": serialize_value(event),
                "evaluation_event_timestamp": self._event_insert_timestamp(event),  # type: ignore[no-untyped-call]
                "evaluation_event_storage_id": event_id,
            }
            days = planned.partitions_subset.get_partition_keys() if planned.partitions_subset else [None]
            rows += [row | {"partition": day} for day in days]
        if rows:
            index.execute(AssetCheckExecutionsTable.insert(), rows)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        """The index stays open; a run's own file is closed each time, because who follows a run watches that file."""
        if shard not in self._initialized_dbs:
            with super()._connect(shard) as connection:
                yield connection
            return
        engine = self._index if shard == INDEX_SHARD_NAME else _run_engine(self.conn_string_for_shard(shard))
        with self._db_lock, engine.begin() as connection:
            yield connection

    @cached_property
    def _index(self) -> Engine:
        return create_engine(self.conn_string_for_shard(INDEX_SHARD_NAME), pool_size=1, connect_args=TIMEOUT)

    def dispose(self) -> None:
        super().dispose()
        self._index.dispose()


@lru_cache(maxsize=16)
def _run_engine(url: str) -> Engine:
    """Holds no connection, but the statements that were compiled."""
    return create_engine(url, poolclass=NullPool, connect_args=TIMEOUT)
