"""Carry a rollout on as far as it goes now: look, decide, keep the intent or ask the target, look again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from ml_assets.deployment.decision import Evidence, Matured, judge
from ml_assets.deployment.rollout import Action, Alias, Call, Enter, Phase, Plan, Seen, State, Wait, decide, failed
from ml_assets.deployment.targets import Release, Target
from ml_assets.errors import TargetError, TargetUnavailableError

MOST_STEPS = 100


class Journal(Protocol):
    """What is kept of a model's rollouts."""

    def states(self) -> Sequence[State]:
        """All entries, oldest first."""

    def append(self, state: State) -> None:
        """Keep an entry; it is there for whoever starts anew, or the call fails."""


class Registry(Protocol):
    """Who is called the champion of a model."""

    def champion(self) -> str | None: ...

    def set_champion(self, version: str | None) -> None: ...


def _now() -> datetime:
    return datetime.now(UTC)


def carry_on(
    target: Target,
    journal: Journal,
    registry: Registry,
    approved: Callable[[], Release | None],
    plan: Plan,
    *,
    asked: Release | None = None,
    matured: Callable[[State], Sequence[Matured]] | None = None,
    now: Callable[[], datetime] = _now,
) -> Wait:
    """Do all that can be done now; one caller at a time for each model.

    Args:
        approved: the release that is approved at this moment; it is asked before each decision, and checks the verdict.
        asked: the release that a person wants back; `rollout.previous_champion` for the last one.
        matured: losses of the predictions of each step of a rollout, as far as they are known.

    Returns:
        What it waits for now.

    Raises:
        TargetUnavailableError: if the target does not answer; the next call goes on where this one was.
        TargetError: if it refuses what nothing can be done about here: a rollback, or what serves already.
    """
    last: Call | None = None
    for _ in range(MOST_STEPS):
        seen, evidence = _look(target, journal.states(), registry.champion, approved, plan, asked, matured, now)
        action, state = decide(seen, plan), seen.state
        if isinstance(action, Enter) and evidence is not None:  # what is kept has the intervals as well
            action = decide(replace(seen, judgement=judge(evidence, plan.limits)), plan)
        match action:
            case Wait():
                if (state is None or state.phase.over) and not seen.described.busy:
                    target.tidy()
                return action
            case Enter(entered):
                journal.append(entered)
                last = None
                if entered.by_hand and entered.challenger == asked:
                    asked = None  # begun; should it fail, nobody asked for it twice
            case Alias(version):
                registry.set_champion(version)
            case Call() if action == last:
                return Wait(f"the target was asked to {action.verb} and does not show it yet")
            case Call():
                last = action
                try:
                    _ask(target, action)
                except TargetUnavailableError:
                    raise
                except TargetError as error:
                    if state is None or state.phase.over or state.phase is Phase.ROLLING_BACK:
                        raise
                    journal.append(failed(seen, state, str(error)).state)
    raise TargetError(f"a rollout that does not come to rest in {MOST_STEPS} steps; the target contradicts itself")


def next_action(
    target: Target,
    states: Sequence[State],
    alias: str | None,
    approved: Release | None,
    plan: Plan,
    *,
    matured: Callable[[State], Sequence[Matured]] | None = None,
    now: Callable[[], datetime] = _now,
) -> Action:
    """What `carry_on` would do first; nothing is done.

    Raises:
        TargetUnavailableError: if the target does not answer.
    """
    seen, _ = _look(target, states, lambda: alias, lambda: approved, plan, None, matured, now)
    return decide(seen, plan)


def _look(
    target: Target,
    states: Sequence[State],
    champion: Callable[[], str | None],
    approved: Callable[[], Release | None],
    plan: Plan,
    asked: Release | None,
    matured: Callable[[State], Sequence[Matured]] | None,
    now: Callable[[], datetime],
) -> tuple[Seen, Evidence | None]:
    """All that a decision is made from, and the evidence of a step that bakes."""
    state = states[-1] if states else None
    described = target.describe()
    observation = evidence = judgement = None
    if state is not None and state.phase is Phase.BAKING and described.challenger == state.challenger.name:
        observation = target.observe(state.since, shadow=described.shadow)
        evidence = Evidence((*state.observed, observation), tuple(matured(state)) if matured else ())
        judgement = judge(evidence, plan.limits, intervals=False)
    return Seen(states, approved(), described, champion(), now(), asked, observation, judgement), evidence


def _ask(target: Target, call: Call) -> None:
    if call.verb == "rollback":
        target.rollback(call.release)
        return
    assert call.release is not None
    if call.verb == "stage":
        target.stage(call.release)
    elif call.verb == "shift":
        target.shift(call.release, call.weight, call.salt, shadow=call.shadow)
    else:
        target.promote(call.release)
