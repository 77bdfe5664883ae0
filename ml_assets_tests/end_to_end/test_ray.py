"""Trainings on a real Ray cluster of several nodes: the same model as here, also if workers and nodes are lost. And
searches in runs of Dagster, here and there.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.entities import Run

from ml_assets.automation.due_training import due_training
from ml_assets.digests import digest_of_fitted
from ml_assets.errors import TrainingError
from ml_assets.lake import WHOLE
from ml_assets.ml.compute import OnRay, missing_packages
from ml_assets.ml.search import Params, Trial
from ml_assets.records import Record
from ml_assets.resources import ComputeResource
from ml_assets.spec.training import Estimator, Search, Training
from ml_assets_tests.end_to_end.test_tracking import runs
from ml_assets_tests.ml.test_training import fit, rows
from ml_assets_tests.project import PROGRAMS, PROJECT_ROOT, SMALL_MODEL, Project, wait_until
from ml_assets_tests.ray_cluster import RayCluster, ray_cluster
from ml_assets_tests.ray_work import explode, total, wrong


@pytest.fixture(scope="module")
def searched(make_project: Callable[..., Project]) -> Project:
    """A model whose parameters were searched here, undisturbed."""
    project = make_project("searched")
    project.add_demo_model(**SEARCHED)
    project.land(4)
    project.materialize()
    return project


SEARCHED: dict[str, Any] = SMALL_MODEL | {
    "estimator": {"params": {"n_estimators": 10}},
    "search": {"trials": 12, "space": {"max_depth": {"int": [2, 8]}, "max_features": {"float": [0.1, 1.0]}}},
}


def trained(project: Project) -> Record:
    record = project.latest().get("trained_model", WHOLE)
    assert record is not None
    return record


def train_in_a_process(project: Project) -> subprocess.Popen[bytes]:
    command = [str(PROGRAMS / "dagster"), "asset", "materialize", "-m", "ml_assets.definitions"]
    return subprocess.Popen(
        [*command, "--select", 'key:"late_deliveries/trained_model"'],
        env=project.environment(),
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def trials(project: Project, record: Record) -> list[Run]:
    """The nested runs of a training, in their order."""
    found = [
        each for each in runs(project) if each.data.tags.get("mlflow.parentRunId") == record.details["mlflow_run_id"]
    ]
    return sorted(found, key=lambda each: int(each.data.tags["ml_assets.trial"]))


def test_a_search_is_recorded_logged_and_shown(searched: Project) -> None:
    record = trained(searched)
    nested = trials(searched, record)
    assert [each.info.status for each in nested] == ["FINISHED"] * 12
    scores = [each.data.metrics["cv_f1"] for each in nested]
    best = int(np.argmax(scores))
    summary = record.details["search"]
    assert summary["best"]["trial"] == best
    assert summary["best"]["value"] == scores[best]
    assert (summary["trials"], summary["failed"], summary["stopped_by"]) == (12, 0, "trials")
    chosen = {name: str(value) for name, value in summary["best"]["params"].items()}
    assert nested[best].data.params == chosen
    assert record.details["params"] == {"n_estimators": 10, "random_state": 42} | summary["best"]["params"]
    parent = next(each for each in runs(searched) if each.info.run_id == record.details["mlflow_run_id"])
    assert {name: parent.data.params[name] for name in chosen} == chosen
    assert parent.data.metrics["cv_f1"] == scores[best]
    with searched.active(), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["late_deliveries", "trained_model"]))
        assert event is not None
        assert event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        table = [each.data for each in shown["search_table"].records]  # type: ignore[union-attr]
        log = [each.user_message for each in instance.all_logs(record.run_id)]
    assert shown["search_best_trial"].value == best + 1
    assert shown["parameters"].value == record.details["params"]
    assert [each["score"] for each in table] == [f"{score:.6f}" for score in scores]
    assert [each["came_of_it"] for each in table].index("chosen") == best
    assert sum(each.startswith("trial ") and "best so far" in each for each in log) == 12
    assert not list((searched.settings.home / "searches").rglob("*.jsonl")), (
        "nothing is kept once the model is recorded"
    )


def test_a_training_that_is_killed_during_its_search_is_continued_by_the_next(searched: Project) -> None:
    undisturbed = trained(searched)
    process = train_in_a_process(searched)

    def finished() -> int:
        return sum(each.read_text().count('"key"') for each in (searched.settings.home / "searches").rglob("*.jsonl"))

    wait_until(lambda: finished() >= 4, 120, "four trials are finished")
    process.kill()
    process.wait()
    killed_at, kept = time.time() * 1000, finished()
    assert 4 <= kept < 12
    searched.by_hand("trained_model")
    record = trained(searched)
    assert (record.content, record.details["params"]) == (undisturbed.content, undisturbed.details["params"])
    assert record.details["search"] == undisturbed.details["search"]
    # Both attempts are one MLflow run, with a finished run for each trial below it.
    nested = [each for each in trials(searched, record) if each.info.status == "FINISHED"]
    assert [int(each.data.tags["ml_assets.trial"]) for each in nested] == list(range(12))
    made = [each for each in nested if each.info.start_time > killed_at and each.data.tags["ml_assets.known"] != "true"]
    assert made == nested[kept:], "finished trials are not made again"
    trainings = [each for each in runs(searched) if "mlflow.parentRunId" not in each.data.tags]
    assert {each.info.run_id for each in trainings} == {each.details["mlflow_run_id"] for each in (undisturbed, record)}
    assert "RUNNING" not in {each.info.status for each in runs(searched)}
    assert not list((searched.settings.home / "searches").rglob("*.jsonl"))


def test_a_model_that_is_trained_on_ray_is_the_same_and_not_due_and_ray_ends_with_its_training(
    searched: Project,
) -> None:
    here = trained(searched)
    searched.add_demo_model(**(SEARCHED | {"compute": "ray"}))
    assert "trained_model" not in due_training(searched.model(), searched.lake).assets
    process = train_in_a_process(searched)
    started: set[psutil.Process] = set()
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            started |= set(psutil.Process(process.pid).children(recursive=True))
        time.sleep(0.2)
    assert process.returncode == 0
    assert len(started) > 4, "Ray's processes"
    there = trained(searched)
    assert int(there.details["version"]) == int(here.details["version"]) + 1
    assert (there.content, there.details["search"]) == (here.content, here.details["search"])
    wait_until(lambda: not alive(started), 20, "Ray has ended")


OWN_CLUSTER = """
import time
from ml_assets.resources import ComputeResource
from ml_assets_tests.end_to_end.test_ray import Context
with ComputeResource(ray="", searches="").open("ray", Context(), "m"):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def left_behind() -> list[psutil.Process]:
    """What Ray had started for a training that was killed."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", OWN_CLUSTER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "up" not in (said := process.stdout.readline()):
        assert said, "it ended"
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in each.name() for each in started)
    process.kill()
    process.wait()
    return started


def test_ray_ends_with_a_training_that_is_killed(left_behind: list[psutil.Process]) -> None:
    agents = [each for each in left_behind if each.is_running() and "Agent" in each.name()]
    assert len(agents) <= 2, "which wait for Ray's own server for a minute; see the last test of this file"
    wait_until(lambda: len(alive(left_behind)) <= len(agents), 30, "Ray has ended with its training")


def alive(processes: Collection[psutil.Process]) -> list[psutil.Process]:
    found = []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def test_an_address_without_a_cluster_and_a_missing_ray_are_told(
    monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert missing_packages() == "`compute: ray` needs ray, not installed here: .venv/bin/pip install '.[ray]'"
    project.add_demo_model(**(SMALL_MODEL | {"compute": "ray"}))
    assert f"late_deliveries: {project.settings.models}/late_deliveries/defs.yaml: `compute: ray` needs ray" in (
        project.refusal()
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as made:
        yield made


class Context:
    """What a resource asks of its context: somebody to tell."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.log = SimpleNamespace(info=print, warning=self.warnings.append, exception=print)


