"""Which target a model serves on, and what is said when its settings lack something."""

from typing import Any

import pytest

from ml_assets.assets.rolling import plan_of
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.targets import Target
from ml_assets.errors import SettingsError
from ml_assets.resources import ServingResource
from ml_assets_tests.project import Project

SAGEMAKER = {
    "ML_ASSETS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/serves",
    "ML_ASSETS_SAGEMAKER_IMAGE": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/endpoint:1",
    "ML_ASSETS_SAGEMAKER_STORE": "s3://releases/ml",
}
KUBERNETES = {
    "ML_ASSETS_KUBERNETES_NAMESPACE": "models",
    "ML_ASSETS_KUBERNETES_IMAGE": "registry.example/endpoint:1",
    "ML_ASSETS_KUBERNETES_RELEASES": "pvc://releases/ml",
    "ML_ASSETS_KUBERNETES_SECRET": "endpoint",
}


def target_of(project: Project, endpoint: dict[str, Any], **variables: str) -> Target:
    project.add_demo_model(endpoint=endpoint)
    project.variables |= variables
    with project.active():
        settings = project.settings
        serving = ServingResource(home=str(settings.home), releases=str(settings.releases), port=1)
        return serving.target_of(project.model())


def test_by_default_a_model_serves_on_the_server_of_its_state_folder(project: Project) -> None:
    target = target_of(project, {"stick": "request"})
    assert isinstance(target, LocalRollout)
    assert target.by == "request"
    assert plan_of(project.model()).weights == (5, 25)


def test_a_model_serves_on_sagemaker_if_the_account_is_known(project: Project) -> None:
    with pytest.raises(SettingsError, match=r"set ML_ASSETS_SAGEMAKER_ROLE, .*_IMAGE, .*_STORE"):
        target_of(project, {"target": "sagemaker"})
    assert target_of(project, {"target": "sagemaker"}, **SAGEMAKER).address == "sagemaker:ml-assets-late-deliveries"
    assert plan_of(project.model()).limits.to_promote == ("errors",), "without captured data nobody sees the scores"
    target_of(project, {"target": "sagemaker", "sagemaker": {"traffic": "linear", "capture": 100}})
    assert plan_of(project.model()).weights == (), "SageMaker moves the traffic itself"
    assert plan_of(project.model()).limits.to_promote == ("errors", "scores")


@pytest.mark.parametrize("kind", ["plain", "seldon", "kserve"])
def test_a_model_serves_in_a_cluster_if_its_place_is_known(project: Project, kind: str) -> None:
    endpoint = {"target": "kubernetes", "kubernetes": {"kind": kind}}
    with pytest.raises(SettingsError, match=r"set ML_ASSETS_KUBERNETES_NAMESPACE, .*_IMAGE, .*_RELEASES, .*_SECRET"):
        target_of(project, endpoint)
    with pytest.raises(SettingsError, match=r"image='registry\.example/endpoint': name one version"):
        target_of(project, endpoint, **(KUBERNETES | {"ML_ASSETS_KUBERNETES_IMAGE": "registry.example/endpoint"}))
    known = KUBERNETES
    if kind == "kserve":
        with pytest.raises(SettingsError, match=r"releases='pvc://releases/ml': Knative.* mounts claims only"):
            target_of(project, endpoint, **known)
        known = known | {"ML_ASSETS_KUBERNETES_RELEASES": "https://releases/ml"}
    assert "late-deliveries" in target_of(project, endpoint, **known).address


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"canary": [50, 25, 100]}, "have to rise and end with 100"),
        ({"canary": [5, 25]}, "have to rise and end with 100"),
        ({"canary": [0, 100], "target": "sagemaker"}, "SageMaker has no shadow step"),
        ({"canary": [0, 100], "target": "kubernetes"}, "plain Services have no shadow step"),
        (
            {"canary": [0, 100], "target": "kubernetes", "kubernetes": {"kind": "kserve"}},
            "KServe has no shadow step",
        ),
    ],
)
def test_steps_that_no_target_takes_are_refused_when_definitions_load(
    project: Project, endpoint: dict[str, Any], said: str
) -> None:
    project.add_demo_model(endpoint=endpoint)
    assert said in project.refusal()
