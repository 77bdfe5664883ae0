"""Thousands of rollouts of a challenger as good as the champion, with a look every 50 requests: how often one is rolled
back; and rollouts of challengers with a planted fault: how often, and after how many requests.

.venv/bin/python -W ignore -m ml_assets_tests.drills.rollouts --rollouts 2000 --seed 1

Each rollout goes through `reconcile.carry_on`, the function that the asset and the sensor use, with a target, a journal
and a registry in memory; each request is given to a side by chance, as the split by keys does.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import median

import numpy as np
from scipy import stats

from ml_assets.deployment.decision import Limits, Matured
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Phase, Plan, State
from ml_assets.deployment.targets import Described, Histogram, Release, Side
from ml_assets_tests.rollouts import EDGES, SECONDS, Clock, MemoryJournal, MemoryRegistry, MemoryTarget, release

LOOK = 50
MOST, MOST_WITHOUT_MARGINS = 12_000, 5_000  # requests of a rollout, then it is inconclusive
ERRORS, LOSS = 0.001, 0.2
NO_MARGINS = Limits(errors=0.0, scores=0.0, quality=0.0, latency_factor=1.0, latency_added=0.0)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a challenger: more failed requests and more loss (shares), moved scores, added seconds."""

    name: str = "none"
    errors: float = 0.0
    seconds: float = 0.0
    moved: float = 0.0
    loss: float = 0.0


FAULTS = (
    Fault("5 % of requests fail (champion: 0.1 %)", errors=0.049),
    Fault("100 ms on top of each answer", seconds=0.1),
    Fault("a third of the scores is drawn from another distribution (distance 0.29)", moved=1 / 3),
    Fault("mean loss 0.3 instead of 0.2, known at once", loss=0.1),
)


@dataclass
class Simulated(MemoryTarget):
    """A target whose requests come when told."""

    random: np.random.Generator = field(default_factory=np.random.default_rng)
    fault: Fault = field(default_factory=Fault)
    counts: dict[bool, list[np.ndarray]] = field(default_factory=dict)
    losses: list[np.ndarray] = field(default_factory=list)
    requests: int = 0

    def _set(self, said: str, asked: Release | None, described: Described) -> None:
        super()._set(said, asked, described)
        self.counts = {of: [np.zeros(2, int), np.zeros(len(SECONDS) + 1, int), np.zeros(len(EDGES) + 1, int)]
                       for of in (False, True)}  # fmt: skip
        if said.startswith("shift"):
            self.losses.append(np.zeros((2, 2)))

    def serve(self, requests: int) -> int:
        """So many requests arrive, and their outcomes become known; how many the challenger was given."""
        self.requests += requests
        challengers = int(self.random.binomial(requests, self.described.weight / 100))
        for of, number in ((True, challengers), (False, requests - challengers)):
            fault = self.fault if of else Fault()
            failed = int(self.random.binomial(number, ERRORS + fault.errors))
            answered = number - failed
            scores = self.random.beta(2, 4, answered)
            moved = self.random.random(answered) < fault.moved
            scores[moved] = self.random.beta(6, 1, int(moved.sum()))
            seconds = self.random.gamma(3, 0.001, answered) + fault.seconds
            sums, latency, score = self.counts[of]
            sums += (number, failed)
            latency += np.bincount(np.searchsorted(SECONDS, seconds), minlength=len(latency))
            score += np.bincount(np.searchsorted(EDGES, scores), minlength=len(score))
            self.losses[-1][int(of)] += (answered, self.random.binomial(answered, LOSS + fault.loss))
        self.champion, self.challenger = self._side(False), self._side(True)
        return challengers

    def _side(self, of: bool) -> Side:
        sums, latency, score = self.counts[of]
        return Side(
            int(sums[0]),
            int(sums[1]),
            latency=Histogram(SECONDS, tuple(latency.tolist())),
            scores={"score": Histogram(EDGES, tuple(score.tolist()))},
        )

    def matured(self, state: State) -> Sequence[Matured]:
        return [Matured(int(each[0, 0]), each[0, 1], int(each[1, 0]), each[1, 1]) for each in self.losses]


