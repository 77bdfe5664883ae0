"""SageMaker as a target, over HTTP against a stand-in; whole rollouts by the same function that every target uses."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.stub import ANY, Stubber

from ml_assets.deployment import aws_requests
from ml_assets.deployment.probing import Patience
from ml_assets.deployment.probing_elsewhere import probe_sagemaker
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Phase, Plan
from ml_assets.deployment.sagemaker import Account, SageMakerTarget
from ml_assets.deployment.sagemaker_bodies import deployment_config
from ml_assets.deployment.sagemaker_metrics import SECONDS, observed
from ml_assets.deployment.targets import Described, Histogram, Observation, Release, Side
from ml_assets.errors import TargetError, TargetUnavailableError
from ml_assets.sources import retries
from ml_assets.sources.aws import client
from ml_assets.spec.endpoint import SageMaker as Spec
from ml_assets.spec.endpoint import Scaling
from ml_assets_tests.rollouts import Killed, MemoryJournal, MemoryRegistry
from ml_assets_tests.sagemaker import IMAGE, ROLE, SageMaker, sagemaker_server, write_release

ONE, TWO = (Release.named(f"{number}-{number:012x}") for number in (1, 2))
GOOD = Side(5000, latency=Histogram((0.01,), (5000, 0)), scores={"score": Histogram((0.5,), (4000, 1000))})


@pytest.fixture(scope="module")
def server() -> Iterator[SageMaker]:
    with sagemaker_server() as server:
        yield server


@pytest.fixture(scope="module")
def clients() -> Callable[..., Any]:
    """Making a client takes half a second, so all tests share those that one makes."""
    return functools.cache(client)


@pytest.fixture
def aws(server: SageMaker, clients: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMaker]:
    for name, value in server.s3.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr("ml_assets.sources.aws.client", clients)
    yield server
    server.clear()


@dataclass
class Rollouts:
    """Rollouts on SageMaker, whose requests are told."""

    target: SageMakerTarget
    plan: Plan = field(default_factory=lambda: Plan(bake=timedelta(0)))
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)

    def tick(self, approved: Release | None) -> str:
        return carry_on(self.target, self.journal, self.registry, lambda: approved, self.plan).reason

    def until_over(self, approved: Release | None) -> Phase:
        for _ in range(12):
            self.tick(approved)
            if self.journal.kept[-1].phase.over:
                return self.journal.kept[-1].phase
        raise AssertionError(self.journal.kept[-1])


@pytest.fixture
def rollouts(aws: SageMaker, tmp_path: Path) -> Rollouts:
    for each in (ONE, TWO):
        write_release(tmp_path, "late_deliveries", each.name)
    account = Account(ROLE, IMAGE, "s3://releases/ml", aws.s3.url)
    return Rollouts(SageMakerTarget("late_deliveries", Spec(), account, tmp_path))


@pytest.fixture
def observation(monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """What is observed: the first of these."""
    told = [Observation(GOOD, GOOD)]
    monkeypatch.setattr(SageMakerTarget, "observe", lambda self, since, *, shadow: told[0])
    return told


def guarded(rollouts: Rollouts, **spec: Any) -> Rollouts:
    rollouts.target = replace(rollouts.target, spec=Spec(**spec))
    rollouts.plan = Plan(steps=())
    return rollouts


def test_a_whole_rollout_by_weights(rollouts: Rollouts, aws: SageMaker, observation: list[Observation]) -> None:
    assert rollouts.until_over(ONE) is Phase.PROMOTED
    assert aws.changes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    done = len(aws.changes())
    assert rollouts.tick(ONE) == f"{ONE.name} serves"
    assert len(aws.changes()) == done, "the same release to the same target is a no-op"
    assert rollouts.until_over(TWO) is Phase.PROMOTED
    weights = [
        [each["DesiredWeight"] for each in body["DesiredWeightsAndCapacities"]]
        for body in aws.bodies("UpdateEndpointWeightsAndCapacities")
    ]
    assert weights == [[95, 5], [75, 25], [0, 100]]
    assert rollouts.target.describe().alone(TWO.name)
    assert rollouts.registry.alias == "2"
    # What no longer serves is gone.
    assert list(aws.backend._models) == [rollouts.target._make_model(TWO)]
    assert len(aws.backend.endpoint_configs) == 1
    assert sorted(aws.s3.keys("releases")) == [f"ml/late_deliveries/{each.name}/model.tar.gz" for each in (ONE, TWO)], (
        "releases stay, for a rollback by hand"
    )


def test_a_bad_challenger_loses_its_traffic_before_anything_else(
    rollouts: Rollouts, aws: SageMaker, observation: list[Observation]
) -> None:
    rollouts.until_over(ONE)
    observation[0] = Observation(GOOD, Side(500, errors=100))
    aws.asked.clear()
    assert rollouts.until_over(TWO) is Phase.ROLLED_BACK
    assert [each for each in aws.changes() if each.startswith("Update")] == [
        "UpdateEndpoint",  # staged
        "UpdateEndpointWeightsAndCapacities",  # 5 %
        "UpdateEndpointWeightsAndCapacities",  # 0 %
        "UpdateEndpoint",  # the champion alone
    ]
    assert (rollouts.target.describe().stable, rollouts.registry.alias) == (ONE.name, "1")


def test_a_challenger_that_answers_otherwise_gets_no_traffic(rollouts: Rollouts, aws: SageMaker) -> None:
    rollouts.until_over(ONE)
    aws.wrong.add(TWO.name)
    assert rollouts.until_over(TWO) is Phase.ROLLED_BACK
    assert "golden row 0" in rollouts.journal.kept[-1].reason
    weights = aws.bodies("UpdateEndpointWeightsAndCapacities")
    assert weights == []


def test_a_first_release_that_answers_otherwise_is_taken_down(rollouts: Rollouts, aws: SageMaker) -> None:
    aws.wrong.add(ONE.name)
    assert rollouts.until_over(ONE) is Phase.ROLLED_BACK
    assert (aws.backend.endpoints, rollouts.registry.alias) == ({}, None)
    assert rollouts.target.describe() == Described()


def test_sagemaker_moves_the_traffic_and_its_alarm_sends_it_back(rollouts: Rollouts, aws: SageMaker) -> None:
    guarded(rollouts, traffic="canary", share=10, wait="5m", alarms=["late-deliveries-p99"])
    rollouts.until_over(ONE)
    aws.updates = ["goes back"]
    aws.takes = 3
    assert rollouts.until_over(TWO) is Phase.ROLLED_BACK
    assert "SageMaker went back to the configuration before" in rollouts.journal.kept[-1].reason
    (update,) = aws.bodies("UpdateEndpoint")
    assert update["DeploymentConfig"] == {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 300,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
            },
            "TerminationWaitInSeconds": 300,
            "MaximumExecutionTimeoutInSeconds": 2100,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "late-deliveries-p99"}]},
    }
    assert (rollouts.target.describe().stable, rollouts.registry.alias) == (ONE.name, "1")
    assert "is not rolled out again" in rollouts.tick(TWO)


def test_sagemaker_moves_the_traffic_and_it_stays(rollouts: Rollouts, aws: SageMaker) -> None:
    guarded(rollouts, traffic="linear", share=25, wait="10m")
    rollouts.until_over(ONE)
    aws.takes = 2
    assert rollouts.until_over(TWO) is Phase.PROMOTED
    assert (rollouts.target.describe().stable, rollouts.registry.alias) == (TWO.name, "2")


def test_a_failed_endpoint_is_made_again(rollouts: Rollouts, aws: SageMaker, observation: list[Observation]) -> None:
    rollouts.until_over(ONE)
    aws.updates = ["fails"]
    with pytest.raises(TargetUnavailableError, match="failed and is deleted"):
        rollouts.until_over(TWO)
    assert rollouts.until_over(TWO) is Phase.ROLLED_BACK
    assert "did not pass its ping" in rollouts.journal.kept[-1].reason
    assert rollouts.target.describe().alone(ONE.name)


@pytest.mark.parametrize("traffic", ["weights", "canary"])
def test_killed_after_each_call_it_ends_the_same(
    rollouts: Rollouts, aws: SageMaker, observation: list[Observation], monkeypatch: pytest.MonkeyPatch, traffic: str
) -> None:
    """After each call that changes something at SageMaker or in S3."""
    rollouts.plan = Plan(steps=(50,), bake=timedelta(0))
    if traffic != "weights":
        guarded(rollouts, traffic=traffic)
    rollouts.until_over(ONE)
    rollouts.tick(ONE)
    backend, kept = aws.backend, list(rollouts.journal.kept)
    before = copy.deepcopy((backend.endpoints, backend.endpoint_configs, backend._models))
    original, countdown = aws_requests.ask, [0]

    def dies(client: Any, where: str, operation: str, *args: Any, **request: Any) -> Any:
        answer = original(client, where, operation, *args, **request)
        if not operation.startswith(("Describe", "List", "Head", "Invoke")):
            countdown[0] -= 1
            if countdown[0] == 0:
                raise Killed(operation)
        return answer

    monkeypatch.setattr("ml_assets.deployment.sagemaker.ask", dies)
    # Each takes half a second: of the many calls of a rollout by weights every other one.
    killed: list[str] = []
    for at in itertools.count(1, 2 if traffic == "weights" else 1):
        for there, was in zip((backend.endpoints, backend.endpoint_configs, backend._models), before, strict=True):
            there.clear()
            there.update(copy.deepcopy(was))
        rollouts.journal.kept, rollouts.registry.alias = list(kept), "1"
        if f"ml/late_deliveries/{TWO.name}/model.tar.gz" in aws.s3.keys("releases"):
            aws.s3.delete("releases", f"ml/late_deliveries/{TWO.name}/model.tar.gz")
        countdown[0] = at
        try:
            rollouts.until_over(TWO)
            rollouts.tick(TWO)
            break
        except Killed as call:
            killed.append(str(call))
        rollouts.target = replace(rollouts.target, _proven={})  # another process
        assert rollouts.until_over(TWO) is Phase.PROMOTED, killed
        rollouts.tick(TWO)
        assert (rollouts.target.describe().stable, rollouts.registry.alias) == (TWO.name, "2"), killed
        assert (len(backend._models), len(backend.endpoint_configs)) == (1, 1), killed
    calls = ["PutObject", "CreateModel", "CreateEndpointConfig", "AddTags", "UpdateEndpoint"]
    weights, tidied = ["UpdateEndpointWeightsAndCapacities"] * 2, ["DeleteEndpointConfig", "DeleteModel"]
    assert (
        killed
        == {
            "weights": [*calls, *weights, *calls[2:], "DeleteEndpointConfig", *tidied][::2],
            "canary": [*calls[:2], "AddTags", *calls[2:], *tidied],
        }[traffic]
    )


@pytest.mark.parametrize("thing", ["endpoint", "model"])
def test_what_somebody_else_has_made_under_our_name_is_left_alone(
    rollouts: Rollouts, aws: SageMaker, thing: str
) -> None:
    name = rollouts.target.name
    if thing == "endpoint":
        model = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        aws.backend.create_model("m", ROLE, None, None, None, None)
        aws.backend.create_endpoint_config("theirs", [model], {}, {}, [], "")
        aws.backend.create_endpoint(name, "theirs", [])
        with pytest.raises(TargetError, match=f"somebody else's endpoint {name}"):
            rollouts.tick(ONE)
    else:
        made = rollouts.target._make_model(ONE)
        aws.backend._models[made].primary_container["Image"] = "another"
        rollouts.tick(ONE)
        assert "somebody else's model" in rollouts.journal.kept[-1].reason


def test_another_models_things_are_not_tidied_away(rollouts: Rollouts, aws: SageMaker, tmp_path: Path) -> None:
    other = replace(rollouts.target, model="late_deliveries_2")
    write_release(tmp_path, "late_deliveries_2", ONE.name)
    other.stage(ONE)
    rollouts.until_over(ONE)
    assert len(aws.backend._models) == 2
    assert other.describe().stable == ONE.name


def test_options_reach_sagemaker(rollouts: Rollouts, aws: SageMaker) -> None:
    scaling = Scaling(least=1, most=4, invocations=500.0)
    rollouts.target = replace(rollouts.target, spec=Spec(capture=20, scaling=scaling, instance="ml.c5.large"))
    assert rollouts.until_over(ONE) is Phase.PROMOTED, rollouts.journal.kept[-1].reason
    rollouts.tick(ONE)
    (config,) = aws.bodies("CreateEndpointConfig")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.c5.large"
    assert config["DataCaptureConfig"]["DestinationS3Uri"] == "s3://releases/ml/late_deliveries/captured"
    assert config["DataCaptureConfig"]["InitialSamplingPercentage"] == 20
    client = boto3.client("application-autoscaling", endpoint_url=aws.s3.url)
    (found,) = client.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{rollouts.target.name}/variant/stable"]
    )["ScalableTargets"]
    assert (found["MinCapacity"], found["MaxCapacity"]) == (1, 4)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"instance": "m5.large"}, r"ProductionVariants\[0\].InstanceType 'm5.large' is none of ml.t2.medium, "),
        ({"instance": "ml.m5.gigantic"}, "is none of"),
    ],
)
def test_what_sagemaker_would_refuse_is_not_sent(
    rollouts: Rollouts, aws: SageMaker, spec: dict[str, Any], said: str
) -> None:
    rollouts.target = replace(rollouts.target, spec=Spec(**spec))
    rollouts.tick(ONE)
    assert aws.bodies("CreateEndpointConfig") == []
    assert rollouts.journal.kept[-1].phase is Phase.ROLLED_BACK
    with pytest.raises(TargetError, match=said):
        rollouts.target.stage(ONE)


@pytest.mark.parametrize(
    ("operation", "request_", "said"),
    [
        ("CreateEndpoint", {"EndpointName": "e" * 64, "EndpointConfigName": "c"}, "64 characters, and 63 is the most"),
        ("CreateEndpoint", {"EndpointName": "under_score", "EndpointConfigName": "c"}, "does not match"),
        (
            "UpdateEndpoint",
            {"DeploymentConfig": {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}] * 11}}},
            "Alarms: 11 entries, and 10 is the most",
        ),
        ("ListModels", {"MaxResults": 101}, "MaxResults 101, and 100 is the most"),
        (
            "UpdateEndpoint",
            {"DeploymentConfig": {"BlueGreenUpdatePolicy": {"MaximumExecutionTimeoutInSeconds": 30}}},
            "30, and 600 is the least",
        ),
    ],
)
def test_enumerations_and_sizes_are_checked_that_botocore_lets_pass(
    operation: str, request_: dict[str, Any], said: str
) -> None:
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    assert said in "; ".join(aws_requests.faults(shape, request_))


@pytest.mark.parametrize("traffic", ["canary", "linear", "all_at_once"])
@pytest.mark.parametrize("wait", ["0s", "1h"])
def test_every_deployment_configuration_is_one_that_sagemaker_takes(traffic: Any, wait: str) -> None:
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model("UpdateEndpoint").input_shape
    config = deployment_config(Spec(traffic=traffic, wait=wait, share=1))
    assert aws_requests.faults(shape, {"DeploymentConfig": config}) == []


@pytest.fixture
def stubbed(rollouts: Rollouts) -> Iterator[tuple[SageMakerTarget, Stubber]]:
    with Stubber(rollouts.target._client) as stubber:
        yield rollouts.target, stubber


def test_throttling_passes_and_is_told_when_it_does_not(stubbed: tuple[SageMakerTarget, Stubber]) -> None:
    target, stubber = stubbed
    for _ in range(2):
        stubber.add_client_error("describe_endpoint", "ThrottlingException", "Rate exceeded", 400)
    stubber.add_client_error("describe_endpoint", "ValidationException", 'Could not find endpoint "arn".', 400)
    assert target.describe() == Described()
    for _ in range(5):
        stubber.add_client_error("describe_endpoint", "ThrottlingException", "Rate exceeded", 400)
    with pytest.raises(TargetUnavailableError, match="ThrottlingException"):
        target.describe()


def test_an_endpoint_that_changes_is_asked_again_later(stubbed: tuple[SageMakerTarget, Stubber]) -> None:
    target, stubber = stubbed
    stubber.add_client_error(
        "update_endpoint_weights_and_capacities",
        "ValidationException",
        'Cannot update in-progress endpoint "arn".',
        400,
    )
    with pytest.raises(TargetUnavailableError, match="in-progress"):
        target.shift(TWO, 5, "", shadow=False)


def test_a_quota_is_a_case_for_a_person(stubbed: tuple[SageMakerTarget, Stubber]) -> None:
    target, stubber = stubbed
    missing = ("ValidationException", 'Could not find model "arn".', 400)
    stubber.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint.", 400)
    stubber.add_client_error("describe_model", *missing)
    stubber.add_response("create_model", {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m"})
    stubber.add_client_error("describe_endpoint_config", "ValidationException", "Could not find endpoint conf.", 400)
    stubber.add_client_error("create_endpoint_config", "ResourceLimitExceeded", "0 Instances", 400)
    with pytest.raises(TargetError, match="ask AWS for a higher quota") as raised:
        target.stage(ONE)
    assert not isinstance(raised.value, TargetUnavailableError)


def test_a_missing_region_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    target = SageMakerTarget("demo", Spec(), Account(ROLE, IMAGE, "s3://releases"), tmp_path)
    with pytest.raises(TargetError, match="Set AWS_DEFAULT_REGION"):
        target.describe()


def test_cloudwatchs_counts_become_a_side() -> None:
    client = boto3.client("cloudwatch", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    since = datetime(2026, 1, 1, 12, 0, 40, tzinfo=UTC)
    values = {"requests": [60.0, 40.0], "errors": [5.0], "answers": [95.0]}
    values |= {f"below{number}": [20.0] if edge < 0.1 else [90.0] for number, edge in enumerate(SECONDS)}
    results = [{"Id": name, "Values": each} for name, each in values.items()]
    with Stubber(client) as stubber:
        expected = {"MetricDataQueries": ANY, "StartTime": since.replace(second=0), "EndTime": ANY}
        stubber.add_response("get_metric_data", {"MetricDataResults": results[:3], "NextToken": "n"}, expected)
        stubber.add_response("get_metric_data", {"MetricDataResults": results[3:]}, expected | {"NextToken": "n"})
        side = observed(client, None, "m", "e", "stable", since, "", (), 0)
    assert (side.requests, side.errors) == (100, 5)
    counts = dict(zip(SECONDS, side.latency.counts, strict=False))
    assert (counts[0.001], counts[0.1], side.latency.counts[-1], sum(side.latency.counts)) == (20, 70, 5, 95)


def test_captured_answers_become_scores(aws: SageMaker) -> None:
    import json

    since = datetime(2020, 1, 1, tzinfo=UTC)

    def line(when: str, *answers: dict[str, Any]) -> bytes:
        data = json.dumps({"predictions": answers})
        output = {"encoding": "JSON", "data": data}
        return json.dumps(
            {"captureData": {"endpointOutput": output}, "eventMetadata": {"inferenceTime": when}}
        ).encode()

    lines = [
        line("2026-01-01T00:00:00Z", {"score": 0.2}, {"score": 0.7}),
        line("2026-01-01T00:00:01Z", {"score": None}, {"score": 0.5}),
        line("2019-12-31T23:59:59Z", {"score": 0.9}),
    ]
    aws.s3.put("releases", "c/e/stable/2026/01/01/00/a.jsonl", b"\n".join(lines))
    s3 = boto3.client("s3", endpoint_url=aws.s3.url)
    client = boto3.client("cloudwatch", "us-east-1")
    with Stubber(client) as stubber:
        stubber.add_response("get_metric_data", {"MetricDataResults": []})
        side = observed(client, s3, "m", "e", "stable", since, "releases/c", (0.5,), 0)
    assert (side.scores, side.invalid) == ({"score": Histogram((0.5,), (2, 1))}, 1)
    aws.s3.delete("releases", "c/e/stable/2026/01/01/00/a.jsonl")


def test_the_endpoint_is_probed_by_its_golden_rows(rollouts: Rollouts, aws: SageMaker) -> None:
    target, patience = rollouts.target, Patience()

    def found() -> tuple[str, str]:
        probe = probe_sagemaker(target, {ONE.name}, patience)
        return probe.found, probe.reason

    assert found() == ("dead", "sagemaker:ml-assets-late-deliveries serves nothing")
    rollouts.until_over(ONE)
    assert found() == ("good", "")
    aws.wrong.add(ONE.name)
    assert found()[0] == "wrong"
    assert "golden row 0 is answered with" in found()[1]
    aws.wrong.clear()
    assert probe_sagemaker(target, {TWO.name}, patience).reason == f"{ONE.name} serves, and {TWO.name} is to"
    assert probe_sagemaker(target, {ONE.name}, Patience(slow=0.0)).found == "slow"
    assert probe_sagemaker(target, {ONE.name}, Patience(timeout=0.001)).found == "hanging"
