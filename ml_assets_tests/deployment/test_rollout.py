"""One rollout at a time: each way in which it can end, and what it leaves behind."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from ml_assets.deployment.decision import Matured
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Phase, Plan, previous_champion
from ml_assets.deployment.targets import Described, Histogram, Observation, Refusal, Release, Side
from ml_assets.errors import TargetError, TargetUnavailableError
from ml_assets.lake import Lake
from ml_assets.rollouts import LakeJournal, serving_history, who_answered
from ml_assets_tests.drills.rollouts import FAULTS, NO_MARGINS, Fault, many
from ml_assets_tests.rollouts import Clock, MemoryJournal, MemoryRegistry, MemoryTarget, release, side

PLAN = Plan(bake=timedelta(minutes=10), requests=100, limit=timedelta(hours=24))


@dataclass
class Rollouts:
    clock: Clock = field(default_factory=Clock)
    target: MemoryTarget = field(init=False)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    journal: MemoryJournal | LakeJournal = field(default_factory=MemoryJournal)
    plan: Plan = PLAN
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    matured: tuple[Matured, ...] = ()

    def __post_init__(self) -> None:
        self.target = MemoryTarget(self.clock)

    def tick(self, approved: Release | None, asked: Release | None = None) -> str:
        if approved is not None:
            self.target.approved.add(approved.name)
        return carry_on(
            self.target,
            self.journal,
            self.registry,
            lambda: approved,
            self.plan,
            asked=asked,
            matured=lambda state: self.matured,
            now=self.clock,
        ).reason

    def traffic(self, champion: int, challenger: int, **faults: float) -> None:
        self.target.champion = side(champion, self.random)
        self.target.challenger = side(challenger, self.random, **faults)

    @property
    def phase(self) -> Phase:
        return self.journal.states()[-1].phase

    @property
    def reason(self) -> str:
        return self.journal.states()[-1].reason

    def serve_first(self) -> None:
        self.tick(release(1))
        assert (self.phase, self.registry.alias) == (Phase.PROMOTED, "1")


@pytest.fixture
def rollouts() -> Rollouts:
    return Rollouts()


def test_the_first_release_gets_all_traffic_once_its_golden_rows_are_answered(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    assert rollouts.target.asked == [f"stage {release(1).name}", f"promote {release(1).name}"]


def test_the_same_release_is_not_deployed_twice(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    asked, entries = list(rollouts.target.asked), len(rollouts.journal.states())
    assert rollouts.tick(release(1)) == f"{release(1).name} serves"
    assert (rollouts.target.asked, len(rollouts.journal.states())) == (asked, entries)


def test_a_good_challenger_goes_step_by_step_and_is_promoted(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    assert rollouts.tick(release(2)).startswith("step 1 of 2 (5 %) bakes: 0 of 100 requests")
    assert (rollouts.target.described.weight, rollouts.registry.alias) == (5, "1")
    rollouts.traffic(3800, 200)
    rollouts.clock.later(minutes=9)
    rollouts.tick(release(2))
    assert rollouts.target.described.weight == 5, "it has not baked long enough"
    rollouts.clock.later(minutes=2)
    rollouts.tick(release(2))
    assert rollouts.target.described.weight == 25
    rollouts.traffic(6000, 2000)
    rollouts.clock.later(minutes=11)
    rollouts.tick(release(2))
    assert (rollouts.phase, rollouts.registry.alias) == (Phase.PROMOTED, "2")
    assert rollouts.target.described.alone(release(2).name)
    last = rollouts.journal.states()[-1]
    assert [each.challenger.requests for each in last.observed] == [200, 2000]
    assert {each["name"]: each["outcome"] for each in last.findings}["scores"] == "within"


@pytest.mark.parametrize(
    ("faults", "name", "challenger"),
    [
        ({"errors": 0.05}, "errors", 500),
        ({"slower": 0.1}, "latency", 100),
        ({"shift": 0.2}, "scores", 200),
    ],
)
def test_a_faulty_challenger_is_rolled_back_at_the_first_step(
    rollouts: Rollouts, faults: dict[str, float], name: str, challenger: int
) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.traffic(challenger * 19, challenger, **faults)
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.ROLLED_BACK, rollouts.journal.states()[-1]
    assert rollouts.reason.startswith(f"{name}: ")
    assert (rollouts.target.described.stable, rollouts.registry.alias) == (release(1).name, "1")
    finding = next(each for each in rollouts.journal.states()[-1].findings if each["name"] == name)
    assert finding["low"] > finding["margin"]
    assert "is not rolled out again: it was rolled back" in rollouts.tick(release(2))


@pytest.mark.parametrize("fault", ["invalid", "golden"])
def test_one_answer_that_is_none_suffices(rollouts: Rollouts, fault: str) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.target.challenger = Side(3, **{fault: 1})
    rollouts.tick(release(2))
    assert (rollouts.phase, rollouts.reason.split(":")[0]) == (Phase.ROLLED_BACK, "answers")


def test_one_error_in_three_requests_does_not(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.target.champion, rollouts.target.challenger = Side(57), Side(3, errors=1)
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.BAKING


def test_worse_matured_quality_rolls_back(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.traffic(3800, 200)
    rollouts.matured = (Matured(3800, 760.0, 200, 90.0),)
    rollouts.tick(release(2))
    assert (rollouts.phase, rollouts.reason.split(":")[0]) == (Phase.ROLLED_BACK, "quality")


def test_champions_own_errors_are_not_held_against_the_challenger(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.target.champion = side(9500, rollouts.random, errors=0.3, slower=0.1)
    rollouts.target.challenger = side(500, rollouts.random, errors=0.3, slower=0.1)
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.BAKING


def test_a_load_that_makes_both_slower_after_a_calm_step_is_no_fault(rollouts: Rollouts) -> None:
    def step(requests: int, slower: float) -> Side:
        quick, slow = side(requests, rollouts.random), side(requests // 20, rollouts.random, slower=slower)
        counts = tuple(map(sum, zip(quick.latency.counts, slow.latency.counts, strict=True)))
        return replace(quick, latency=Histogram(quick.latency.edges, counts))

    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.traffic(9500, 500)
    rollouts.clock.later(minutes=11)
    rollouts.tick(release(2))
    rollouts.target.champion, rollouts.target.challenger = step(4800, 0.2), step(1600, 0.2)
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.BAKING, rollouts.reason
    rollouts.target.champion = side(4800, rollouts.random)
    rollouts.tick(release(2))
    assert rollouts.reason.startswith("latency: "), "alone it is to blame"


@pytest.mark.parametrize(
    ("undecided", "phase", "alias"), [("keep", Phase.INCONCLUSIVE, "1"), ("promote", Phase.PROMOTED, "2")]
)
def test_an_undecided_rollout_ends_at_its_limit(rollouts: Rollouts, undecided: str, phase: Phase, alias: str) -> None:
    rollouts.plan = Plan(undecided=undecided)  # type: ignore[arg-type]
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.traffic(1900, 100)
    rollouts.clock.later(hours=1)
    rollouts.tick(release(2))
    rollouts.traffic(300, 100)
    rollouts.clock.later(hours=22)
    assert rollouts.tick(release(2)).startswith("step 2 of 2 (25 %), 100 requests; errors: ")
    rollouts.clock.later(hours=2)
    rollouts.tick(release(2))
    assert (rollouts.phase, rollouts.registry.alias) == (phase, alias)
    assert "undecided after 1 day" in rollouts.reason


def test_a_newer_release_waits_until_the_older_challenger_is_gone(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.tick(release(3))
    names = [each.split()[0] + each[-1] for each in rollouts.target.asked[2:]]
    assert names == ["stage2", "shift2", "rollback1", "stage3", "shift3"]
    # Nothing was said against 2: approved again, it would be tried again.
    rollouts.tick(release(2))
    assert rollouts.journal.states()[-1].challenger == release(2)


def test_a_challenger_whose_verdict_is_gone_is_taken_back(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.tick(None)
    assert (rollouts.phase, rollouts.journal.states()[-1].cause) == (Phase.ROLLED_BACK, "withdrawn")
    assert rollouts.target.described.alone(release(1).name)


def test_a_person_puts_the_last_champion_back(rollouts: Rollouts) -> None:
    rollouts.plan = Plan(steps=())
    rollouts.serve_first()
    rollouts.tick(release(2))
    assert previous_champion(rollouts.journal.states()) == release(1)
    rollouts.tick(release(2), asked=release(1))
    assert (rollouts.target.described.stable, rollouts.registry.alias) == (release(1).name, "1")
    assert "it was replaced by hand" in rollouts.tick(release(2)), "what was put away stays away"
    rollouts.tick(release(3))
    assert rollouts.registry.alias == "3"


def test_a_person_ends_a_rollout(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.tick(release(2), asked=release(1))
    assert (rollouts.phase, rollouts.journal.states()[-1].cause) == (Phase.ROLLED_BACK, "by hand")
    assert "is not rolled out again" in rollouts.tick(release(2))


def test_a_release_that_the_target_refuses_never_gets_traffic(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.target.refuses.add(release(2).name)
    rollouts.tick(release(2))
    assert (rollouts.phase, rollouts.journal.states()[-1].cause) == (Phase.ROLLED_BACK, "failed")
    assert "answers its golden rows otherwise" in rollouts.reason
    with pytest.raises(TargetError):
        rollouts.target.shift(release(2), 5, "", shadow=False)


def test_a_target_that_takes_a_release_back_by_itself_ends_its_rollout(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    before = Refusal("an alarm of last year", rollouts.clock.now - timedelta(days=365))
    rollouts.target.described = replace(rollouts.target.described, refused={release(2).name: before})
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.BAKING
    now = Refusal("alarm p99", rollouts.clock.now)
    rollouts.target.described = Described(release(1).name, refused={release(2).name: now})
    rollouts.tick(release(2))
    assert (rollouts.phase, "alarm p99" in rollouts.reason) == (Phase.ROLLED_BACK, True)


def test_what_passes_is_tried_again_at_the_next_tick(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.target.unavailable = 2
    for _ in range(2):
        with pytest.raises(TargetUnavailableError):
            rollouts.tick(release(2))
        assert rollouts.phase is Phase.STAGING
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.BAKING


def test_a_target_that_forgot_is_brought_back_and_what_it_did_counts_on(rollouts: Rollouts) -> None:
    rollouts.serve_first()
    rollouts.tick(release(2))
    rollouts.traffic(950, 50)
    rollouts.target.described = Described(release(1).name)
    rollouts.tick(release(2))
    assert (rollouts.target.described.weight, rollouts.phase) == (5, Phase.BAKING)
    rollouts.target.described = Described()
    rollouts.tick(None)
    assert rollouts.target.described.alone(release(1).name)


def test_a_shadow_step_gives_the_challenger_no_traffic(rollouts: Rollouts) -> None:
    rollouts.plan = Plan(steps=(0, 50))
    rollouts.serve_first()
    rollouts.tick(release(2))
    assert (rollouts.target.described.weight, rollouts.target.described.shadow) == (0, True)
    rollouts.traffic(1000, 1000, shift=0.2)
    rollouts.tick(release(2))
    assert rollouts.phase is Phase.ROLLED_BACK


def test_what_served_before_there_were_rollouts_is_the_champion_if_the_registry_says_so(rollouts: Rollouts) -> None:
    rollouts.target.described, rollouts.registry.alias = Described(release(7).name), "7"
    rollouts.target.approved.add(release(7).name)
    rollouts.tick(release(8))
    assert rollouts.journal.states()[-1].champion == release(7)


def test_the_history_says_who_answered_whom_and_survives_the_process(tmp_path: Path) -> None:
    rollouts = Rollouts(journal=LakeJournal(Lake(tmp_path), "demo"))
    rollouts.serve_first()
    first = rollouts.clock()
    rollouts.tick(release(2))
    rollouts.traffic(3800, 200)
    rollouts.clock.later(minutes=11)
    five = rollouts.clock()
    rollouts.tick(release(2))
    rollouts.target.challenger = Side(1, invalid=1)
    quarter = rollouts.clock()
    rollouts.tick(release(2))
    again = LakeJournal(Lake(tmp_path), "demo")
    assert again.states() == rollouts.journal.states()
    history = serving_history(again.states())
    assert history["weight"].to_list() == [0, 0, 5, 25, 0]
    assert history["from"].to_list()[1:] == history["to"].to_list()[:-1]
    keys = [f"order {number}" for number in range(400)]
    counts = [
        sum(who_answered(history, key, at) == release(2).name for key in keys)
        for at in (first, five, quarter, rollouts.clock())
    ]
    assert counts[0] == counts[3] == 0
    assert 8 <= counts[1] <= 36
    assert 70 <= counts[2] <= 130
    stuck = [key for key in keys if who_answered(history, key, five) == release(2).name]
    assert all(who_answered(history, key, quarter) == release(2).name for key in stuck)
    assert who_answered(history, "order 1", first.replace(year=2025)) is None


def test_histograms_with_other_edges_are_refused() -> None:
    from ml_assets.deployment.decision import Evidence, Limits, judge

    one, other = (Side(1, scores={"score": Histogram((edge,), (1, 0))}) for edge in (0.5, 0.6))
    with pytest.raises(ValueError, match="other edges"):
        judge(Evidence([Observation(one, other)]), Limits())


def test_looking_every_50_requests_rolls_good_challengers_back_no_more_often_than_stated() -> None:
    """The drill's short form, with no margins at all, where false alarms are likeliest."""
    shown = many("as good", 50, 11, Plan(limits=NO_MARGINS), most=1500)
    assert shown.rolled_back <= 2, shown


@pytest.mark.parametrize("fault", FAULTS[1:3], ids=["latency", "scores"])
def test_planted_faults_are_found_in_the_first_requests(fault: Fault) -> None:
    shown = many(fault.name, 4, 12, Plan(), fault, most=4000)
    assert shown.rolled_back == 4, shown
