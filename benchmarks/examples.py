"""The README's figures of the examples on real data: held-out metrics, rows, and how long a first run takes.

.venv/bin/python -m benchmarks.examples FOLDER      (FOLDER holds flights/ and adult/)
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from ml_assets.deployment.local import LocalTarget
from ml_assets.lake import WHOLE, Lake
from ml_assets.materialize import materialize_due, models_of, prepare_dagster_home
from ml_assets.records import read_latest
from ml_assets.settings import PROJECT_ROOT, Settings


def measure(name: str, data: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "ML_ASSETS_HOME": home,
            "ML_ASSETS_LANDING": str(data),
            "ML_ASSETS_MODELS": str(PROJECT_ROOT / "examples"),
        }
        settings = Settings.from_environment()
        prepare_dagster_home(settings)
        started = time.monotonic()
        materialize_due(settings, models_of(settings)[name], lambda line: None)
        seconds = time.monotonic() - started
        LocalTarget.of(settings).stop()
        latest = read_latest(Lake(settings.lake), name)
    judged = latest.get("metrics", WHOLE)
    assert judged is not None
    rows = sum(each.details["raw"] for each in latest.of("cleaned_data").values())
    values = ", ".join(f"{metric} {value:.3f}" for metric, value in judged.details["values"].items())
    print(f"{name}: {rows:,} rows, {len(latest.of('raw_data'))} partition(s), {seconds:.0f} s to serving: {values}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "flights").is_dir():
        sys.exit("Name the folder that holds flights/ and adult/; see the README's section on real data.")
    for each in ("adult", "flights"):
        measure(each, Path(sys.argv[1]).resolve())
