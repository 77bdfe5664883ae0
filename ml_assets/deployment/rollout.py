"""The state machine of a rollout: what to do next, as a function of what is intended and what the target says.

It is level-triggered, like a reconciler. Each intent is kept before the target is asked, and counts as done only when
the target *describes* it so. Whoever starts anew, after a crash between any two calls, reads the intent, looks at the
target, and does what is missing. Nothing here calls or keeps anything; `reconcile.py` does.

    staging → shifting → baking → (the next step's shifting) → ... → promoting → promoted
        └──────────┴─────────┴────────────────────────────────────────┴→ rolling back → rolled back, or inconclusive
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Literal

from ml_assets.deployment.decision import Judgement, Limits
from ml_assets.deployment.targets import Described, Observation, Release
from ml_assets.digests import digest_of


class Phase(Enum):
    """Where a rollout is. Of the first six the target may not have done yet what they say."""

    STAGING = "staging"
    SHIFTING = "shifting"
    BAKING = "baking"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling back"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    INCONCLUSIVE = "inconclusive"

    @property
    def over(self) -> bool:
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.INCONCLUSIVE)


Cause = Literal["", "judged", "failed", "undecided", "superseded", "withdrawn", "by hand"]


@dataclass(frozen=True)
class Plan:
    """How a challenger gets its traffic.

    Attributes:
        steps: its share of the traffic in percent, step by step; 0 is a shadow step. A last 100 says nothing more:
            after the last step it is promoted. Without steps it is promoted as soon as its golden rows are answered.
        bake: how long a step takes, at least.
        requests: that the challenger has answered in a step before the next one, at least.
        limit: how long a rollout may take; then it is inconclusive.
        undecided: what becomes of one that is: the champion is kept, or the challenger is promoted if nothing speaks
            against it.
    """

    steps: tuple[int, ...] = (5, 25, 100)
    bake: timedelta = timedelta(minutes=10)
    requests: int = 100
    limit: timedelta = timedelta(days=1)
    undecided: Literal["keep", "promote"] = "keep"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or any(not 0 <= each <= 100 for each in self.steps):
            raise ValueError(f"steps {list(self.steps)} have to rise, from 0 (shadow) to 100 percent")

    @property
    def weights(self) -> tuple[int, ...]:
        """Steps on which both sides answer."""
        return tuple(each for each in self.steps if each < 100)


@dataclass(frozen=True)
class State:
    """One entry of the journal: what is intended since then, why, and what the target served when it was written.

    Attributes:
        number: of the rollout, from 1 on.
        champion: who served before; None for a model's first release.
        step: index into the plan's weights.
        started: when the rollout began; `since`: when this step did.
        cause: why it is rolled back.
        outcome: what rolling back leads to.
        observed: what became of requests in the steps that are over.
        findings: of the judgement that led here.
        serves: what the target described.
    """

    number: int
    phase: Phase
    challenger: Release
    champion: Release | None
    reason: str
    started: datetime
    since: datetime
    at: datetime
    step: int = 0
    salt: str = ""
    cause: Cause = ""
    outcome: Phase = Phase.ROLLED_BACK
    by_hand: bool = False
    observed: tuple[Observation, ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    serves: Described = field(default_factory=Described)

    @property
    def owner(self) -> Release | None:
        """Who is to have all traffic, of a rollout that is over."""
        return self.challenger if self.phase is Phase.PROMOTED else self.champion


@dataclass(frozen=True)
class Wait:
    """Nothing to do now."""

    reason: str


@dataclass(frozen=True)
class Enter:
    """Keep this state."""

    state: State


@dataclass(frozen=True)
class Call:
    """Ask the target; it has not done so yet."""

    verb: Literal["stage", "shift", "promote", "rollback"]
    release: Release | None
    weight: int = 0
    salt: str = ""
    shadow: bool = False


@dataclass(frozen=True)
class Alias:
    """Let the registry call this version champion; None: no version."""

    version: str | None


Action = Wait | Enter | Call | Alias


@dataclass(frozen=True)
class Seen:
    """All that a decision is made from.

    Attributes:
        states: the journal, oldest first.
        approved: the release that is approved now, by a verdict that was checked just now; None if none is.
        asked: the release that a person wants back.
        alias: the version that the registry calls champion.
        observation, judgement: of the step that bakes; None in other phases.
    """

    states: Sequence[State]
    approved: Release | None
    described: Described
    alias: str | None
    now: datetime
    asked: Release | None = None
    observation: Observation | None = None
    judgement: Judgement | None = None

    @property
    def state(self) -> State | None:
        return self.states[-1] if self.states else None


def decide(seen: Seen, plan: Plan) -> Action:
    """What to do next. Done again and again until it says `Wait`, it finishes what there is to do now."""
    state = seen.state
    if seen.described.busy:
        return Wait("the target is changing")
    if state is None or state.phase.over:
        return _at_rest(seen, plan, state)
    if away := _leaves(seen, plan, state):
        return away
    if state.phase is Phase.STAGING:
        return _staging(seen, plan, state)
    if state.phase is Phase.SHIFTING:
        return _shifting(seen, plan, state)
    if state.phase is Phase.BAKING:
        return _baking(seen, plan, state)
    return _settling(seen, state)


def barred(states: Sequence[State]) -> dict[str, str]:
    """Releases that are not rolled out again by themselves, with the reason: a person or the requests decided so."""
    found: dict[str, str] = {}
    for each in states:
        if each.phase is Phase.PROMOTED:
            found.pop(each.challenger.name, None)
            if each.by_hand and each.champion is not None:
                found[each.champion.name] = f"it was replaced by hand on {each.at:%Y-%m-%d %H:%M} UTC"
        elif each.phase.over and each.cause not in ("superseded", "withdrawn"):
            found[each.challenger.name] = f"it was {each.phase.value} on {each.at:%Y-%m-%d %H:%M} UTC: {each.reason}"
    return found


def previous_champion(states: Sequence[State]) -> Release | None:
    """Who served before the release that serves now: what a rollback by hand puts back."""
    over = [each for each in states if each.phase.over]
    serves = over[-1].owner if over else None
    replaced = [each.champion for each in over if each.phase is Phase.PROMOTED and each.challenger == serves]
    return next((each for each in reversed(replaced) if each != serves), None)


def _at_rest(seen: Seen, plan: Plan, state: State | None) -> Action:
    """No rollout is under way: what serves is kept so, and the next one is begun if there is anything to roll out."""
    if state is not None:
        owner = state.owner
    elif seen.described.stable is not None and seen.alias is not None:
        # Something served before there were rollouts. It is the champion if the registry says so too.
        served = Release.named(seen.described.stable)
        owner = served if served.version == seen.alias else None
    else:
        owner = None
    asked = seen.asked if seen.asked not in (None, owner) else None
    if state is not None:
        if _served(seen.described) != _served(state.serves):
            return Enter(replace(state, at=seen.now, serves=seen.described))
        # A target that refuses what served there does not keep a person from putting another release in its place.
        if not seen.described.alone(owner.name if owner else None) and asked is None:
            return Call("promote" if state.phase is Phase.PROMOTED else "rollback", owner)
        if seen.alias != (owner.version if owner else None):
            return Alias(owner.version if owner else None)
    new = asked or seen.approved
    if new is None or new == owner:
        return Wait(f"{owner.name} serves" if owner else "no release is approved")
    if asked is None and (why := barred(seen.states).get(new.name)):
        return Wait(f"{new.name} is not rolled out again: {why}")
    number = state.number + 1 if state else 1
    reason = (
        f"{new.name} was asked for by hand" if asked
        else f"{new.name} is approved and {owner.name if owner else 'nothing'} serves"
    )  # fmt: skip
    return Enter(
        State(
            number,
            Phase.STAGING,
            new,
            owner,
            reason,
            started=seen.now,
            since=seen.now,
            at=seen.now,
            salt=digest_of([number, new.name])[:16],
            by_hand=asked is not None,
            serves=seen.described,
        )
    )


def _served(described: Described) -> tuple[object, ...]:
    return described.stable, described.challenger, described.weight, described.shadow, described.salt


def _leaves(seen: Seen, plan: Plan, state: State) -> Action | None:
    """What ends a rollout early, whatever its phase."""
    if state.phase is Phase.ROLLING_BACK:
        return None
    if not state.by_hand and seen.approved != state.challenger:
        if seen.approved is None:
            return _back(seen, state, "withdrawn", f"{state.challenger.name} is not approved any more")
        return _back(seen, state, "superseded", f"{seen.approved.name} was approved meanwhile")
    if seen.asked is not None and seen.asked not in (state.challenger, state.champion):
        return _back(seen, state, "superseded", f"{seen.asked.name} was asked for by hand")
    if seen.asked is not None and seen.asked == state.champion:
        return _back(seen, state, "by hand", f"{state.champion.name} was asked for by hand")
    refusal = seen.described.refused.get(state.challenger.name)
    if refusal is not None and (refusal.at is None or refusal.at >= state.started):
        return _back(seen, state, "failed", f"the target refuses it: {refusal.reason}")
    waits = state.phase in (Phase.STAGING, Phase.SHIFTING)
    if waits and seen.now - state.started > plan.limit:
        reason = f"after {plan.limit} it is still {state.phase.value}"
        return _back(seen, state, "undecided", reason, Phase.INCONCLUSIVE)
    return None


def failed(seen: Seen, state: State, reason: str) -> Enter:
    """The target refused a call for good."""
    return _back(seen, state, "failed", f"the target refuses it: {reason}")


def _staging(seen: Seen, plan: Plan, state: State) -> Action:
    name, described = state.challenger.name, seen.described
    if described.alone(name) and described.ready:
        return _enter(seen, state, Phase.PROMOTING, "it has all traffic, and its golden rows are answered")
    if state.champion is not None and described.stable != state.champion.name and not state.by_hand:
        return Call("rollback", state.champion)  # the target has lost it; a challenger is none before its champion is
    if described.challenger != name or not described.ready:
        return Call("stage", state.challenger)
    if state.champion is None:
        return _enter(seen, state, Phase.PROMOTING, "its golden rows are answered, and there is no champion")
    if state.by_hand or not plan.weights:
        return _enter(seen, state, Phase.PROMOTING, "its golden rows are answered, and no steps are asked for")
    return _enter(seen, state, Phase.SHIFTING, f"its golden rows are answered; next: {_step(plan, state.step)}")


def _shifting(seen: Seen, plan: Plan, state: State) -> Action:
    if seen.described.challenger != state.challenger.name:
        return _enter(seen, state, Phase.STAGING, "the target does not hold it any more")
    if state.step >= len(plan.weights):  # the plan became shorter meanwhile
        return _enter(seen, state, Phase.PROMOTING, "no steps are left")
    weight = plan.weights[state.step]
    if not _split(seen.described, weight, state.salt):
        return Call("shift", state.challenger, weight, state.salt, shadow=weight == 0)
    since = min(max(seen.described.since or seen.now, state.since), seen.now)  # the target's clock may be ahead
    return _enter(seen, replace(state, since=since), Phase.BAKING, f"the target confirms {_step(plan, state.step)}")


def _split(described: Described, weight: int, salt: str) -> bool:
    """Whether the target splits as intended; one without sticky keys has no salt."""
    return (described.weight, described.shadow) == (weight, weight == 0) and described.salt in ("", salt)


def _baking(seen: Seen, plan: Plan, state: State) -> Action:
    over = state.step >= len(plan.weights)
    if over or seen.described.challenger != state.challenger.name or not _split(
        seen.described, plan.weights[state.step], state.salt
    ):  # fmt: skip
        # What was seen so far counts on, or a fault that makes the target restart would never add up.
        return _enter(seen, state, Phase.SHIFTING, "the target does not split as it did", keeps=True)
    observation, judgement = seen.observation, seen.judgement
    assert observation is not None
    assert judgement is not None
    if worst := judgement.against:
        return _back(seen, state, "judged", f"{worst.name}: {worst.reason}")
    had = observation.challenger.requests
    baked = seen.now - state.since >= plan.bake and had >= plan.requests
    last = state.step + 1 >= len(plan.weights)
    if baked and not last:
        reason = f"nothing speaks against it after {had:,} requests; next: {_step(plan, state.step + 1)}"
        return _enter(seen, replace(state, step=state.step + 1), Phase.SHIFTING, reason, keeps=True)
    open_ = "; ".join(f"{each.name}: {each.reason}" for each in judgement.unproven)
    if baked and not open_:
        return _enter(seen, state, Phase.PROMOTING, "all that was asked for is within its margins", keeps=True)
    if seen.now - state.started > plan.limit:
        if plan.undecided == "promote" and had >= plan.requests:
            reason = f"undecided after {plan.limit}, and then the challenger is to be promoted"
            return _enter(seen, state, Phase.PROMOTING, reason, keeps=True)
        reason = f"undecided after {plan.limit} and {had:,} requests in {_step(plan, state.step)}"
        return _back(seen, state, "undecided", f"{reason}. {open_}".rstrip(". "), Phase.INCONCLUSIVE)
    if not baked:
        return Wait(
            f"{_step(plan, state.step)} bakes: {had:,} of {plan.requests:,} requests, since {state.since:%H:%M}"
        )
    return Wait(f"{_step(plan, state.step)}, {had:,} requests; {open_}")


def _settling(seen: Seen, state: State) -> Action:
    """Bring all traffic to one release, then the alias, then say so."""
    promotes = state.phase is Phase.PROMOTING
    owner = state.challenger if promotes else state.champion
    if not seen.described.alone(owner.name if owner else None):
        return Call("promote" if promotes else "rollback", owner)
    if seen.alias != (owner.version if owner else None):
        return Alias(owner.version if owner else None)
    # The reason to promote or to roll back is the one to be remembered.
    return _enter(seen, state, Phase.PROMOTED if promotes else state.outcome, state.reason)


def _step(plan: Plan, step: int) -> str:
    weight = plan.weights[step]
    return f"step {step + 1} of {len(plan.weights)} ({f'{weight} %' if weight else 'shadow'})"


def _enter(seen: Seen, state: State, phase: Phase, reason: str, *, keeps: bool = False) -> Enter:
    """The next state.

    Args:
        keeps: whether the step that bakes is over, so that its observation is kept.
    """
    observed, findings = state.observed, state.findings
    if keeps and seen.observation is not None:
        observed = (*observed, seen.observation)
    if seen.judgement is not None:
        findings = tuple(seen.judgement.to_json())
    since = state.since if phase is Phase.BAKING else seen.now
    return Enter(
        replace(
            state,
            phase=phase,
            reason=reason,
            since=since,
            at=seen.now,
            observed=observed,
            findings=findings,
            serves=seen.described,
        )
    )


def _back(seen: Seen, state: State, cause: Cause, reason: str, outcome: Phase = Phase.ROLLED_BACK) -> Enter:
    keeps = state.phase is Phase.BAKING
    return _enter(seen, replace(state, cause=cause, outcome=outcome), Phase.ROLLING_BACK, reason, keeps=keeps)
