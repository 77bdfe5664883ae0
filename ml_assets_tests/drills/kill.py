"""Days arrive under the running daemon while its processes are killed with SIGKILL at random moments.

.venv/bin/python -W ignore -m ml_assets_tests.drills.kill --days 30 --kills 16 --seed 1

Killed are the daemon, the code server, the process of a run, or all of them and `dagster dev` at once; then what is
gone is started again. In the end tables and model must be, to the digest, those of a project where nothing was
disturbed, with every row there once, and nothing is left unfinished. Prints what was killed when.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import psutil

from ml_assets.automation.due import due_data
from ml_assets.automation.due_training import due_training
from ml_assets.automation.reports import unreported
from ml_assets.automation.under_way import busy
from ml_assets.demo.business import FIRST_DAY
from ml_assets.digests import digest_of_model
from ml_assets.lake import WHOLE
from ml_assets.model import Model
from ml_assets.registry import CHAMPION, Registry
from ml_assets_tests.project import PROGRAMS, PROJECT_ROOT, SMALL_MODEL, Project, end_session, free_port, wait_until

NAME = "late_deliveries"
TABLES = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")
TARGETS = ("daemon", "code server", "run", "all")


def prepare(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    for folder in ("orders", "outcomes"):
        (project.landing / NAME / folder).mkdir(parents=True)


@dataclass
class Platform:
    """`dagster dev` of one project, as processes that can be killed."""

    project: Project
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(PROGRAMS / "dagster"), "dev", "-w", "workspace.yaml", "-p", str(free_port())]
        with (self.project.root / "dagster.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.project.environment(),
                cwd=PROJECT_ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it with all that is left of its session."""
        if self.process is not None:
            end_session(self.process)
            self.process = None

    def kill(self, target: str) -> int:
        """SIGKILL to all processes of a kind; their number."""
        killed = 0
        for each in self._processes(target):
            with contextlib.suppress(psutil.Error):
                each.kill()
                killed += 1
        return killed

    def has(self, target: str) -> bool:
        """Whether there is something to kill; the daemon is the last one to come up."""
        return bool(self._processes("daemon" if target == "all" else target))

    def _processes(self, target: str) -> list[psutil.Process]:
        assert self.process is not None
        with contextlib.suppress(psutil.Error):
            dev = psutil.Process(self.process.pid)
            below = {each: _command(each) for each in dev.children(recursive=True)}
            if target == "all":
                return [dev, *(each for each, line in below.items() if "ml_assets.serving" not in line)]
            if target == "daemon":
                return [each for each, line in below.items() if "dagster._daemon" in line]
            servers = [each for each, line in below.items() if "code-server" in line or "api grpc" in line]
            if target == "code server":
                return servers
            return [each for server in servers for each in server.children() if "spawn_main" in below.get(each, "")]
        return []


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@dataclass
class Drill:
    """One drill.

    Attributes:
        pause: most seconds from when a kind of process is there to its kill.
        every: seconds between two days that arrive.
        allowed: days that may have arrived so far; they last as long as the kills do.
    """

    project: Project
    days: int
    plan: list[str]
    dice: random.Random
    pause: float
    every: float
    tell: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)
    allowed: int = 0

    def run(self) -> None:
        """Let the days arrive, kill what the plan says, and wait until everything is refreshed."""
        platform = Platform(self.project)
        try:
            with self._arrivals() as landed:
                platform.start()
                for number, target in enumerate(self.plan, start=1):
                    self.allowed = self.days * number // len(self.plan)
                    self._wait_for_its_moment(platform, target)
                    killed = platform.kill(target)
                    self._say(f"{target}: {killed} killed, {landed()} days have arrived")
                    if target != "run":  # the daemon and the code server live, and have to notice by themselves
                        platform.stop()
                        platform.start()
            model = self.project.model()
            wait_until(lambda: self._finished(model), 300, f"all is refreshed; see {self.project.root}/dagster.log")
            self._say("all is refreshed and serves")
        finally:
            platform.stop()

    def _wait_for_its_moment(self, platform: Platform, target: str) -> None:
        log = f"{self.project.root}/dagster.log"
        wait_until(lambda: platform.has(target), 120, f"there is something to kill ({target}); see {log}")
        time.sleep(self.dice.uniform(0, self.pause if target != "run" else min(self.pause, 8)))

    @contextlib.contextmanager
    def _arrivals(self) -> Iterator[Callable[[], int]]:
        """Days arrive one after another; all have at the end. Yields how many did so far."""
        done: list[int] = []

        def arrive() -> None:
            for number in range(self.days):
                while number >= self.allowed:
                    time.sleep(0.2)
                self.project.land(1, FIRST_DAY + timedelta(days=number))
                done.append(number)
                time.sleep(self.every)

        thread = threading.Thread(target=arrive, daemon=True)
        thread.start()
        yield lambda: len(done)
        thread.join()

    def _finished(self, model: Model) -> bool:
        project = self.project
        with project.active(), dg.DagsterInstance.get() as instance:
            if busy(instance, model) or unreported(instance, model, project.lake):
                return False
        due = due_data(model, project.lake)
        health = project.target.health() or {}
        return not due.needs and not due_training(model, project.lake, health=health).assets

    def _say(self, line: str) -> None:
        self.tell(f"{time.monotonic() - self.started:6.1f} s  {line}")


