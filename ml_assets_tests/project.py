"""A state folder of its own with models and landed files, on which tests run the platform for real."""

import atexit
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ml_assets.demo.business import FIRST_DAY, Business, land
from ml_assets.deployment.local import LocalTarget
from ml_assets.lake import Lake
from ml_assets.materialize import materialize_due, models_of, prepare_dagster_home
from ml_assets.model import Model
from ml_assets.records import Latest, read_latest
from ml_assets.registry import Registry
from ml_assets.settings import PROJECT_ROOT, Settings

DEMO = PROJECT_ROOT / "ml_assets" / "defs" / "late_deliveries"
PROGRAMS = Path(sys.executable).parent
SMALL = Business(orders_per_day=150)
# The demo's model, small enough for a test of what surrounds it. Ten trees on a few hundred rows may well turn out
# worse than those before, which is what the gate `champion` is for: `test_champion.py` is about that.
SMALL_MODEL: dict[str, Any] = {
    "estimator": {"params": {"n_estimators": 10, "max_depth": 8}},
    "training": {"min_rows": 200, "folds": 2},
    "gates": {"f1": 0.5, "champion": "off", "min_rows": 50},
    "groups": [],
    "endpoint": {"canary": [100]},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def empty_mlflow() -> Path:
    """MLflow's database before its first use: fifty migrations, which need not be run for each project."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
    atexit.register(shutil.rmtree, folder)
    file = folder / "mlflow.db"
    assert Registry(f"sqlite:///{file}").client.search_experiments()
    return file


@dataclass
class Project:
    """One state folder, its models' folder and its ports."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, models: Path | None = None, landing: str | None = None) -> "Project":
        models = models or root / "models"
        models.mkdir(parents=True, exist_ok=True)
        variables = {
            "ML_ASSETS_HOME": str(root / "state"),
            "ML_ASSETS_MODELS": str(models),
            "ML_ASSETS_ENDPOINT_PORT": str(free_port()),
            "ML_ASSETS_MLFLOW_PORT": str(free_port()),
            "ML_ASSETS_REPORT_PORT": str(free_port()),
            "DAGSTER_HOME": str(root / "state" / "dagster"),
        }
        if landing:
            variables["ML_ASSETS_LANDING"] = landing
        project = cls(root, variables)
        with project.active():
            prepare_dagster_home(project.settings)
        return project

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.variables)

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @property
    def target(self) -> LocalTarget:
        settings = self.settings
        return LocalTarget.of(settings)

    @property
    def landing(self) -> Path:
        return Path(self.settings.landing)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make this project the environment of this process."""
        before = dict(os.environ)
        others = {name: value for name, value in before.items() if not name.startswith("ML_ASSETS_")}
        others.pop("DAGSTER_HOME", None)
        change_environment(others | self.variables)
        try:
            yield
        finally:
            change_environment(before)

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("ML_ASSETS_")} | self.variables

    def add_demo_model(self, name: str = "late_deliveries", **changes: Any) -> Path:
        """A copy of the demo's model with other attributes."""
        folder = self.settings.models / name
        shutil.copytree(DEMO, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        spec = yaml.safe_load((DEMO / "defs.yaml").read_text())
        spec["attributes"] |= {"name": name} | changes
        (folder / "defs.yaml").write_text(yaml.safe_dump(spec))
        return folder

    def add_model(self, name: str, spec: dict[str, Any], contract: str, features: str | None = None) -> Path:
        """A model from texts."""
        folder = self.settings.models / name
        folder.mkdir(parents=True, exist_ok=True)
        attributes = {"name": name} | spec
        (folder / "defs.yaml").write_text(yaml.safe_dump({"type": "ml_assets.TabularModel", "attributes": attributes}))
        (folder / "contract.py").write_text(contract)
        if features is not None:
            (folder / "features.py").write_text(features)
        return folder

    def land(self, days: int, first: date = FIRST_DAY, business: Business = SMALL) -> list[Path]:
        return land(business, self.landing / "late_deliveries", first, days)

    def model(self, name: str = "late_deliveries") -> Model:
        with self.active():
            return models_of(self.settings)[name]

    def refusal(self) -> str:
        """What is said, with all causes, when the models are loaded, which must fail."""
        from ml_assets.definitions import models_in

        said = []
        error: BaseException | None = None
        with self.active():
            try:
                models_in(self.settings.models)
            except Exception as raised:
                error = raised
        assert error is not None, "the models were loaded"
        while error is not None:
            said.append(str(error))
            error = error.__cause__ or error.__context__
        return "\n".join(said)

    def definitions(self) -> dg.Definitions:
        """The whole code location."""
        from ml_assets.definitions import definitions

        with self.active():
            return definitions()

    def prepare_mlflow(self) -> None:
        """Give MLflow its database, unless another one is set or it is there."""
        database = self.settings.home / "mlflow" / "mlflow.db"
        if not database.exists() and str(database) in self.settings.mlflow_uri:
            database.parent.mkdir(parents=True)
            shutil.copy(empty_mlflow(), database)

    def materialize(self, name: str = "late_deliveries") -> list[str]:
        """Run what is due, in this process."""
        self.prepare_mlflow()
        with self.active():
            return materialize_due(self.settings, models_of(self.settings)[name], lambda line: None)

    def by_hand(self, asset: str, partition: str | None = None, name: str = "late_deliveries") -> None:
        """Materialise one asset, due or not, as a person may do in the UI; raises what its step raised."""
        with self.active(), dg.DagsterInstance.get() as instance:
            job = self.definitions().resolve_job_def(name)
            key = dg.AssetKey([name, asset])
            job.execute_in_process(instance=instance, asset_selection=[key], partition_key=partition)

    def contents(self, name: str = "late_deliveries") -> dict[str, dict[str, str]]:
        """Digest of what each asset holds, by partition; the endpoint's release apart, whose name holds a verdict."""
        latest = self.latest(name)
        return {
            asset: {partition: each.content for partition, each in latest.of(asset).items()}
            for asset in ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features", "trained_model")
        }

    def latest(self, name: str = "late_deliveries") -> Latest:
        return read_latest(self.lake, name)

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """A command of the virtual environment, in a process of its own."""
        program = [str(PROGRAMS / command[0]), *command[1:]]
        return subprocess.run(
            program,
            env=self.environment(),
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def materializations(self) -> int:
        """Number of materialisation events on the instance, of all assets."""
        with self.active(), dg.DagsterInstance.get() as instance:
            keys = instance.all_asset_keys()
            return sum(
                len(instance.fetch_materializations(dg.AssetRecordsFilter(key), limit=10_000).records) for key in keys
            )

    @contextlib.contextmanager
    def services(self, *, webserver_port: int | None = None) -> Iterator[Path]:
        """The daemon and code server, and the UI's web server if it has a port, as real processes.

        Yields:
            The log.
        """
        log = self.root / "dagster.log"
        command = [str(PROGRAMS / "dagster"), "dev", "-w", "workspace.yaml", "-p", str(webserver_port or free_port())]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment(), cwd=PROJECT_ROOT, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield log
        finally:
            end_session(process)


def change_environment(wanted: Mapping[str, str]) -> None:
    """Make these the variables of this process, and touch no other.

    The C library moves them to another place when their number grows, and a native thread that reads one at that moment
    (of Delta Lake or Ray) ends the process. To remove all and set them again did that each time.
    """
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and what is left of its session."""
    import signal

    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def wait_until(holds: Any, seconds: float, what: str) -> Any:
    """Poll until `holds()` is true and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.3)
    raise AssertionError(f"after {seconds:.0f} s still not: {what}")


def status(project: Project) -> dict[str, Any]:
    done = project.run("ml-assets", "status", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
