"""Which parameters the listed scikit-learn estimators take, so that a model's are checked when definitions load.

Importing scikit-learn for that would cost every process two seconds. A test compares the table with the installed
version. Other estimators of scikit-learn are checked when they are built, in the training step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal

from ml_assets.spec.base import Task
from ml_assets.spec.training import Search


@dataclass(frozen=True)
class Number:
    """A number within limits. A `fraction` is one that is written with a decimal point."""

    kind: Literal["whole", "fraction", "any"]
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def allows(self, value: Any) -> bool:
        kinds = {"whole": int, "fraction": float, "any": int | float}
        return (
            isinstance(value, kinds[self.kind])
            and not isinstance(value, bool)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        kind = {"whole": "a whole number", "fraction": "a fraction (1.0, not 1)", "any": "a number"}[self.kind]
        told = {"from": self.least, "above": self.above, "to": self.most, "below": self.below}
        return " ".join([kind, *(f"{word} {limit:g}" for word, limit in told.items() if limit is not None)])


@dataclass(frozen=True)
class Choice:
    """One of some texts."""

    texts: frozenset[str]

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.texts

    def __str__(self) -> str:
        return ", ".join(sorted(self.texts))


@dataclass(frozen=True)
class OfType:
    """Any value of a type that YAML has."""

    type: type
    told: str

    def allows(self, value: Any) -> bool:
        return isinstance(value, self.type)

    def __str__(self) -> str:
        return self.told


Allowed = Number | Choice | OfType


@dataclass(frozen=True)
class Listed:
    """A listed estimator.

    Attributes:
        parameters: for each what it may be, any of several things.
        instead: the class for the other tasks.
    """

    predicts: Literal["classes", "numbers"]
    parameters: Mapping[str, frozenset[Allowed]]
    instead: str


def problems(dotted: str, params: Mapping[str, Any], task: Task, search: Search | None = None) -> Iterator[str]:
    """What is wrong with an estimator and what is searched of it, as sentences; nothing for one that is not listed."""
    listed = ESTIMATORS.get(dotted)
    if listed is None:
        return
    name = dotted.rpartition(".")[2]
    if (listed.predicts == "numbers") != (task == "regression"):
        yield f"estimator.class {dotted} predicts {listed.predicts}, and the task is {task}; write {listed.instead}"
    for parameter, value in params.items():
        yield from _problems_of(listed, name, f"estimator.params.{parameter}", parameter, [value])
    for parameter, dimension in ({} if search is None else search.space).items():
        yield from _problems_of(listed, name, f"search.space.{parameter}", parameter, dimension.examples)


def _problems_of(listed: Listed, name: str, place: str, parameter: str, values: list[Any]) -> Iterator[str]:
    allowed = listed.parameters.get(parameter)
    if allowed is None:
        close = get_close_matches(parameter, listed.parameters, 1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(listed.parameters)}"
        yield f"{place} is no parameter of {name}; {hint}"
        return
    for value in values:
        if not any(each.allows(value) for each in allowed):
            said = "null" if value is None else repr(value)
            texts = [text for each in allowed if isinstance(each, Choice) for text in each.texts]
            close = get_close_matches(str(value), texts, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"{place} of {name} is {said}; it is to be {' or '.join(sorted(map(str, allowed)))}{hint}"
            return


NULL = OfType(NoneType, "null")
BOOLEAN = OfType(bool, "true or false")
TEXT = OfType(str, "a text")
LIST = OfType(list, "a list")
MAPPING = OfType(dict, "a mapping")


def _any(*allowed: Allowed) -> frozenset[Allowed]:
    return frozenset(allowed)


def _choice(*texts: str) -> Choice:
    return Choice(frozenset(texts))


def _whole(least: float | None = None, most: float | None = None) -> Number:
    return Number("whole", least=least, most=most)


_NOT_NEGATIVE = Number("any", least=0)
_POSITIVE = Number("any", above=0)
_UP_TO_1 = Number("fraction", above=0, most=1)
_BELOW_1 = Number("fraction", above=0, below=1)
_FROM_0_TO_1 = Number("any", least=0, most=1)

_COMMON = {
    "random_state": _any(_whole(0, 2**32 - 1), NULL),
    "verbose": _any(_whole(0), BOOLEAN),
    "warm_start": _any(BOOLEAN),
}
_FOREST = {
    "n_estimators": _any(_whole(1)),
    "max_depth": _any(_whole(1), NULL),
    "min_samples_split": _any(_whole(2), _UP_TO_1),
    "min_samples_leaf": _any(_whole(1), _BELOW_1),
    "min_weight_fraction_leaf": _any(Number("any", least=0, most=0.5)),
    "max_features": _any(_whole(1), _UP_TO_1, _choice("log2", "sqrt"), NULL),
    "max_leaf_nodes": _any(_whole(2), NULL),
    "min_impurity_decrease": _any(_NOT_NEGATIVE),
    "bootstrap": _any(BOOLEAN),
    "oob_score": _any(BOOLEAN),
    "n_jobs": _any(_whole(), NULL),
    "ccp_alpha": _any(_NOT_NEGATIVE),
    "max_samples": _any(_whole(1), Number("fraction", above=0), NULL),
    "monotonic_cst": _any(LIST, NULL),
} | _COMMON
_FOREST_OF_CLASSES = _FOREST | {
    "criterion": _any(_choice("entropy", "gini", "log_loss")),
    "class_weight": _any(_choice("balanced", "balanced_subsample"), MAPPING, LIST, NULL),
}
_FOREST_OF_NUMBERS = _FOREST | {"criterion": _any(_choice("absolute_error", "poisson", "squared_error"))}
_CLASS_WEIGHT = {"class_weight": _any(_choice("balanced"), MAPPING, NULL)}
_BOOSTING = {
    "learning_rate": _any(_POSITIVE),
    "max_iter": _any(_whole(1)),
    "max_leaf_nodes": _any(_whole(2), NULL),
    "max_depth": _any(_whole(1), NULL),
    "min_samples_leaf": _any(_whole(1)),
    "l2_regularization": _any(_NOT_NEGATIVE),
    "max_features": _any(_UP_TO_1),
    "max_bins": _any(_whole(2, 255)),
    "categorical_features": _any(LIST, _choice("from_dtype"), NULL),
    "monotonic_cst": _any(LIST, MAPPING, NULL),
    "interaction_cst": _any(LIST, _choice("no_interactions", "pairwise"), NULL),
    "early_stopping": _any(_choice("auto"), BOOLEAN),
    "scoring": _any(TEXT, NULL),
    "validation_fraction": _any(_whole(1), _BELOW_1, NULL),
    "n_iter_no_change": _any(_whole(1)),
    "tol": _any(_NOT_NEGATIVE),
} | _COMMON
_BOOSTING_OF_NUMBERS = _BOOSTING | {
    "loss": _any(_choice("absolute_error", "gamma", "poisson", "quantile", "squared_error")),
    "quantile": _any(_FROM_0_TO_1, NULL),
}
_BOOSTING_OF_CLASSES = _BOOSTING | {"loss": _any(_choice("log_loss"))} | _CLASS_WEIGHT
_LOGISTIC = (
    {
        "penalty": _any(_choice("elasticnet", "l1", "l2"), NULL),
        "C": _any(_POSITIVE),
        "l1_ratio": _any(_FROM_0_TO_1, NULL),
        "dual": _any(BOOLEAN),
        "tol": _any(_NOT_NEGATIVE),
        "fit_intercept": _any(BOOLEAN),
        "intercept_scaling": _any(_POSITIVE),
        "solver": _any(_choice("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")),
        "max_iter": _any(_whole(0)),
        "n_jobs": _any(_whole(), NULL),
    }
    | _CLASS_WEIGHT
    | _COMMON
)
_RIDGE = {
    "alpha": _any(_NOT_NEGATIVE, LIST),
    "fit_intercept": _any(BOOLEAN),
    "copy_X": _any(BOOLEAN),
    "max_iter": _any(_whole(1), NULL),
    "tol": _any(_NOT_NEGATIVE),
    "solver": _any(_choice("auto", "cholesky", "lbfgs", "lsqr", "sag", "saga", "sparse_cg", "svd")),
    "positive": _any(BOOLEAN),
    "random_state": _COMMON["random_state"],
}

_ENSEMBLE, _LINEAR = "sklearn.ensemble", "sklearn.linear_model"

ESTIMATORS = {
    f"{_ENSEMBLE}.RandomForestClassifier": Listed("classes", _FOREST_OF_CLASSES, f"{_ENSEMBLE}.RandomForestRegressor"),
    f"{_ENSEMBLE}.RandomForestRegressor": Listed("numbers", _FOREST_OF_NUMBERS, f"{_ENSEMBLE}.RandomForestClassifier"),
    f"{_ENSEMBLE}.ExtraTreesClassifier": Listed("classes", _FOREST_OF_CLASSES, f"{_ENSEMBLE}.ExtraTreesRegressor"),
    f"{_ENSEMBLE}.ExtraTreesRegressor": Listed("numbers", _FOREST_OF_NUMBERS, f"{_ENSEMBLE}.ExtraTreesClassifier"),
    f"{_ENSEMBLE}.HistGradientBoostingClassifier": Listed(
        "classes", _BOOSTING_OF_CLASSES, f"{_ENSEMBLE}.HistGradientBoostingRegressor"
    ),
    f"{_ENSEMBLE}.HistGradientBoostingRegressor": Listed(
        "numbers", _BOOSTING_OF_NUMBERS, f"{_ENSEMBLE}.HistGradientBoostingClassifier"
    ),
    f"{_LINEAR}.LogisticRegression": Listed("classes", _LOGISTIC, f"{_LINEAR}.Ridge"),
    f"{_LINEAR}.RidgeClassifier": Listed("classes", _RIDGE | _CLASS_WEIGHT, f"{_LINEAR}.Ridge"),
    f"{_LINEAR}.Ridge": Listed("numbers", _RIDGE, f"{_LINEAR}.LogisticRegression"),
}
