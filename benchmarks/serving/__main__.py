"""The blog's model behind seven servers: what each answers in a second, how soon, and what that costs.

.venv/bin/python -W ignore -m benchmarks.serving [--seconds 5] [--servers ml-assets ...] [--rows 100000]

A forest of 100 trees of depth 10 over 18 features, one row a request, of 1,000 different rows, over one connection and
over 16; then a hundred rows a request. wrk asks, on this machine. ml-assets is sent the columns of its contract, holds
them against it and makes the features itself; all others are sent the 18 features. Each server runs in an environment
of its own, with its own defaults. It is started twice: the first time its answers to 100 single rows and to a hundred
together are held against scikit-learn's, the second time, when all of its files have been read once, it is measured.
CPU is user and system time of all processes of the server for a request, memory the PSS (and RSS) of all of them after
the load, start the time until the first row is answered.

Fails if a server answers otherwise than scikit-learn, or if ml-assets is not as far ahead as said.
"""

import argparse
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from benchmarks.serving.load import Figures, measure, require_wrk
from benchmarks.serving.model import Exported, exported
from benchmarks.serving.processes import Memory, Processes, environment_without_settings
from benchmarks.serving.servers import LOG_ON, MLFLOW, ONNX, OURS, Server, environment_of, names, server
from ml_assets.settings import PROJECT_ROOT

TOLERANCE = 1e-9  # between two scores
START_SECONDS = 120
HUNDRED = 100  # rows


@dataclass(frozen=True)
class Measured:
    """One server: over one connection, over 16, and over one with a hundred rows a request."""

    one: Figures
    sixteen: Figures
    hundred: Figures
    memory: Memory
    start: float


@contextlib.contextmanager
def running(name: str, python: Path, data: Exported, home: Path) -> Iterator[tuple[Server, str, Processes, float]]:
    """A server while it runs, its address, its processes, and the seconds until it answered a row."""
    home.mkdir()
    port, processes, log = _free_port(), Processes(), home / "log"
    made = server(name, python, data, home)
    command = [part.replace("{port}", str(port)) for part in made.command]
    own = {key: value.replace("{port}", str(port)) for key, value in made.environment.items()}
    began = time.monotonic()
    with processes.started(command, environment_without_settings() | own, log) as process:
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
                asked(made, port, [0])
                break
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        yield made, f"http://127.0.0.1:{port}{made.path}", processes, time.monotonic() - began


