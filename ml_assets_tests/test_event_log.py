"""The batched event log holds what Dagster's own would hold, and needs no transaction for each day."""

import sqlite3
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage

from ml_assets.event_log import BatchedSqliteEventLog
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import wait_until

START = date(2025, 1, 1)
DAILY = dg.DailyPartitionsDefinition(START.isoformat())
OPTIONS: dict[str, Any] = {"partitions_def": DAILY, "backfill_policy": dg.BackfillPolicy.single_run()}


@dg.asset(check_specs=[dg.AssetCheckSpec("complete", asset="rows")], **OPTIONS)
def rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    for day in context.partition_keys:
        context.add_asset_metadata({"dagster/partition_row_count": len(day)}, partition_key=day)
    check = dg.AssetCheckResult(check_name="complete", passed=True)
    return dg.MaterializeResult(data_version=dg.DataVersion("v1"), check_results=[check])


@dg.asset(deps=[rows], **OPTIONS)
def refused(context: dg.AssetExecutionContext) -> None:
    context.log_event(dg.AssetMaterialization("refused", partition=context.partition_keys[0]))
    raise dg.Failure("the other days are refused")


JOB = dg.Definitions(assets=[rows, refused], jobs=[dg.define_asset_job("days")]).resolve_job_def("days")
Open = Callable[..., dg.DagsterInstance]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """An instance in a folder of its own, with the dagster.yaml of the platform or with Dagster's own log."""

    def open_(name: str, *, batched: bool = True) -> dg.DagsterInstance:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        theirs = "telemetry: {enabled: false}\n"
        ours = (PROJECT_ROOT / "deploy" / "local" / "dagster.yaml").read_text()
        (home / "dagster.yaml").write_text(ours if batched else theirs)
        return dg.DagsterInstance.from_config(str(home))

    return open_


def run(instance: dg.DagsterInstance, days: int, run_id: str | None = None) -> str:
    tags = {
        "dagster/asset_partition_range_start": START.isoformat(),
        "dagster/asset_partition_range_end": (START + timedelta(days=days - 1)).isoformat(),
    }
    return JOB.execute_in_process(instance=instance, tags=tags, raise_on_error=False, run_id=run_id).run_id


def tables(instance: dg.DagsterInstance, run_id: str) -> dict[str, list[Any]]:
    """What the files hold of a run, without times and running numbers."""
    folder = Path(instance.root_directory) / "history" / "runs"
    events = "select dagster_event_type, step_key, asset_key, partition from event_logs order by 1, 2, 3, 4"
    asked = {
        run_id: {"events": events},
        "index": {
            "mirrored": events,
            "assets": "select asset_key, last_run_id, last_materialization is null from asset_keys order by 1",
            "tags": """select t.asset_key, partition, key, value from asset_event_tags t
                join event_logs e on e.id = event_id order by 1, 2, 3""",
            "checks": """select c.asset_key, check_name, c.partition, execution_status, e.dagster_event_type
                from asset_check_executions c join event_logs e on e.id = evaluation_event_storage_id
                order by 1, 2, 3, 4""",
        },
    }
    held = {}
    for shard, queries in asked.items():
        with sqlite3.connect(folder / f"{shard}.db") as connection:
            held |= {name: connection.execute(query).fetchall() for name, query in queries.items()}
    return held


def test_it_holds_what_dagsters_own_log_holds(opened: Open) -> None:
    run_id = "5ec70000-0000-4000-8000-000000000000"
    with opened("theirs", batched=False) as theirs:
        assert type(theirs.event_log_storage) is SqliteEventLogStorage
        run(theirs, 5, run_id)
        expected = tables(theirs, run_id)
    with opened("ours") as ours:
        assert type(ours.event_log_storage) is BatchedSqliteEventLog
        run(ours, 5, run_id)
        held = tables(ours, run_id)
        days = {(START + timedelta(days=number)).isoformat() for number in range(5)}
        assert ours.get_materialized_partitions(dg.AssetKey("rows")) == days
        assert ours.get_materialized_partitions(dg.AssetKey("refused")) == {START.isoformat()}
        event = ours.get_latest_materialization_event(dg.AssetKey("rows"))
        assert event is not None
        assert event.asset_materialization.tags["dagster/data_version"] == "v1"
    assert sum(kind == "ASSET_MATERIALIZATION_PLANNED" for kind, *_ in expected["mirrored"]) == 10
    assert held == expected


def test_more_days_need_no_more_transactions(opened: Open) -> None:
    commits: list[Any] = []
    listener = (sqlalchemy.Engine, "commit", commits.append)
    sqlalchemy.event.listen(*listener)
    try:
        needed = []
        for days in (5, 50):
            with opened(f"{days} days") as instance:
                commits.clear()
                run(instance, days)
                needed.append(len(commits))
    finally:
        sqlalchemy.event.remove(*listener)
    few, many = needed
    assert 0 < many <= few + 2, needed


def test_a_run_can_be_followed_while_it_is_under_way(opened: Open) -> None:
    followed: list[Any] = []
    run_id = "5ec70000-0000-4000-8000-000000000001"
    with opened("followed") as instance:
        instance.watch_event_logs(run_id, None, lambda event, _: followed.append(event.dagster_event_type))

        @dg.asset
        def waits() -> None:
            wait_until(
                lambda: dg.DagsterEventType.STEP_START in followed,
                20,
                "who follows the run sees that its step has started",
            )

        job = dg.Definitions(assets=[waits], jobs=[dg.define_asset_job("j")]).resolve_job_def("j")
        assert job.execute_in_process(instance=instance, run_id=run_id).success


def test_an_instance_that_had_dagsters_own_log_goes_on_with_its_history(opened: Open) -> None:
    with opened("both", batched=False) as before:
        run(before, 3)
    with opened("both") as after:
        assert len(after.get_materialized_partitions(dg.AssetKey("rows"))) == 3
        run(after, 4)
        assert len(after.get_materialized_partitions(dg.AssetKey("rows"))) == 4
    with opened("both", batched=False) as back:
        assert len(back.get_materialized_partitions(dg.AssetKey("rows"))) == 4
        assert len(back.get_runs()) == 2
