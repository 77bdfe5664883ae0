"""Load by wrk: as many connections as said, each asked again as soon as it has answered."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.processes import Processes

SCRIPT = Path(__file__).with_name("requests.lua")
WARM_UP = 1.0  # seconds that are not counted


@dataclass(frozen=True)
class Figures:
    """What came of asking: requests a second, milliseconds of a request, and CPU milliseconds of the server for it."""

    throughput: float
    p50: float
    p99: float
    cpu: float


def require_wrk() -> None:
    """End here if there is no wrk: a generator in Python is slower than the servers that it would measure."""
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk, which asks the servers; install it: apt-get install wrk")


def measure(url: str, bodies: Path, connections: int, seconds: float, server: Processes) -> Figures:
    """Ask `url` for the lines of `bodies`.

    Raises:
        RuntimeError: if a request failed, or none was answered.
    """
    _wrk(url, bodies, connections, WARM_UP)
    before = server.cpu_seconds()
    found = _wrk(url, bodies, connections, seconds)
    cpu = server.cpu_seconds() - before
    if found["failed"] or not found["requests"]:
        raise RuntimeError(f"{url}: {found['failed']} of {found['requests']} requests failed")
    count = found["requests"]
    return Figures(count / found["micros"] * 1e6, found["p50"] / 1e3, found["p99"] / 1e3, cpu / count * 1e3)


def _wrk(url: str, bodies: Path, connections: int, seconds: float) -> dict[str, int]:
    # wrk takes whole seconds.
    how = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    command = ["wrk", *how, "--timeout", "60s", "--script", str(SCRIPT), url, "--", str(bodies)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
