"""What each tool adds to the blog's pipeline: a first run on 100,000 rows, and a second one with nothing changed.

.venv/bin/python -m benchmarks.train [--rows 100000] [--rounds 3] [--peers prefect zenml metaflow kedro]

The same steps, model, cross-validation and MLflow logging (`blog.py`) as a plain script and in each peer, with results
kept the way that each tool keeps them; and ml-assets, which also keeps a contract, quarantine, tables with versions,
intervals and gates. Each runs as a person runs it: as a process, with a home of its own that is empty at first. Seconds
and CPU seconds are of the whole process with its children; medians of the rounds, in which all take turns.
ml-assets goes on after the verdict to an endpoint that answers, which no peer does: both moments are told.

A second run with nothing changed has to find out that nothing did. `metaflow resume` and Kedro's
`--only-missing-outputs` do not look at data or code: they are in the table, and not in the comparison.

Each is installed in an environment of its own, once, below `--folder`. Fails if ml-assets is not
as near to the plain script, or as far ahead of a peer, as said.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from benchmarks.environments import environment_in
from ml_assets.settings import PROJECT_ROOT

HERE = Path(__file__).parent
PACKAGES = ("mlflow", "scikit-learn", "pandas", "skops", "pyarrow", "matplotlib")
BLIND = ("metaflow", "kedro")  # when run again
PEERS = {
    "prefect": ["prefect==3.9.1"],
    "zenml": ["zenml[local,server]==0.98.0"],
    "metaflow": ["metaflow==2.19.39"],
    "kedro": ["kedro==1.7.0", "kedro-datasets[pandas-parquetdataset,pickle-pickledataset]==9.6.0"],
}
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "USERNAME": "bench",
}
MOST_SECONDS, MOST_RATIO = 3.0, 1.05  # above the plain script, whichever is more
MOST_RERUN, SHARE_OF_PEER = 3.0, 1 / 3


@dataclass(frozen=True)
class Took:
    """Seconds of a process, and CPU seconds of it and its children; of ml-assets also until its verdict."""

    seconds: float
    cpu: float
    verdict: float | None = None
    verdict_cpu: float | None = None


def land(file: Path, rows: int) -> None:
    """Orders whose lateness depends on them; some values are missing, some rows are broken, some come twice."""
    random = np.random.default_rng(0)

    def pick(*names: str) -> np.ndarray:
        return np.array(names)[random.integers(0, len(names), rows)]

    frame = pl.DataFrame(
        {
            "order_id": [f"o{number}" for number in range(rows)],
            "ordered_at": np.datetime64("2025-01-01", "us") + np.sort(random.integers(0, 30 * 86_400_000_000, rows)),
            "zone": pick("centre", "north", "south", "east", "harbour"),
            "vehicle": pick("bike", "scooter", "car"),
            "weather": pick("dry", "rain", "snow"),
            "kitchen": pick("pizza", "sushi", "curry", "burger", "salad", "noodles"),
            "payment": pick("card", "cash", "app"),
            "distance_km": (random.gamma(2.0, 2.0, rows) + 0.1).round(2),
            "items": random.integers(1, 9, rows),
            "order_value": (random.gamma(3.0, 9.0, rows) + 1).round(2),
            "preparation_minutes": random.gamma(6.0, 2.5, rows).round(1),
            "promised_minutes": random.integers(15, 60, rows).astype(float),
            "temperature": random.normal(12, 8, rows).round(1),
            "rain_mm": random.exponential(1.5, rows).round(1),
            "courier_load": random.integers(0, 5, rows).astype(float),
            "restaurant_load": random.integers(0, 12, rows).astype(float),
        }
    ).with_columns(pl.col("ordered_at").dt.replace_time_zone("UTC"))
    needed = (
        pl.col("preparation_minutes") + 2.2 * pl.col("distance_km") + 2 * pl.col("courier_load")
        + pl.col("restaurant_load") + 5 * (pl.col("weather") == "snow") + 2 * pl.col("rain_mm")
    )  # fmt: skip
    frame = frame.with_columns(
        (needed + pl.Series(random.normal(0, 4, rows)) > pl.col("promised_minutes")).alias("late")
    )
    gone = {name: random.random(rows) < 0.03 for name in ("weather", "distance_km", "temperature")}
    frame = frame.with_columns(
        pl.when(pl.Series(some)).then(None).otherwise(pl.col(name)).alias(name) for name, some in gone.items()
    )
    broken = pl.when(pl.Series(random.random(rows) < 0.01)).then(0).otherwise(pl.col("items")).alias("items")
    frame = frame.with_columns(broken)
    pl.concat([frame.head(rows - rows // 200), frame.sample(rows // 200, seed=0)]).write_parquet(file)


def environment_of(name: str, folder: Path) -> Path:
    """Python of the environment with a way's packages and no others; it is made if it is not there."""
    lock = PROJECT_ROOT / "requirements.lock"
    if name == "ml-assets":
        return environment_in(folder / name, "--constraint", str(lock), "--editable", str(PROJECT_ROOT))
    same = [line for line in lock.read_text().splitlines() if line.split("==")[0] in PACKAGES]
    return environment_in(folder / name, *same, *PEERS.get(name, []))


