"""A simulated quarter: drift comes, is told of, waits for labels, and one retraining ends it.

.venv/bin/python -W ignore -m ml_assets_tests.drills.quarter [--days 90] [--drift-day 40]

The real endpoint and real runs, whose clock goes on by a day when the work of a day is done. Prints what was seen
day by day. Fails if the drift is not told of, or told of in more than one open alert; if a training is asked for
before there are labels, or not exactly one; if the new champion is worse than `--share` of what the old one was
before; or if an answer is lost.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from ml_assets.demo.business import Business
from ml_assets_tests.alerts.receivers import Hooks
from ml_assets_tests.clock import Clock
from ml_assets_tests.project import Project, free_port
from ml_assets_tests.quarter import FIRST, WATCHED, Quarter

RETRAIN = {"causes": ["drift", "quality"], "cooldown": "1d", "budget": 2}


def simulate(
    folder: Path,
    clock: Clock,
    *,
    days: int,
    drift_day: int,
    before: int,
    orders: int,
    labels: int,
    window: str,
    scarcity: float,
    share: float,
) -> list[str]:
    """Let the days pass.

    Args:
        drift_day: day of the quarter, from 0, on which the business changes for good.
        before: days that were landed before the quarter.
        orders: of a day, about.
        labels: without which drift does not retrain.
        window: of the rows that a training learns from.
        scarcity: how large the drift is; 1 is the demo's.
        share: of the old champion's quality that the new one has to reach.

    Returns:
        What is not as it has to be.
    """
    begins = FIRST + timedelta(days=before)
    drift_from = begins + timedelta(days=drift_day)
    business = Business(orders_per_day=orders, drift_from=drift_from, scarcity=scarcity)
    with Hooks(free_port()).running() as hooks:
        project = Project.create(folder)
        project.variables |= clock.variables | {"ML_ASSETS_ALERTS": hooks.url()}
        project.add_demo_model(
            **WATCHED,
            training={"min_rows": 200, "folds": 2, "window": window},
            retrain=RETRAIN | {"min_new_labels": labels},
        )
        quarter = Quarter(project, clock, business, begins)
        try:
            quarter.open()
            for number in range(days):
                heard = len(hooks.bodies())
                quarter.pass_day(number)
                tell(quarter, begins + timedelta(days=number), hooks.bodies()[heard:])
        finally:
            project.target.stop()
        return wrong(quarter, hooks.bodies(), drift_from, share)


def tell(quarter: Quarter, day: date, messages: Sequence[Mapping[str, Any]]) -> None:
    """One line of what was seen on a day."""
    yesterday = day - timedelta(days=1)
    alarms = quarter.alarms().get(yesterday, {})
    quality = quarter.quality()
    known = f"accuracy of {max(quality)} {quality[max(quality)]:.3f}" if quality else "no quality yet"
    versions = ", ".join(f"version {name}: {count}" for name, count in quarter.answers[day].items())
    said = "; ".join(f"{subject} {', '.join(names)}" for subject, names in alarms.items()) or "no alarm"
    told = "".join(f" | told: {each['event']} {each['title']}" for each in messages)
    print(f"{day} {versions} | {yesterday}: {said} | {known}{told}", flush=True)


def wrong(quarter: Quarter, told: Sequence[Mapping[str, Any]], drift_from: date, share: float) -> list[str]:
    """What is not as it has to be; what is, is printed."""
    found = []
    asked = [each for each in quarter.trainings() if each.reason != "first training"]
    if len(asked) != 1:
        found.append(f"{len(asked)} retrainings, not one: {[(str(each.at), each.reason) for each in asked]}")
    for each in asked:
        print(
            f"retrained at {each.at:%Y-%m-%d %H:%M}, {(each.at.date() - drift_from).days} days after the drift "
            f"began: {each.reason}"
        )
        if each.at.date() <= drift_from:
            found.append(f"a training was asked for at {each.at}, before there were labels of the drift")
    opened = [each for each in told if each["event"] == "opened" and each["kind"] in ("drift", "scores")]
    drifted = [each for each in opened if each["kind"] == "drift"]
    for each in opened:
        delay = (datetime.fromisoformat(each["at"]).date() - drift_from).days
        print(f"told of {each['kind']} {delay} days after the drift began: {each['title']}: {each['text']}")
    if len(drifted) != 1:
        found.append(f"{len(drifted)} alerts of drift, not one")
    quality = quarter.quality()
    calm = [value for day, value in quality.items() if day < drift_from]
    if asked and quality:
        ends = max(quality)
        served = asked[-1].at.date()  # it is made before the first order of the day comes in
        between = [value for day, value in quality.items() if drift_from <= day < served]
        after = [value for day, value in quality.items() if served <= day <= ends]
        means = [fmean(each) if each else float("nan") for each in (calm, between, after)]
        print("accuracy before the drift {:.3f}, during it {:.3f}, after the retraining {:.3f}".format(*means))
        if not means[2] >= share * means[0]:
            found.append(f"the new champion reaches {means[2]:.3f}, the old one had {means[0]:.3f}")
    lost = [str(day) for day, versions in quarter.answers.items() if sum(versions.values()) == 0]
    if lost:
        found.append(f"nothing answered on {', '.join(lost)}")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=90)
    options.add_argument("--drift-day", type=int, default=40)
    options.add_argument("--before", type=int, default=24)
    options.add_argument("--orders", type=int, default=400)
    options.add_argument("--labels", type=int, default=3000)
    options.add_argument("--window", default="14d")
    options.add_argument("--scarcity", type=float, default=1.0)
    options.add_argument("--share", type=float, default=0.9)
    options.add_argument("--clock", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.clock is None:
            clock = Clock(Path(folder) / "clock")
            clock.set(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC))
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "ml_assets_tests.drills.quarter",
                "--clock",
                str(clock.file),
            ]
            sys.exit(
                subprocess.run([*command, *sys.argv[1:]], env=os.environ | clock.variables, check=False).returncode
            )
        found = simulate(
            Path(folder) / "project",
            Clock(given.clock),
            days=given.days,
            drift_day=given.drift_day,
            before=given.before,
            orders=given.orders,
            labels=given.labels,
            window=given.window,
            scarcity=given.scarcity,
            share=given.share,
        )
    sys.exit("\n".join(found) or None)


if __name__ == "__main__":
    main()
