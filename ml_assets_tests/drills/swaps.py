"""Releases are swapped under load: no request fails, and none is answered by one version in the name of another.

.venv/bin/python -W ignore -m ml_assets_tests.drills.swaps --seconds 60 --every 2 --connections 16

Two releases of the demo's model answer every row with other labels. First nothing is swapped, then one takes the
other's place again and again. Fails if an answer is not, to the last bit, that of the version that it names, or if the
99th percentile during the swaps is more than three times that without.
"""

import argparse
import http.client
import shutil
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec

from ml_assets.serving.bundle import GOLDEN, read_manifest, write_manifest
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets_tests.drills.small import NAME, release_of, small_project
from ml_assets_tests.endpoint import served

MOST = 3.0  # times the 99th percentile without swaps


def variant(release: Path, folder: Path, version: str) -> Path:
    """The same release as another version, for which every row is positive: consistent in itself."""
    shutil.copytree(release, folder)
    manifest = msgspec.structs.replace(read_manifest(folder), version=version, threshold=1e-9)
    golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
    loaded = Scorer.load(release)
    scorer = Scorer(manifest, loaded.features, loaded.estimator, None)
    golden["answers"] = scorer.predict(golden["rows"], golden["looked_up"])
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
    write_manifest(folder, manifest)
    return folder


@dataclass
class Load:
    """What came of asking.

    Attributes:
        wrong: answers that are not those of their version, or no answers.
        seconds: of each request.
    """

    versions: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return quantiles(self.seconds, n=100)[98]


def ask(url: str, answers: dict[str, list[Any]], rows: list[Any], connections: int, until: threading.Event) -> Load:
    """Ask over several connections, each as fast as it is answered, until told to stop."""
    load, address = Load(), url.removeprefix("http://")

    def one(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=30)
        each = number
        while not until.is_set():
            each = (each + 1) % len(rows)
            body = msgspec.json.encode({"rows": [rows[each]]})
            started = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                said = msgspec.json.decode(response.read())
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                load.wrong.append(repr(error))
                connection.close()
                continue
            load.seconds.append(time.perf_counter() - started)
            if response.status != 200 or said["predictions"] != [answers[said["version"]][each]]:
                load.wrong.append(f"{response.status}: {said}")
            else:
                load.versions[said["version"]] += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(connections)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return load


def under_load(release: Path, home: Path, seconds: float, every: float, connections: int) -> tuple[Load, Load, int]:
    """What came of asking without and with swaps, and how many swaps there were."""
    releases = home / "releases" / NAME
    shutil.copytree(release, releases / release.name)
    names = [release.name, variant(release, releases / "2-variant", "2").name]
    golden = [msgspec.json.decode((releases / name / GOLDEN).read_bytes()) for name in names]
    versions = [read_manifest(releases / name).version for name in names]
    answers = {version: each["answers"] for version, each in zip(versions, golden, strict=True)}
    write_pointers(home / "releases", NAME, Pointer(names[0]))
    swaps = 0
    with served(home) as url:
        found = []
        for swapping in (False, True):
            until = threading.Event()
            loads: list[Load] = []
            asking = threading.Thread(
                target=lambda until=until, loads=loads: loads.append(
                    ask(url, answers, golden[0]["rows"], connections, until)
                )
            )
            asking.start()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                time.sleep(every)
                if swapping:
                    swaps += 1
                    write_pointers(home / "releases", NAME, Pointer(names[swaps % 2]))
            until.set()
            asking.join()
            found += loads
    return found[0], found[1], swaps


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--every", type=float, default=2)
    options.add_argument("--connections", type=int, default=16)
    given = options.parse_args()
    with small_project() as (project, home):
        calm, swapped, swaps = under_load(release_of(project), home, given.seconds, given.every, given.connections)
    for name, load in (("without swaps", calm), (f"with {swaps} swaps", swapped)):
        print(
            f"{name}: {len(load.seconds):,} answers over {given.connections} connections, by version "
            f"{dict(load.versions)}, {len(load.wrong)} wrong or failed, 99th percentile {load.p99 * 1000:.1f} ms"
        )
    if calm.wrong or swapped.wrong:
        sys.exit(f"wrong: {(calm.wrong + swapped.wrong)[:3]}")
    times = swapped.p99 / calm.p99
    print(f"the 99th percentile during the swaps is {times:.1f} times that without, {MOST:g} times at most")
    if times > MOST:
        sys.exit("that is too much")


if __name__ == "__main__":
    main()
