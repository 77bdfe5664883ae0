"""Regression on real data: minutes of delay on arrival, on one month; `benchmarks.examples` takes the year."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from ml_assets.lake import WHOLE
from ml_assets.registry import Registry
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project

NAME = "flight_delays"
FIRST, TEST, LAST = date(2013, 6, 1), date(2013, 6, 20), date(2013, 6, 30)


@pytest.fixture(scope="module")
def delays(make_project: Callable[..., Project], shared_data: Path) -> Project:
    project = make_project("delays")
    (project.landing / "flights").mkdir(parents=True)
    local = pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.date()
    for name in ("flights", "weather"):
        rows = pl.read_parquet(shared_data / "flights" / f"{name}.parquet").filter(local.is_between(FIRST, LAST))
        rows.write_parquet(project.landing / "flights" / f"{name}.parquet")
    folder = project.settings.models / NAME
    shutil.copytree(PROJECT_ROOT / "examples" / NAME, folder)
    text = (folder / "defs.yaml").read_text()
    for was, now in (
        ("start: 2013-01-01", f"start: {FIRST}"),
        ("end: 2013-12-31", f"end: {LAST}"),
        ("folds: 3", "folds: 2"),
        ("max_iter: 100, learning_rate: 0.05", "max_iter: 30, learning_rate: 0.1"),
        ("test_from: 2013-10-01", f"test_from: {TEST}"),
        ("mae: 30.0", "mae: 40.0"),  # a month of thunderstorms
    ):
        assert was in text
        text = text.replace(was, now)
    (folder / "defs.yaml").write_text(text)
    project.materialize(NAME)
    return project


def test_minutes_of_delay_are_predicted_better_than_by_their_mean_on_later_days(delays: Project) -> None:
    trained, judged = (delays.latest(NAME).get(each, WHOLE) for each in ("trained_model", "metrics"))
    assert trained is not None
    assert judged is not None
    outcomes = delays.lake.read(NAME, "outcomes").filter(pl.col("arr_delay").is_not_null())
    day = pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.date()
    counts = trained.details["counts"]
    assert counts["trained_on"] + counts["gap"] == outcomes.filter(day < TEST).height
    assert counts["test"] == outcomes.filter(day >= TEST).height > 8_000
    values = judged.details["values"]
    assert set(values) == {"rmse", "mae", "r2"}
    assert values["r2"] > 0.05
    assert values["mae"] < 40
    assert judged.details["approved"]
    assert delays.latest(NAME).get("endpoint", WHOLE)


def test_its_folds_and_plots_are_those_of_a_regression(delays: Project) -> None:
    trained = delays.latest(NAME).get("trained_model", WHOLE)
    assert trained is not None
    client = Registry(delays.settings.mlflow_uri).client
    run = client.get_run(trained.details["mlflow_run_id"])
    assert {"cv_rmse", "cv_rmse_fold_1", "cv_rmse_fold_2", "test_rmse", "test_mae", "test_r2"} <= set(run.data.metrics)
    plots = {each.path for each in client.list_artifacts(run.info.run_id, "plots")}
    assert {"plots/residuals.png", "plots/predicted_against_actual.png"} <= plots
