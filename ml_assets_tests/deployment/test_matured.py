"""Losses of both sides by step, from rows of `feedback`."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_assets.deployment.decision import Matured
from ml_assets.deployment.matured import matured_by_step, steps_of
from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.targets import Observation, Side
from ml_assets_tests.rollouts import START, release

SEEN = Observation(Side(1), Side(1))


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


def states() -> list[State]:
    """A rollout that is over, then one whose first step was interrupted without a count, and whose second one bakes."""
    first = State(1, Phase.BAKING, release(1), None, "", started=START, since=START, at=START)
    begun = State(2, Phase.SHIFTING, release(2), release(1), "", started=minute(1), since=minute(1), at=minute(1))
    bakes = replace(begun, phase=Phase.BAKING)
    return [
        first,
        begun,
        replace(bakes, since=minute(2), at=minute(2)),
        replace(begun, at=minute(3)),  # the target did not answer, so nothing was kept
        replace(bakes, since=minute(4), at=minute(4)),
        replace(begun, step=1, at=minute(10), observed=(SEEN,)),
        replace(bakes, step=1, since=minute(11), at=minute(11), observed=(SEEN,)),
    ]


def feedback(rows: list[tuple[int, int, dict[str, Any], Any]]) -> pl.DataFrame:
    """Rows from minute, version, answer and outcome."""
    return pl.DataFrame(
        [
            {"received_at": minute(at), "release": release(version).name, **answer, "outcome_y": outcome}
            for at, version, answer, outcome in rows
        ],
        schema_overrides={"received_at": pl.Datetime("us", "UTC")},
    )


def test_steps_are_those_that_were_counted() -> None:
    assert steps_of(states()) == [(minute(4), minute(10)), (minute(11), None)]


def said(label: bool, score: float) -> dict[str, Any]:
    return {"label": str(label), "score": score}


def test_losses_of_both_sides_by_step() -> None:
    rows = feedback(
        [
            (3, 1, said(True, 0.9), True),  # between two steps
            (4, 1, said(True, 0.9), True),
            (5, 1, said(True, 0.7), False),
            (6, 2, said(False, 0.2), True),
            (7, 2, said(False, 0.2), None),  # nobody knows yet
            (8, 3, said(False, 0.2), True),  # another one's
            (10, 2, said(False, 0.2), True),
            (12, 2, said(False, 0.5), False),
        ]
    )
    classes = {release(version).name: [False, True] for version in (1, 2)}
    first, second = matured_by_step(states(), rows, target="y", task="binary", classes=classes)
    assert (first.champion, first.challenger) == (2, 1)
    assert first.champion_loss == pytest.approx(0.1**2 + 0.7**2)
    assert first.challenger_loss == pytest.approx(0.8**2)
    assert second == Matured(0, 0.0, 1, 0.25)


def test_losses_of_several_classes_and_of_values() -> None:
    shares = {"label": "a", "score": 0.5, "scores": '{"a":0.5,"b":0.3,"c":0.2}'}
    rows = feedback([(5, 1, shares, "b"), (5, 2, shares, "a")])
    classes = {release(version).name: ["a", "b", "c"] for version in (1, 2)}
    first, _ = matured_by_step(states(), rows, target="y", task="multiclass", classes=classes)
    assert first.champion_loss == pytest.approx((0.5**2 + 0.7**2 + 0.2**2) / 2)
    assert first.challenger_loss == pytest.approx((0.5**2 + 0.3**2 + 0.2**2) / 2)
    rows = feedback([(5, 1, {"value": 7.0}, 10.0), (5, 2, {"value": 10.0}, 10.0)])
    first, _ = matured_by_step(states(), rows, target="y", task="regression", classes={}, scale=3.0)
    assert (first.champion_loss, first.challenger_loss) == (0.5, 0.0)


def test_a_first_release_is_compared_with_nobody() -> None:
    assert matured_by_step(states()[:1], feedback([]), target="y", task="binary", classes={}) == ()
