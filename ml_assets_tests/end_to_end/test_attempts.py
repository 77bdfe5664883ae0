"""One MLflow run for each training, whatever retries: killed at any moment, retried by step or by run, or failed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from mlflow.entities import Run

from ml_assets.errors import RunFailedError
from ml_assets.lake import WHOLE
from ml_assets.registry import STATE_TAG, Registry
from ml_assets_tests.project import PROJECT_ROOT, Project
from ml_assets_tests.shop import NAME, SPEC, add_shop

STEP = "ml_assets.assets.trained_model"
# A process that has imported everything. For each line that it reads, a copy of it trains and is gone with SIGKILL once
# it calls a function: before, or after that has done its work.
DIES = """
import importlib, os, signal, sys
import dagster_mlflow.resources, mlflow.sklearn, mlflow.data.meta_dataset, skops.io, sklearn.ensemble
from ml_assets.definitions import definitions
from ml_assets.materialize import materialize_due, models_of
from ml_assets.settings import Settings

for line in sys.stdin:
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    place, name, after = line.split()
    module = importlib.import_module(place)
    original = getattr(module, name)

    def gone(*arguments, **options):
        if after == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, gone)
    settings = Settings.from_environment()
    materialize_due(settings, models_of(settings)["shop"], lambda line: None)
    os._exit(0)