@dataclass(frozen=True)
class Way:
    """One way to run the pipeline, in a home of its own.

    Attributes:
        again: the command of a second run; as the first one if none is given.
        folder: where it runs; default: the home.
    """

    home: Path
    command: list[str]
    again: list[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def run(self, again: bool) -> Took:
        command = self.again if again and self.again else self.command
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        verdict = verdict_cpu = None
        with (self.home / "log").open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder or self.home,
                env=_environment() | QUIET | {"HOME": str(self.home), "PYTHONPATH": str(HERE)} | self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                if line.startswith("  metrics done"):
                    verdict, verdict_cpu = time.monotonic() - started, _cpu_of(process.pid)
            status = process.wait()
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if status:
            sys.exit((self.home / "log").read_text()[-3000:] + f"\n{' '.join(command)} ended with {status}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Took(seconds, cpu, verdict, verdict_cpu)


def _environment() -> dict[str, str]:
    # Where a shell or an image sets it, each process would compile all packages anew.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def ways_of(peers: list[str], root: Path, environments: Path, data: Path) -> dict[str, Way]:
    """Every way, each with a home that is empty."""
    ways = {}
    for name in ["plain", *peers, "ml-assets"]:
        home = root / name
        home.mkdir()
        uri = f"sqlite:///{home}/mlflow.db"
        python = environment_of(name, environments)
        script = [str(python), "-W", "ignore", str(HERE / f"{'' if name == 'plain' else 'with_'}{name}.py")]
        if name == "ml-assets":
            ways[name] = _ml_assets(python, home, data)
        elif name == "kedro":
            ways[name] = _kedro(python, home, data, uri)
        elif name == "metaflow":
            script += ["--quiet", "--no-pylint"]
            ways[name] = Way(home, [*script, "run", "--data", str(data), "--uri", uri], [*script, "resume"])
        else:
            environment = {"PREFECT_HOME": str(home), "ZENML_CONFIG_PATH": str(home / "zenml")}
            ways[name] = Way(home, [*script, str(data), uri], environment=environment)
    return ways


def _ml_assets(python: Path, home: Path, data: Path) -> Way:
    shutil.copytree(HERE / "orders", home / "models" / "orders")
    environment = {
        "ML_ASSETS_HOME": str(home / "state"),
        "ML_ASSETS_MODELS": str(home / "models"),
        "ML_ASSETS_LANDING": str(data.parent),
    }
    return Way(home, [str(python.with_name("ml-assets")), "refresh", "orders"], environment=environment)


def _kedro(python: Path, home: Path, data: Path, uri: str) -> Way:
    folder = home / "project"
    shutil.copytree(HERE / "kedro_project", folder)
    (folder / "data").mkdir()
    os.link(data, folder / "data" / "raw.parquet")
    run = [str(python.with_name("kedro")), "run"]
    return Way(home, run, [*run, "--only-missing-outputs"], {"ORDERS_MLFLOW": uri}, folder)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    options.add_argument("--folder", type=Path, default=PROJECT_ROOT / ".state" / "peers", help="of the environments")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in ["plain", *given.peers, "ml-assets"]:
        environment_of(name, given.folder)
    first: dict[str, list[Took]] = {}
    again: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory(prefix="train-") as temporary:
        data = Path(temporary) / "landing" / "orders.parquet"
        data.parent.mkdir()
        land(data, given.rows)
        for number in range(given.rounds):
            root = Path(temporary) / str(number)
            root.mkdir()
            ways = ways_of(given.peers, root, given.folder, data)
            try:
                for runs, repeated in ((first, False), (again, True)):
                    for name, way in ways.items():
                        runs.setdefault(name, []).append(way.run(repeated))
            finally:
                ours = ways["ml-assets"]
                stop = [ours.command[0], "stop"]
                subprocess.run(stop, env=os.environ | ours.environment, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(root)
    missed = told(first, again, given.rows, given.rounds)
    if missed:
        sys.exit("; ".join(missed))


def told(first: dict[str, list[Took]], again: dict[str, list[Took]], rows: int, rounds: int) -> list[str]:
    """Print the medians; what is not as it should be."""
    print(f"{rows:,} rows, median of {rounds}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':<24}{'first run':>10}{'CPU':>10}{'again':>10}{'CPU':>10}")
    seconds = {name: median(each.verdict or each.seconds for each in runs) for name, runs in first.items()}
    cpu = {name: median(each.verdict_cpu or each.cpu for each in runs) for name, runs in first.items()}
    repeated = {name: median(each.seconds for each in runs) for name, runs in again.items()}
    repeated_cpu = {name: median(each.cpu for each in runs) for name, runs in again.items()}
    for name in first:
        print(f"{name:<24}{seconds[name]:8.1f} s{cpu[name]:8.1f} s{repeated[name]:8.1f} s{repeated_cpu[name]:8.1f} s")
    whole = median(each.seconds for each in first["ml-assets"])
    print(f"ml-assets' endpoint answered after {whole:.1f} s")
    ours, plain = seconds["ml-assets"], seconds["plain"]
    peers = [name for name in first if name not in ("plain", "ml-assets")]
    allowed = plain + max(MOST_SECONDS, (MOST_RATIO - 1) * plain)
    missed = [f"ml-assets took {ours:.1f} s, more than {allowed:.1f} s"] * (ours > allowed)
    missed += [f"{name} was faster" for name in peers if seconds[name] <= ours]
    most = min([MOST_RERUN, *(repeated[name] * SHARE_OF_PEER for name in peers if name not in BLIND)])
    rerun = repeated["ml-assets"]
    return missed + [f"run again, ml-assets took {rerun:.2f} s, more than {most:.2f} s"] * (rerun > most)


if __name__ == "__main__":
    main()
