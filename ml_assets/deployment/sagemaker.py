"""A model's endpoint on SageMaker as a target of rollouts.

Models and endpoint configurations cannot be changed there, so their names come from their content: a call that was made
before a crash finds what it made, and another content gets another name. The endpoint's name comes from the model's.

How the traffic moves is `endpoint.sagemaker.traffic`:

- `weights`: during a rollout the endpoint has two variants, `stable` and `challenger`, whose weights are our steps.
  Keys do not stick to a side there. Variants come and go without traffic: the challenger begins with a weight of 0, and
  is made `stable` after it had all of it.
- `canary`, `linear`, `all_at_once`: the endpoint has one variant, and SageMaker itself moves its traffic to the new one
  by a blue/green deployment, whose CloudWatch alarms send it back. There are no steps of ours (`Plan(steps=())`). Only
  this is possible there: with a `DeploymentConfig` the variants' names have to stay the same.

SageMaker that goes back ends in service, with the *old* configuration, as after a success. So before each update a tag
of the endpoint says what is asked for, and when the endpoint had changed last: another configuration after another
change is a refusal; without a change the update was never asked for, and is asked for again.
"""

import hashlib
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from ml_assets.deployment.archive import pack
from ml_assets.deployment.aws_requests import ask, connect, exists, missing
from ml_assets.deployment.sagemaker_bodies import deployment_config, endpoint_config
from ml_assets.deployment.sagemaker_captured import GOLDEN_ID, Captured
from ml_assets.deployment.sagemaker_metrics import EDGES, observed
from ml_assets.deployment.targets import Described, Observation, Refusal, Release
from ml_assets.digests import digest_of
from ml_assets.errors import ReleaseError, TargetError, TargetUnavailableError
from ml_assets.serving.bundle import GOLDEN, REFERENCE
from ml_assets.serving.scorer import require_equal
from ml_assets.spec.endpoint import SageMaker

STABLE, CHALLENGER = "stable", "challenger"
ASKED, STAGED, MODEL = "ml-assets:asked", "ml-assets:staged", "ml-assets:model"
CHANGING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
BROKEN = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
_LONGEST = 30  # characters of an endpoint's name, so that a model's with release and digest stays within 63


@dataclass(frozen=True)
class Account:
    """What belongs to an AWS account.

    Attributes:
        role: ARN of the role that the containers run as.
        image: of the endpoint server.
        store: s3://bucket/prefix of the releases.
        endpoint_url: of a stand-in for AWS; None for AWS.
    """

    role: str
    image: str
    store: str
    endpoint_url: str | None = None


@dataclass(frozen=True)
class Asked:
    """The tag of an endpoint that says what it was asked for."""

    config: str
    release: str
    at: datetime
    changed: str  # when the endpoint had been changed last, by its own account

    def __str__(self) -> str:
        return f"{self.config} {self.release} {self.at.isoformat()} {self.changed}"

    @classmethod
    def read(cls, text: str) -> "Asked":
        config, release, at, changed = text.split(" ")
        return cls(config, release, datetime.fromisoformat(at), changed)


