"""Days arrive under the running daemon while its processes are killed with SIGKILL at random moments.

.venv/bin/python -m ml_assets_tests.drills.kill --days 30 --kills 12 --seed 1

Afterwards tables and model must be, to the digest, those of a project where nothing was disturbed, with every row there
once, and Dagster must know every day. Prints what was killed when; exits 1 if anything differs.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psutil

from ml_assets.automation.due import due_data, due_training
from ml_assets.automation.reports import unreported
from ml_assets.automation.under_way import busy
from ml_assets.demo.business import FIRST_DAY, Business
from ml_assets_tests.project import SMALL, SMALL_MODEL, Project, wait_until

NAME = "late_deliveries"
TARGETS = ("daemon", "code server", "run", "all")


def prepared(root: Path) -> Project:
    project = Project.create(root)
    project.add_demo_model(**SMALL_MODEL)
    for folder in ("orders", "outcomes"):
        (project.landing / NAME / folder).mkdir(parents=True)
    return project


def processes(target: str, dev: psutil.Process) -> list[psutil.Process]:
    """Living processes of one kind below `dagster dev`. A run is a child of the code server."""
    below = [each for each in dev.children(recursive=True) if each.is_running()]
    lines: dict[psutil.Process, str] = {}
    for each in below:
        with contextlib.suppress(psutil.Error):
            lines[each] = " ".join(each.cmdline())
    servers = [each for each, line in lines.items() if "grpc" in line or "code-server" in line]
    if target == "all":
        return [dev, *below]
    if target == "daemon":
        return [each for each, line in lines.items() if "daemon" in line]
    if target == "code server":
        return servers
    return [child for server in servers for child in server.children() if "spawn_main" in lines.get(child, "")]


def kill(target: str, dev: psutil.Process) -> int:
    """SIGKILL to all processes of a kind; their number."""
    killed = 0
    for each in processes(target, dev):
        with contextlib.suppress(psutil.Error):
            each.kill()
            killed += 1
    return killed


def left_over(project: Project) -> None:
    """End what outlived its parent: it belongs to this project alone."""
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.environ().get("ML_ASSETS_HOME") == project.variables["ML_ASSETS_HOME"] and "dagster" in " ".join(
                each.cmdline()
            ):
                each.kill()


def finished(project: Project) -> bool:
    model = project.model()
    with project.active(), dg.DagsterInstance.get() as instance:
        if busy(instance, model) or unreported(instance, model, project.lake):
            return False
    due = due_data(model, project.lake)
    return not due.needs and not due.problems and not due_training(model, project.lake).assets


def drill(root: Path, days: int, kills: int, seed: int, business: Business = SMALL, patience: float = 900) -> list[str]:
    """What was done, line by line, and raise if anything differs in the end."""
    dice, told = random.Random(seed), []
    calm, project = prepared(root / "calm"), prepared(root / "killed")
    calm.land(days, business=business)
    calm.materialize()
    started, landed, done = time.monotonic(), 0, 0
    plan = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    dice.shuffle(plan)
    try:
        while done < kills or landed < days:
            with project.services():
                dev = newest(project)
                until = time.monotonic() + dice.uniform(25, 60)
                while time.monotonic() < until and dev.is_running() and dev.status() != psutil.STATUS_ZOMBIE:
                    if landed < days:
                        project.land(1, FIRST_DAY + timedelta(days=landed), business=business)
                        landed += 1
                    time.sleep(dice.uniform(0.5, 3))
                if done < kills:
                    number = kill(plan[done], dev)
                    told.append(
                        f"{time.monotonic() - started:6.0f} s  {plan[done]}: {number} killed, {landed} days landed"
                    )
                    done += 1
                    time.sleep(dice.uniform(0, 5))
            left_over(project)
        with project.services():
            wait_until(lambda: finished(project), patience, "everything is refreshed after the last kill")
    finally:
        for each in (calm, project):
            each.target.stop()
    compare(calm, project)
    told.append(f"{time.monotonic() - started:6.0f} s  equal: tables, model, days known to Dagster")
    return told


def newest(project: Project) -> psutil.Process:
    """The `dagster dev` that was just started."""
    mine = [each for each in psutil.Process().children() if "dagster" in " ".join(each.cmdline())]
    return max(mine, key=lambda each: each.create_time())


def compare(calm: Project, killed: Project) -> None:
    assert killed.contents() == calm.contents()
    latest = killed.latest()
    for table in ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features"):
        rows = killed.lake.read(NAME, table)
        assert rows.height == sum(record.rows for record in latest.of(table).values()), table
    raw = killed.lake.read(NAME, "raw_data")
    assert not raw.select(pl.struct("_source", "_row").is_duplicated().any()).item(), "a row is there twice"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--kills", type=int, default=12)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in drill(Path(folder), chosen.days, chosen.kills, chosen.seed):
            print(line)
    sys.exit(0)
