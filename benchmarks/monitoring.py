"""What a day of monitoring costs: 1,000,000 predictions of 40 features, with 30 and with 365 days of history.

.venv/bin/python -W ignore -m benchmarks.monitoring [--rows 1000000] [--days 365]

A small model is trained, judged and deployed as ever. Then the day's predictions and their outcomes are put into the
lake, and before it days of few rows, each with its records and with as many findings as the real day has. What is
measured is the refresh that finds the day due and makes it, in a process of its own: seconds and memory of the whole
process, with its imports, plots and checks. Fails if it takes 60 s or 1 GiB, if a year of history makes it cost more
CPU than a month does, or if a year of the table takes a second to read.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

NUMBERS, TEXTS = 35, 5
NAMES = [f"n{each:02d}" for each in range(NUMBERS)]
KINDS = [f"t{each}" for each in range(TEXTS)]
TRAINED_ON, MODEL = 20_000, "clicks"
MOST_SECONDS, MOST_MIB = 60.0, 1024.0
MOST_GROWTH = 1.2  # of CPU seconds and memory, from a month of history to all of it
MOST_TO_READ = 1.0  # seconds for a year of the table
CHUNK = 100_000
HISTORY_ROWS = 100  # of a day before
DAY = datetime.now(UTC).date() - timedelta(days=30)  # its outcomes have had their time

SPEC: dict[str, Any] = {
    "task": "binary",
    "contract": "contract.Clicks",
    "source": {"kind": "files", "uri": "{{ landing }}/clicks.parquet"},
    "split": {"by": "random", "test": 0.3},
    "training": {"folds": 2},
    "estimator": {"class": "sklearn.linear_model.LogisticRegression"},
    "endpoint": {"canary": [100]},
}
CONTRACT = "import pandera.polars as pa\n\n\nclass Clicks(pa.DataFrameModel):\n" + "\n".join(
    [
        '    click: int = pa.Field(metadata={"role": "key"})',
        *(f'    {name}: float = pa.Field(metadata={{"role": "request"}})' for name in NAMES),
        *(f'    {name}: str = pa.Field(metadata={{"role": "request"}})' for name in KINDS),
        '    bought: bool = pa.Field(nullable=True, metadata={"role": "target"})\n',
    ]
)


def clicks(rows: int, seed: int) -> pl.DataFrame:
    """Rows of the contract."""
    random = np.random.default_rng(seed)
    numbers = {name: random.normal(size=rows) for name in NAMES}
    texts = {
        name: pl.Series(random.integers(0, 5 + 6 * place, rows)).cast(pl.String) for place, name in enumerate(KINDS)
    }
    bought = random.random(rows) < 1 / (1 + np.exp(-2 * numbers[NAMES[0]] - numbers[NAMES[1]]))
    return pl.DataFrame({"click": np.arange(rows), **numbers, **texts, "bought": bought})


def predictions(day: date, rows: int, seed: int, release: str) -> pl.DataFrame:
    """What the table `predictions` holds of so many requests, one row each."""
    asked = clicks(rows, seed)
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=seed)
    score = 1 / (1 + np.exp(-2 * asked["n00"].to_numpy() - asked["n01"].to_numpy()))
    features = asked.select(*NAMES, *KINDS)
    return (
        pl.DataFrame(
            {
                "request_id": [f"{seed}-{each}" for each in range(rows)],
                "row": np.zeros(rows, np.int64),
                "received_at": pl.Series([begin] * rows, dtype=pl.Datetime("us", "UTC")),
                "version": ["1"] * rows,
                "release": [release] * rows,
                "seconds": np.full(rows, 0.002),
                "segment": ["s"] * rows,
                "label": np.where(score > 0.5, "True", "False").tolist(),
                "score": score,
                "missing": pl.Series([None] * rows, dtype=pl.String),
                "key_click": asked["click"],
            }
        )
        .hstack(features.select(pl.all().name.prefix("request_")))
        .hstack(features.select(pl.all().name.prefix("feature_")))
    )


def make_day(project: Any, day: date, rows: int, release: str) -> None:
    """Write a day of `predictions` and `feedback`, in parts: what makes it is not what is measured."""
    import deltalake

    from ml_assets.lake import PARTITION

    lake, some = project.lake, str(day)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        part = predictions(day, count, start, release).with_columns(pl.lit(some).alias(PARTITION))
        known = clicks(count, start).get_column("bought")
        carried = ("request_id", "row", "received_at", "version", "release", "key_click", "label", "score", PARTITION)
        joined = part.select(carried).with_columns(
            known.alias("outcome_bought"), pl.lit(None, pl.Datetime("us", "UTC")).alias("known_at")
        )
        for table, frame in (("predictions", part), ("feedback", joined)):
            if start:
                deltalake.write_deltalake(lake.path(MODEL, table), frame, mode="append")
            else:
                lake.replace(MODEL, table, frame, [some])


def record_days(project: Any, rows: dict[str, int], due: str) -> None:
    """Write the records of all days, so that nothing is due but the monitoring of one."""
    from ml_assets.assets.feedback import feedback_bases
    from ml_assets.assets.monitoring import monitoring_bases
    from ml_assets.assets.predictions import predictions_basis
    from ml_assets.records import Record, append_records, read_latest, writing

    model, lake, now = project.model(MODEL), project.lake, datetime.now(UTC)
    records = []
    for day, count in rows.items():
        sizes = {f"{day}-{each:02d}": 1_000_000 for each in range(24)}
        details = {
            "requests": count,
            "refused": 0,
            **dict.fromkeys(
                ("lost", "torn_bytes", "unreadable", "without_features", "not_reproduced", "not_joinable"), 0
            ),
            "statuses": json.dumps({"200": count}),
            "p50_ms": "2.000",
            "p99_ms": "9.000",
            "reasons": [],
            "versions": {"1": [False, True]},
            "segments": {name: {"bytes": size, "statuses": {"200": 1}} for name, size in sizes.items()},
        }
        inputs = predictions_basis(sizes).inputs
        records.append(Record("predictions", day, inputs, f"content of {day}", count, "run", details=details))
    append_records(lake, MODEL, records)
    details = {"final": "yes", "coverage": 1.0, "matured": 1, "joined": 1, "not_joinable": 0}
    bases = feedback_bases(model, read_latest(lake, MODEL), now)
    found = [Record("feedback", day, bases[day].inputs, f"f {day}", rows[day], "run", details=details) for day in rows]
    append_records(lake, MODEL, found)
    watched = {"alarms": {}, "versions": {}, "rows": 1, "over": "yes", "final": "yes", "wrong": "", "quality": ""}
    known = monitoring_bases(model, lake, read_latest(lake, MODEL), now)
    version = lake.version(MODEL, "monitoring") or 0
    past = [
        Record("monitoring", day, known[day].inputs, f"m {day}", 60, "run", version, watched)
        for day in rows
        if day != due
    ]
    append_records(lake, MODEL, [*past, writing("monitoring", due, "run")])


def remember(project: Any, days: list[str], release: str) -> None:
    """Days before: a commit each, few predictions, and as many findings as the real day has."""
    from ml_assets.lake import PARTITION

    found = project.lake.read(MODEL, "monitoring", [str(DAY)]).drop(PARTITION)
    for number, day in enumerate(days):
        asked = predictions(date.fromisoformat(day), HISTORY_ROWS, number, release)
        project.lake.replace(MODEL, "predictions", asked.with_columns(pl.lit(day).alias(PARTITION)), [day])
        project.lake.replace(MODEL, "monitoring", found.with_columns(pl.lit(day).alias(PARTITION)), [day])


def refresh(project: Any) -> dict[str, float]:
    """The refresh, in a process of its own: its wall clock, CPU seconds and peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.monitoring", "--refresh"],
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def refresh_here(started: float) -> None:
    """What the process of `refresh` does."""
    from ml_assets.materialize import materialize_feedback, models_of, prepare_dagster_home
    from ml_assets.settings import Settings

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    told: list[str] = []
    runs = materialize_feedback(settings, models_of(settings)[MODEL], told.append)
    assert len(runs) == 1, told
    steps = [line for line in told if " done in " in line]
    assert [each.split()[0] for each in steps] == ["monitoring"], f"nothing else was due: {told}"
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": time.time() - started,
        "cpu": used.ru_utime + used.ru_stime,
        "mib": peak_mib(),
    }
    print(json.dumps(figures | {"step": float(steps[0].rsplit(" ", 2)[-2])}))