def asked(made: Server, port: int, rows: list[int]) -> list[float]:
    """The scores of some rows.

    Raises:
        RuntimeError: if the server does not answer with 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        body = msgspec.json.encode(made.request(rows))
        connection.request("POST", made.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = response.read()
    if response.status != 200:
        raise RuntimeError(f"{made.name} answers {response.status}: {said[:500]!r}")
    return made.scores(msgspec.json.decode(said))


def require_equal(made: Server, url: str, data: Exported) -> None:
    """Hold a server's answers against scikit-learn's: a server of another model would be measured in vain.

    Raises:
        RuntimeError: naming the first row that differs.
    """
    port = int(urlsplit(url).port or 0)
    rows = list(range(HUNDRED))
    alone = [asked(made, port, [each]) for each in rows]
    for kind, given in (("alone", np.concatenate(alone)), ("of a hundred", np.array(asked(made, port, rows)))):
        wrong = np.abs(given - data.scores[rows]) > TOLERANCE
        wrong |= (given > 0.5) != (data.scores[rows] > 0.5)
        if wrong.any():
            row = int(wrong.argmax())
            raise RuntimeError(
                f"{made.name} gives row {row} {kind} the score {given[row]}, and scikit-learn {data.scores[row]}"
            )


def measured(name: str, python: Path, data: Exported, folder: Path, seconds: float) -> Measured:
    """Start a server, compare its answers, start it again, and load it."""
    with running(name, python, data, folder / "compared") as (made, url, _, _):
        require_equal(made, url, data)
    with running(name, python, data, folder / "measured") as (made, url, processes, start):
        single = _written([made.request([each]) for each in range(len(data.rows))], folder / "single")
        spans = range(0, len(data.rows), HUNDRED)
        hundred = _written([made.request([*range(each, each + HUNDRED)]) for each in spans], folder / "hundred")
        one, sixteen = (measure(url, single, connections, seconds, processes) for connections in (1, 16))
        memory = processes.memory()
        return Measured(one, sixteen, measure(url, hundred, 1, seconds, processes), memory, start)


def _written(requests: list[Any], file: Path) -> Path:
    """The requests as lines of a file, as `requests.lua` reads them."""
    file.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in requests))
    return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def told(name: str, found: Measured) -> str:
    """A line of the table."""
    cells = [
        f"{each.throughput:9,.0f} {each.p50:8.2f} {each.p99:8.2f} {each.cpu:8.3f}"
        for each in (found.one, found.sixteen, found.hundred)
    ]
    memory = f"{found.memory.proportional:7,.0f} {found.memory.resident:7,.0f}"
    return f"{name:<22}{' |'.join(cells)} |{memory} {found.start:7.2f}"


HEAD = (
    f"{'':<22}{'one connection':^36} |{'16 connections':^36} |{'100 rows, one connection':^36} |"
    f"{'MiB':^15} {'start':>7}\n"
    f"{'':<22}"
    + " |".join([f"{'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8}"] * 3)
    + f" |{'PSS':>7} {'RSS':>7} {'s':>7}"
)


def wanted(all_of: dict[str, Measured]) -> list[tuple[str, float, float]]:
    """What is asked of ml-assets: what, how much it is, and how much it has to be at least."""
    ours, found = all_of[OURS], []
    if MLFLOW in all_of:
        theirs = all_of[MLFLOW]
        found += [
            ("throughput at 16 connections, times mlflow's", ours.sixteen.throughput / theirs.sixteen.throughput, 150),
            ("throughput at one connection, times mlflow's", ours.one.throughput / theirs.one.throughput, 30),
            ("p50 at one connection, mlflow's divided by ours", theirs.one.p50 / ours.one.p50, 30),
            ("memory, mlflow's divided by ours", theirs.memory.proportional / ours.memory.proportional, 3),
            ("start, mlflow's divided by ours", theirs.start / ours.start, 8),
        ]
    if ONNX in all_of:
        theirs = all_of[ONNX]
        found += [
            (f"throughput at 16 connections, times {ONNX}", ours.sixteen.throughput / theirs.sixteen.throughput, 1),
            (f"throughput at one connection, times {ONNX}", ours.one.throughput / theirs.one.throughput, 1),
        ]
    if LOG_ON in all_of:
        logged = all_of[LOG_ON]
        for connections, with_log, without in ((16, logged.sixteen, ours.sixteen), (1, logged.one, ours.one)):
            kept, slower = with_log.throughput / without.throughput, without.p99 / with_log.p99
            found += [
                (f"throughput with log at {connections} connection(s), of that without", kept, 0.7),
                (f"p99 without log at {connections} connection(s), divided by that with", slower, 0.5),
            ]
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=5, help="of each figure")
    options.add_argument("--rows", type=int, default=100_000, help="that the model is trained on")
    options.add_argument("--servers", nargs="*", default=names(), choices=names())
    options.add_argument("--folder", type=Path, default=PROJECT_ROOT / ".state" / "peers", help="of the environments")
    given = options.parse_args()
    require_wrk()
    given.folder.mkdir(parents=True, exist_ok=True)
    data = exported(given.folder / f"serving-model-{given.rows}", given.rows)
    found: dict[str, Measured] = {}
    failed: list[str] = []
    print(f"{given.seconds:g} s a figure; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n{HEAD}")
    for name in given.servers:
        try:
            python = environment_of(name, given.folder)
            with tempfile.TemporaryDirectory(prefix="serving-") as temporary:
                found[name] = measured(name, python, data, Path(temporary), given.seconds)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            failed.append(f"{name} could not be measured: {error}")
            print(f"{name:<22}not measured, see below")
        else:
            print(told(name, found[name]), flush=True)
    asked_for = wanted(found) if OURS in found else []
    for what, value, least in asked_for:
        print(f"{'' if value >= least else 'MISSED: '}{what}: {value:.2f}, asked for {least:g}")
    failed += [what for what, value, least in asked_for if value < least]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
