"""What one model declares in its `defs.yaml`, with every default in sight. No behaviour lives here.

The classes are strict and frozen and refuse unknown keys, so that a typo is found where it was written.
"""

import codecs
import re
from collections import Counter
from datetime import date, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from ml_assets.durations import Duration, parse_duration

TEMPLATE_VARIABLES = ("landing",)
# Assets and tables of every model; a side table is called otherwise.
TABLES = frozenset(
    {
        *("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features", "trained_model", "metrics", "endpoint"),
        *("batches", "surveys", "ledger", "rollouts", "predictions", "feedback", "monitoring"),
    }
)
Task = Literal["binary", "multiclass", "regression"]

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "precision", "recall", "f1", "roc_auc"),
    "multiclass": ("accuracy", "precision", "recall", "f1", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
}
LOWER_IS_BETTER = frozenset({"rmse", "mae"})


def _known_templates(text: str) -> str:
    """`{{ env.HOME }}` and misspelt names would silently become `None` or nothing: refuse them here."""
    for name in re.findall(r"\{\{\s*(.*?)\s*\}\}", text):
        if name not in TEMPLATE_VARIABLES:
            known = ", ".join(TEMPLATE_VARIABLES)
            raise ValueError(f"{{{{ {name} }}}} is not known here; a model's YAML may use only: {known}")
    return text


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin")
    return name


def _known_encoding(name: str) -> str:
    if name == "utf8-lossy":  # Polars' own: damaged bytes become U+FFFD, which rejects their rows
        return name
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding that Python knows; write one like utf8, latin-1 or cp1252") from None
    return name