def peak_mib() -> float:
    """Peak memory of this process; `ru_maxrss` would be that of the process that started it, if that was more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def seconds_to_read(project: Any) -> tuple[float, int]:
    """How long a year of the table takes to read in a new process, after its imports, and its rows."""
    code = (
        "import sys, time; from pathlib import Path; from ml_assets.lake import Lake; import deltalake\n"
        "started = time.perf_counter(); rows = Lake(Path(sys.argv[1])).read(sys.argv[2], 'monitoring').height\n"
        "print(time.perf_counter() - started, rows)"
    )
    command = [sys.executable, "-c", code, str(project.settings.lake), MODEL]
    seconds, rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(rows)


def measure(root: Path, rows: int, days: int) -> bool:
    """Print the figures; whether they hold."""
    from ml_assets.lake import WHOLE
    from ml_assets_tests.project import Project

    project = Project.create(root)
    project.landing.mkdir(parents=True)
    clicks(TRAINED_ON, 10**6 + 1).write_parquet(project.landing / "clicks.parquet")
    project.add_model(MODEL, SPEC, CONTRACT)
    try:
        project.materialize(MODEL)
    finally:
        project.target.stop()
    served = project.latest(MODEL).get("endpoint", WHOLE)
    assert served is not None
    release = str(served.details["release"])
    make_day(project, DAY, rows, release)
    day, counts = str(DAY), {str(DAY): rows}
    record_days(project, counts, day)
    refresh(project)  # once for the findings that other days are given
    found = project.lake.read(MODEL, "monitoring", [day])
    assert found.filter(pl.col("alarm")).is_empty(), found.filter(pl.col("alarm"))
    judged = found.filter(pl.col("subject") == "drift", pl.col("value").is_not_null())
    assert judged.height == NUMBERS + TEXTS
    assert found.filter(pl.col("subject") == "quality", pl.col("limit").is_not_null()).height == 5
    print(f"monitoring: a day of {rows:,} predictions with {NUMBERS + TEXTS} features, {found.height} findings")
    figures = []
    for history in (30, days):
        more = [str(DAY - timedelta(days=each)) for each in range(history - 1, 0, -1)]
        remember(project, [each for each in more if each not in counts], release)
        counts = dict.fromkeys(more, HISTORY_ROWS) | {day: rows}
        record_days(project, counts, day)
        each = refresh(project)
        figures.append(each)
        print(
            f"  {history:4} days of history  {each['seconds']:5.1f} s, of which the step {each['step']:5.1f} s, "
            f"{each['cpu']:5.1f} s of CPU, {each['mib']:6.0f} MiB"
        )
    taken, height = seconds_to_read(project)
    print(f"  {days} days of the table, {height:,} rows, are read in {taken:.2f} s")
    month, year = figures
    return (
        all(each["seconds"] < MOST_SECONDS and each["mib"] < MOST_MIB for each in figures)
        and year["cpu"] < MOST_GROWTH * month["cpu"]
        and year["mib"] < MOST_GROWTH * month["mib"]
        and taken < MOST_TO_READ
    )


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--refresh", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.refresh:
        refresh_here(started)
        return
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        if not measure(Path(folder), arguments.rows, arguments.days):
            sys.exit("a day of monitoring costs more than it may")


if __name__ == "__main__":
    main()
