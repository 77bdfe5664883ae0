"""The default forest beside HistGradientBoosting: the same training on the rows of `flights`, with each.

.venv/bin/python -W ignore -m benchmarks.estimators FOLDER      (FOLDER holds flights/)

The features and outcomes of the example are made once. Both estimators are then trained on the same training rows, by
five folds and a fit on all of them, in turns, and scored on the test rows. Prints seconds, CPU seconds, ROC AUC and F1.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ml_assets.assets import data_assets
from ml_assets.assets.trained_model import split_columns, training_rows
from ml_assets.lake import Lake
from ml_assets.materialize import models_of
from ml_assets.ml.evaluation import Scored, metric
from ml_assets.ml.training import encode, model_inputs, train
from ml_assets.model import Model
from ml_assets.settings import PROJECT_ROOT, Settings
from ml_assets.spec import Estimator
from ml_assets_tests.steps import refresh

BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
ESTIMATORS = {
    "default forest": Estimator(),
    "HistGradientBoosting": Estimator(class_=BOOSTING),
    "HistGradientBoosting, 400 rounds": Estimator(class_=BOOSTING, params={"max_iter": 400, "learning_rate": 0.05}),
}


def measure(model: Model, rows: Any, estimator: Estimator) -> dict[str, float]:
    """One training, and how good its model is on the test rows."""
    wall, cpu = time.monotonic(), time.process_time()
    trained = train(
        rows.frame,
        rows.sides,
        features=model.features,
        estimator=estimator,
        split=model.spec.split,
        task=model.spec.task,
        target=model.contract.target,
        columns=split_columns(model),
        training=model.spec.training,
        threshold=None,
        place=model.name,
    )
    seconds = {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu}
    test = rows.frame[rows.sides.test]
    _, truth = encode(test.get_column(model.contract.target), model.spec.task, model.name, trained.classes)
    inputs = model_inputs(test.select(model.features.names))
    scored = Scored.by(trained.pipeline, inputs, truth, trained.classes, model.spec.task)
    return seconds | {name: metric(scored, name) for name in ("roc_auc", "f1")}


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(PROJECT_ROOT / "examples" / "flights", Path(home) / "models" / "flights")
        os.environ |= {
            "ML_ASSETS_HOME": home,
            "ML_ASSETS_LANDING": str(data),
            "ML_ASSETS_MODELS": str(Path(home) / "models"),
        }
        settings = Settings.from_environment()
        model, lake = models_of(settings)["flights"], Lake(settings.lake)
        refresh(model, lake, [each for each in data_assets(model) if each != "online_features"])
        versions = {each: lake.version("flights", each) or 0 for each in ("features", "outcomes")}
        rows = training_rows(model, lake, versions, None)
        print(f"{len(rows.sides.train):,} rows to train on, {len(rows.sides.test):,} to test on, five folds")
        found = {}
        for name, estimator in ESTIMATORS.items():
            found[name] = measure(model, rows, estimator)
            told = ", ".join(f"{each} {value:.4f}" for each, value in list(found[name].items())[2:])
            print(f"{name:<33} {found[name]['seconds']:6.1f} s, {found[name]['cpu']:6.1f} s of CPU: {told}", flush=True)
        forest, boosting = found["default forest"], found["HistGradientBoosting"]
        print(f"the forest takes {forest['cpu'] / boosting['cpu']:.1f} times the CPU")
        if boosting["cpu"] > forest["cpu"] or boosting["roc_auc"] < forest["roc_auc"]:
            sys.exit("HistGradientBoosting is not both faster and better, as the README says")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "flights").is_dir():
        sys.exit("Name the folder that holds flights/; see the README's section on real data.")
    main(Path(sys.argv[1]).resolve())