@dataclass(frozen=True)
class SageMakerTarget:
    """The endpoint of one model.

    Attributes:
        releases: folder of all models' releases.
    """

    model: str
    spec: SageMaker
    account: Account
    releases: Path
    _proven: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Of the endpoint."""
        name = f"ml-assets-{self.model.replace('_', '-')}".rstrip("-")
        return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9].rstrip('-')}-{digest_of(self.model)[:8]}"

    @property
    def address(self) -> str:
        """The endpoint, by its name."""
        return f"sagemaker:{self.name}"

    # What a rollout asks for

    def stage(self, release: Release) -> None:
        """Load a release as second variant without traffic, or as the endpoint where there is none. Where SageMaker
        moves the traffic itself, only what it will need is made.
        """
        endpoint = self._usable()
        made = self._make_model(release)
        if endpoint is None:
            self._create(release, made)
        elif self.spec.traffic == "weights":
            stable = self._variants(endpoint)[STABLE]
            self._update(endpoint, release, {STABLE: (stable, 100), CHALLENGER: (made, 0)}, guarded=False)
        else:
            self._tag(endpoint, STAGED, release.name)

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        if shadow:
            raise TargetError(f"{self.model}: SageMaker has no shadow step here; begin endpoint steps above 0")
        self._weigh(release, weight)

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        """Requests, errors and latency from CloudWatch, which is a minute or two late; scores from captured data, if
        the endpoint keeps it; golden rows asked now.
        """
        endpoint = self._endpoint()
        if endpoint is None:
            raise TargetUnavailableError(f"{self.model}: there is no endpoint {self.name} to observe")
        variants = {name: self._release(made) for name, made in self._variants(endpoint).items()}
        wrong = {
            name: 1 if self._golden(release, name) else 0 for name, release in variants.items() if name == CHALLENGER
        }
        edges = self._score_edges(variants.get(STABLE))
        where = f"{self.model} at SageMaker"
        bucket, prefix = self._capture if self.spec.capture else ("", "")
        champion, challenger = (
            observed(
                self._cloudwatch,
                self._s3 if bucket else None,
                where,
                self.name,
                name,
                since,
                f"{bucket}/{prefix}",
                edges,
                wrong.get(name, 0),
            )
            for name in (STABLE, CHALLENGER)
        )
        return Observation(champion, challenger)

    def captured(self) -> Captured:
        """Where requests and answers are kept."""
        bucket, prefix = self._capture
        folders = tuple(f"{prefix}/{self.name}/{variant}/" for variant in (STABLE, CHALLENGER))
        return Captured(self._s3, f"{self.model} at SageMaker", bucket, folders)

    def promote(self, release: Release) -> None:
        """Give a release all traffic. Of two variants the weights are moved first, which takes seconds."""
        endpoint = self._usable()
        if endpoint is None:
            self._create(release, self._make_model(release))
            return
        variants = self._variants(endpoint)
        challenger = variants.get(CHALLENGER)
        if challenger and self._release(challenger) == release.name and _weight(endpoint) < 100:
            self._weigh(release, 100)
            return
        guarded = challenger is None and self.spec.traffic != "weights"
        self._update(endpoint, release, {STABLE: (self._make_model(release), 100)}, guarded=guarded)

    def rollback(self, champion: Release | None) -> None:
        endpoint = self._endpoint()
        if endpoint is None and champion is not None:
            self._create(champion, self._make_model(champion))
        if endpoint is None:
            return
        if champion is None:
            self._ask("DeleteEndpoint", missing, EndpointName=self.name)
            return
        if endpoint["EndpointStatus"] in BROKEN:
            self._usable()
        if STAGED in self._tags(endpoint):
            self._ask("DeleteTags", ResourceArn=endpoint["EndpointArn"], TagKeys=[STAGED])
        variants = self._variants(endpoint)
        if CHALLENGER in variants and self._release(variants[STABLE]) == champion.name and _weight(endpoint) > 0:
            self._weigh(champion, 0)
            return
        self._update(endpoint, champion, {STABLE: (self._make_model(champion), 100)}, guarded=False)

    def describe(self) -> Described:
        endpoint = self._endpoint()
        if endpoint is None:
            return Described()
        if endpoint["EndpointStatus"] in CHANGING:
            return Described(busy=True)
        variants = {name: self._release(made) for name, made in self._variants(endpoint).items()}
        refused, tags = {}, self._tags(endpoint)
        if ASKED in tags:
            asked = Asked.read(tags[ASKED])
            if asked.config != endpoint["EndpointConfigName"] and asked.changed != _changed(endpoint):
                why = "SageMaker went back to the configuration before"
                refused[asked.release] = Refusal(f"{why}: {endpoint.get('FailureReason', 'see its alarms')}", asked.at)
        if endpoint["EndpointStatus"] in BROKEN:
            why = f"{endpoint['EndpointStatus']}: {endpoint.get('FailureReason', 'without a reason')}"
            return Described(refused=dict.fromkeys(variants.values(), Refusal(why)) | refused)
        challenger, ready = variants.get(CHALLENGER), True
        staged = tags.get(STAGED)
        if challenger is None and staged not in (None, variants[STABLE]):
            challenger = staged  # its model is made; there is no variant yet that could be asked for its golden rows
        else:
            tried, at = (variants[STABLE], STABLE) if challenger is None else (challenger, CHALLENGER)
            if wrong := self._golden(tried, at):
                ready, refused[tried] = False, Refusal(wrong)
        return Described(
            variants[STABLE],
            challenger,
            _weight(endpoint),
            ready=ready,
            since=endpoint["LastModifiedTime"].astimezone(UTC),
            refused=refused,
        )

    def tidy(self) -> None:
        """Delete configurations and models that the endpoint does not use, and see to its scaling."""
        endpoint = self._endpoint()
        if endpoint is not None and endpoint["EndpointStatus"] in CHANGING:
            return
        used = set() if endpoint is None else {endpoint["EndpointConfigName"], *self._variants(endpoint).values()}
        for each in self._listed("ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName"):
            if re.fullmatch(rf"{re.escape(self.name)}-[0-9a-f]{{16}}", each) and each not in used:
                self._ask("DeleteEndpointConfig", missing, EndpointConfigName=each)
        for each in self._listed("ListModels", "Models", "ModelName"):
            if self._is_ours(each) and each not in used:
                self._ask("DeleteModel", missing, ModelName=each)
        if endpoint is not None and self.spec.scaling is not None:
            self._scale()

    def wait(self, seconds: float = 1800, every: float = 10) -> Described:
        """Wait until the endpoint is not changing any more.

        Raises:
            TargetUnavailableError: if it still is after that time.
        """
        deadline = time.monotonic() + seconds
        while (described := self.describe()).busy:
            if time.monotonic() > deadline:
                raise TargetUnavailableError(f"{self.model}: endpoint {self.name} still changes after {seconds:.0f} s")
            time.sleep(every)
        return described

    # What is made there

    def _make_model(self, release: Release) -> str:
        """SageMaker's model of a release, made or found; its name."""
        body = {
            "ExecutionRoleArn": self.account.role,
            "PrimaryContainer": {"Image": self.account.image, "ModelDataUrl": self._upload(release)},
        }
        name = f"{self.name}-{release.name}-{digest_of(body)[:8]}"
        found = self._ask("DescribeModel", missing, ModelName=name)
        if found is None and self._ask("CreateModel", exists, ModelName=name, Tags=self._own, **body) is None:
            found = self._ask("DescribeModel", ModelName=name)
        if found is not None:
            container = found.get("PrimaryContainer", {})
            there = {key: container.get(key) for key in body["PrimaryContainer"]}
            if (there, found.get("ExecutionRoleArn")) != (body["PrimaryContainer"], self.account.role):
                raise TargetError(f"{self.model}: somebody else's model {name} is in the way at SageMaker; delete it")
        return name

    def _make_config(self, variants: dict[str, tuple[str, int]]) -> str:
        """The configuration with these models and weights by variant, made or found; its name."""
        captured = "s3://{}/{}".format(*self._capture) if self.spec.capture else None
        body = endpoint_config(self.spec, variants, captured)
        name = f"{self.name}-{digest_of(body)[:16]}"
        found = self._ask("DescribeEndpointConfig", missing, EndpointConfigName=name)
        tags = self._own
        if (
            found is None
            and self._ask("CreateEndpointConfig", exists, EndpointConfigName=name, Tags=tags, **body) is None
        ):
            found = self._ask("DescribeEndpointConfig", EndpointConfigName=name)
        if found is not None:
            there = {each["VariantName"]: each["ModelName"] for each in found["ProductionVariants"]}
            if there != {variant: made for variant, (made, _) in variants.items()}:
                raise TargetError(f"{self.model}: somebody else's configuration {name} is in the way; delete it")
        return name

    def _create(self, release: Release, made: str) -> None:
        config = self._make_config({STABLE: (made, 100)})
        # Somebody who made it meanwhile was this model's other process, or is found out by `_endpoint`.
        self._ask("CreateEndpoint", exists, EndpointName=self.name, EndpointConfigName=config, Tags=self._own)

    def _update(
        self, endpoint: dict[str, Any], release: Release, variants: dict[str, tuple[str, int]], *, guarded: bool
    ) -> None:
        config = self._make_config(variants)
        if endpoint["EndpointConfigName"] == config:
            return
        self._tag(endpoint, ASKED, str(Asked(config, release.name, datetime.now(UTC), _changed(endpoint))))
        request: dict[str, Any] = {"EndpointName": self.name, "EndpointConfigName": config}
        if guarded:
            request["DeploymentConfig"] = deployment_config(self.spec)
        self._ask("UpdateEndpoint", **request)

    def _weigh(self, release: Release, weight: int) -> None:
        self._ask(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName=self.name,
            DesiredWeightsAndCapacities=[
                {"VariantName": STABLE, "DesiredWeight": float(100 - weight)},
                {"VariantName": CHALLENGER, "DesiredWeight": float(weight)},
            ],
        )

    def _upload(self, release: Release) -> str:
        """Address of the release's archive in S3, which is put there unless it is there."""
        bucket, prefix = _split(self.account.store)
        key = f"{prefix}{self.model}/{release.name}/model.tar.gz"
        try:
            content = pack(self.releases / self.model / release.name).read_bytes()
        except (ReleaseError, OSError) as error:
            raise TargetError(f"{self.model}: release {release.name} cannot be packed: {error}") from None
        digest = hashlib.sha256(content).hexdigest()
        where = f"{self.model} in s3://{bucket}"
        there = ask(self._s3, where, "HeadObject", lambda code, _: code in ("404", "NoSuchKey"), Bucket=bucket, Key=key)
        if there is None or there.get("Metadata", {}).get("sha256") != digest:
            ask(self._s3, where, "PutObject", Bucket=bucket, Key=key, Body=content, Metadata={"sha256": digest})
        return f"s3://{bucket}/{key}"

    def _scale(self) -> None:
        scaling = self.spec.scaling
        assert scaling is not None
        variant: dict[str, Any] = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.name}/variant/{STABLE}",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        where, client = f"{self.model} at SageMaker", self._scaler
        ask(client, where, "RegisterScalableTarget", MinCapacity=scaling.least, MaxCapacity=scaling.most, **variant)
        ask(
            client,
            where,
            "PutScalingPolicy",
            PolicyName=f"{self.name}-invocations",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": scaling.invocations,
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance",
                },
            },
            **variant,
        )

    # What is there

    def _endpoint(self) -> dict[str, Any] | None:
        """The endpoint; None where there is none.

        Raises:
            TargetError: if it is somebody else's.
        """
        found: dict[str, Any] | None = self._ask("DescribeEndpoint", missing, EndpointName=self.name)
        if found is not None and not found["EndpointConfigName"].startswith(f"{self.name}-"):
            raise TargetError(
                f"{self.model}: somebody else's endpoint {self.name} is in the way at SageMaker (configuration "
                f"{found['EndpointConfigName']}); delete it, or give the model another name"
            )
        return found

    def _usable(self) -> dict[str, Any] | None:
        """As `_endpoint`; one that failed can only be deleted."""
        endpoint = self._endpoint()
        if endpoint is not None and endpoint["EndpointStatus"] in BROKEN:
            self._ask("DeleteEndpoint", missing, EndpointName=self.name)
            raise TargetUnavailableError(f"{self.model}: endpoint {self.name} failed and is deleted, to be made again")
        return endpoint

    def _variants(self, endpoint: dict[str, Any]) -> dict[str, str]:
        """SageMaker's models by variant, of the configuration that the endpoint has now."""
        config = self._ask("DescribeEndpointConfig", EndpointConfigName=endpoint["EndpointConfigName"])
        return {each["VariantName"]: each["ModelName"] for each in config["ProductionVariants"]}

    def _tags(self, endpoint: dict[str, Any]) -> dict[str, str]:
        found = self._ask("ListTags", ResourceArn=endpoint["EndpointArn"], MaxResults=50)
        return {each["Key"]: each["Value"] for each in found["Tags"]}

    def _tag(self, endpoint: dict[str, Any], key: str, value: str) -> None:
        self._ask("AddTags", ResourceArn=endpoint["EndpointArn"], Tags=[{"Key": key, "Value": value}])

    def _listed(self, operation: str, group: str, name: str) -> list[str]:
        found: list[str] = []
        token: dict[str, Any] = {}
        while True:
            page = self._ask(operation, NameContains=self.name, MaxResults=100, **token)
            found += [each[name] for each in page[group]]
            if "NextToken" not in page:
                return found
            token = {"NextToken": page["NextToken"]}

    def _is_ours(self, made: str) -> bool:
        return re.fullmatch(rf"{re.escape(self.name)}-\d+-[0-9a-f]{{12}}-[0-9a-f]{{8}}", made) is not None

    def _release(self, made: str) -> str:
        """The release that a model of SageMaker holds."""
        return made[len(self.name) + 1 : -9]

    def _golden(self, release: str, variant: str) -> str:
        """Why a variant does not answer its golden rows as recorded; empty if it does. What did is not asked again by
        this process.
        """
        try:
            golden = msgspec.json.decode((self.releases / self.model / release / GOLDEN).read_bytes())
        except OSError:
            return ""  # made on another machine; it was proven there
        if self._proven.get(variant) == release:
            return ""
        body = {"rows": golden["rows"]} | ({} if golden["looked_up"] is None else {"looked_up": golden["looked_up"]})
        answer = ask(
            self._runtime,
            f"{self.model} at SageMaker",
            "InvokeEndpoint",
            EndpointName=self.name,
            TargetVariant=variant,
            ContentType="application/json",
            Accept="application/json",
            InferenceId=GOLDEN_ID,
            Body=msgspec.json.encode(body),
        )
        try:
            predictions = msgspec.json.decode(answer["Body"].read())["predictions"]
            require_equal(golden["answers"], predictions, f"variant {variant} of {self.name}")
        except (ReleaseError, msgspec.DecodeError, KeyError, TypeError) as error:
            return f"golden rows: {error}"
        self._proven[variant] = release
        return ""

    def _score_edges(self, release: str | None) -> tuple[float, ...]:
        """Those of the champion's scores when it was approved, where they are one distribution."""
        try:
            found = msgspec.json.decode((self.releases / self.model / str(release) / REFERENCE).read_bytes())["scores"]
        except OSError:
            return EDGES
        return tuple(found[0]["edges"]) if len(found) == 1 and found[0]["edges"] else EDGES

    @property
    def _own(self) -> list[dict[str, str]]:
        return [{"Key": MODEL, "Value": self.model}]

    @property
    def _capture(self) -> tuple[str, str]:
        bucket, prefix = _split(self.account.store)
        return bucket, f"{prefix}{self.model}/captured"

    def _ask(self, operation: str, expected: Any = None, **request: Any) -> Any:
        return ask(self._client, f"{self.model} at SageMaker", operation, expected, **request)

    @cached_property
    def _client(self) -> Any:
        return connect("sagemaker", self.account.endpoint_url, f"{self.model} on AWS")

    @cached_property
    def _runtime(self) -> Any:
        return connect("sagemaker-runtime", self.account.endpoint_url, f"{self.model} on AWS")

    @cached_property
    def _scaler(self) -> Any:
        return connect("application-autoscaling", self.account.endpoint_url, f"{self.model} on AWS")

    @cached_property
    def _cloudwatch(self) -> Any:
        return connect("cloudwatch", self.account.endpoint_url, f"{self.model} on AWS")

    @cached_property
    def _s3(self) -> Any:
        return connect("s3", self.account.endpoint_url, f"{self.model} on AWS")


def _weight(endpoint: dict[str, Any]) -> int:
    """The challenger's share of the traffic in percent."""
    weights = {each["VariantName"]: float(each.get("CurrentWeight", 0)) for each in endpoint["ProductionVariants"]}
    return round(100 * weights.get(CHALLENGER, 0.0) / (sum(weights.values()) or 1.0))


def _changed(endpoint: dict[str, Any]) -> str:
    return str(endpoint["LastModifiedTime"].astimezone(UTC).isoformat())


def _split(store: str) -> tuple[str, str]:
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/" if prefix else ""
