from typing import Any

import pytest
from pydantic import ValidationError

from ml_assets.spec.model import ModelSpec

LEAST: dict[str, Any] = {
    "name": "m",
    "task": "binary",
    "contract": "contract.Rows",
    "source": {"kind": "files", "uri": "/data/*.csv"},
}


def test_name_task_contract_and_source_are_enough_and_the_rest_is_the_blogs_pipeline() -> None:
    spec = ModelSpec.model_validate(LEAST)
    assert spec.estimator.resolve(spec.task) == (
        "sklearn.ensemble.RandomForestClassifier",
        {"n_estimators": 100, "max_depth": 10, "random_state": 42},
    )
    assert (spec.split.test, spec.training.folds, spec.training.min_rows) == (0.2, 5, 1000)


def test_params_without_a_class_change_the_default_forest_and_with_a_class_stand_alone() -> None:
    some = ModelSpec.model_validate(LEAST | {"estimator": {"params": {"max_depth": 3}}})
    assert some.estimator.resolve("binary")[1] == {"n_estimators": 100, "max_depth": 3, "random_state": 42}
    ridge = {"class": "sklearn.linear_model.Ridge", "params": {"alpha": 2.0}}
    other = ModelSpec.model_validate(LEAST | {"task": "regression", "estimator": ridge})
    assert other.estimator.resolve("regression") == ("sklearn.linear_model.Ridge", {"alpha": 2.0})


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        ({"gatez": {}}, "gatez", "Extra inputs"),
        ({"task": "binray"}, "task", "binary"),
        ({"name": "Late Deliveries"}, "name", "pattern"),
        ({"gates": {"f1": "high"}}, "gates", "number"),
        ({"gates": {"f1": 1.2}}, "gates", "less than or equal to 1"),
        ({"gates": {"champion": "best"}}, "champion", "'not_worse', 'better' or 'off'"),
        ({"gates": {"leak": 0.3}}, "leak", "greater than 0.5"),
        ({"gates": {"min_rows": 0}}, "min_rows", "greater than or equal to 1"),
        ({"metrics": {"primary": "rmse"}}, "", "metrics.primary 'rmse' is none of a binary task; it has accuracy"),
        ({"metrics": {"slice_rows": 5}}, "slice_rows", "greater than or equal to 20"),
        (
            {"task": "regression", "gates": {"calibration_error": 0.1}},
            "",
            "calibration_error belongs to classes, not to regression",
        ),
        ({"gates": {"rmse": 3.0}}, "", "do not belong to a binary task"),
        ({"search": {"trials": 5}}, "search", "Field required"),
        ({"search": {"space": {}}}, "search", "at least 1 item"),
        ({"search": {"space": {"max_depth": [3, 9]}}}, "search", "max_depth"),
        ({"search": {"space": {"max_depth": {"int": [9, 3]}}}}, "search", "the least value stands first"),
        ({"search": {"space": {"max_depth": {"int": [3, 9], "choice": [1, 2]}}}}, "search", "give one of `int`"),
        ({"search": {"space": {"max_depth": {"int": [3, 9.5]}}}}, "search", "valid integer"),
        ({"search": {"space": {"max_depth": {"choice": [3]}}}}, "search", "at least 2 items"),
        ({"search": {"space": {"max_depth": {"choice": [3, 3]}}}}, "search", "stands twice"),
        ({"search": {"space": {"ccp_alpha": {"float": [0, 1], "log": True}}}}, "search", "from above 0"),
        ({"search": {"timeout": "soon", "space": {"max_depth": {"int": [3, 9]}}}}, "search", "pattern"),
        (
            {"search": {"space": {"max_depth": {"int": [3, 9]}}}, "estimator": {"params": {"max_depth": 4}}},
            "",
            "give max_depth in estimator.params or in search.space, not in both",
        ),
        (
            {
                "search": {"space": {"class_weight": {"choice": ["balanced", None]}}},
                "training": {"class_weights": "balanced"},
            },
            "",
            "give training.class_weights or search.space.class_weight, not both",
        ),
        ({"monitoring": {"drift": {"by": "weekday"}}}, "", "drift.by: weekday` needs `source: {batch: day}`"),
        ({"compute": "spark"}, "compute", "'local' or 'ray'"),
        ({"estimator": {"class": "os.system"}}, "estimator", "pattern"),
        ({"split": {"test": 0.8, "validation": 0.3}}, "split", "leave no rows"),
        ({"threshold": {"objective": "f1"}}, "", "chosen on validation rows, and there are none"),
        (
            {"threshold": {"objective": "f1"}, "split": {"by": "time", "test_from": "2025-01-01"}},
            "",
            "or split.validation_from beside test_from",
        ),
        ({"threshold": 0.3, "task": "regression"}, "", "belongs to a binary task; this is a regression one"),
        ({"threshold": 1.5}, "threshold", "less than 1"),
        ({"threshold": {"objective": "cost", "false_positive": 1}}, "threshold", "false_negative"),
        ({"threshold": {"objective": "accuracy"}}, "threshold", "'f1', 'cost', 'recall'"),
        ({"training": {"class_weights": {"yes": -1}}}, "training", "greater than 0"),
        ({"training": {"calibration": "platt"}}, "training", "'isotonic' or 'sigmoid'"),
        ({"task": "regression", "training": {"class_weights": "balanced"}}, "", "belong to classes"),
        ({"task": "regression", "training": {"calibration": "sigmoid"}}, "", "belong to classes"),
        (
            {"training": {"class_weights": "balanced"}, "estimator": {"params": {"class_weight": "balanced"}}},
            "",
            "not both",
        ),
        ({"outcomes": {"kind": "files", "uri": "x", "key": ["id"]}}, "", "batch: day"),
        ({"split": {"test_from": "2025-01-01"}}, "split", "by: time"),
        ({"retrain": {"cooldown": "900000d"}}, "retrain", "'900000d' is longer than a hundred years"),
        ({"retrain": {"cooldown": "9999999999999h"}}, "retrain", "is longer than a hundred years"),
        ({"split": {"gap": "1d"}}, "split", "`gap` needs `by: time`"),
        ({"split": {"by": "entity"}}, "split", "give `entity`"),
        ({"split": {"by": "entity", "entity": []}}, "split", "give `entity`"),
        ({"split": {"entity": "shop"}}, "split", "give `entity`"),
        (
            {"split": {"by": "time", "test_from": "2025-01-01", "validation": 0.1}},
            "split",
            "validation rows begin at `validation_from`",
        ),
        ({"source": {"kind": "files", "uri": "x", "batch": "day"}}, "source", "needs `start`"),
        ({"source": {"kind": "ftp", "uri": "x"}}, "source", "files"),
        ({"source": {"kind": "files", "uri": "{{ env.HOME }}/x"}}, "source", "env.HOME"),
        ({"source": {"kind": "files", "uri": "{{ lading }}/x"}}, "source", "lading"),
        (
            {"source": {"kind": "files", "uri": "x", "batch": "day", "start": "2025-01-01", "timezone": "Bonn"}},
            "source",
            "no time zone",
        ),
        (
            {"source": {"kind": "files", "uri": "x", "batch": "day", "start": "2025-01-02", "end": "2025-01-01"}},
            "source",
            "a start before it",
        ),
        ({"retrain": {"cooldown": "6 hours"}}, "retrain", "pattern"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(change: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec.model_validate(LEAST | change)
    error = caught.value.errors()[0]
    assert place in ".".join(map(str, error["loc"]))
    assert said in str(caught.value)
