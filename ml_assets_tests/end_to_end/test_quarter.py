"""The short form of the drill `quarter`: some days of business, in processes whose clock jumps."""

import subprocess
import sys

from ml_assets.settings import PROJECT_ROOT


def test_drift_is_told_of_waits_for_labels_and_one_retraining_ends_it() -> None:
    short = "--days 5 --drift-day 1 --before 10 --orders 250 --labels 350 --window 8d --scarcity 2 --share 0.5"
    command = [sys.executable, "-W", "ignore", "-m", "ml_assets_tests.drills.quarter", *short.split()]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "told of drift 1 days after the drift began" in done.stdout, done.stdout
