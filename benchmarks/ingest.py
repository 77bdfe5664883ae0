"""What ingesting costs: 10 million rows in daily files with pandas and with ml-assets, and one new day on top of many.

.venv/bin/python -m benchmarks.ingest [--rows 10000000] [--days 365] [--folder FOLDER]

Each way runs in a process of its own, so that each has its own peak of memory. A machine that does other things at the
same time changes the seconds; compare figures of one run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

FIRST = date(2025, 1, 1)
MODEL = "orders"
ASSETS = ("raw_data", "cleaned_data", "rejected_rows")
BROKEN, DOUBLED = 0.01, 0.005  # shares of the rows
ZONES, VEHICLES, WEATHER = ["centre", "north", "south", "east"], ["bike", "scooter", "car"], ["dry", "rain", "snow"]

SPEC = """\
type: ml_assets.TabularModel
attributes:
  name: orders
  task: binary
  contract: contract.Orders
  source: {kind: files, uri: "{{ landing }}/*.parquet", batch: day, start: 2025-01-01, end: LAST}
"""
CONTRACT = '''\
"""Orders."""

from typing import Annotated

import pandera.polars as pa
import polars as pl

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Orders(pa.DataFrameModel):
    """Orders of a delivery service."""

    order_id: str = pa.Field(metadata={"role": "key"})
    ordered_at: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]})
    zone: str = pa.Field(isin=["centre", "north", "south", "east"], metadata={"role": "request"})
    vehicle: str = pa.Field(isin=["bike", "scooter", "car"], metadata={"role": "request"})
    weather: str = pa.Field(isin=["dry", "rain", "snow"], nullable=True, metadata={"role": "request"})
    distance_km: float = pa.Field(gt=0, le=100, nullable=True, metadata={"role": "request"})
    items: int = pa.Field(ge=1, metadata={"role": "request"})
    order_value: float = pa.Field(gt=0, metadata={"role": "request"})
    promised_minutes: float = pa.Field(gt=0, metadata={"role": "request"})
    late: bool = pa.Field(nullable=True, metadata={"role": "target"})
'''


def day_of(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def land(folder: Path, number: int, rows: int) -> None:
    """One day's file: broken rows have a distance below zero, an unknown zone or no items; some rows come twice."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(number)
    start = np.datetime64(day_of(number), "us")
    distance = rng.gamma(2.0, 2.0, rows) + 0.1
    items = rng.integers(1, 9, rows)
    zone = np.array([*ZONES, "?"])[rng.integers(0, 4, rows)]
    broken, kind = rng.random(rows) < BROKEN, rng.integers(0, 3, rows)
    distance[broken & (kind == 0)] *= -1
    zone[broken & (kind == 1)] = "?"
    items[broken & (kind == 2)] = 0
    frame = pl.DataFrame(
        {
            "order_id": np.arange(rows) + number * 10_000_000,
            "ordered_at": start + np.sort(rng.integers(0, 86_400_000_000, rows)),
            "zone": zone,
            "vehicle": np.array(VEHICLES)[rng.integers(0, 3, rows)],
            "weather": np.array(WEATHER)[rng.integers(0, 3, rows)],
            "distance_km": distance.round(2),
            "items": items,
            "order_value": (rng.gamma(3.0, 9.0, rows) + 1).round(2),
            "promised_minutes": rng.integers(15, 60, rows).astype(float),
            "late": rng.random(rows) < 0.2,
        }
    ).with_columns(
        (pl.lit("o") + pl.col("order_id").cast(pl.String)).alias("order_id"),
        pl.col("ordered_at").dt.replace_time_zone("UTC"),
        pl.when(pl.lit(rng.random(rows) < 0.02)).then(None).otherwise(pl.col("weather")).alias("weather"),
    )
    again = frame.sample(int(rows * DOUBLED), seed=number)
    pl.concat([frame.head(rows - again.height), again]).write_parquet(folder / f"{day_of(number)}.parquet")


def with_pandas(landing: Path, out: Path) -> dict[str, Any]:
    """The plain code that people write: read all, drop duplicates, fill, mask, write."""
    import pandas as pd

    started = time.process_time()
    frame = pd.concat([pd.read_parquet(each) for each in sorted(landing.glob("*.parquet"))], ignore_index=True)
    raw = len(frame)
    frame = frame.drop_duplicates(subset=["order_id", "ordered_at"], keep="last")
    frame = frame.dropna(subset=["order_id", "ordered_at"])
    frame["weather"] = frame["weather"].fillna("unknown")
    good = (
        frame["zone"].isin(ZONES)
        & frame["vehicle"].isin(VEHICLES)
        & frame["weather"].isin([*WEATHER, "unknown"])
        & frame["distance_km"].between(0, 100, inclusive="right")
        & (frame["items"] >= 1)
        & (frame["order_value"] > 0)
        & (frame["promised_minutes"] > 0)
    )
    frame[good].to_parquet(out / "cleaned.parquet", index=False)
    frame[~good].to_parquet(out / "rejected.parquet", index=False)
    return {"cpu": time.process_time() - started, "raw": raw, "cleaned": int(good.sum())}


