"""What ingesting costs: 10 million rows in daily files with pandas and with ml-assets, and one new day on top of many.

.venv/bin/python -m benchmarks.ingest [--rows 10000000] [--days 365] [--folder FOLDER]

Each way runs in a process of its own, so that each has its own peak of memory. Seconds are of the whole process, and
inside it, after its imports; the comparisons are of the latter. A new day takes so little that one sample says little:
several arrive one after the other, each is made by a process of its own, and the median counts. The first use of Polars
and delta-rs in a process (threads, memory) is then a good part of it, so one more process makes several days, and those
after its first are what the work on a day's rows costs by itself. A machine that does other things at the same time
changes the figures; compare those of one run. Fails if a new day on a year or more is not as cheap as said.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

FIRST = date(2025, 1, 1)
MODEL = "orders"
ASSETS = ("raw_data", "cleaned_data", "rejected_rows")
BROKEN, DOUBLED = 0.01, 0.005  # shares of the rows
NEW_DAYS = 7
LEAST_RATIO = 200  # of the CPU seconds on the rows of all days to those of a new day, libraries in use
MOST_GROWTH = 1.3  # of a new day's CPU seconds from 30 days to all
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


def with_pandera(landing: Path, out: Path) -> dict[str, Any]:
    """The same job with pandas: the contract validated once and lazily, broken rows set apart with their reasons."""
    import pandas as pd
    import pandera.errors
    import pandera.pandas as pa

    class Orders(pa.DataFrameModel):
        order_id: str
        ordered_at: pd.DatetimeTZDtype = pa.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})
        zone: str = pa.Field(isin=ZONES)
        vehicle: str = pa.Field(isin=VEHICLES)
        weather: str = pa.Field(isin=WEATHER, nullable=True)
        distance_km: float = pa.Field(gt=0, le=100, nullable=True)
        items: int = pa.Field(ge=1)
        order_value: float = pa.Field(gt=0)
        promised_minutes: float = pa.Field(gt=0)
        late: bool

    started, clock = time.process_time(), time.monotonic()
    frame = pd.concat([pd.read_parquet(each) for each in sorted(landing.glob("*.parquet"))], ignore_index=True)
    raw = len(frame)
    broken = frame.head(0)
    try:
        Orders.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases.dropna(subset=["index"]).astype({"index": int, "failure_case": str})
        broken = frame.join(cases.groupby("index")[["column", "check", "failure_case"]].agg(list), how="inner")
    good = frame.drop(index=broken.index).drop_duplicates(subset=["order_id", "ordered_at"], keep="last")
    good.to_parquet(out / "cleaned.parquet", index=False)
    broken.to_parquet(out / "rejected.parquet", index=False)
    return {**_spent(started, clock), "raw": raw, "cleaned": len(good)}


def with_pandas(landing: Path, out: Path) -> dict[str, Any]:
    """The short form that people write: read all, drop duplicates, fill, mask by hand, write; no reasons are kept."""
    import pandas as pd

    started, clock = time.process_time(), time.monotonic()
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
    return {**_spent(started, clock), "raw": raw, "cleaned": int(good.sum())}


def with_steps(more: list[int], landing: Path, size: int) -> dict[str, Any]:
    """What is due, by the assets' own steps and records but without a Dagster run around them; then `more` days, which
    land one by one.

    Returns:
        `cpu` of everything, without process start and imports; `data` is the part of it in which rows are read, judged,
        cleaned, digested, written and recorded. The rest is listing and finding out what is due. `more` has the `data`
        of each further day.
    """
    import deltalake  # noqa: F401
    import polars as pl
    import pyarrow.dataset  # noqa: F401

    from ml_assets.lake import Lake
    from ml_assets.materialize import models_of
    from ml_assets.settings import Settings
    from ml_assets_tests.steps import refresh

    settings = Settings.from_environment()
    model, lake = models_of(settings)[MODEL], Lake(settings.lake)
    model.contract.schema.validate(pl.DataFrame(schema=dict(model.contract.types)))  # imports what checks need
    on_rows = metered([f"ml_assets.assets.{each}" for each in ("raw_data", "cleaned_data")], "refresh")
    started, clock = time.process_time(), time.monotonic()
    (days,) = refresh(model, lake, ASSETS)
    cpu, seconds = time.process_time() - started, time.monotonic() - clock
    spent = {"cpu": cpu, "data": sum(on_rows), "inside": seconds} | _counts(lake, days[0], days[-1])
    further = []
    for number in more:
        land(landing, number, size)
        on_rows.clear()
        refresh(model, lake, ASSETS)
        further.append(sum(on_rows))
    return spent | {"more": further}


def with_dagster(first: str, last: str) -> dict[str, Any]:
    """The same as one run of Dagster's, with its event log in SQLite as on a laptop."""
    import dagster as dg

    from ml_assets.assets.naming import key_of
    from ml_assets.definitions import definitions
    from ml_assets.lake import Lake
    from ml_assets.materialize import models_of, prepare_dagster_home
    from ml_assets.settings import Settings

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    model = models_of(settings)[MODEL]
    job = definitions().resolve_job_def(MODEL)
    with dg.DagsterInstance.get() as instance:
        started, clock = time.process_time(), time.monotonic()
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[key_of(model, each) for each in ASSETS],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )
        cpu, seconds = time.process_time() - started, time.monotonic() - clock
    assert result.success
    return {"cpu": cpu, "inside": seconds} | _counts(Lake(settings.lake), first, last)


