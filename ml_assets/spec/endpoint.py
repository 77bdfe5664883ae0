"""Where a model serves, and how a release takes the champion's place."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ml_assets.durations import Duration, parse_duration
from ml_assets.spec.base import Spec


class Tolerances(Spec):
    """What a rollout tolerates of a challenger beside the champion. Beyond it, beyond doubt, it is rolled back."""

    errors: float = Field(0.01, ge=0, lt=1, description="Difference of the shares of failed requests.")
    p99_ms: float | None = Field(None, gt=0, description="p99 latency; default: 1.5 times the champion's and 20 ms.")
    scores: float = Field(0.1, gt=0, lt=1, description="Largest distance of both distribution functions of the scores.")
    quality: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Difference of the mean losses where outcomes are known: the Brier score; of a value its error e "
        "as e / (e + s), where s is a tenth of the range of the champion's values.",
    )
    false_alarms: float = Field(
        0.05, gt=0, lt=1, description="Probability that a challenger without fault is rolled back, at most."
    )


class Scaling(Spec):
    """How many instances of an endpoint there are: as many as keep the invocations of each below a number."""

    least: int = Field(1, ge=1)
    most: int = Field(ge=1)
    invocations: float = Field(gt=0, description="Of one instance in a minute.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"`most` {self.most} is below `least` {self.least}")
        return self


class SageMaker(Spec):
    """An endpoint of SageMaker. What belongs to the account (role, image, bucket) is in the settings."""

    instance: str = Field("ml.m5.large", description="Type of instance.")
    instances: int = Field(1, ge=1, description="Instances of each variant, when it begins.")
    traffic: Literal["weights", "canary", "linear", "all_at_once"] = Field(
        "weights",
        description="Who moves the traffic: we do, step by step, by weights of two variants; or SageMaker does, by a "
        "blue/green deployment with its own steps and alarms.",
    )
    share: int = Field(10, ge=1, le=50, description="Of SageMaker's canary, or of one linear step, in percent.")
    wait: Duration = Field("10m", description="How long SageMaker waits after its canary, or each linear step.")
    alarms: list[str] = Field([], max_length=10, description="CloudWatch alarms by which SageMaker goes back itself.")
    capture: int | None = Field(
        None, ge=1, le=100, description="Share of requests and answers that is kept in S3, in percent."
    )
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _fits_the_traffic(self) -> Self:
        if self.alarms and self.traffic == "weights":
            raise ValueError("`alarms` are SageMaker's own; they need `traffic: canary`, `linear` or `all_at_once`")
        if parse_duration(self.wait) > timedelta(hours=1):
            raise ValueError(f"`wait` {self.wait} is longer than SageMaker takes, an hour")
        return self


class Kubernetes(Spec):
    """Pods in a cluster. What belongs to the cluster (namespace, image, releases, Secret) is in the settings."""

    kind: Literal["plain", "seldon", "kserve"] = Field(
        "plain", description="What splits the traffic: replicas behind a plain Service, Seldon Core, or KServe."
    )
    replicas: int = Field(4, ge=1, le=100, description="With `plain` a challenger's share comes in steps of one pod.")
    most_replicas: int | None = Field(None, ge=1, le=100, description="Up to which they are scaled by their CPU.")
    cpu: str = Field("250m", description="What a pod asks for.")
    memory: str = Field("512Mi", description="What a pod asks for, and gets at most.")


class Endpoint(Spec):
    """Where an approved model serves, and how it takes the champion's place."""

    target: Literal["local", "sagemaker", "kubernetes"] = "local"
    canary: list[int] = Field(
        [5, 25, 100],
        min_length=1,
        description="The challenger's share of the traffic in percent, step by step. 0 is a shadow step: it answers in "
        "the background, and callers see the champion only. [100]: at once.",
    )
    stick: Literal["entity", "request"] = Field(
        "entity",
        description="What stays on its side, where the target can do so: an entity (a request's first row), "
        "or a request by its id. Without an entity: requests.",
    )
    bake: Duration = Field("10m", description="How long a step takes, at least.")
    min_requests: int = Field(100, ge=1, description="Requests that the challenger answers in a step, at least.")
    limit: Duration = Field("1d", description="How long a rollout may take; then it is inconclusive.")
    undecided: Literal["keep", "promote"] = Field(
        "keep", description="If it is inconclusive: the champion is kept, or the challenger promoted all the same."
    )
    tolerate: Tolerances = Tolerances()
    sagemaker: SageMaker = SageMaker()
    kubernetes: Kubernetes = Kubernetes()

    @field_validator("canary")
    @classmethod
    def _rises(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] != 100:
            raise ValueError(f"{steps}: the steps have to rise and end with 100, such as [5, 25, 100]")
        return steps

    @model_validator(mode="after")
    def _fits_the_target(self) -> Self:
        if self.target == "sagemaker" and self.canary[0] == 0:
            raise ValueError(f"canary {self.canary}: SageMaker has no shadow step; begin with 1 or more")
        without = {"plain": "plain Services have", "kserve": "KServe has"}.get(self.kubernetes.kind)
        if self.target == "kubernetes" and without and self.canary[0] == 0:
            raise ValueError(
                f"canary {self.canary}: {without} no shadow step; begin with 1 or more, or say "
                "kubernetes: {kind: seldon}"
            )
        return self