def with_ml_assets(first: str, last: str, events: str) -> dict[str, Any]:
    """The assets themselves, as a run of Dagster's makes them; CPU is of the run without process start and imports.

    Args:
        events: where Dagster keeps its events: `sqlite`, as on a laptop, or `memory`, which leaves the work on data.
    """
    import dagster as dg

    from ml_assets.assets.naming import key_of
    from ml_assets.definitions import definitions
    from ml_assets.lake import Lake
    from ml_assets.materialize import models_of, prepare_dagster_home
    from ml_assets.records import read_latest
    from ml_assets.settings import Settings

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    model = models_of(settings)[MODEL]
    job = definitions().resolve_job_def(MODEL)
    import deltalake  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    with dg.DagsterInstance.get() if events == "sqlite" else dg.DagsterInstance.ephemeral() as instance:
        started, clock = time.process_time(), time.monotonic()
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[key_of(model, each) for each in ASSETS],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )
        cpu, seconds = time.process_time() - started, time.monotonic() - clock
    assert result.success
    records = read_latest(Lake(settings.lake), MODEL).of("cleaned_data")
    made = [each for day, each in records.items() if first <= day <= last]
    rows, raw = sum(each.rows for each in made), sum(each.details["raw"] for each in made)
    return {"cpu": cpu, "inside": seconds, "raw": raw, "cleaned": rows}


def home_with(root: Path, name: str, landing: Path, last: int) -> dict[str, str]:
    """The environment of a project folder with the one model in it."""
    folder = root / name / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(SPEC.replace("LAST", day_of(last)))
    (folder / "contract.py").write_text(CONTRACT)
    return {
        "ML_ASSETS_HOME": str(root / name / "state"),
        "ML_ASSETS_MODELS": str(root / name / "models"),
        "ML_ASSETS_LANDING": str(landing),
    }


def measure(*command: str, **environment: str) -> dict[str, Any]:
    """Run this file in a process of its own: what it says, with seconds and peak MiB."""
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.ingest", *command],
            env=os.environ | environment,
            stdout=said,
            stderr=None if os.environ.get("VERBOSE") else subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        said.seek(0)
        lines = said.read().splitlines()
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}; VERBOSE=1 shows why")
    return json.loads(lines[-1]) | {"seconds": seconds, "MiB": usage.ru_maxrss / 1024}


def compare(rows: int, days: int, root: Path) -> None:
    few = min(30, days)
    every, recent, out = root / "landing", root / "recent", root / "pandas"
    for each in (every, recent, out):
        each.mkdir()
    size = rows // days
    for number in range(days):
        land(every, number, size)
    for number in range(days - few, days):
        os.link(every / f"{day_of(number)}.parquet", recent / f"{day_of(number)}.parquet")
    print(f"{size * days:,} rows in {days} daily files; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")

    plain = measure("--way", "pandas", "--landing", str(every), "--out", str(out))
    print(f"{'pandas, all at once':<32}{_said(plain)}")
    long, short = home_with(root, "long", every, days), home_with(root, "short", recent, days)
    all_days = ("--way", "ours", "--from", day_of(0), "--to", day_of(days - 1))
    whole = measure(*all_days, **home_with(root, "sqlite", every, days))
    data = measure(*all_days, "--events", "memory", **long)
    print(f"{'ml-assets, work on data':<32}{_said(data)}   {_compared(plain, data)}")
    print(f"{'ml-assets, with Dagster events':<32}{_said(whole)}   {_compared(plain, whole)}")
    print(f"rows kept: pandas {plain['cleaned']:,}, ml-assets {data['cleaned']:,}")
    measure("--way", "ours", "--events", "memory", "--from", day_of(days - few), "--to", day_of(days - 1), **short)
    for folder in (every, recent):
        land(folder, days, size)
    one_day = ("--way", "ours", "--events", "memory", "--from", day_of(days), "--to", day_of(days))
    on_long, on_short = (measure(*one_day, **environment)["cpu"] for environment in (long, short))
    print(
        f"one new day, work on data: CPU {on_long:.2f} s on top of {days} days, {on_short:.2f} s on top of {few} "
        f"({on_long / on_short:.2f} times); all days cost {data['cpu'] / on_long:.0f} times as much"
    )


def _said(measured: dict[str, Any]) -> str:
    return f"{measured['seconds']:6.1f} s   CPU {measured['cpu']:6.1f} s   peak {measured['MiB']:6.0f} MiB"


def _compared(plain: dict[str, Any], ours: dict[str, Any]) -> str:
    return f"{plain['seconds'] / ours['seconds']:.2f} times as fast, {plain['MiB'] / ours['MiB']:.1f} times less memory"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; they need about 3 GB")
    parser.add_argument("--way", choices=["pandas", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--events", choices=["sqlite", "memory"], default="sqlite", help=argparse.SUPPRESS)
    for name in ("--landing", "--out"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    for name in ("--from", "--to"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    if given["way"] == "pandas":
        print(json.dumps(with_pandas(given["landing"], given["out"])))
    elif given["way"] == "ours":
        print(json.dumps(with_ml_assets(given["from"], given["to"], given["events"])))
    else:
        home = Path(tempfile.mkdtemp(prefix="ingest-", dir=given["folder"]))
        try:
            compare(given["rows"], given["days"], home)
        finally:
            shutil.rmtree(home)
