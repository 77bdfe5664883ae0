"""A model whose gate fails is not served, whichever way it is tried."""

import json
from collections.abc import Callable

import dagster as dg
import pytest

from ml_assets.errors import RunFailedError, TrainingError
from ml_assets.lake import WHOLE
from ml_assets.ml.verdict import Verdict
from ml_assets.registry import VERDICT_TAG, Registry
from ml_assets_tests.project import SMALL_MODEL, Project


def endpoint_alone(project: Project) -> dg.ExecuteInProcessResult:
    """Materialise only `endpoint`, as a person may do in the UI."""
    with project.active(), dg.DagsterInstance.get() as instance:
        job = project.definitions().resolve_job_def("late_deliveries")
        key = dg.AssetKey(["late_deliveries", "endpoint"])
        return job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)


def reason(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = [each for each in result.all_events if each.is_step_failure]
    error = failed.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message) if error else ""


@pytest.fixture(scope="module")
def refused(make_project: Callable[..., Project]) -> Project:
    """A project whose only model version fell through its gate, in a run of all assets."""
    project = make_project("gate")
    project.add_demo_model(**(SMALL_MODEL | {"gates": {"f1": 0.999}}))
    project.land(5)
    with pytest.raises(RunFailedError, match="gate_f1"):
        project.materialize()
    return project


def test_all_together_the_run_fails_at_the_gate_and_nothing_serves(refused: Project) -> None:
    judged = refused.latest().get("metrics", WHOLE)
    assert judged is not None
    assert judged.details["approved"] is False
    assert "at least 0.999 is asked for" in judged.details["reasons"][0]
    assert refused.latest().get("endpoint", WHOLE) is None
    assert refused.target.url() is None
    assert Registry(refused.settings.mlflow_uri).champion("late_deliveries") is None


def test_materialising_only_the_endpoint_afterwards_is_refused_too(refused: Project) -> None:
    result = endpoint_alone(refused)
    assert not result.success
    assert "late_deliveries version 1 was refused: f1" in reason(result)
    assert refused.target.url() is None
    assert not list(refused.settings.releases.glob("*/*"))


def test_an_edited_verdict_or_a_gate_lowered_afterwards_does_not_help(refused: Project) -> None:
    registry = Registry(refused.settings.mlflow_uri)
    verdict = registry.verdict("late_deliveries", "1")
    assert verdict is not None
    honest = json.dumps(verdict.to_json())
    client = registry.client
    edited = Verdict(
        **{name: value for name, value in verdict.to_json().items() if name != "digest"} | {"approved": True}
    )
    for forged in (honest.replace("false", "true"), json.dumps(edited.to_json())):
        client.set_model_version_tag("late_deliveries", "1", VERDICT_TAG, forged)
        assert "changed after it fell" in (said := reason(endpoint_alone(refused))) or "not the one on record" in said
    client.set_model_version_tag("late_deliveries", "1", VERDICT_TAG, honest)
    refused.add_demo_model(**SMALL_MODEL)
    assert "its verdict is about another gates" in reason(endpoint_alone(refused))
    assert refused.target.url() is None


def test_what_served_before_serves_on_when_a_later_version_is_refused(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    project.land(5)
    project.materialize()
    project.add_demo_model(**(SMALL_MODEL | {"gates": {"f1": 0.999}, "estimator": {"params": {"n_estimators": 11}}}))
    with pytest.raises(RunFailedError, match="gate_f1"):
        project.materialize()
    assert not endpoint_alone(project).success
    health = project.target.health()
    assert health is not None
    assert health["models"]["late_deliveries"]["version"] == "1"
    assert Registry(project.settings.mlflow_uri).champion("late_deliveries") == "1"
    assert project.materialize() == [], "a refused version is not judged again until something changes"


def test_a_version_is_not_judged_by_other_code_than_it_was_trained_with(refused: Project) -> None:
    """Else a changed split could have it judged on the rows that it was trained on."""
    refused.add_demo_model(**(SMALL_MODEL | {"split": {"by": "time", "test": 0.9}}))
    with pytest.raises(TrainingError, match=r"version 1 was trained with other code or parameters"):
        refused.by_hand("metrics")