Text = Annotated[str, AfterValidator(_known_templates)]
Day = Annotated[date, Strict(False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
PythonName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$")]


class Spec(BaseModel):
    """Part of a model's YAML: strict, frozen, and nothing unknown in it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Csv(Spec):
    """How the text of CSV is to be read."""

    separator: str = Field(",", min_length=1, max_length=1)
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field("utf8", description="As Python names it.")
    decimal: Literal[".", ","] = Field(".", description="Decimal mark of its numbers.")
    header: bool = Field(True, description="Whether the first line names the columns; else `columns` does.")
    columns: list[str] | None = Field(None, description="Names of the columns, in order, where there is no header.")

    @model_validator(mode="after")
    def _names_from_somewhere(self) -> Self:
        if self.header == (self.columns is not None):
            raise ValueError("give `columns` exactly where `header` is false")
        return self


class Limits(Spec):
    """What a partition's rows must keep, or it is refused before anything of it is written."""

    rejected: Share = Field(0.5, description="Largest share of rows that may break the contract.")
    min_rows: int = Field(0, ge=0, description="Fewest rows that a partition with any batch may have.")
    columns: dict[str, Share] = Field({}, description="Largest share of rows that may break a check of one column.")


class SourceSpec(Spec):
    """What all kinds of sources have in common."""

    null_values: list[str] = Field([""], description="Texts that stand for a missing value.")
    limits: Limits = Limits()
    list_every: Duration = Field("15m", description="Where a tick can do without a listing: it is made so often.")

    # What says where the rows are, or when they are good enough or asked for again; not how they are read.
    _NOT_READING: ClassVar[frozenset[str]] = frozenset(
        {"limits", "uri", "url", "database", "token", "list_every", "queue", "look_back", "overlap"}
    )

    @property
    def csv_options(self) -> Csv:
        return Csv()

    def reading(self) -> dict[str, Any]:
        """What decides how the same batch is read, JSON-like."""
        return self.model_dump(exclude=set(self._NOT_READING))


class FilesSource(SourceSpec):
    """Files in a folder or below an S3 prefix, each of them one batch."""

    kind: Literal["files"]
    uri: Text = Field(description="Path or s3:// address with `*` and `**`.")
    format: Literal["parquet", "csv", "jsonl"] | None = Field(None, description="Default: by the file's ending.")
    csv: Csv = Csv()
    queue: Text | None = Field(
        None,
        description="URL of an SQS queue of S3 event notifications; saves listing while nothing arrives. Each model "
        "and environment needs one of its own, because messages are deleted once read.",
    )

    @model_validator(mode="after")
    def _queue_belongs_to_s3(self) -> Self:
        if self.queue is not None and not self.uri.startswith(("s3://", "{{")):
            raise ValueError("`queue` needs an s3:// address in `uri`")
        return self

    @property
    def csv_options(self) -> Csv:
        return self.csv

    @property
    def where(self) -> str:
        return self.uri


class SqlSource(SourceSpec):
    """A table or view of a SQL database. Each day of the event time is one batch, and is always read whole."""

    kind: Literal["sql"]
    database: Name = Field(description="Its SQLAlchemy URL is in ML_ASSETS_DATABASE_<NAME>.")
    table: str = Field(min_length=1, description="Table or view, with its schema if it has one: `sales.orders`.")
    watermark: str = Field(min_length=1, description="Column with the time of a row's last change.")
    overlap: Duration = Field("1h", description="How late a change may be committed and still be found at once.")
    list_every: Duration = Field("10m", description="All days are compared at least so often; finds deleted rows.")

    @property
    def where(self) -> str:
        return f"{self.database}: {self.table}"


class HttpSource(SourceSpec):
    """An HTTP address that answers with JSON or CSV, in pages or at once."""

    kind: Literal["http"]
    url: Text = Field(description="With `{day}` in it there is one address, and one batch, for each day.")
    format: Literal["json", "csv"] = "json"
    csv: Csv = Csv()
    records: str | None = Field(None, description="JSON: path of the list of rows, such as `data.items`.")
    next: str | None = Field(
        None, description="JSON: path of the next page's address; default: the Link header, if there is one."
    )
    token: Name | None = Field(None, description="The bearer token is in ML_ASSETS_TOKEN_<NAME>.")
    look_back: int = Field(3, ge=0, description="With `{day}`: days before today that are asked for at every tick.")
    list_every: Duration = Field("1h", description="With `{day}`: all days are asked for at least so often.")

    @property
    def csv_options(self) -> Csv:
        return self.csv

    @property
    def where(self) -> str:
        return self.url


class Days(Spec):
    """One snapshot, or partitions by the day of the contract's event time."""

    batch: Literal["snapshot", "day"] = Field("snapshot", description="`day` partitions by the event time.")
    start: Day | None = Field(None, description="First daily partition; needed with `batch: day`.")
    end: Day | None = Field(None, description="Last daily partition of a source that is complete; default: today's.")
    timezone: Annotated[str, AfterValidator(_known_zone)] = Field("UTC", description="Where a day begins and ends.")

    @model_validator(mode="after")
    def _start_belongs_to_days(self) -> Self:
        if (self.batch == "day") != (self.start is not None):
            raise ValueError("`batch: day` needs `start`, the first day; a snapshot has none")
        if self.end is not None and (self.start is None or self.end < self.start):
            raise ValueError(f"end {self.end} needs `batch: day` and a start before it")
        return self


class OutcomeKey(Spec):
    """How outcomes that arrive later find their rows."""

    key: list[str] = Field(min_length=1, description="Columns that say to which row an outcome belongs.")


class FilesRows(FilesSource, Days):
    """The model's rows, in files."""


class SqlRows(SqlSource, Days):
    """The model's rows, in a SQL database."""


class HttpRows(HttpSource, Days):
    """The model's rows, behind an HTTP address."""

    @model_validator(mode="after")
    def _day_belongs_to_days(self) -> Self:
        if "{day}" in self.url and self.batch != "day":
            raise ValueError("`{day}` in `url` needs `batch: day`")
        return self


class FilesOutcomes(FilesSource, OutcomeKey):
    """Outcome and target columns that arrive later, in files of their own."""


class SqlOutcomes(SqlSource, OutcomeKey):
    """Outcome and target columns that arrive later, in a table of their own."""


class HttpOutcomes(HttpSource, OutcomeKey):
    """Outcome and target columns that arrive later, behind an address of their own."""


AnySource = FilesSource | SqlSource | HttpSource
SideSource = Annotated[AnySource, Field(discriminator="kind")]
Source = Annotated[FilesRows | SqlRows | HttpRows, Field(discriminator="kind")]
Outcomes = Annotated[FilesOutcomes | SqlOutcomes | HttpOutcomes, Field(discriminator="kind")]


class LookupSpec(Spec):
    """A side table, an asset of its own. Its columns join the rows as `<name>_<column>`, null where no row matches.

    With an event time in its contract the latest row counts that was known at the event; else the row with the key.
    """

    name: Name
    contract: PythonName = Field(description="`module.Class` of its pandera model; no role is needed but event_time.")
    source: SideSource
    by: dict[str, str] = Field({}, description="Column of the rows: column of the side table that must be equal.")
    lag: Duration = Field("0s", description="With an event time: how long after it a row is known.")
    tolerance: Duration = Field("1d", description="With an event time: how old a row may be, at most, at the event.")
    max_unmatched: Share = Field(1.0, description="A partition with a larger share of unmatched rows is refused.")

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name in TABLES or self.name.startswith("rejected_"):
            raise ValueError(f"lookup {self.name!r} has the name of a table of the platform; choose another one")
        return self

    @model_validator(mode="after")
    def _joins_each_column_once(self) -> Self:
        if len(set(self.by.values())) < len(self.by):
            raise ValueError(f"lookup {self.name!r}: `by` names a column of the side table twice: {self.by}")
        return self

    @model_validator(mode="after")
    def _is_known_before_it_is_too_old(self) -> Self:
        if parse_duration(self.lag) >= parse_duration(self.tolerance):
            raise ValueError(
                f"lookup {self.name!r}: with lag {self.lag} and tolerance {self.tolerance} every row is too old once "
                "it is known; set tolerance higher"
            )
        return self


Aggregate = Literal["count", "sum", "mean", "min", "max", "std", "share", "days_since_last"]


class GroupSpec(Spec):
    """A feature group, an asset of its own: aggregates of an entity's past rows over windows of whole days.

    Its columns join the rows as `<name>_<column>_<aggregate>_<window>`, null where nothing is known of the entity.
    """

    name: Name
    entity: str | list[str] = Field(description="Columns known beforehand that say whose past it is.")
    aggregates: dict[str, list[Aggregate]] = Field(
        min_length=1, description="For each column what is computed of it; `share` is of a truth value."
    )
    windows: list[Duration] = Field(["7d", "28d"], min_length=1, description="Whole days up to the end of a day.")
    delay: Duration = Field("1h", description="How long after the end of a day its values can be used.")
    freshness: Duration = Field("3d", description="How old values may be at an event, at most.")
    within: Duration = Field(
        "28d", description="Of outcomes in files of their own: one that arrives later after its event does not count."
    )

    @property
    def entities(self) -> list[str]:
        return [self.entity] if isinstance(self.entity, str) else self.entity

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name in TABLES or self.name.startswith("rejected_"):
            raise ValueError(f"group {self.name!r} has the name of a table of the platform; choose another one")
        return self

    @model_validator(mode="after")
    def _has_whole_windows(self) -> Self:
        for window in self.windows:
            if not window.endswith("d") or parse_duration(window).days < 1:
                raise ValueError(f"group {self.name!r}: window {window!r} is no whole number of days, such as 7d")
        for name, values in (("windows", self.windows), ("entity", self.entities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"group {self.name!r}: {name} are to be different ones, at least one: {values}")
        for column, aggregates in self.aggregates.items():
            if not aggregates or len(set(aggregates)) < len(aggregates):
                raise ValueError(
                    f"group {self.name!r}: aggregates of {column!r} are to be different ones: {aggregates}"
                )
        return self

    @model_validator(mode="after")
    def _can_be_used_before_it_is_too_old(self) -> Self:
        if parse_duration(self.freshness) < timedelta(days=1):
            raise ValueError(
                f"group {self.name!r}: its values change once a day, and with freshness {self.freshness} they would be "
                "missing for the rest of it; set it to 1d at least"
            )
        return self


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


class Metrics(Spec):
    """How a model is judged on held-out rows, beside its gates."""

    primary: str | None = Field(
        None,
        description="Metric by which it is compared with the champion, by slice, and with its own training rows. "
        "Default: roc_auc for two classes, accuracy for several, rmse for regression.",
    )
    slices: list[str] = Field(
        [], description="Columns by whose values (numbers: quarters) it is judged: features, entities or keys."
    )
    slice_rows: int = Field(100, ge=20, description="Held-out rows without which a slice is not judged.")


PRIMARY: dict[str, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}


class Gates(Spec):
    """What a model must reach on held-out rows before it may serve. Each gate is a blocking asset check."""

    prior: Literal["better", "off"] = Field(
        "better", description="The 95 % interval of roc_auc (or r2) must lie above what a constant answer reaches."
    )
    champion: Literal["not_worse", "better", "off"] = Field(
        "not_worse",
        description="How the primary metric must compare with the champion's, by the 95 % interval of the difference "
        "on rows that neither was trained on: it may not lie below zero, or must lie above it.",
    )
    inconclusive: Literal["pass", "refuse"] = Field(
        "pass", description="What it means for the gate `champion` if they cannot be compared."
    )
    min_rows: int = Field(100, ge=1, description="Held-out rows, at least; also those of a comparison.")
    accuracy: Share | None = None
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    roc_auc: Share | None = None
    rmse: float | None = Field(None, gt=0, description="At most, in the target's unit.")
    mae: float | None = Field(None, gt=0, description="At most, in the target's unit.")
    r2: float | None = Field(None, le=1)
    worst_slice: float | None = Field(
        None, description="What the primary metric must reach in every slice, declared or found, beyond chance."
    )
    calibration_error: Share | None = Field(
        None, description="How far scores may be from the shares that they foretell, on average; for classes."
    )
    train_test_gap: float | None = Field(
        None, ge=0, description="By how much the primary metric may be better on training rows than on held-out ones."
    )
    milliseconds_per_row: float | None = Field(
        None, gt=0, description="How long scoring one row may take, as the median of single rows on this machine."
    )
    leak: Annotated[float, Field(gt=0.5, le=1)] | None = Field(
        None, description="What a single feature alone may reach in ROC AUC (regression: r2), before it is suspected."
    )

    def thresholds(self) -> dict[str, float]:
        """The absolute thresholds that were set, by metric."""
        names = {metric for metrics in METRICS.values() for metric in metrics}
        return {name: value for name, value in self.model_dump(exclude_none=True).items() if name in names}


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


class Feedback(Spec):
    """How predictions are held against what came true."""

    delay: Duration | None = Field(
        None,
        description="How long after a day nearly all its predictions' outcomes are known. Default: split.gap, else 7d.",
    )


class Retrain(Spec):
    """When a model is trained again without anybody asking for it."""

    schedule: str = Field("0 3 * * *", description="Cron line of the daily safety net, in the source's time zone.")
    min_new_rows: int = Field(1, ge=1, description="Rows in new or changed days that make a retraining worth it.")
    cooldown: Duration = Field("0s", description="Time between two trainings, at least.")


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
        if self.source.batch == "snapshot" and self.outcomes:
            raise ValueError("outcomes in files of their own need `source: {batch: day}`")
        return self
