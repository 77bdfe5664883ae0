"""A run that is killed at any moment is finished by the next one, and all tables end as if nothing had happened."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_assets.automation.due_training import due_training
from ml_assets.automation.reports import unreported
from ml_assets.automation.under_way import busy
from ml_assets.records import append_records, read_latest, writing
from ml_assets_tests.project import PROGRAMS, PROJECT_ROOT, SMALL_MODEL, Project, wait_until
from ml_assets_tests.rides import noon, place

DAYS = 4
TABLES = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")


@pytest.fixture(scope="module")
def undisturbed(make_project: Callable[..., Project]) -> dict[str, Any]:
    project = make_project("undisturbed")
    project.add_demo_model(**SMALL_MODEL)
    project.land(DAYS)
    project.materialize()
    return project.contents()


@pytest.mark.parametrize("table", ["raw_data", "rejected_rows", "features"])
def test_a_run_that_is_killed_once_a_table_is_there_is_completed_by_the_next(
    project: Project, undisturbed: dict[str, Any], table: str
) -> None:
    project.add_demo_model(**SMALL_MODEL)
    project.land(DAYS)
    process = subprocess.Popen(
        [str(PROGRAMS / "ml-assets"), "replay", "late_deliveries"],
        env=project.environment(),
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: project.lake.exists("late_deliveries", table), 120, f"{table} is written")
    process.kill()
    process.wait()
    with project.active(), dg.DagsterInstance.get() as instance:
        assert busy(instance, project.model()) is None, "a dead run holds up nothing"
        assert {run.status for run in instance.get_runs()} <= {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    project.materialize()
    assert project.contents() == undisturbed
    for each in TABLES:
        rows = project.lake.read("late_deliveries", each)
        assert rows.height == sum(record.rows for record in project.latest().of(each).values())
    raw = project.lake.read("late_deliveries", "raw_data")
    assert not raw.select(pl.struct("_source", "_row").is_duplicated().any()).item(), "no row twice"
    with project.active(), dg.DagsterInstance.get() as instance:
        for event in unreported(instance, project.model(), project.lake):
            instance.report_runless_asset_event(event)
        for each in TABLES:
            known = instance.get_materialized_partitions(dg.AssetKey(["late_deliveries", each]))
            assert known == set(project.latest().of(each)), "Dagster knows every day that is there"


@pytest.mark.parametrize("table", ["raw_data", "cleaned_data", "features", "outcomes"])
def test_what_was_written_and_not_recorded_is_made_again_though_the_source_is_as_before(table: str) -> None:
    """A run was killed after it wrote a replaced file's rows; then the file was put back as it was."""
    with place(own_outcomes=False) as rides:
        row = {"ride": "a", "at": noon(1), "km": 1.0, "known": noon(2), "late": True}
        rides.put("rides/0.parquet", [row, row | {"ride": "b"}])
        rides.refresh()
        before = rides.tables()
        rows = rides.lake.read("rides", table)
        append_records(rides.lake, "rides", [writing(table, "2025-01-01", "killed")])
        rides.lake.replace("rides", table, rows.head(1), ["2025-01-01"])

        model = rides.model
        if table in ("features", "outcomes"):
            assert "is being finished" in due_training(model, rides.lake).reason, "nothing is trained on half a table"
        assert rides.refresh() == [["2025-01-01"]]
        assert rides.tables() == before
        assert rides.refresh() == []


def test_days_that_were_written_before_a_step_broke_off_are_recorded_and_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with place(own_outcomes=False) as rides:
        for day in range(1, 4):
            row = {"ride": "a", "at": noon(day), "km": 1.0, "known": noon(day), "late": True}
            rides.put(f"rides/{day}.parquet", [row])
        read = sys.modules["ml_assets.assets.raw_data"].read_partitions

        def breaks(feed: Any, found: Any, partitions: list[str]) -> pl.DataFrame:
            if "2025-01-03" in partitions:
                raise MemoryError
            return read(feed, found, partitions)

        monkeypatch.setattr(
            sys.modules["ml_assets.assets.refresh"], "chunks", lambda days, _: [[each] for each in days]
        )
        monkeypatch.setattr(sys.modules["ml_assets.assets.raw_data"], "read_partitions", breaks)
        for _ in range(2):
            with pytest.raises(MemoryError):
                rides.refresh()
            assert set(read_latest(rides.lake, "rides").finished("raw_data")) == {"2025-01-01", "2025-01-02"}
            assert rides.lake.version("rides", "raw_data") == 1, "one commit a day, and none twice"
        monkeypatch.undo()
        rides.refresh()
        assert len(rides.tables()["features"]) == 3