@pytest.fixture(scope="module")
def compute(cluster: RayCluster) -> Iterator[tuple[OnRay, list[str]]]:
    """This process as a driver of the cluster; and what was said of losses."""
    context: Any = Context()
    with ComputeResource(ray=cluster.address, searches="").open("ray", context, "m") as on_ray:
        assert isinstance(on_ray, OnRay)
        yield on_ray, context.warnings


FOREST = Estimator(params={"n_estimators": 30})
BOOSTING = Estimator(class_="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 20})
LOGISTIC = Estimator(class_="sklearn.linear_model.LogisticRegression")


def test_models_and_scores_are_those_of_this_machine_to_the_last_bit(compute: tuple[OnRay, list[str]]) -> None:
    frame = rows(3000).with_columns(worth=rows(3000)["id"] % 4 + 1)
    training = Training(folds=3, class_weights="balanced", sample_weights="worth", calibration="isotonic")
    for estimator in (FOREST, BOOSTING, LOGISTIC):
        here = fit(frame, estimator=estimator, training=training)
        there = fit(frame, estimator=estimator, training=training, compute=compute[0])
        assert there.fold_scores == here.fold_scores
        assert digest_of_fitted(there.pipeline) == digest_of_fitted(here.pipeline)
    assert compute[1] == []


def test_rows_are_sent_once_to_workers_on_all_nodes(compute: tuple[OnRay, list[str]]) -> None:
    """joblib alone would pickle them with each call."""
    sent = Counted({"x": [1, 2]})
    # Each call goes to a worker by chance; that all of so many go to one node's will not be seen.
    found = list(compute[0].map(total, [(sent, number) for number in range(40)]))
    assert [each for each, _ in found] == list(range(3, 43))
    assert len({node for _, node in found}) > 1
    assert Counted.pickled == 1


class Counted(pd.DataFrame):
    """Counts how often it is pickled in this process."""

    pickled = 0

    def __reduce__(self) -> Any:
        Counted.pickled += 1
        return pd.DataFrame, (dict(self),)


class Loss:
    """Breaks something while a trial is made."""

    def __init__(self, losses: dict[int, Callable[[], None]]) -> None:
        self.losses, self.threads = losses, list[threading.Thread]()

    def begin(self, number: int, params: Params) -> None:
        if number in self.losses:
            self.threads.append(threading.Thread(target=self.losses[number]))
            self.threads[-1].start()

    def end(self, trial: Trial) -> None:
        for each in self.threads:
            each.join()

    def give_up(self) -> None: ...


def test_a_worker_and_a_node_that_are_lost_during_a_search_change_nothing(
    cluster: RayCluster, compute: tuple[OnRay, list[str]]
) -> None:
    search = Search.model_validate(
        {"trials": 3, "space": {"max_depth": {"int": [8, 12]}, "n_estimators": {"choice": [150, 151]}}}
    )
    frame = rows(3000)
    here = fit(frame, search=search, estimator=Estimator())
    loss = Loss({0: cluster.kill_a_worker, 1: cluster.kill_a_node})
    there = fit(frame, search=search, estimator=Estimator(), compute=compute[0], watch=loss)
    assert len(loss.threads) == 2
    assert len(compute[1]) >= 2, "both losses were noticed"
    assert all("Ray lost a worker" in each for each in compute[1])
    assert here.found is not None
    assert there.found is not None
    assert [each.result.scores for each in there.found.trials] == [each.result.scores for each in here.found.trials]
    assert there.params == here.params
    assert digest_of_fitted(there.pipeline) == digest_of_fitted(here.pipeline)


def test_work_that_always_takes_its_worker_with_it_ends_the_training_with_the_reason(
    compute: tuple[OnRay, list[str]],
) -> None:
    said: list[str] = []
    on_ray = OnRay("m", said.append, attempts=2)
    with pytest.raises(ValueError, match="1 is wrong"):
        list(on_ray.map(wrong, [(1,)]))
    assert said == [], "an error of the work itself is not tried again"
    with pytest.raises(TrainingError, match=r"m: Ray lost a worker 2 times while it did the same work: .* memory"):
        list(on_ray.map(explode, [(1,)]))
    assert len(said) == 1


def test_nothing_at_all_is_left_of_ray_after_two_minutes(left_behind: list[psutil.Process]) -> None:
    wait_until(lambda: not alive(left_behind), 150, "Ray has ended with its training")
