"""Graphs of the default Pipeline on the rows of three models: late_deliveries, adult and flights.

.venv/bin/python -W ignore -m ml_assets_tests.drills.exactness_of_data FOLDER      (FOLDER holds adult/ and flights/)

The features of each are made by its own assets (of flights the first two months), and each estimator is fitted on up to
20,000 rows, a regressor on the target as a number. Its graph is then held against it on those rows, on up to 20,000
others and on the threshold rows, as when a release is built. Fails if a label differs, or a score by more than said.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from ml_assets.assets import data_assets
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.training import build_pipeline, encode, label
from ml_assets.settings import PROJECT_ROOT
from ml_assets.spec.base import Task
from ml_assets.spec.training import Estimator
from ml_assets_tests.drills.exactness import HEAD, Shown, compare, told
from ml_assets_tests.pipelines import Fitted
from ml_assets_tests.project import Project
from ml_assets_tests.steps import refresh

MOST_ROWS = 20_000  # that are fitted on, and others
ESTIMATORS: dict[str, Task] = {
    "sklearn.ensemble.RandomForestClassifier": "binary",
    "sklearn.ensemble.HistGradientBoostingClassifier": "binary",
    "sklearn.linear_model.LogisticRegression": "binary",
    "sklearn.ensemble.RandomForestRegressor": "regression",
    "sklearn.ensemble.HistGradientBoostingRegressor": "regression",
    "sklearn.linear_model.Ridge": "regression",
}
PARAMS: dict[str, dict[str, Any]] = {"LogisticRegression": {"max_iter": 1000}}


def labelled(project: Project, name: str) -> tuple[pl.DataFrame, Any]:
    """The rows with a label, shuffled, and the model's features."""
    model, lake = project.model(name), project.lake
    with project.active():
        refresh(model, lake, [each for each in data_assets(model) if each != "online_features"])
    rows = label(
        lake.read(name, "features"),
        lake.read(name, "outcomes"),
        key=model.outcome_key,
        target=model.contract.target,
        cut_off=None,
        order=model.contract.key,
    )
    return rows.frame.sample(fraction=1, shuffle=True, seed=1), model


def of_model(project: Project, name: str) -> dict[str, Shown]:
    """What came of each estimator."""
    rows, model = labelled(project, name)
    some = min(MOST_ROWS, rows.height * 2 // 3)
    known, others = (part.select(model.features.names) for part in (rows.head(some), rows[some : some + MOST_ROWS]))
    _, answer = encode(rows.head(some).get_column(model.contract.target), "binary", name)
    found = {}
    for dotted, task in ESTIMATORS.items():
        params = PARAMS.get(dotted.rpartition(".")[2], {})
        pipeline = build_pipeline(model.features, Estimator(class_=dotted, params=params), task, name)
        target = answer.astype(float) if task == "regression" else answer
        fitted = Fitted(pipeline.fit(model_inputs(known), target), task, known, others)
        found[fitted.name] = shown = Shown()
        compare(fitted, shown)
    return found


def projects(data: Path, root: Path) -> dict[str, Project]:
    """For each model a project in which its rows have arrived."""
    demo = Project.create(root / "late_deliveries")
    demo.add_demo_model()
    demo.land(31)
    adult = Project.create(root / "adult", landing=str(data))
    shutil.copytree(PROJECT_ROOT / "examples" / "adult", adult.settings.models / "adult")
    landing = root / "landing" / "flights"
    landing.mkdir(parents=True)
    for file in (data / "flights").glob("*.parquet"):
        frame = pl.read_parquet(file)
        (frame.filter(pl.col("month") <= 2) if file.stem == "flights" else frame).write_parquet(landing / file.name)
    flights = Project.create(root / "flights", landing=str(landing.parent))
    shutil.copytree(PROJECT_ROOT / "examples" / "flights", flights.settings.models / "flights")
    return {"late_deliveries": demo, "adult": adult, "flights": flights}


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "flights").is_dir():
        sys.exit("Name the folder that holds adult/ and flights/; see the README's section on real data.")
    with tempfile.TemporaryDirectory() as root:
        print(HEAD.replace("| estimator |", "| model, estimator |"), flush=True)
        for name, project in projects(Path(sys.argv[1]).resolve(), Path(root)).items():
            for estimator, shown in of_model(project, name).items():
                print(told(f"{name}, {estimator}", shown), flush=True)


if __name__ == "__main__":
    main()
