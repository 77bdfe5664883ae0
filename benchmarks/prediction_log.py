"""What the prediction log costs: the same server without it, with it, and with an fsync before each answer.

.venv/bin/python -W ignore -m benchmarks.prediction_log --seconds 3 --rounds 8 --connections 16

The demo's model without look-ups, one row a request, asked by `wrk`. The ways take turns, because the machine is never
quite the same twice; of each the rounds with the median throughput and with the lowest 99th percentile are told.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import requests

from ml_assets.lake import WHOLE
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.ids import new_id
from ml_assets.serving.journal import Entry
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.prediction_log import PredictionLog, now_in_microseconds
from ml_assets_tests.endpoint import served
from ml_assets_tests.project import SMALL_MODEL, Project

NAME = "late_deliveries"
WAYS = ("off", "on", "fsync")
FOREST = {"estimator": {"params": {"n_estimators": 100, "max_depth": 10, "random_state": 42}}}
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies = {%s}
local number = 0
request = function()
  number = number %% #bodies + 1
  return wrk.format(nil, "/predict", nil, bodies[number])
end
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Measured:
    """One round. Times in milliseconds; `cpu` is the server's, per request, in microseconds."""

    per_second: float
    p50: float
    p99: float
    cpu: float
    failed: int
    log: dict[str, Any]


def release_of(folder: Path) -> Path:
    """A release of the demo's forest, on 18 columns that nothing is looked up for."""
    project = Project.create(folder)
    project.add_demo_model(**(SMALL_MODEL | FOREST))
    project.land(8)
    project.materialize()
    project.target.stop()
    record = project.latest().get("endpoint", WHOLE)
    assert record is not None
    return project.settings.releases / NAME / str(record.details["release"])


def measure(release: Path, home: Path, way: str, seconds: float, connections: int, script: Path) -> Measured:
    """Ask a server of its own for some seconds, after a second to warm up."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(release, home / "releases" / NAME / release.name)
    write_pointers(home / "releases", NAME, Pointer(release.name))
    with served(home, ML_ASSETS_PREDICTION_LOG=way) as url:
        _wrk(url, 1, connections, script)
        process = psutil.Process(requests.get(f"{url}/health", timeout=5).json()["pid"])
        before = process.cpu_times()
        told = _wrk(url, seconds, connections, script)
        after = process.cpu_times()
        requests.get(f"{url}/metrics", timeout=5).raise_for_status()
        log = requests.get(f"{url}/health", timeout=5).json()["prediction_log"]
    found = re.search(r"(\d+) requests in", told)
    assert found is not None, told
    asked = int(found[1])
    spent = after.user + after.system - before.user - before.system
    percentiles = {name: _milliseconds(told, name) for name in ("50", "99")}
    per_second = re.search(r"Requests/sec:\s+([\d.]+)", told)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    assert per_second is not None, told
    return Measured(
        float(per_second[1]),
        percentiles["50"],
        percentiles["99"],
        spent / asked * 1e6,
        int(failed[1]) if failed else 0,
        log,
    )


def own_cost(folder: Path, body: bytes) -> float:
    """CPU of logging a request in microseconds, event loop and writer together, at 5,000 requests a second or so."""
    log, times = PredictionLog(folder), 200
    log.start()
    before = time.process_time()
    for _ in range(times):
        for _ in range(50):
            at = now_in_microseconds()
            log.append(NAME, Entry(at, new_id(), 200, "1", "1-abcdef", 0.0004, body=body, answer=body[:100]))
        time.sleep(0.01)
    log.close()
    return (time.process_time() - before) / (50 * times) * 1e6


def _wrk(url: str, seconds: float, connections: int, script: Path) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _milliseconds(told: str, percentile: str) -> float:
    found = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s)$", told, re.MULTILINE)
    assert found is not None, told
    return float(found[1]) * _UNITS[found[2]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--connections", type=int, default=16)
    given = options.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; `apt-get install wrk`")
    with tempfile.TemporaryDirectory() as folder:
        release = release_of(Path(folder) / "project")
        rows = msgspec.json.decode((release / GOLDEN).read_bytes())["rows"]
        bodies = [msgspec.json.encode({"rows": [row], "ids": [f"a-{each}"]}).decode() for each, row in enumerate(rows)]
        script = Path(folder) / "ask.lua"
        script.write_text(SCRIPT % ",".join(f"[[{each}]]" for each in bodies))
        print(f"logging alone: {own_cost(Path(folder) / 'journal', bodies[0].encode()):.1f} µs of CPU a request")
        rounds: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                home = Path(folder) / "server"
                rounds[way].append(measure(release, home, way, given.seconds, given.connections, script))
    print(f"{given.connections} connections, one row a request, {given.rounds} rounds of {given.seconds:g} s each way")
    of_rounds: dict[str, Callable[[list[Measured]], Measured]] = {
        "median": lambda some: sorted(some, key=lambda each: each.per_second)[len(some) // 2],
        "quietest": lambda some: min(some, key=lambda each: each.p99),
    }
    for name, choose in of_rounds.items():
        _tell(name, {way: choose(some) for way, some in rounds.items()})


def _tell(name: str, found: dict[str, Measured]) -> None:
    off = found["off"]
    print(f"{name:<9} requests/s  of off   p50 ms   p99 ms  of off  CPU µs/request  failed  lost")
    for way, each in found.items():
        print(
            f"{way:<9} {each.per_second:>10,.0f} {each.per_second / off.per_second:>6.0%} {each.p50:>8.2f} "
            f"{each.p99:>8.2f} {each.p99 / off.p99:>6.1f}x {each.cpu:>14.0f} {each.failed:>8} "
            f"{each.log.get('lost', 0):>5}"
        )


if __name__ == "__main__":
    main()
