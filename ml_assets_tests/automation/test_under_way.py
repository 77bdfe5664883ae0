"""Runs whose process is gone are failed; what they had finished is told to Dagster."""

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from ml_assets.automation import under_way
from ml_assets.automation.reports import unreported
from ml_assets.automation.under_way import busy
from ml_assets_tests.project import Project


def add_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, pid: int | None = None) -> str:
    run = dg.DagsterRun(job_name="late_deliveries", run_id=str(uuid.uuid4()), status=status)
    instance.add_run(run)
    if pid is not None:
        data = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(pid))})
        instance.report_engine_event("Started process for run", run, data)
    return run.run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_whose_process_lives_is_under_way_and_one_whose_process_is_gone_is_failed(small: Project) -> None:
    model = small.model()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with dg.instance_for_test() as instance:
        run_id = add_run(instance, dg.DagsterRunStatus.STARTED, process.pid)
        assert "under way" in str(busy(instance, model))
        process.kill()
        process.wait()
        assert busy(instance, model) is None
        assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_a_dead_run_is_found_behind_one_that_waits_for_it(small: Project) -> None:
    """The one that waits can never start while the dead one holds the model's pool."""
    model = small.model()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with dg.instance_for_test() as instance:
        dead = add_run(instance, dg.DagsterRunStatus.STARTED, process.pid)
        waiting = add_run(instance, dg.DagsterRunStatus.NOT_STARTED)
        assert busy(instance, model) == f"run {waiting[:8]} is under way"
        assert status_of(instance, dead) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED])
def test_a_run_that_no_process_took_up_is_failed_after_a_while(
    small: Project, monkeypatch: pytest.MonkeyPatch, status: dg.DagsterRunStatus
) -> None:
    model = small.model()
    with dg.instance_for_test() as instance:
        run_id = add_run(instance, status)
        assert "under way" in str(busy(instance, model)), "it may be about to start"
        monkeypatch.setattr(under_way, "LAUNCH_TIME", timedelta(seconds=-1))
        assert busy(instance, model) is None
        assert status_of(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_days_that_lie_in_the_lake_are_reported_to_a_dagster_that_does_not_know_them(small: Project) -> None:
    model = small.model()
    with small.active(), dg.DagsterInstance.get() as instance:
        assert unreported(instance, model, small.lake) == []
    with dg.instance_for_test() as instance:
        events = unreported(instance, model, small.lake)
        for event in events:
            instance.report_runless_asset_event(event)
        assert len(events) >= 5 * 8
        assert unreported(instance, model, small.lake) == []
        key = dg.AssetKey(["late_deliveries", "features"])
        known = instance.get_latest_data_version_record(key, partition_key="2025-01-03")
        record = small.latest().get("features", "2025-01-03")
        assert known is not None
        assert record is not None
        assert known.asset_materialization is not None
        assert (known.asset_materialization.tags or {})["dagster/data_version"] == record.content
        assert datetime.now(UTC).timestamp() - known.timestamp < 60
