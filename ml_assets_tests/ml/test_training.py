import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_assets.digests import digest_of_fitted, digest_of_model
from ml_assets.errors import TrainingError
from ml_assets.ml.features import Features
from ml_assets.ml.splits import Columns, Sides
from ml_assets.ml.threshold import choose
from ml_assets.ml.training import Trained, encode, label, model_inputs, train
from ml_assets.spec import CostObjective, Estimator, Split, Task

FEATURES = Features.check([pl.col("x"), pl.col("zone")], {"x": pl.Float64(), "zone": pl.String()}, [], "test")


def rows(number: int = 600, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=number)
    return pl.DataFrame(
        {
            "id": range(number),
            "x": x,
            "zone": random.choice(["a", "b"], number).tolist(),
            "late": (x + random.normal(size=number) > 0).tolist(),
            "level": [["low", "middle", "high"][each] for each in np.digitize(x, [-0.5, 0.5])],
            "minutes": 3 * x + random.normal(size=number),
        }
    )


def fit(frame: pl.DataFrame, task: Task = "binary", target: str = "late", **options: Any) -> Trained:
    third = frame.height // 3
    sides = Sides(np.arange(2 * third), np.array([], dtype=int), np.arange(2 * third, frame.height))
    options = {"sides": sides, "estimator": Estimator(params={"n_estimators": 10}), "threshold": None} | options
    return train(
        frame,
        features=FEATURES,
        split=Split(),
        task=task,
        target=target,
        columns=Columns(["id"]),
        number_of_folds=3,
        place="m",
        **options,
    )


def test_fitted_transformers_see_training_rows_only() -> None:
    """If anything were fitted before the split, these held-out rows would move its mean and add a category."""
    clean_rows = rows()
    poisoned = clean_rows.with_columns(
        x=pl.when(pl.col("id") >= 400).then(1e6).otherwise("x"),
        zone=pl.when(pl.col("id") >= 400).then(pl.lit("held-out")).otherwise("zone"),
    )
    fitted = fit(poisoned).pipeline
    number = fitted.named_steps["prepare"].named_transformers_["number"]
    text = fitted.named_steps["prepare"].named_transformers_["text"]
    train_rows = clean_rows["x"].head(400).to_numpy()
    assert number.named_steps["scale"].mean_[0] == pytest.approx(train_rows.mean())
    assert number.named_steps["scale"].var_[0] == pytest.approx(train_rows.var())
    assert number.named_steps["impute"].statistics_[0] == pytest.approx(np.median(train_rows))
    assert text.categories_[0].tolist() == ["a", "b"]
    assert digest_of_fitted(fitted) == digest_of_fitted(fit(clean_rows).pipeline)


CODE = """
import hashlib, sys
from ml_assets_tests.ml.test_training import FEATURES, fit, rows
from ml_assets.digests import digest_of_fitted
from ml_assets.ml.training import model_inputs
fitted = fit(rows()).pipeline
scores = fitted.predict_proba(model_inputs(rows(seed=1).select(FEATURES.names)))
print(digest_of_fitted(fitted), hashlib.sha256(scores.tobytes()).hexdigest())
"""


def test_the_same_rows_and_parameters_give_the_same_model_and_predictions_in_two_processes() -> None:
    said = [
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert len(said[0].split()) == 2


def test_another_row_parameter_or_seed_gives_another_digest() -> None:
    digests = {
        digest_of_fitted(fit(frame, estimator=Estimator(params=params)).pipeline)
        for frame, params in (
            (rows(), {"n_estimators": 5}),
            (rows(seed=1), {"n_estimators": 5}),
            (rows(), {"n_estimators": 6}),
            (rows(), {"n_estimators": 5, "random_state": 1}),
        )
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("task", "target", "classes"),
    [
        ("binary", "late", [False, True]),
        ("multiclass", "level", ["high", "low", "middle"]),
        ("regression", "minutes", []),
    ],
)
def test_each_task_is_trained_and_cross_validated(task: Task, target: str, classes: list[Any]) -> None:
    trained = fit(rows(), task, target)
    assert trained.classes == classes
    assert len(trained.fold_scores) == 3
    assert all(np.isfinite(trained.fold_scores))


def test_a_feature_that_is_never_known_and_a_null_category_do_not_stop_a_training() -> None:
    frame = rows().with_columns(x=pl.lit(None, pl.Float64), zone=pl.when(pl.col("id") % 2 == 0).then("zone"))
    fitted = fit(frame).pipeline
    assert np.isfinite(fitted.predict_proba(model_inputs(frame.select(FEATURES.names)))).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "level"}, r"level.*exactly two"),
        ({"estimator": Estimator(class_="sklearn.ensemble.NoSuchForest")}, "does not exist"),
        ({"estimator": Estimator(params={"max_deep": 3})}, "max_deep"),
        ({"estimator": Estimator(params={"max_depth": -3})}, "refuses to fit"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        fit(rows(), **options)


def test_a_threshold_is_chosen_on_validation_rows_and_no_test_row_changes_it() -> None:
    frame = rows(900)
    flipped = frame.with_columns(late=pl.when(pl.col("id") >= 600).then(~pl.col("late")).otherwise("late"))
    sides = Sides(np.arange(400), np.arange(400, 600), np.arange(600, 900))
    objective = CostObjective(objective="cost", false_positive=1, false_negative=5)
    one, other = (fit(each, sides=sides, threshold=objective) for each in (frame, flipped))
    assert one.threshold == other.threshold
    assert digest_of_fitted(one.pipeline) == digest_of_fitted(other.pipeline)
    assert one.threshold is not None
    assert one.threshold < 0.5, "a missed one costs five times as much"
    held = frame[sides.validation]
    scores = one.pipeline.predict_proba(model_inputs(held.select(FEATURES.names)))[:, 1]
    assert one.threshold == choose(held["late"].to_numpy().astype(int), scores, objective, "m").threshold
    validation = frame.with_columns(
        late=pl.when(pl.col("id").is_between(400, 599)).then(pl.col("id") % 2 == 0).otherwise("late")
    )
    assert fit(validation, sides=sides, threshold=objective).threshold != one.threshold


def test_the_threshold_is_part_of_the_model() -> None:
    frame = rows()
    digests = {digest_of_model(fit(frame, threshold=each).pipeline, each) for each in (None, 0.3, 0.4)}
    assert len(digests) == 3


def test_labels_are_the_latest_known_at_the_cut_off_and_rows_without_one_are_counted() -> None:
    features = pl.DataFrame({"id": [1, 2, 3], "x": [0.1, 0.2, 0.3]})
    from datetime import UTC, datetime

    days = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3, 3)]
    outcomes = pl.DataFrame({"id": [1, 1, 2, 3], "late": [True, False, True, None], "_known_at": days})
    early = label(features, outcomes, key=["id"], target="late", cut_off=days[0], order=["id"])
    assert early.frame.select("id", "late").rows() == [(1, True)]
    assert (early.cleaned, early.not_yet_labelled) == (3, 2)
    late = label(features, outcomes, key=["id"], target="late", cut_off=days[2], order=["id"])
    assert late.frame.select("id", "late").rows() == [(1, False), (2, True)]
    assert late.cleaned == late.frame.height + late.not_yet_labelled


def test_a_class_that_no_training_row_has_is_named() -> None:
    with pytest.raises(TrainingError, match=r"held-out rows have the classes \['new'\] of 'level'"):
        encode(pl.Series("level", ["low", "new"]), "multiclass", "m", ["high", "low"])