def require_equal(calm: Project, killed: Project) -> None:
    """Everything must be as in the project where nothing was disturbed.

    Raises:
        AssertionError: naming what is not.
    """
    assert killed.contents() == calm.contents(), "tables or model differ from the undisturbed ones"
    latest = killed.latest()
    for table in TABLES:
        rows = killed.lake.read(NAME, table)
        assert rows.height == sum(record.rows for record in latest.of(table).values()), f"{table} holds other rows"
    raw = killed.lake.read(NAME, "raw_data")
    assert not raw.select(pl.struct("_source", "_row").is_duplicated().any()).item(), "a row is there twice"
    with killed.active(), dg.DagsterInstance.get() as instance:
        assert {run.status for run in instance.get_runs() if not run.is_finished} == set(), "a run never ended"
        for table in TABLES:
            known = instance.get_materialized_partitions(dg.AssetKey([NAME, table]))
            assert known == set(latest.of(table)), f"Dagster knows other days of {table} than there are"
    trained = latest.get("trained_model", WHOLE)
    assert trained is not None
    registry = Registry(killed.settings.mlflow_uri)
    champion = str(registry.client.get_model_version_by_alias(NAME, CHAMPION).version)
    assert champion == trained.details["version"], "the champion is not the newest version"
    held = digest_of_model(registry.load(NAME, champion), trained.details["threshold"])
    assert held == trained.content, "the registry holds another model"
    served = (killed.target.health() or {})["models"][NAME]["version"]
    assert str(served) == champion, "another version serves"


def drill(
    calm: Project,
    project: Project,
    *,
    days: int,
    kills: int,
    seed: int,
    pause: float,
    every: float,
    tell: Callable[[str], None] = print,
) -> None:
    """Disturb `project` and compare it with `calm`, to which the same days came at once."""
    dice = random.Random(seed)
    plan = [TARGETS[number % len(TARGETS)] for number in range(kills)]
    dice.shuffle(plan)
    prepare(project)
    Drill(project, days, plan, dice, pause, every, tell).run()
    require_equal(calm, project)
    with project.active(), dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
    failed = sum(run.status is dg.DagsterRunStatus.FAILURE for run in runs)
    tell(f"equal to the undisturbed project, to the digest, after {len(runs)} runs, {failed} of them killed")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--kills", type=int, default=16)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--pause", type=float, default=40, help="most seconds until what is there is killed")
    options.add_argument("--every", type=float, default=5, help="seconds between two days that arrive")
    chosen = vars(options.parse_args())
    folder = Path(tempfile.mkdtemp(prefix="kill-"))  # kept if anything fails
    calm, project = Project.create(folder / "calm"), Project.create(folder / "killed")
    try:
        prepare(calm)
        calm.land(chosen["days"])
        calm.materialize()
        drill(calm, project, **chosen)
    finally:
        for each in (calm, project):
            each.target.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