def roll_out(seed: int, plan: Plan, fault: Fault, most: int = MOST) -> tuple[State, int, int]:
    """One rollout: how it ended, how many requests came meanwhile, and how many of them the challenger had."""
    clock, journal, registry = Clock(), MemoryJournal(), MemoryRegistry()
    target = Simulated(clock, random=np.random.default_rng(seed), fault=fault)
    target.approved = {release(1).name, release(2).name}
    newest = release(1)
    plan = replace(plan, limit=timedelta(seconds=most), bake=timedelta(seconds=LOOK))

    def tick() -> None:
        carry_on(target, journal, registry, lambda: newest, plan, matured=target.matured, now=clock)

    tick()
    newest = release(2)
    tick()
    had = 0
    while not journal.kept[-1].phase.over:
        had += target.serve(LOOK)
        clock.later(seconds=LOOK)
        tick()
    return journal.kept[-1], target.requests, had


@dataclass(frozen=True)
class Shown:
    """Rollouts of one kind.

    Attributes:
        requests, challengers: medians, of those that were rolled back; of all where there was no fault.
    """

    name: str
    rollouts: int
    rolled_back: int
    promoted: int
    requests: float
    challengers: float
    most: int
    by: str

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share that is rolled back, by Clopper and Pearson, 95 %."""
        found = stats.binomtest(self.rolled_back, self.rollouts).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def many(name: str, rollouts: int, first: int, plan: Plan, fault: Fault | None = None, most: int = MOST) -> Shown:
    fault = fault or Fault()
    ends = [roll_out(first * 1_000_003 + number, plan, fault, most) for number in range(rollouts)]
    back = [each for each in ends if each[0].phase is Phase.ROLLED_BACK]
    told = back if fault.name != "none" else ends
    reasons = sorted({each[0].reason.split(":")[0] for each in back})
    return Shown(
        name,
        rollouts,
        len(back),
        sum(each[0].phase is Phase.PROMOTED for each in ends),
        median([each[1] for each in told] or [0]),
        median([each[2] for each in told] or [0]),
        max([each[1] for each in told] or [0]),
        ", ".join(reasons),
    )


def drill(rollouts: int, first: int, faulty: int, tell: Callable[[str], None] = print) -> list[Shown]:
    """Rollouts without fault, with no margins at all, where false alarms are likeliest, and a quarter as many by
    default; and `faulty` of each fault.
    """
    found = []
    tell("| challenger | limits | rollouts | rolled back (95 % interval) | promoted | median requests | "
         "of them the challenger's | most | by |")  # fmt: skip
    tell("|---|---|---|---|---|---|---|---|---|")
    kinds = [
        ("as good", "no margins", rollouts, Plan(limits=NO_MARGINS), Fault(), MOST_WITHOUT_MARGINS),
        *((each.name, "by default", faulty, Plan(), each, MOST) for each in FAULTS),
        ("as good", "by default", rollouts // 4, Plan(), Fault(), MOST),
    ]
    for name, limits, number, plan, fault, most in kinds:
        one = many(f"{name}, {limits}", number, first, plan, fault, most)
        found.append(one)
        low, high = one.interval
        tell(
            f"| {name} | {limits} | {number:,} | {one.rolled_back} ({one.rolled_back / number:.1%}; {low:.2%} to "
            f"{high:.2%}) | {one.promoted} | {one.requests:,.0f} | {one.challengers:,.0f} | {one.most:,} | {one.by} |"
        )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rollouts", type=int, default=2000)
    options.add_argument("--faulty", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    begun = time.perf_counter()
    drill(chosen.rollouts, chosen.seed, chosen.faulty)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
