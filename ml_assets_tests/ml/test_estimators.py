import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.utils import _param_validation as theirs

from ml_assets.ml.estimators import (
    BOOLEAN,
    ESTIMATORS,
    LIST,
    MAPPING,
    NULL,
    TEXT,
    Allowed,
    Choice,
    Number,
    problems,
)
from ml_assets.spec.base import Task
from ml_assets.spec.training import Search

FOREST = "sklearn.ensemble.RandomForestClassifier"


def class_of(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def ours(constraint: Any) -> Iterator[Allowed]:
    """A constraint of scikit-learn in the form of the table, without what YAML cannot say."""
    if isinstance(constraint, theirs.Interval):
        kinds: dict[str, Any] = {"Integral": "whole", "RealNotInt": "fraction", "Real": "any"}
        low = "least" if constraint.closed in ("left", "both") else "above"
        high = "most" if constraint.closed in ("right", "both") else "below"
        limits = {low: constraint.left, high: constraint.right}
        yield Number(
            kinds[constraint.type.__name__], **{name: limit for name, limit in limits.items() if limit is not None}
        )
    elif isinstance(constraint, theirs.StrOptions):
        yield Choice(frozenset(constraint.options))
    elif constraint == "boolean":
        yield BOOLEAN
    elif constraint == "verbose":
        yield from (BOOLEAN, Number("whole", least=0))
    elif constraint == "random_state":
        yield from (Number("whole", least=0, most=2**32 - 1), NULL)
    elif constraint == "array-like" or constraint is list:
        yield LIST
    elif constraint is dict:
        yield MAPPING
    elif constraint is str:
        yield TEXT
    elif constraint is None:
        yield NULL
    elif inspect.isclass(constraint) and constraint.__name__ == "Integral":
        yield Number("whole")
    else:
        hidden = isinstance(constraint, theirs.Hidden)
        assert hidden or constraint in (callable, tuple) or constraint.__name__ == "BaseLoss", constraint


@pytest.mark.parametrize("dotted", ESTIMATORS)
def test_the_table_is_the_installed_scikit_learns(dotted: str) -> None:
    kind, listed = class_of(dotted), ESTIMATORS[dotted]
    assert set(listed.parameters) == set(inspect.signature(kind).parameters)
    for name, constraints in kind._parameter_constraints.items():
        assert listed.parameters[name] == {each for one in constraints for each in ours(one)}, name
    assert is_classifier(kind()) == (listed.predicts == "classes")
    assert is_regressor(kind()) == (listed.predicts == "numbers")
    assert ESTIMATORS[listed.instead].predicts != listed.predicts
    defaults = {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    task: Task = "binary" if listed.predicts == "classes" else "regression"
    stated = {name: value for name, value in defaults.items() if value != "deprecated"}
    assert list(problems(dotted, stated, task)) == []


VALUES = [None, True, -1, 0, 1, 2, 300, 0.0, 0.3, 0.5, 1.0, 1.5, -0.5, "sqrt", "gini", "l2", "svd", "auto", [], {}]


@pytest.mark.parametrize("dotted", ESTIMATORS)
def test_what_is_refused_is_what_scikit_learn_refuses(dotted: str) -> None:
    """But for a truth value in the place of a number, which Python takes for one, and a mapping in that of a list."""
    kind = class_of(dotted)
    task: Task = "binary" if ESTIMATORS[dotted].predicts == "classes" else "regression"
    for name, allowed in ESTIMATORS[dotted].parameters.items():
        for value in VALUES:
            if (value is True and BOOLEAN not in allowed) or (value == {} and LIST in allowed):
                continue
            refused = bool(list(problems(dotted, {name: value}, task)))
            try:
                kind(**{name: value})._validate_params()
            except theirs.InvalidParameterError:
                assert refused, (name, value)
            else:
                assert not refused, (name, value)


@pytest.mark.parametrize(
    ("dotted", "params", "task", "said"),
    [
        (
            FOREST,
            {"max_deep": 3},
            "binary",
            "estimator.params.max_deep is no parameter of RandomForestClassifier; did you mean max_depth?",
        ),
        (FOREST, {"x": 3}, "binary", "estimator.params.x is no parameter of RandomForestClassifier; it has n_est"),
        (
            FOREST,
            {"max_depth": -3},
            "binary",
            "estimator.params.max_depth of RandomForestClassifier is -3; it is to be a whole number from 1 or null",
        ),
        (FOREST, {"n_estimators": None}, "binary", "is null; it is to be a whole number from 1"),
        (
            FOREST,
            {"max_samples": True},
            "binary",
            "max_samples of RandomForestClassifier is True; it is to be a "
            "fraction (1.0, not 1) above 0 or a whole number from 1 or null",
        ),
        (
            FOREST,
            {"criterion": "ginni"},
            "binary",
            "is 'ginni'; it is to be entropy, gini, log_loss; did you mean gini?",
        ),
        (
            FOREST,
            {},
            "regression",
            "predicts classes, and the task is regression; write sklearn.ensemble.RandomForestReg",
        ),
        (
            "sklearn.linear_model.Ridge",
            {},
            "multiclass",
            "predicts numbers, and the task is multiclass; write sklearn.linear_model.LogisticRegression",
        ),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(dotted: str, params: dict[str, Any], task: Task, said: str) -> None:
    [found] = problems(dotted, params, task)
    assert said in found


def test_other_estimators_are_left_to_the_training_step() -> None:
    assert list(problems("sklearn.svm.SVC", {"gama": 1}, "regression")) == []


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"max_dept": {"int": [3, 9]}},
            "search.space.max_dept is no parameter of RandomForestClassifier; did you mean max_depth?",
        ),
        (
            {"max_depth": {"int": [0, 9]}},
            "search.space.max_depth of RandomForestClassifier is 0; it is to be a whole number from 1 or null",
        ),
        ({"max_depth": {"float": [3, 9]}}, "search.space.max_depth of RandomForestClassifier is 3.0"),
        ({"max_features": {"float": [0.5, 1.5]}}, "search.space.max_features of RandomForestClassifier is 1.5"),
        (
            {"criterion": {"choice": ["gini", "entropi"]}},
            "is 'entropi'; it is to be entropy, gini, log_loss; did you mean",
        ),
        ({"max_depth": {"int": [3, 9]}, "max_features": {"choice": ["sqrt", 0.5, None]}}, None),
    ],
)
def test_what_is_searched_is_checked_like_what_is_stated(space: dict[str, Any], said: str | None) -> None:
    found = list(problems(FOREST, {}, "binary", Search.model_validate({"space": space})))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
