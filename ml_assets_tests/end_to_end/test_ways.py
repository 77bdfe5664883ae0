"""The ways of use do the same: `dagster asset materialize`, a tick of the schedule, and the sensors on landed files.

The fourth, "Materialize" in the UI, is in browser/. Each starts from the same four landed days, and ends in the same
tables and the same model, to the digest, as `make run`'s own way.
"""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest

from ml_assets.demo.business import FIRST_DAY
from ml_assets.lake import WHOLE
from ml_assets_tests.project import SMALL, SMALL_MODEL, Project, wait_until

DAYS = 4
MODEL = "late_deliveries"


def landed(project: Project) -> Project:
    project.add_demo_model(**SMALL_MODEL)
    project.land(DAYS)
    return project


@pytest.fixture(scope="module")
def reference(make_project: Callable[..., Project]) -> Project:
    project = landed(make_project("reference"))
    project.materialize()
    return project


def served_version(project: Project) -> str | None:
    health = project.target.health()
    served = (health or {"models": {}})["models"].get(MODEL)
    return served and str(served["version"])


def test_the_dagster_command(project: Project, reference: Project) -> None:
    landed(project)
    days = f"{FIRST_DAY}...2025-01-0{DAYS}"
    done = project.run(
        "dagster", "asset", "materialize", "-m", "ml_assets.definitions", "--select", f'key:"{MODEL}/*"',
        "--partition-range", days,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert project.contents() == reference.contents()
    assert served_version(project) == "1"


def test_a_tick_of_the_schedule(project: Project, reference: Project) -> None:
    landed(project)
    with project.active(), dg.DagsterInstance.get() as instance:
        repository = project.definitions().get_repository_def()
        schedule = repository.get_schedule_def(f"{MODEL}_daily")
        assert schedule.cron_schedule == "0 3 * * *"

        def tick() -> dg.ScheduleExecutionData:
            with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
                return schedule.evaluate_tick(context)

        requests = list(tick().run_requests or [])
        assert len(requests) == 1
        for request in requests:
            job = repository.get_job(MODEL)
            result = job.execute_in_process(
                instance=instance, tags=dict(request.tags), asset_selection=list(request.asset_selection or [])
            )
            assert result.success
        assert not tick().run_requests, "nothing is due any more"
    assert project.contents() == reference.contents()
    assert served_version(project) == "1"


def test_the_sensors_of_the_running_daemon(project: Project, reference: Project) -> None:
    """Files land, one is replaced: the model is refreshed, trained, judged and deployed with nobody's hand on it."""
    project.add_demo_model(**SMALL_MODEL)
    (project.landing / MODEL / "orders").mkdir(parents=True)
    (project.landing / MODEL / "outcomes").mkdir(parents=True)
    with project.services() as log:
        project.land(DAYS)

        def serves(version: str) -> Callable[[], bool]:
            return lambda: served_version(project) == version

        wait_until(serves("1"), 240, f"version 1 serves; see {log}")
        assert project.contents() == reference.contents()
        before = project.latest().of("features")
        project.land(1, FIRST_DAY, business=replace(SMALL, seed=99))
        wait_until(serves("2"), 180, f"version 2 serves; see {log}")
    after = project.latest().of("features")
    assert {day for day in after if after[day] != before[day]} == {FIRST_DAY.isoformat()}
    with project.active(), dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        reasons = [run.tags["ml_assets/reason"] for run in runs]
        assert reasons[-1] == "new"
        assert any("its batches changed" in each for each in reasons)
        assert len([run for run in runs if "raw_data" in str(run.asset_selection)]) == 2
    served = project.latest().get("endpoint", WHOLE)
    assert served is not None
    assert served.details["version"] == "2"


def test_a_person_may_materialise_each_asset_by_hand(reference: Project) -> None:
    before = reference.contents()
    for asset in ("raw_data", "outcomes", "features"):
        reference.by_hand(asset, FIRST_DAY.isoformat())
    for asset in ("trained_model", "metrics", "endpoint"):
        reference.by_hand(asset)
    assert reference.contents() == before
    assert served_version(reference) == "2"
