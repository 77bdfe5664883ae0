"""Rollouts whose process is killed between any two calls, whose target forgets, and whose verdicts come and go.

After recovery exactly one version owns all traffic, aliases and history agree with the target, and at no moment did the
target hold a version that was not approved when it was asked to take it.
"""

import contextlib
from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Plan, previous_champion
from ml_assets.deployment.targets import Described, Histogram, Release, Side
from ml_assets.errors import TargetError, TargetUnavailableError
from ml_assets.rollouts import serving_history
from ml_assets_tests.rollouts import Chaos, Clock, Killed, MemoryJournal, MemoryRegistry, MemoryTarget, release

SCORES = {"score": Histogram((0.5,), (4000, 1000))}
GOOD, BAD = Side(5000, scores=SCORES), Side(500, errors=100)


class Rollouts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.chaos, self.clock = Chaos(), Clock()
        self.target = MemoryTarget(self.clock, self.chaos)
        self.registry, self.journal = MemoryRegistry(self.chaos), MemoryJournal(self.chaos)
        self.plan = Plan(steps=(0, 10, 100), bake=timedelta(minutes=1), limit=timedelta(hours=1))
        self.newest: Release | None = None
        self.asked: Release | None = None
        self.made = 0
        self.withdrawn: set[str] = set()

    def approved(self) -> Release | None:
        return self.newest

    def carry_on(self) -> str:
        self.target.approved = set() if self.newest is None else {self.newest.name}
        # What has served may serve again: champions, and those put back by hand.
        self.target.approved |= {each.champion.name for each in self.journal.kept if each.champion}
        self.target.approved |= {each.owner.name for each in self.journal.kept if each.phase.over and each.owner}
        asked, self.asked = self.asked, None
        wait = carry_on(self.target, self.journal, self.registry, self.approved, self.plan, asked=asked, now=self.clock)
        return wait.reason

    @rule(crashes=st.lists(st.integers(1, 40), max_size=3, unique=True))
    def tick(self, crashes: list[int]) -> None:
        self.chaos.arm(crashes)
        with contextlib.suppress(Killed, TargetError):
            self.carry_on()
        self.chaos.arm([])

    @rule()
    def a_newer_release_is_approved(self) -> None:
        self.made += 1
        self.newest = release(self.made)

    @rule()
    def the_verdict_is_withdrawn(self) -> None:
        if self.newest is not None:
            self.withdrawn.add(self.newest.name)
        self.newest = None

    @rule(side=st.sampled_from([GOOD, GOOD, BAD, Side(3), Side(500, invalid=1)]))
    def requests_come(self, side: Side) -> None:
        self.target.champion, self.target.challenger = GOOD, side

    @rule(minutes=st.sampled_from([2, 90]))
    def time_passes(self, minutes: int) -> None:
        self.clock.later(minutes=minutes)

    @rule()
    def the_target_restarts_without_the_challenger(self) -> None:
        self.target.described = Described(self.target.described.stable)

    @rule()
    def the_target_loses_all(self) -> None:
        self.target.described = Described()

    @rule(times=st.integers(1, 3))
    def the_target_is_throttled(self, times: int) -> None:
        self.target.unavailable = times

    @rule()
    def the_target_refuses_the_newest(self) -> None:
        served = {each.serves.stable for each in self.journal.kept} | {self.target.described.stable}
        if self.newest is not None and self.newest.name not in served:
            self.target.refuses.add(self.newest.name)

    @rule()
    def a_person_wants_the_last_champion_back(self) -> None:
        self.asked = previous_champion(self.journal.kept)

    @rule()
    def recover(self) -> None:
        """Ticks without a crash, until the rollout is over."""
        for _ in range(12):
            try:
                reason = self.carry_on()
            except TargetUnavailableError:
                continue
            if not self.journal.kept or self.journal.kept[-1].phase.over:
                break
            self.clock.later(minutes=30)
        else:
            raise AssertionError(f"not at rest: {reason}")
        described, kept = self.target.described, self.journal.kept
        owner = kept[-1].owner if kept else None
        assert described.alone(owner.name if owner else None), (described, owner)
        assert self.registry.alias == (owner.version if owner else None)
        if kept:
            history = serving_history(kept)
            last = history.row(-1, named=True)
            assert (last["to"], last["stable"], last["challenger"]) == (None, described.stable, None)
            assert history["from"].to_list()[1:] == history["to"].to_list()[:-1]
        if owner is not None and owner.name in self.withdrawn:
            assert any(each.phase.value == "promoted" and each.challenger == owner for each in kept), (
                "withdrawn before it had all traffic, and it has"
            )

    @invariant()
    def the_alias_is_of_a_version_that_the_target_has_confirmed(self) -> None:
        if self.registry.alias is not None:
            confirmed = {each.serves.stable for each in self.journal.kept} | {self.target.described.stable}
            confirmed |= {each.split()[1] for each in self.target.asked if each.startswith(("promote", "rollback"))}
            assert any(name and name.startswith(f"{self.registry.alias}-") for name in confirmed)

    def teardown(self) -> None:
        self.chaos.arm([])
        self.recover()


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


def test_a_kill_at_each_call_of_a_whole_rollout_changes_nothing_of_its_end() -> None:
    """Killed before or after the n-th call, for every n."""

    def run(crashes: list[int]) -> tuple[int, Rollouts]:
        one = Rollouts()
        one.newest = release(1)
        one.carry_on()
        one.newest = release(2)
        one.target.champion = one.target.challenger = GOOD
        one.chaos.arm(crashes)
        for _ in range(30):
            with contextlib.suppress(Killed):
                one.carry_on()
            if one.journal.kept[-1].phase.over and one.journal.kept[-1].number == 2:
                break
            one.clock.later(minutes=2)
        return one.chaos.moment, one

    whole_moments, whole = run([])
    assert whole.registry.alias == "2"
    for at in range(1, whole_moments + 1):
        _, one = run([at])
        assert (one.registry.alias, one.target.described.stable) == ("2", release(2).name), at
        one.recover()
