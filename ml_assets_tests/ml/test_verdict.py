from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ml_assets.errors import NotApprovedError
from ml_assets.ml.evaluation import Scored, interval, measure
from ml_assets.ml.verdict import Verdict, gate_names, judge, require_approval
from ml_assets.spec import Gates


def scored(informative: bool, rows: int = 2000) -> Scored:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, rows)
    score = np.clip(random.normal(0.5 + (truth - 0.5) * 0.6 * informative, 0.2), 0, 1)
    return Scored(truth, np.column_stack([1 - score, score]), [False, True], "binary")


def test_metrics_are_those_of_the_textbook() -> None:
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    values = measure(Scored(truth, np.column_stack([1 - score, score]), [0, 1], "binary"))
    assert values == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "roc_auc": 0.75}
    regression = measure(Scored(np.array([1.0, 3.0]), np.array([2.0, 3.0]), [], "regression"))
    assert regression == pytest.approx({"rmse": 0.5**0.5, "mae": 0.5, "r2": 0.5})


def test_the_interval_holds_the_value_and_narrows_with_more_rows() -> None:
    widths = []
    for rows in (200, 5000):
        some = scored(True, rows)
        low, high = interval(some, "accuracy")
        assert low < measure(some)["accuracy"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_model_that_knows_something_passes_and_one_that_guesses_does_not() -> None:
    gates = Gates(accuracy=0.8)
    assert gate_names(gates) == ["prior", "accuracy"]
    assert [each.passed for each in judge(scored(True), gates, "binary")[1]] == [True, True]
    refused = judge(scored(False), gates, "binary")[1]
    assert [each.passed for each in refused] == [False, False]
    assert "at least 0.8 is asked for" in refused[1].reason


def test_what_cannot_be_measured_passes_no_gate() -> None:
    one_class = Scored(np.zeros(50, dtype=int), np.full((50, 2), 0.5), [False, True], "binary")
    outcomes = judge(one_class, Gates(roc_auc=0.0), "binary")[1]
    assert [each.passed for each in outcomes] == [False, False]


def test_for_errors_lower_is_better() -> None:
    some = Scored(np.arange(100.0), np.arange(100.0) + 1, [], "regression")
    assert [each.passed for each in judge(some, Gates(rmse=1.5, mae=0.5), "regression")[1]] == [True, True, False]


BOUND = {"model_digest": "m", "data_digest": "d", "code_digest": "c", "gates_digest": "g"}
GOOD = Verdict("demo", "3", True, [], **BOUND)


def approve(verdict: Verdict | None = GOOD, **changes: Any) -> Verdict:
    asked: dict[str, Any] = {"model": "demo", "version": "3", **BOUND, "recorded_digest": verdict and verdict.digest}
    return require_approval(verdict, **(asked | changes))


def test_a_positive_verdict_about_exactly_this_version_approves_it() -> None:
    assert approve() == GOOD
    assert Verdict.from_json(GOOD.to_json()) == GOOD


@pytest.mark.parametrize(
    ("verdict", "changes", "said"),
    [
        (None, {}, "no verdict"),
        (replace(GOOD, approved=False, reasons=["f1 0.5"]), {}, "refused: f1 0.5"),
        (GOOD, {"model_digest": "x"}, "another model"),
        (GOOD, {"data_digest": "x"}, "another data"),
        (GOOD, {"code_digest": "x"}, "another code"),
        (GOOD, {"gates_digest": "x"}, "another gates"),
        (GOOD, {"version": "4"}, "another version"),
        (GOOD, {"recorded_digest": "x"}, "not the one on record"),
        (GOOD, {"recorded_digest": None}, "not the one on record"),
    ],
)
def test_anything_else_fails_closed(verdict: Verdict | None, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NotApprovedError, match=said):
        approve(verdict, **changes)


def test_an_edited_verdict_is_recognised() -> None:
    stored = replace(GOOD, approved=False).to_json() | {"approved": True}
    with pytest.raises(NotApprovedError, match="was changed after it fell"):
        Verdict.from_json(stored)