"""


def runs(project: Project) -> list[Run]:
    """Oldest first."""
    client = Registry(project.settings.mlflow_uri).client
    experiment = client.get_experiment_by_name(NAME)
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def registered(project: Project) -> dict[str, str]:
    """Each version with the state of its training, and `candidate` with its version."""
    client = Registry(project.settings.mlflow_uri).client
    found = client.search_model_versions(f"name = '{NAME}'")
    aliases = client.get_registered_model(NAME).aliases if found else {}
    return {str(each.version): each.tags[STATE_TAG] for each in found} | {
        name: str(version) for name, version in aliases.items() if name == "candidate"
    }


def logged_models(project: Project) -> int:
    client = Registry(project.settings.mlflow_uri).client
    return len(client.search_logged_models([client.get_experiment_by_name(NAME).experiment_id]))


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project]) -> Project:
    project = make_project("attempts")
    add_shop(project)
    project.prepare_mlflow()
    return project


Kill = Callable[[str, str], None]


@pytest.fixture(scope="module")
def killed(shop: Project) -> Iterator[Kill]:
    """Let a process train that is killed `before` or `after` a function `module:name` is called for the first time."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DIES],
        env=shop.environment(),
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout

    def kill(when: str, function: str) -> None:
        process.stdin.write(f"{function.replace(':', ' ')} {when}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "-9\n", "it was killed"

    with process:
        yield kill
        process.stdin.close()


def test_killed_while_fitting_and_again_once_registered_it_is_one_run_without_an_orphan(
    shop: Project, killed: Kill
) -> None:
    killed("after", "ml_assets.ml.cross_validation:fit")  # the first of three fits
    (run,) = runs(shop)
    assert (run.info.status, run.data.tags["ml_assets.attempt"]) == ("RUNNING", "1")
    assert registered(shop) == {}

    killed("before", f"{STEP}:append_records")
    (again,) = runs(shop)
    assert again.info.run_id == run.info.run_id
    assert (again.info.status, again.data.tags["ml_assets.attempt"]) == ("RUNNING", "2")
    assert registered(shop) == {"1": "unfinished"}, "a version without a record, and no candidate"

    shop.materialize(NAME)
    (finished,) = runs(shop)
    assert finished.info.run_id == run.info.run_id
    assert (finished.info.status, finished.data.tags["ml_assets.attempt"]) == ("FINISHED", "3")
    trained = shop.latest(NAME).get("trained_model", WHOLE)
    assert trained is not None
    assert finished.data.tags["ml_assets.dagster_runs"].split()[-1] == trained.run_id
    assert len(finished.data.tags["ml_assets.dagster_runs"].split()) == 3
    assert registered(shop) == {trained.details["version"]: "recorded", "candidate": trained.details["version"]}
    assert logged_models(shop) == 1


def test_killed_once_recorded_it_counts_and_is_finished_by_the_judgement(shop: Project, killed: Kill) -> None:
    add_shop(shop, estimator={"params": {"n_estimators": 6, "max_depth": 4}})
    before = len(runs(shop))
    killed("after", f"{STEP}:append_records")
    trained = shop.latest(NAME).get("trained_model", WHOLE)
    assert trained is not None
    version = trained.details["version"]
    assert (runs(shop)[-1].info.status, registered(shop)[version]) == ("RUNNING", "unfinished")
    shop.materialize(NAME)
    latest = shop.latest(NAME)
    assert latest.get("trained_model", WHOLE) == trained, "it is not trained again"
    assert len(runs(shop)) == before + 1
    assert (runs(shop)[-1].info.status, registered(shop)[version]) == ("FINISHED", "recorded")
    assert registered(shop)["candidate"] == version
    judged = latest.get("metrics", WHOLE)
    assert judged is not None
    assert judged.details["version"] == version


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """The next record of a training is not written, because something is raised in its place."""
    module = sys.modules[STEP]
    original: Any = module.append_records  # type: ignore[attr-defined]

    def arm(error: Exception) -> None:
        def instead(*arguments: Any) -> None:
            monkeypatch.setattr(module, "append_records", original)
            raise error

        monkeypatch.setattr(module, "append_records", instead)

    return arm


def test_a_step_that_is_retried_goes_on_in_its_run(shop: Project, fails_once: Callable[[Exception], None]) -> None:
    add_shop(shop, estimator={"params": {"n_estimators": 7, "max_depth": 4}})
    before, kept = len(runs(shop)), registered(shop)
    fails_once(dg.RetryRequested(max_retries=1))
    shop.materialize(NAME)
    last = runs(shop)[-1]
    assert len(runs(shop)) == before + 1
    assert (last.info.status, last.data.tags["ml_assets.attempt"]) == ("FINISHED", "2")
    assert len(last.data.tags["ml_assets.dagster_runs"].split()) == 1, "one Dagster run"
    trained = shop.latest(NAME).get("trained_model", WHOLE)
    assert trained is not None
    assert set(registered(shop)) == {*kept, trained.details["version"]}
    assert registered(shop)["candidate"] == trained.details["version"]


def test_a_run_that_is_executed_again_goes_on_in_its_run(
    shop: Project, fails_once: Callable[[Exception], None]
) -> None:
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    add_shop(shop, estimator={"params": {"n_estimators": 8, "max_depth": 4}})
    before, kept = len(runs(shop)), registered(shop)
    fails_once(OSError("the disk is full"))
    with pytest.raises(RunFailedError, match="the disk is full"):
        shop.materialize(NAME)
    failed = runs(shop)[-1]
    assert failed.info.status == "FAILED"
    assert registered(shop) == kept, "what the failed attempt registered is gone"
    with shop.active(), dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1)
        job = ReconstructableRepository.for_module("ml_assets.definitions", "definitions").get_reconstructable_job(NAME)
        again = dg.execute_job(
            job, instance, reexecution_options=dg.ReexecutionOptions.from_failure(run.run_id, instance)
        )
        assert again.success
        assert again.dagster_run.root_run_id == run.run_id
        again_id = again.run_id
    last = runs(shop)[-1]
    assert len(runs(shop)) == before + 1
    assert last.info.run_id == failed.info.run_id
    assert (last.info.status, last.data.tags["dagster_root_run_id"]) == ("FINISHED", run.run_id)
    assert last.data.tags["ml_assets.dagster_runs"].split() == [run.run_id, again_id]
    trained = shop.latest(NAME).get("trained_model", WHOLE)
    assert trained is not None
    assert registered(shop)["candidate"] == trained.details["version"]


def test_another_training_after_a_failed_one_is_another_run(
    shop: Project, fails_once: Callable[[Exception], None]
) -> None:
    add_shop(shop, estimator={"params": {"n_estimators": 9, "max_depth": 4}})
    before = len(runs(shop))
    fails_once(OSError("the disk is full"))
    with pytest.raises(RunFailedError, match="the disk is full"):
        shop.materialize(NAME)
    add_shop(shop)  # as it was trained first: equal inputs, but that run has succeeded long ago
    shop.materialize(NAME)
    assert [run.info.status for run in runs(shop)[before:]] == ["FAILED", "FINISHED"]
    assert runs(shop)[-1].data.params["n_estimators"] == str(SPEC["estimator"]["params"]["n_estimators"])
    assert runs(shop)[-1].info.run_id != runs(shop)[0].info.run_id
