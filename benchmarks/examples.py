"""The README's figures of the examples on real data: held-out metrics, rows, and how long a first run takes.

.venv/bin/python -m benchmarks.examples FOLDER      (FOLDER holds flights/ and adult/)

`flights` is measured with and without its feature groups, on the same split. Fails if they bring less than they should,
if a model does not reach its reference, or if the year is not made and told to Dagster by one run.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import yaml

from ml_assets.deployment.local import LocalTarget
from ml_assets.lake import WHOLE, Lake
from ml_assets.materialize import materialize_due, models_of, prepare_dagster_home
from ml_assets.records import Latest, read_latest
from ml_assets.settings import PROJECT_ROOT, Settings

LEAST_GAIN = 0.015  # of ROC AUC, by the groups of `flights`
REFERENCES = {
    "adult": {"accuracy": 0.85, "roc_auc": 0.91},
    "flights": {"roc_auc": 0.70},
    "flight_delays": {"r2": 0.12},
}
YEAR = 365


def measure(name: str, data: Path, *, groups: bool = True) -> dict[str, float]:
    """Print how a model does, and return its metrics on held-out rows."""
    with tempfile.TemporaryDirectory() as home:
        models = Path(home) / "models"
        shutil.copytree(PROJECT_ROOT / "examples" / name, models / name)
        if not groups:
            file = models / name / "defs.yaml"
            spec = yaml.safe_load(file.read_text())
            del spec["attributes"]["groups"]
            file.write_text(yaml.safe_dump(spec))
        os.environ |= {"ML_ASSETS_HOME": home, "ML_ASSETS_LANDING": str(data), "ML_ASSETS_MODELS": str(models)}
        settings = Settings.from_environment()
        prepare_dagster_home(settings)
        started = time.monotonic()
        materialize_due(settings, models_of(settings)[name], lambda line: None)
        seconds = time.monotonic() - started
        LocalTarget.of(settings).stop()
        latest = read_latest(Lake(settings.lake), name)
        if name == "flights":
            require_the_year(latest)
    judged = latest.get("metrics", WHOLE)
    assert judged is not None
    rows = sum(each.details["raw"] for each in latest.of("cleaned_data").values())
    values: dict[str, float] = judged.details["values"]
    told = ", ".join(f"{metric} {value:.4f}" for metric, value in values.items())
    label = name if groups else f"{name} without groups"
    print(f"{label}: {rows:,} rows, {len(latest.of('raw_data'))} partition(s), {seconds:.0f} s to serving: {told}")
    return values


def require_the_year(latest: Latest) -> None:
    """Each day of each table must be made by the first run and known to Dagster.

    Raises:
        SystemExit: naming the table of which that is not so.
    """
    with dg.DagsterInstance.get() as instance:
        for asset in ("raw_data", "cleaned_data", "features", "outcomes"):
            days = latest.of(asset)
            runs = {record.run_id for record in days.values()}
            known = instance.get_materialized_partitions(dg.AssetKey(["flights", asset]))
            if len(days) != YEAR or known != set(days) or len(runs) != 1:
                sys.exit(f"flights/{asset}: {len(days)} days of {YEAR} by {len(runs)} run(s), {len(known)} in Dagster")


def require_references(name: str, values: dict[str, float]) -> None:
    """Exits with those metrics that are below their reference."""
    below = [f"{each} {values[each]:.4f} < {least}" for each, least in REFERENCES[name].items() if values[each] < least]
    if below:
        sys.exit(f"{name} does not reach its reference: {', '.join(below)}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "flights").is_dir():
        sys.exit("Name the folder that holds flights/ and adult/; see the README's section on real data.")
    folder = Path(sys.argv[1]).resolve()
    require_references("adult", measure("adult", folder))
    require_references("flight_delays", measure("flight_delays", folder))
    judged = measure("flights", folder)
    require_references("flights", judged)
    gain = judged["roc_auc"] - measure("flights", folder, groups=False)["roc_auc"]
    print(f"the groups of flights bring {gain:+.4f} of ROC AUC")
    if gain < LEAST_GAIN:
        sys.exit(f"that is less than {LEAST_GAIN}")
