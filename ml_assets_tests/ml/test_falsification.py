"""No wrong model gets through: each is refused for the right reason, and without its gate it would be approved."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ml_assets.errors import NotApprovedError
from ml_assets.ml import gates, verdict
from ml_assets.ml.comparison import compare
from ml_assets.ml.evidence import Rows, score
from ml_assets.ml.gates import Gate, judge
from ml_assets.ml.verdict import require_approval
from ml_assets.spec.judging import Gates
from ml_assets_tests.falsification import (
    ALL,
    CASES,
    DEEP,
    Case,
    Deployment,
    deployments,
    fitted,
    good,
    orders,
    split,
    weaker,
)

built: Callable[[str], Case] = cache(lambda name: CASES[name]())
evidence = cache(lambda name: built(name).evidence())
deployment: Callable[[], dict[str, Deployment]] = cache(deployments)


def outcomes(name: str) -> dict[str, Gate]:
    return {each.name: each for each in judge(evidence(name), built(name).gates)}


def test_a_known_good_model_passes_all_gates_at_once() -> None:
    found = Case("", "", good(), ALL, weaker()).judged()
    assert [each.name for each in found] == [
        *("prior", "champion", "min_rows", "held_out", "accuracy", "precision", "recall", "f1", "roc_auc"),
        *("worst_slice", "calibration_error", "train_test_gap", "milliseconds_per_row", "leak"),
    ]
    assert [each.reason for each in found if not each.passed] == []
    assert all(each.low <= each.value <= each.high for each in found)
    (champion,) = [each for each in found if each.name == "champion"]
    assert "significantly better than the champion, version 1" in champion.reason


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_model_is_refused_by_its_gate_alone_and_for_the_right_reason(name: str) -> None:
    refused = [each for each in outcomes(name).values() if not each.passed]
    assert [each.name for each in refused] == [built(name).gate]
    assert re.search(built(name).said, refused[0].reason), refused[0].reason


@pytest.mark.parametrize("gate", gates.RULES)
def test_without_any_single_gate_a_wrong_model_is_approved(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gates.RULES, gate)
    approved = [name for name in CASES if all(each.passed for each in outcomes(name).values())]
    assert approved == [name for name in CASES if built(name).gate == gate]
    assert approved, f"no falsification depends on the gate {gate}"


@pytest.mark.parametrize("name", deployment())
def test_a_verdict_that_is_none_for_what_is_to_be_served_is_refused(name: str) -> None:
    case = deployment()[name]
    with pytest.raises(NotApprovedError, match=case.said):
        require_approval(case.verdict, case.asked)


@pytest.mark.parametrize("check", verdict.CHECKS)
def test_without_any_single_check_a_wrong_verdict_lets_a_model_serve(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = deployment()
    assert not any(each.approved for each in cases.values())
    monkeypatch.delitem(verdict.CHECKS, check)
    approved = [name for name, each in cases.items() if each.approved]
    assert approved == [name for name, each in cases.items() if each.check == check]
    assert approved, f"no falsification depends on the check {check}"


def test_all_reasons_are_collected() -> None:
    weak = Case("", "", built("label_shuffled").model, ALL, good(), sides=built("too_few_rows").sides)
    refused = {each.name for each in weak.judged() if not each.passed}
    assert {"prior", "champion", "min_rows", "f1", "roc_auc", "worst_slice"} <= refused


def test_a_champion_that_was_trained_on_the_test_rows_would_have_won_on_them() -> None:
    """So a comparison that looks at no record would refuse an honest model; here it is told that it cannot be made."""
    case = built("champion_trained_on_test")
    assert case.champion is not None
    rows = orders()[split().test]
    about = evidence("champion_trained_on_test")
    unfair = score(case.champion, rows, Rows(orders(), split(), case.names, "late"), "binary")
    assert compare(about.test, unfair, "roc_auc", "1", 100, held_out=rows.height).outcome == "worse"
    assert about.comparison.outcome == "inconclusive"
    lenient = {each.name: each for each in judge(about, Gates())}["champion"]
    assert lenient.passed
    assert lenient.reason.startswith("inconclusive, which passes (gates.inconclusive: pass)"), "but it is said"


def test_only_rows_that_neither_was_trained_on_count() -> None:
    """The champion had another split: half of the test rows were among those that it was trained on."""
    half = split().test[::2]
    other = fitted(orders(), replace(split(), train=np.concatenate([split().train, half])), version="1", estimator=DEEP)
    found = Case("", "", good(), Gates(), other).evidence().comparison
    assert found.rows == len(split().test) - len(half)
    assert found.outcome == "better", "it has seen the others, and would have won on them"