def _counts(lake: Any, first: str, last: str) -> dict[str, int]:
    from ml_assets.records import read_latest

    records = read_latest(lake, MODEL).of("cleaned_data")
    made = [each for day, each in records.items() if first <= day <= last]
    return {"raw": sum(each.details["raw"] for each in made), "cleaned": sum(each.rows for each in made)}


def _spent(started: float, clock: float) -> dict[str, float]:
    return {"cpu": time.process_time() - started, "inside": time.monotonic() - clock}


def metered(modules: list[str], name: str) -> list[float]:
    """CPU seconds of each call of a function, as those modules call it."""
    spent: list[float] = []
    for each in modules:
        function = getattr(sys.modules[each], name)

        def timed(*given: Any, function: Callable[..., Any] = function, **named: Any) -> Any:
            started = time.process_time()
            try:
                return function(*given, **named)
            finally:
                spent.append(time.process_time() - started)

        setattr(sys.modules[each], name, timed)
    return spent


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


def compare(rows: int, days: int, root: Path) -> list[str]:
    """Print what each way costs; what is not as cheap as it should be."""
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

    masks = measure("--way", "pandas", "--landing", str(every), "--out", str(out))
    print(f"{'pandas, masks by hand':<32}{_said(masks)}")
    plain = measure("--way", "pandera", "--landing", str(every), "--out", str(out))
    print(f"{'pandas, contract and reasons':<32}{_said(plain)}")
    last = days + 2 * NEW_DAYS
    long, short = (home_with(root, name, landing, last) for name, landing in (("long", every), ("short", recent)))
    data = measure("--way", "steps", **long)
    print(f"{'ml-assets, its steps':<32}{_said(data)}   {_compared(plain, data)}")
    whole = measure(
        "--way", "dagster", "--from", day_of(0), "--to", day_of(days - 1), **home_with(root, "run", every, days)
    )
    print(f"{'ml-assets, as a Dagster run':<32}{_said(whole)}   {_compared(plain, whole)}")
    print(f"rows kept: pandas {masks['cleaned']:,} and {plain['cleaned']:,}, ml-assets {data['cleaned']:,}")
    measure("--way", "steps", **short)
    taken: dict[str, list[dict[str, Any]]] = {"long": [], "short": []}
    for number in range(days, days + NEW_DAYS):
        for folder in (every, recent):
            land(folder, number, size)
        taken["long"].append(measure("--way", "steps", **long))
        taken["short"].append(measure("--way", "steps", **short))
    growth = {}
    for name, what in (("cpu", "one new day"), ("data", "of it, work on rows")):
        new, on_few = (median(each[name] for each in taken[which]) for which in ("long", "short"))
        growth[name] = new / on_few
        print(
            f"{what}: CPU {new:.3f} s on top of {days} days, {on_few:.3f} s on top of {few} "
            f"({growth[name]:.2f} times); all days cost {data[name] / new:.0f} times as much"
        )
    first = days + NEW_DAYS
    land(every, first, size)
    further = [str(first + number) for number in range(1, NEW_DAYS + 1)]
    in_use = median(measure("--way", "steps", "--more", *further, "--size", str(size), **long)["more"])
    ratio = data["data"] / in_use
    print(
        f"of it, where the process made a day before: CPU {in_use:.3f} s on top of {days} days; "
        f"all days cost {ratio:.0f} times as much"
    )
    grown = growth["cpu"]
    missed = [f"a new day costs {grown:.2f} times as much on {days} days as on {few}"] * (grown > MOST_GROWTH)
    return missed + [f"all days cost only {ratio:.0f} times a new one"] * (days >= 365 and ratio < LEAST_RATIO)


def _said(measured: dict[str, Any]) -> str:
    seconds = f"{measured['seconds']:6.1f} s   inside {measured['inside']:6.1f} s   CPU {measured['cpu']:6.1f} s"
    return f"{seconds}   peak {measured['MiB']:6.0f} MiB"


def _compared(plain: dict[str, Any], ours: dict[str, Any]) -> str:
    return f"{plain['inside'] / ours['inside']:.2f} times as fast, {plain['MiB'] / ours['MiB']:.1f} times less memory"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; they need about 3 GB")
    parser.add_argument("--way", choices=["pandas", "pandera", "steps", "dagster"], help=argparse.SUPPRESS)
    for name in ("--landing", "--out"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--more", nargs="*", type=int, default=[], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    for name in ("--from", "--to"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    if given["way"] == "pandas":
        print(json.dumps(with_pandas(given["landing"], given["out"])))
    elif given["way"] == "pandera":
        print(json.dumps(with_pandera(given["landing"], given["out"])))
    elif given["way"] == "steps":
        landing = Path(os.environ["ML_ASSETS_LANDING"])
        print(json.dumps(with_steps(given["more"], landing, given["size"])))
    elif given["way"] == "dagster":
        print(json.dumps(with_dagster(given["from"], given["to"])))
    else:
        home = Path(tempfile.mkdtemp(prefix="ingest-", dir=given["folder"]))
        try:
            missed = compare(given["rows"], given["days"], home)
        finally:
            shutil.rmtree(home)
        if missed:
            sys.exit("; ".join(missed))
