"""What is known by now of how good the predictions of both sides were, step by step of a rollout."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ml_assets.deployment.decision import Matured
from ml_assets.deployment.rollout import Phase, State
from ml_assets.ml.matured import losses_of
from ml_assets.spec.base import Task


def steps_of(states: Sequence[State]) -> list[tuple[datetime, datetime | None]]:
    """When each step of the last rollout began and ended, in the order of its observations; None: it goes on.

    Args:
        states: its journal.
    """
    found: list[tuple[datetime, datetime | None]] = []
    for each, after in zip(states, [*states[1:], None], strict=True):
        if each.number != states[-1].number or each.phase is not Phase.BAKING:
            continue
        if after is None or len(after.observed) > len(each.observed):
            found.append((each.since, after.at if after else None))
    return found


def matured_by_step(
    states: Sequence[State],
    feedback: pl.DataFrame,
    *,
    target: str,
    task: Task,
    classes: Mapping[str, list[Any]],
    scale: float = 1.0,
) -> tuple[Matured, ...]:
    """Losses of both sides in each step of the last rollout.

    Args:
        states: its journal.
        feedback: rows of the table `feedback`, at least those asked for since the rollout began.
        classes: of each release by its name, in the order of its scores.
        scale: of a regression, the error that is half of the worst.
    """
    if not states or states[-1].champion is None:
        return ()
    sides = states[-1].champion.name, states[-1].challenger.name
    found = []
    for begin, end in steps_of(states):
        champion, challenger = (
            losses_of(feedback, name, begin, end, target=target, task=task, classes=classes.get(name, []), scale=scale)
            for name in sides
        )
        found.append(Matured(*champion, *challenger))
    return tuple(found)
