"""What asks for a model to be trained again, and what holds that back: each says yes or no, and why, by records alone.

Code and parameters always ask. Quality, drift and data do if `retrain.causes` names them, and then every guard has to
let them pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ml_assets.assets.episodes import (
    WEEK,
    Kind,
    Labels,
    Standing,
    episode,
    recent,
    rolled_out,
    serving_answered,
    standing,
)
from ml_assets.assets.trained_model import training_inputs
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE
from ml_assets.model import Model
from ml_assets.records import Latest, Record


@dataclass(frozen=True)
class Situation:
    """What causes and guards look at.

    Attributes:
        trained: the newest training.
    """

    model: Model
    latest: Latest
    trained: Record
    now: datetime

    @cached_property
    def inputs(self) -> str:
        """What a training would depend on now."""
        return training_inputs(self.model, self.latest)

    @property
    def version(self) -> str:
        return str(self.trained.details["version"])


@dataclass(frozen=True)
class Answer:
    """What a cause or a guard says.

    Attributes:
        name: of the cause or guard.
        yes: of a cause, whether it asks; of a guard, whether it lets pass.
        waits: of a cause that does not ask: whether it will, once there is more.
        says: what `yes` means, for people.
    """

    name: str
    yes: bool
    reason: str
    waits: bool = False

    @property
    def says(self) -> str:
        if self.name in (each.__name__ for each in GUARDS):
            return "lets pass" if self.yes else "holds back"
        return "asks" if self.yes else "waits" if self.waits else "does not ask"


@dataclass(frozen=True)
class Decided:
    """Whether a model is to be trained again.

    Attributes:
        cause: what asks for it, and is not held back; empty if nothing.
        waits: whether something asks, or will, and is held back.
    """

    cause: str
    reason: str
    waits: bool


def decide(now: Situation) -> Decided:
    """Ask the causes in their order; the first one that asks has to pass all guards."""
    said = [each(now) for each in CAUSES]
    asks = next((each for each in said if each.yes), None)
    if asks is None:
        reasons = [each.reason for each in said if each.waits]
        return Decided("", "; ".join(reasons), bool(reasons))
    guards = [] if asks.name == "code" else [each(now) for each in GUARDS]
    held = [each.reason for each in guards if not each.yes]
    if not held:
        return Decided(asks.name, asks.reason, False)
    return Decided("", "; ".join(held if asks.name == "data" else [asks.reason, *held]), True)


def answers(model: Model, latest: Latest) -> list[Answer]:
    """What every cause and every guard says now, for people; nothing before the first training."""
    trained = latest.get("trained_model", WHOLE)
    if trained is None:
        return []
    now = Situation(model, latest, trained, datetime.now(UTC))
    return [each(now) for each in (*CAUSES, *GUARDS)]


def code(now: Situation) -> Answer:
    """Changed code or parameters always train: the newest version is not what the files say."""
    changed = now.trained.details["code_digest"] != now.model.code_digest
    return Answer("code", changed, "code or parameters changed" if changed else "code and parameters are as they were")


def quality(now: Situation) -> Answer:
    """What is known of the predictions of the version that serves breaks its promise."""
    return _alarmed(now, "quality")


def drift(now: Situation) -> Answer:
    """Features or scores are not as they were. Without labels since then a training would learn nothing of it."""
    return _alarmed(now, "drift")


def _alarmed(now: Situation, kind: Kind) -> Answer:
    found, retrain = episode(kind, now.model, now.latest, now.now), now.model.spec.retrain
    if found is None:
        return Answer(kind, False, f"no {kind} alarm holds on")
    if kind not in retrain.causes:
        return Answer(kind, False, f"{found}; retrain.causes does not name {kind}")
    stands = standing(now.latest, now.trained)
    if found.since <= serving_answered(now.latest, now.trained).get(kind, ""):
        return Answer(kind, False, f"{found}; the version that serves was trained for them")
    if stands is Standing.UNDECIDED and found.since <= now.trained.details.get("answered", {}).get(kind, ""):
        return Answer(kind, False, f"{found}; version {now.version} was trained for them and {stands.value}")
    known = Labels.now(now.latest).since(found.since, now.model)
    since = f"since {found.since}"
    if stands is Standing.REFUSED:  # or it would be trained on the same rows again, to be refused again
        known -= Labels.then(now.trained).since(found.since, now.model)
        since += f", and since version {now.version}, which was refused or taken back"
    said = f"{found}; {known:,} labels are known of what happened {since}"
    if known < retrain.min_new_labels:
        return Answer(kind, False, f"{said}, and retrain.min_new_labels is {retrain.min_new_labels:,}", waits=True)
    if now.trained.inputs == now.inputs:
        return Answer(kind, False, f"{said}, and version {now.version} was trained on all that there is")
    return Answer(kind, True, said)


def data(now: Situation) -> Answer:
    """Rows or outcomes came or changed, and not only days that `training.window` has left behind."""
    retrain, details = now.model.spec.retrain, now.trained.details
    first, rows = details.get("window_from") or "", 0
    for asset in ("features", "outcomes"):
        before, changed = details["contents"][asset], 0
        for day, each in now.latest.of(asset).items():
            content, count = before.get(day, (None, 0))
            changed += max(each.rows, count) if each.content != content and day >= first else 0
        rows = max(rows, changed)
    said = f"{rows:,} rows in new or changed days"
    if not rows:
        return Answer("data", False, "no new or changed rows")
    if "data" not in retrain.causes:
        return Answer("data", False, f"{said}; retrain.causes does not name data")
    if rows < retrain.min_new_rows:
        return Answer("data", False, f"{said}; retrain.min_new_rows is {retrain.min_new_rows:,}", waits=True)
    return Answer("data", True, said)


def rollout(now: Situation) -> Answer:
    """New data wait for a rollout, or versions that supersede each other day by day would never take the champion's
    place. It takes `endpoint.limit` at most.
    """
    challenger = rolled_out(now.latest.get("endpoint", WHOLE))
    if challenger:
        return Answer("rollout", False, f"{challenger} is being rolled out; new data wait until that is decided")
    return Answer("rollout", True, "nothing is being rolled out")


def cooldown(now: Situation) -> Answer:
    """A training has `retrain.cooldown` to show what it is worth, whatever it was made for."""
    stated, last = now.model.spec.retrain.cooldown, now.trained.recorded_at
    ready = last + parse_duration(stated)
    said = f"the last training was at {last:%Y-%m-%d %H:%M} UTC; retrain.cooldown is {stated}"
    if now.now < ready:
        return Answer("cooldown", False, f"{said}, which is until {ready:%Y-%m-%d %H:%M} UTC")
    return Answer("cooldown", True, said)


def budget(now: Situation) -> Answer:
    """At most `retrain.budget` trainings for quality, drift and data in any seven days."""
    stated, times = now.model.spec.retrain.budget, sorted(recent(now.trained, now.now))
    said = f"{len(times)} trainings for quality, drift or data in the last seven days"
    if stated is None:
        return Answer("budget", True, f"{said}, and no retrain.budget")
    if len(times) >= stated:
        ready = times[len(times) - stated] + WEEK
        until = f"it is exhausted until {ready:%Y-%m-%d %H:%M} UTC"
        return Answer("budget", False, f"{said}, and retrain.budget is {stated}; {until}")
    return Answer("budget", True, f"{said}, and retrain.budget is {stated}")


CAUSES: tuple[Callable[[Situation], Answer], ...] = (code, quality, drift, data)
GUARDS: tuple[Callable[[Situation], Answer], ...] = (rollout, cooldown, budget)
