"""kill -9 of the endpoint server under load: what of its prediction log is left.

.venv/bin/python -W ignore -m ml_assets_tests.drills.kill_server --rounds 20 --seconds 3 --connections 16

In each round clients ask with ids of their own, each as fast as it is answered, until the server is killed; the next
round starts another one in the same place. Fails if an entry is not, byte for byte, a request and the answer that its
caller got; if anything but the end of a segment is torn; if of the answers that arrived more are missing than the queue
holds; or, with `fsync`, if a single one is.
"""

import argparse
import http.client
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import requests

from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.journal import segments
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.prediction_log import MOST_ENTRIES
from ml_assets.settings import JOURNAL
from ml_assets_tests.drills.small import NAME, release_of, small_project
from ml_assets_tests.endpoint import served


@dataclass
class Asked:
    """What clients sent, and the answers that arrived, by id."""

    sent: dict[str, bytes] = field(default_factory=dict)
    answered: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Left:
    """What a round left.

    Attributes:
        answered: requests whose answers arrived; `missing`: those of them that are not in the log.
        torn: segments with a torn end, which a kill may leave.
        wrong: entries that are not what was asked and answered, and damage where there may be none.
    """

    answered: int
    missing: int
    torn: int
    wrong: list[str]


def ask(url: str, rows: list[object], name: str, asked: Asked) -> None:
    """Ask over one connection until nobody answers any more."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    number = 0
    while True:
        number += 1
        each = f"{name}-{number}"
        body = msgspec.json.encode({"rows": [rows[number % len(rows)]], "ids": [each]})
        asked.sent[each] = body
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json", "X-Request-Id": each})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return
        if response.status == 200:
            asked.answered[each] = content


def one_round(home: Path, rows: list[object], name: str, seconds: float, connections: int, way: str) -> Asked:
    """Ask a server and kill it."""
    asked = Asked()
    with served(home, ML_ASSETS_PREDICTION_LOG=way) as url:
        pid = int(requests.get(f"{url}/health", timeout=5).json()["pid"])
        threads = [
            threading.Thread(target=ask, args=(url, rows, f"{name}-{each}", asked)) for each in range(connections)
        ]
        for each in threads:
            each.start()
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        for each in threads:
            each.join()
    return asked


def judge(folder: Path, asked: Asked) -> Left:
    """Compare what was asked and answered with what the log holds; the segments are removed then."""
    logged: dict[str, tuple[bytes, bytes]] = {}
    wrong: list[str] = []
    torn = 0
    for segment in segments(folder):
        read = segment.read()
        torn += read.torn > 0
        if read.lost:
            wrong.append(f"{segment.path.name}: {read.lost} entries are missing before others")
        if not segment.finished():
            wrong.append(f"{segment.path.name}: somebody writes to it")
        if twice := [each.id for each in read.entries if each.id in logged]:
            wrong.append(f"{twice[0]} is there twice")
        logged |= {each.id: (each.body, each.answer) for each in read.entries}
    for each, (body, answer) in logged.items():
        if asked.sent.get(each) != body or asked.answered.get(each, answer) != answer:
            wrong.append(f"{each} is not what was asked and answered")
    shutil.rmtree(folder, ignore_errors=True)
    return Left(len(asked.answered), len(asked.answered.keys() - logged.keys()), torn, wrong)


def drill(
    release: Path, home: Path, way: str, rounds: int, seconds: float, connections: int, seed: int = 1
) -> list[Left]:
    """Several rounds in one place; a server is killed after some share of `seconds`."""
    shutil.copytree(release, home / "releases" / NAME / release.name)
    write_pointers(home / "releases", NAME, Pointer(release.name))
    rows = msgspec.json.decode((release / GOLDEN).read_bytes())["rows"]
    dice = random.Random(seed)
    found = []
    for number in range(rounds):
        lasts = seconds * dice.uniform(0.3, 1)
        asked = one_round(home, rows, f"{way}-{number}", lasts, connections, way)
        found.append(judge(home / JOURNAL / NAME, asked))
    return found


def most_missing(way: str) -> int:
    """How many answered requests a kill may take from the log."""
    return 0 if way == "fsync" else MOST_ENTRIES


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--connections", type=int, default=16)
    given = options.parse_args()
    with small_project() as (project, folder):
        failed = []
        for way in ("on", "fsync"):
            left = drill(release_of(project), folder / way, way, given.rounds, given.seconds, given.connections)
            most = max(each.missing for each in left)
            print(
                f"{way}: {len(left)} servers killed, {sum(each.answered for each in left):,} answers arrived; missing "
                f"in the log {sum(each.missing for each in left):,}, at most {most:,} of one server (allowed: "
                f"{most_missing(way):,}); {sum(each.torn for each in left)} segments with a torn end"
            )
            failed += [said for each in left for said in each.wrong]
            failed += [f"{way}: {most} missing"] if most > most_missing(way) else []
    if failed:
        sys.exit(f"wrong: {failed[:3]}")


if __name__ == "__main__":
    main()
