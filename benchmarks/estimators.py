"""The default forest beside HistGradientBoosting: the same training on the rows of `flights`, with each.

.venv/bin/python -W ignore -m benchmarks.estimators FOLDER      (FOLDER holds flights/)

The features and outcomes of the example are made once. Both estimators are then trained on the same training rows, by
five folds and a fit on all of them, and scored on the test rows. What a constant answer costs is what imputation,
scaling, one-hot encoding and scoring take of each. Most of the columns there are one-hot, so the same is made of
200,000 generated rows of twelve numbers. Fails if boosting is not both cheaper and better.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_assets.assets import data_assets
from ml_assets.assets.trained_model import split_columns, training_rows
from ml_assets.lake import Lake
from ml_assets.materialize import models_of
from ml_assets.ml.evaluation import Scored, metric
from ml_assets.ml.features import Features
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.splits import Columns, Sides
from ml_assets.ml.training import encode, train
from ml_assets.settings import PROJECT_ROOT, Settings
from ml_assets.spec.training import Estimator, Split, Training
from ml_assets_tests.steps import refresh

BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
ESTIMATORS = {
    "default forest": Estimator(),
    "HistGradientBoosting": Estimator(class_=BOOSTING),
    "a constant answer": Estimator(class_="sklearn.dummy.DummyClassifier"),
}


def measure(
    frame: pl.DataFrame, sides: Sides, features: Features, estimator: Estimator, target: str, **of_model: Any
) -> dict[str, float]:
    """One training, and how good its model is on the test rows."""
    wall, cpu = time.monotonic(), time.process_time()
    trained = train(
        frame,
        sides,
        features=features,
        estimator=estimator,
        task="binary",
        target=target,
        threshold=None,
        place="benchmark",
        **of_model,
    )
    seconds = {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu}
    test = frame[sides.test]
    _, truth = encode(test.get_column(target), "binary", "benchmark", trained.classes)
    scored = Scored.by(trained.pipeline, model_inputs(test.select(features.names)), truth, trained.classes, "binary")
    return seconds | {name: metric(scored, name) for name in ("roc_auc", "f1")}


def compare(said: str, frame: pl.DataFrame, sides: Sides, features: Features, target: str, **of_model: Any) -> None:
    """Print how each estimator does.

    Raises:
        SystemExit: if boosting is not both cheaper and better.
    """
    sizes = f"{len(sides.train):,} rows to train on, {len(sides.test):,} to test on"
    print(f"{said}: {sizes}, {len(features.names)} features")
    found = {}
    for name, estimator in ESTIMATORS.items():
        found[name] = each = measure(frame, sides, features, estimator, target, **of_model)
        quality = f"ROC AUC {each['roc_auc']:.4f}, F1 {each['f1']:.4f}"
        print(f"  {name:<21} {each['seconds']:6.1f} s, {each['cpu']:6.1f} s of CPU: {quality}", flush=True)
    forest, boosting, nothing = found.values()
    alone = (forest["cpu"] - nothing["cpu"]) / (boosting["cpu"] - nothing["cpu"])
    print(f"  the forest takes {forest['cpu'] / boosting['cpu']:.1f} times the CPU; without the rest {alone:.1f} times")
    if boosting["cpu"] > forest["cpu"] or boosting["roc_auc"] < forest["roc_auc"]:
        sys.exit("HistGradientBoosting is not both cheaper and better, as the README says")


def of_flights(data: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        models = Path(home) / "models"
        shutil.copytree(PROJECT_ROOT / "examples" / "flights", models / "flights")
        os.environ |= {"ML_ASSETS_HOME": home, "ML_ASSETS_LANDING": str(data), "ML_ASSETS_MODELS": str(models)}
        settings = Settings.from_environment()
        model, lake = models_of(settings)["flights"], Lake(settings.lake)
        refresh(model, lake, [each for each in data_assets(model) if each != "online_features"])
        versions = {each: lake.version("flights", each) or 0 for each in ("features", "outcomes")}
        rows = training_rows(model, lake, versions, None)
        declared = {"split": model.spec.split, "training": model.spec.training, "columns": split_columns(model)}
        compare("flights", rows.frame, rows.sides, model.features, model.contract.target, **declared)


def of_numbers(rows: int = 200_000, numbers: int = 12) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, numbers))
    signal = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 3]
    late = signal + random.normal(size=rows) > 1
    names = [f"x{each}" for each in range(numbers)]
    frame = pl.DataFrame(x, schema=names).with_columns(id=pl.int_range(rows), late=pl.Series(late))
    features = Features(tuple(map(pl.col, names)), {name: pl.Float64() for name in names})
    cut = rows * 3 // 4
    sides = Sides(np.arange(cut), np.array([], dtype=int), np.arange(cut, rows))
    compare("numbers", frame, sides, features, "late", split=Split(), training=Training(), columns=Columns(["id"]))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "flights").is_dir():
        sys.exit("Name the folder that holds flights/; see the README's section on real data.")
    of_flights(Path(sys.argv[1]).resolve())
    of_numbers()
