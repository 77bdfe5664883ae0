from dataclasses import replace
from typing import Any

import pytest

from ml_assets.errors import NotApprovedError
from ml_assets.ml.verdict import Asked, Verdict, require_approval

BOUND = {"model_digest": "m", "data_digest": "d", "code_digest": "c", "gates_digest": "g"}
PASSED = [{"name": name, "passed": True} for name in ("prior", "champion")]
GOOD = Verdict("demo", "3", True, [], **BOUND, champion="2", gates=PASSED)


def approve(verdict: Verdict | None = GOOD, **changes: Any) -> Verdict:
    asked: dict[str, Any] = {
        **{"model": "demo", "version": "3", "champion": "2", "gate_names": ["prior", "champion"]},
        **BOUND,
        "recorded_digest": verdict and verdict.digest,
    }
    return require_approval(verdict, Asked(**(asked | changes)))


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
        (GOOD, {"champion": "1"}, r"another champion \(version 2\) than there is now \(version 1\)"),
        (GOOD, {"champion": None}, r"another champion \(version 2\) than there is now \(none\)"),
        (GOOD, {"gate_names": ["prior", "leak"]}, "no passed gate leak"),
        (replace(GOOD, gates=[*PASSED, {"name": "f1", "passed": False}]), {}, "no passed gate f1"),
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
