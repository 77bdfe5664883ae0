"""Splits, thresholds, estimators and searches."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from ml_assets.durations import Duration
from ml_assets.spec.base import Day, Spec, Task


class Split(Spec):
    """Which labelled rows are trained on, and which are held out. `test` and `validation` are shares of the rows; by
    entity, of the entities.
    """

    by: Literal["time", "random", "entity"] = "random"
    entity: str | list[str] | None = Field(
        None, description="By entity: columns with the role entity or key whose rows stay together."
    )
    test: float = Field(0.2, gt=0, lt=1)
    validation: float = Field(0.0, ge=0, lt=1)
    validation_from: Day | None = Field(None, description="By time: first day of validation, instead of a share.")
    test_from: Day | None = Field(None, description="By time: first day of the test rows, instead of a share.")
    gap: Duration | None = Field(
        None,
        description="By time: rows that happened less than this before the next side begins are on no side. Default: "
        "rows whose outcome became known only afterwards.",
    )
    salt: str = Field("ml-assets", description="By random and entity: changes which rows are held out.")

    @property
    def entities(self) -> list[str]:
        return [self.entity] if isinstance(self.entity, str) else self.entity or []

    @property
    def validates(self) -> bool:
        """Whether there are validation rows."""
        return self.validation_from is not None if self.test_from else self.validation > 0

    @model_validator(mode="after")
    def _entities_belong_to_entity(self) -> Self:
        if (self.by == "entity") != bool(self.entities):
            raise ValueError("give `entity`, the columns whose rows stay together, exactly with `by: entity`")
        return self

    @model_validator(mode="after")
    def _dates_belong_to_time(self) -> Self:
        if self.by != "time" and (self.validation_from or self.test_from):
            raise ValueError("`validation_from` and `test_from` need `by: time`")
        if self.by != "time" and self.gap:
            raise ValueError("`gap` needs `by: time`")
        if self.validation_from and not self.test_from:
            raise ValueError("`validation_from` needs `test_from`")
        if self.test_from and self.validation:
            raise ValueError("with `test_from` validation rows begin at `validation_from`; leave `validation` out")
        if self.validation_from and self.test_from and self.validation_from >= self.test_from:
            raise ValueError(f"validation_from {self.validation_from} is not before test_from {self.test_from}")
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave no rows to train on")
        return self


class F1Objective(Spec):
    """The threshold with the highest F1."""

    objective: Literal["f1"]


class CostObjective(Spec):
    """The threshold at which wrong answers cost least."""

    objective: Literal["cost"]
    false_positive: float = Field(gt=0, description="Cost of a negative row that is called positive.")
    false_negative: float = Field(gt=0, description="Cost of a positive row that is not, in the same unit.")


class RecallObjective(Spec):
    """The threshold with the highest recall among those that reach a precision."""

    objective: Literal["recall"]
    precision: float = Field(gt=0, le=1)


Objective = F1Objective | CostObjective | RecallObjective
Threshold = Annotated[float, Field(gt=0, lt=1)] | Annotated[Objective, Field(discriminator="objective")]


def _as_text(weights: dict[bool | int | str, float]) -> dict[bool | int | str, float]:
    return {str(label): weight for label, weight in weights.items()}


Weight = Annotated[float, Field(gt=0)]
WeightByClass = Annotated[dict[bool | int | str, Weight], Field(min_length=1), AfterValidator(_as_text)]
ClassWeights = Literal["balanced"] | WeightByClass
Calibration = Literal["isotonic", "sigmoid"]


class Training(Spec):
    """What a training needs before it starts, how it is cross-validated, and how much each row counts in it."""

    min_rows: int = Field(1000, ge=1, description="Labelled rows without which nothing is trained.")
    window: Duration | None = Field(
        None, description="How far back from the newest row rows are trained on and judged by; default: all."
    )
    folds: int = Field(5, ge=2, description="Folds of the cross-validation within the training rows.")
    class_weights: ClassWeights | None = Field(
        None, description="How much a row of each class counts when the estimator is fitted; 1 where not named."
    )
    sample_weights: str | None = Field(
        None, description="Column, known beforehand, that says how much a row counts when the estimator is fitted."
    )
    calibration: Calibration | None = Field(
        None, description="Makes scores probabilities, by what the folds of the cross-validation did not learn from."
    )


class Estimator(Spec):
    """A scikit-learn estimator. Without `class`, `params` are merged into the default forest's."""

    class_: str | None = Field(None, alias="class", pattern=r"^sklearn(\.\w+)+$")
    params: dict[str, Any] = Field({}, description="Keyword arguments of the estimator.")

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", populate_by_name=True)

    def resolve(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Dotted class name and keyword arguments for `task`."""
        if self.class_ is not None:
            return self.class_, self.params
        return DEFAULT_ESTIMATOR[task], DEFAULT_PARAMS | self.params

    def with_(self, params: dict[str, Any]) -> "Estimator":
        """This estimator with other keyword arguments in the place of its own."""
        return self.model_copy(update={"params": self.params | params})


Finite = Annotated[float, Field(allow_inf_nan=False)]
Scalar = bool | int | Finite | str | None


class Dimension(Spec):
    """What a search may try for one parameter: numbers from one to another, or one of some values."""

    int_: list[int] | None = Field(None, alias="int", min_length=2, max_length=2, description="Least and greatest.")
    float_: list[Finite] | None = Field(
        None, alias="float", min_length=2, max_length=2, description="Least and greatest."
    )
    choice: list[Scalar] | None = Field(None, min_length=2, description="Two values or more.")
    log: bool = Field(False, description="Of numbers: as many are tried from 0.01 to 0.1 as from 0.1 to 1.")

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", populate_by_name=True)

    @property
    def limits(self) -> list[int] | list[float] | None:
        return self.int_ if self.int_ is not None else self.float_

    @property
    def examples(self) -> list[Any]:
        """Values of it that are allowed only if all are: the limits, or each choice."""
        if self.choice is not None:
            return list(self.choice)
        assert self.limits is not None
        return [float(each) for each in self.limits] if self.int_ is None else list(self.limits)

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        if sum(each is not None for each in (self.int_, self.float_, self.choice)) != 1:
            raise ValueError("give one of `int`, `float` and `choice`, as in {int: [3, 16]} or {choice: [100, 200]}")
        if self.limits is not None and self.limits[0] >= self.limits[1]:
            raise ValueError(f"{self.limits}: the least value stands first, and the greatest is above it")
        if self.log and (self.limits is None or self.limits[0] <= 0):
            raise ValueError("`log: true` is for `int` or `float` from above 0")
        if self.choice is not None and len(set(self.choice)) < len(self.choice):
            raise ValueError(f"choice: a value stands twice in {self.choice}")
        return self


class Search(Spec):
    """Which parameters of the estimator a training looks for, and how long. Each trial is cross-validated."""

    trials: int = Field(30, ge=1, le=1000, description="How many sets of parameters are tried, at most.")
    timeout: Duration | None = Field(
        None,
        description="No trial begins once the trials have taken so long. Which one is last depends on the machine.",
    )
    parallel: int = Field(
        1, ge=1, le=100, description="Trials that are made at once, without learning from each other: for a cluster."
    )
    space: dict[str, Dimension] = Field(min_length=1, description="By parameter of the estimator, what may be tried.")


DEFAULT_ESTIMATOR: dict[str, str] = {
    "binary": "sklearn.ensemble.RandomForestClassifier",
    "multiclass": "sklearn.ensemble.RandomForestClassifier",
    "regression": "sklearn.ensemble.RandomForestRegressor",
}
DEFAULT_PARAMS: dict[str, Any] = {"n_estimators": 100, "max_depth": 10, "random_state": 42}
