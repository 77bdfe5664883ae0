"""How long after a file lands `features` is refreshed, by the running daemon with the project's default `dagster.yaml`.

.venv/bin/python -W ignore -m benchmarks.arrival [--times 9]

Starts `dagster dev` on a project of its own, lets a month arrive, and then one day after the other. The machine should
do nothing else. Of each arrival it prints the seconds from the file's appearance to the record of its features; the
median at the end.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from ml_assets.demo.business import FIRST_DAY
from ml_assets_tests.project import Project, wait_until

NAME, BEFORE = "late_deliveries", 30


def measure(times: int, folder: Path) -> list[float]:
    """Seconds from a landed day to its features, for some days one after the other."""
    project = Project.create(folder)
    project.add_demo_model(retrain={"min_new_rows": 1_000_000})  # a training would keep the next day waiting
    project.land(BEFORE)
    project.materialize()
    taken = []
    try:
        with project.services():
            for number in range(times + 1):
                day = FIRST_DAY + timedelta(days=BEFORE + number)
                time.sleep(7 + number % 5)  # at any moment of the daemon's own rhythm
                started = time.monotonic()
                project.land(1, day)
                wait_until(lambda day=day: project.latest().get("features", day.isoformat()), 300, f"features of {day}")
                seconds = time.monotonic() - started
                said = "" if number else "   (not counted: the daemon was starting)"
                print(f"{day}: {seconds:5.1f} s{said}", flush=True)
                taken.append(seconds)
    finally:
        project.target.stop()
    return taken[1:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9)
    wanted = parser.parse_args().times
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as home:
        found = measure(wanted, Path(home))
    if len(found) < wanted:
        sys.exit("not every arrival was refreshed")
    median, least, most = statistics.median(found), min(found), max(found)
    print(f"file landed to features refreshed: median {median:.1f} s, {least:.1f} to {most:.1f} s")
