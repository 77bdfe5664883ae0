"""Feast's offline store on the tables of the lake: its DuckDB store, with Delta tables read by delta-rs.

Feast loads the class by name from a repository's `feature_store.yaml`. Its own reader wants DuckDB's `delta` extension,
which DuckDB downloads. Feast's default store (dask) is never used: it drops rows that have no earlier value.
"""

import copy
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

import deltalake
import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    IbisRetrievalJob,
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from ml_assets.feature_store.types import AVAILABLE_AT_US


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Its part of `feature_store.yaml`. Feast finds it by the name of the store."""

    type: Literal["ml_assets.feature_store.offline.LakeOfflineStore"] = (
        "ml_assets.feature_store.offline.LakeOfflineStore"
    )


class LakeOfflineStore(DuckDBOfflineStore):
    """Reads tables of the lake. Values other than the time come in the types of `stored_type`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """For each row the latest values that were available then, null where there are none or where they are older
        than the view's ttl. Rows come back in any order.
        """
        return get_historical_features_ibis(
            config=config,
            feature_views=[_joinable(each) for each in feature_views],
            feature_refs=feature_refs,
            entity_df=entity_df.copy(),  # Feast would change the caller's
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
            data_source_reader=read_table,
            data_source_writer=_write_data_source,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The latest row of each entity between two times: what `feast materialize` writes."""
        job = pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=read_table,
            data_source_writer=_write_data_source,
        )
        return job if join_key_columns else _with_dummy(job)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows between two times."""
        job = pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=read_table,
            data_source_writer=_write_data_source,
        )
        return job if join_key_columns else _with_dummy(job)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Refused: rows that no record knows of would never be made again.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{feature_view.name}: only the assets of ml-assets write tables of the lake; materialise its asset"
        )


def read_table(source: FileSource, _: str) -> ir.Table:
    """A Delta table as it is now, its columns but for the times in the types of `stored_type`.

    Raises:
        deltalake.exceptions.TableNotFoundError: if nothing was written yet, naming the path.
    """
    if not (isinstance(source, FileSource) and isinstance(source.file_format, DeltaFormat)):
        raise NotImplementedError(f"{source.name}: only Delta tables of the lake are read here")
    rows = deltalake.DeltaTable(source.path).to_pyarrow_dataset()
    table = ibis.memtable(rows)  # read when a query runs, and of it only what the query needs
    times = {source.timestamp_field, source.created_timestamp_column}
    return table.select(
        (table[name].cast("timestamp('UTC')") if name in times else _stored(table[name])).name(name)
        for name in table.columns
    ).mutate(**{AVAILABLE_AT_US: epoch_us(table[source.timestamp_field].cast("timestamp('UTC')"))})


def _joinable(view: FeatureView) -> FeatureView:
    """A view as Feast's join can use it: it fails on a ttl of several units, like a day and an hour, and on the dummy
    entity of a view without any, which no table has as a column.
    """
    found = copy.copy(view)
    if view.ttl:
        found.ttl = np.timedelta64(view.ttl // timedelta(microseconds=1), "us")
    if view.entities == [DUMMY_ENTITY_NAME]:
        found.entity_columns = []
    return found


def _with_dummy(job: IbisRetrievalJob) -> IbisRetrievalJob:
    """Rows of a view without entities, as values of the dummy one, which Feast wants to write online."""
    job.table = job.table.mutate(**{DUMMY_ENTITY_ID: ibis.literal(DUMMY_ENTITY_VAL)})
    return job


def _stored(column: ir.Column) -> ir.Column:
    """As `stored_type` says; microseconds or days since 1970 of a time or a date."""
    kind = column.type()
    if kind.is_timestamp():
        return epoch_us(column)
    if kind.is_date():
        return column.delta(ibis.date("1970-01-01"), unit="day")
    if kind.is_integer():
        return column.cast("int64")
    if kind.is_floating():
        return column.cast("float64")
    return column if kind.is_boolean() else column.cast("string")


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def epoch_us(time: ibis.dtype("timestamp('UTC')")) -> ibis.dtype("int64"):  # type: ignore[valid-type]
    """DuckDB's own function: microseconds since 1970."""
