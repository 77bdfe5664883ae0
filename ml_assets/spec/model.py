"""One model: everything that its `defs.yaml` may say."""

from collections import Counter
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_assets.durations import parse_duration
from ml_assets.spec.base import METRICS, Name, PythonName, Spec, Task
from ml_assets.spec.endpoint import Endpoint
from ml_assets.spec.judging import PRIMARY, Gates, Metrics
from ml_assets.spec.operating import Feedback, Monitoring, Retrain
from ml_assets.spec.sources import Outcomes, Source
from ml_assets.spec.tables import GroupSpec, LookupSpec
from ml_assets.spec.training import Estimator, Search, Split, Threshold, Training


class ModelSpec(Spec):
    """One model: everything but name, task, contract and source has a default."""

    name: Name
    description: str = ""
    owners: list[str] = Field(["team:data-science"], description="E-mail addresses, or team:<name>.")
    task: Task
    contract: PythonName = Field(description="`module.Class` of the pandera model, beside this file.")
    features: PythonName | None = Field(
        None, description="`module.LIST` of Polars expressions; default: request columns."
    )
    clean: PythonName | None = Field(None, description="`module.function` that cleans one day's pandas frame.")
    source: Source
    outcomes: Outcomes | None = Field(None, description="Where outcomes arrive; default: in the source's own rows.")
    lookups: list[LookupSpec] = Field([], description="Side tables, whose columns features may read.")
    groups: list[GroupSpec] = Field([], description="Feature groups, whose columns are features.")
    split: Split = Split()
    threshold: Threshold | None = Field(
        None,
        description="Two classes: score from which on a row is positive, or what it is chosen for on the validation "
        "rows. Default: the class with the higher score.",
    )
    training: Training = Training()
    estimator: Estimator = Estimator()
    search: Search | None = Field(
        None, description="Looks for parameters of the estimator; default: they are as stated."
    )
    compute: Literal["local", "ray"] = Field(
        "local", description="Where fits run: on this machine, or on a Ray cluster. It changes no result."
    )
    metrics: Metrics = Metrics()
    gates: Gates = Gates()
    endpoint: Endpoint = Endpoint()
    monitoring: Monitoring = Monitoring()
    feedback: Feedback = Feedback()
    retrain: Retrain = Retrain()

    @property
    def outcome_delay(self) -> timedelta:
        """How long after a day nearly all outcomes of its predictions are known."""
        return parse_duration(self.feedback.delay or self.split.gap or "7d")

    @property
    def primary_metric(self) -> str:
        """What the model is compared by."""
        return self.metrics.primary or PRIMARY[self.task]

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        wrong = sorted(set(self.gates.thresholds()) - set(METRICS[self.task]))
        if wrong:
            known = ", ".join(METRICS[self.task])
            raise ValueError(f"gates {', '.join(wrong)} do not belong to a {self.task} task; it has {known}")
        if self.metrics.primary not in (None, *METRICS[self.task]):
            raise ValueError(
                f"metrics.primary {self.metrics.primary!r} is none of a {self.task} task; it has "
                f"{', '.join(METRICS[self.task])}"
            )
        if self.task == "regression" and self.gates.calibration_error is not None:
            raise ValueError("gates.calibration_error belongs to classes, not to regression")
        training = self.training
        if self.task == "regression" and (training.class_weights or training.calibration):
            raise ValueError("`training.class_weights` and `training.calibration` belong to classes, not to regression")
        if training.class_weights and self.estimator.params.get("class_weight") is not None:
            raise ValueError("give training.class_weights or estimator.params.class_weight, not both")
        searched = set(self.search.space) if self.search else set()
        if twice := sorted(searched & self.estimator.params.keys()):
            raise ValueError(f"give {twice[0]} in estimator.params or in search.space, not in both")
        if training.class_weights and "class_weight" in searched:
            raise ValueError("give training.class_weights or search.space.class_weight, not both")
        if self.threshold is not None and self.task != "binary":
            raise ValueError(f"`threshold` belongs to a binary task; this is a {self.task} one")
        if self.threshold is not None and not isinstance(self.threshold, float) and not self.split.validates:
            raise ValueError(
                "`threshold` is chosen on validation rows, and there are none; set split.validation, or "
                "split.validation_from beside test_from"
            )
        names = [*(each.name for each in self.lookups), *(each.name for each in self.groups)]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"several lookups or groups are called {', '.join(repeated)}")
        if self.groups and self.source.batch != "day":
            raise ValueError("`groups` need `source: {batch: day}`: their windows are days")
        if self.monitoring.drift.by == "weekday" and self.source.batch != "day":
            raise ValueError("`monitoring.drift.by: weekday` needs `source: {batch: day}`: other rows have no days")
        if self.source.batch == "snapshot" and self.outcomes:
            raise ValueError("outcomes in files of their own need `source: {batch: day}`")
        return self
