"""Challengers with one fault each are rolled out on the real server under load: after how many requests are they back?

.venv/bin/python -W ignore -m ml_assets_tests.drills.canary --rounds 3 --connections 16

Steps of 5 % and 25 %, and the limits that are the default; where the quality is what is wrong, shifted scores are
tolerated. Fails if a good challenger is not promoted, a bad one not taken back for its own fault within the requests
that are stated, or if any caller gets an error, or an answer that is not, to the last bit, that of the version it
names.
"""

import argparse
import sys
from datetime import timedelta
from typing import Any

from ml_assets.deployment.decision import Limits
from ml_assets.deployment.rollout import Phase, Plan
from ml_assets_tests.canary import FINDINGS, Canary, Looked
from ml_assets_tests.drills.small import small_project

STEPS = (5, 25)
SECONDS = 300.0


def plan(limits: dict[str, Any]) -> Plan:
    return Plan(STEPS, timedelta(seconds=2), 500, timedelta(minutes=10), limits=Limits(**limits))


def judged(name: str, rolled: Looked) -> str:
    """What is wrong with how a rollout ended; empty if nothing is."""
    expected = FINDINGS.get(name)
    if rolled.callers.wrong:
        return f"{name}: {len(rolled.callers.wrong)} wrong answers, such as {rolled.callers.wrong[0]}"
    if expected is None:
        return "" if rolled.last.phase is Phase.PROMOTED else f"{name}: {rolled.last.phase.value}: {rolled.last.reason}"
    if rolled.finding != expected.finding:
        return f"{name}: {rolled.last.phase.value}: {rolled.last.reason}"
    return "" if rolled.undecided < expected.enough else f"{name}: undecided after {rolled.undecided} requests"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, default=16)
    given = options.parse_args()
    wrong = []
    with small_project() as (project, home):
        print("| challenger | ended | its requests | all requests | for | wrong answers |\n|---|---|---|---|---|---|")
        with Canary.running(project, home) as canary:
            for name in ("2-good", *FINDINGS):
                limits = FINDINGS[name].limits if name in FINDINGS else {}
                for _ in range(given.rounds):
                    rolled = canary.roll(
                        name, plan(limits), SECONDS, quality=name == "7-worse", connections=given.connections
                    )
                    everything = sum(each.champion.requests for each in rolled.last.observed) + rolled.given
                    # Of outcomes the log is read after the requests were counted, so it holds more.
                    total = "" if rolled.finding == "quality" else f"{everything:,}"
                    print(
                        f"| {name} | {rolled.last.phase.value} | {rolled.decided_by:,} | {total} | "
                        f"{rolled.finding or '-'} | {len(rolled.callers.wrong)} of {len(rolled.callers.seconds):,} |",
                        flush=True,
                    )
                    wrong += list(filter(None, [judged(name, rolled)]))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
