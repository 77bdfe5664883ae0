import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Ridge

from ml_assets.digests import digest_of_fitted, digest_of_model
from ml_assets.errors import TrainingError
from ml_assets.ml import skops_store
from ml_assets.ml.estimators import ESTIMATORS
from ml_assets.ml.features import Features
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.splits import Columns, Sides, folds
from ml_assets.ml.threshold import choose
from ml_assets.ml.training import Trained, build_pipeline, encode, label, train
from ml_assets.spec.base import Task
from ml_assets.spec.training import Calibration, CostObjective, Estimator, F1Objective, Split, Training

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
    options = {"training": Training(folds=3), "split": Split(), "columns": Columns(["id"])} | options
    return train(
        frame,
        features=FEATURES,
        task=task,
        target=target,
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
from ml_assets.ml.inputs import model_inputs
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
        ({"estimator": Estimator(class_="sklearn.svm.SVR")}, r"sklearn\.svm\.SVR is no classifier, which a binary"),
        (
            {"estimator": Estimator(class_="sklearn.svm.SVC"), "task": "regression", "target": "minutes"},
            r"sklearn\.svm\.SVC is no regressor, which a regression task needs",
        ),
        ({"estimator": Estimator(class_="sklearn.preprocessing.StandardScaler")}, "StandardScaler is no classifier"),
        ({"estimator": Estimator(class_="sklearn.utils.Bunch")}, "Bunch is no classifier"),
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


def test_without_a_validation_row_no_threshold_is_chosen() -> None:
    with pytest.raises(TrainingError, match="m: the threshold is chosen on validation rows, and the split leaves none"):
        fit(rows(), threshold=F1Objective(objective="f1"))


def test_the_threshold_is_part_of_the_model() -> None:
    frame = rows()
    digests = {digest_of_model(fit(frame, threshold=each).pipeline, each) for each in (None, 0.3, 0.4)}
    assert len(digests) == 3


LOGISTIC = Estimator(class_="sklearn.linear_model.LogisticRegression")


def logistic_on_prepared_rows(frame: pl.DataFrame, fitted: Any, **options: Any) -> np.ndarray:
    """Coefficients that scikit-learn itself finds for the first 400 rows."""
    prepared = fitted[:-1].transform(model_inputs(frame.head(400).select(FEATURES.names)))
    late = frame["late"].head(400).to_numpy()
    weights = options.pop("sample_weight", None)
    return np.asarray(LogisticRegression(**options).fit(prepared, late, sample_weight=weights).coef_)


@pytest.mark.parametrize(
    ("class_weights", "theirs"),
    [("balanced", "balanced"), ({True: 3}, {False: 1, True: 3}), ({"False": 0.5, "True": 2}, {False: 0.5, True: 2})],
)
def test_class_weights_are_scikit_learns(class_weights: Any, theirs: Any) -> None:
    frame = rows().with_columns(late=pl.col("x") > 0.8)
    training = Training(folds=3, class_weights=class_weights)
    fitted = fit(frame, estimator=LOGISTIC, training=training).pipeline
    expected = logistic_on_prepared_rows(frame, fitted, class_weight=theirs)
    assert fitted[-1].coef_ == pytest.approx(expected, rel=1e-4)
    assert fitted[-1].coef_ != pytest.approx(fit(frame, estimator=LOGISTIC).pipeline[-1].coef_, rel=1e-2)


def test_weights_of_a_column_count_in_the_fit_and_make_no_feature() -> None:
    frame = rows().with_columns(worth=pl.col("id") % 4)
    weighted = fit(frame, estimator=LOGISTIC, training=Training(folds=3, sample_weights="worth"))
    worth = frame["worth"].head(400).to_numpy()
    expected = logistic_on_prepared_rows(frame, weighted.pipeline, sample_weight=worth)
    assert weighted.pipeline[-1].coef_ == pytest.approx(expected, rel=1e-4)
    assert "worth" not in weighted.pipeline[:-1].get_feature_names_out()
    both = Training(folds=3, sample_weights="worth", class_weights={True: 3})
    expected = logistic_on_prepared_rows(
        frame, weighted.pipeline, sample_weight=worth * np.where(frame["late"].head(400), 3, 1)
    )
    assert fit(frame, estimator=LOGISTIC, training=both).pipeline[-1].coef_ == pytest.approx(expected, rel=1e-4)
    ridge = fit(
        frame,
        "regression",
        "minutes",
        estimator=Estimator(class_="sklearn.linear_model.Ridge"),
        training=Training(folds=3, sample_weights="worth"),
    )
    prepared = ridge.pipeline[:-1].transform(model_inputs(frame.head(400).select(FEATURES.names)))
    expected = Ridge().fit(prepared, frame["minutes"].head(400).to_numpy(), sample_weight=worth).coef_
    assert ridge.pipeline[-1].coef_ == pytest.approx(expected)


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        (pl.when(pl.col("id") != 7).then(1.0), r"'worth' is None in the row with id 7 \(and 0 others\)"),
        (5.0 - pl.col("id"), r"'worth' is -1\.0 in the row with id 6 \(and 393 others\)"),
        (pl.lit(float("nan")), r"'worth' is nan in the row with id 0 \(and 399 others\)"),
        (pl.lit(0), r"'worth' is 0 in all 400 training rows"),
    ],
)
def test_a_weight_that_is_none_is_refused_with_its_row(worth: pl.Expr, said: str) -> None:
    frame = rows().with_columns(worth=worth)
    with pytest.raises(TrainingError, match=f"m: training.sample_weights: {said}"):
        fit(frame, training=Training(folds=3, sample_weights="worth"))


def test_weights_that_the_estimator_or_the_classes_do_not_know_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"names 'yes'; the classes are False, True"):
        fit(rows(), training=Training(folds=3, class_weights={"yes": 2}))
    neighbours = Estimator(class_="sklearn.neighbors.KNeighborsClassifier")
    with pytest.raises(TrainingError, match="KNeighborsClassifier takes no weights"):
        fit(rows(), estimator=neighbours, training=Training(folds=3, class_weights="balanced"))


@pytest.mark.parametrize("dotted", ESTIMATORS)
def test_each_listed_estimator_is_weighed_calibrated_and_can_be_served(dotted: str) -> None:
    sizes = {"n_estimators": 3, "max_iter": 20}
    small = {name: size for name, size in sizes.items() if name in ESTIMATORS[dotted].parameters}
    estimator = Estimator(class_=dotted, params=small)
    frame = rows().with_columns(worth=pl.col("id") % 4 + 1)
    if ESTIMATORS[dotted].predicts == "numbers":
        trained = fit(
            frame, "regression", "minutes", estimator=estimator, training=Training(folds=2, sample_weights="worth")
        )
    else:
        training = Training(folds=2, sample_weights="worth", class_weights="balanced", calibration="sigmoid")
        trained = fit(frame, estimator=estimator, training=training)
    assert skops_store.untrusted_types(skops_store.dump(trained.pipeline)) == []


METHODS: list[Calibration] = ["isotonic", "sigmoid"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("task", "target"), [("binary", "late"), ("multiclass", "level")])
def test_calibration_is_scikit_learns_on_the_same_folds(method: Calibration, task: Task, target: str) -> None:
    frame = rows()
    classes, answer = encode(frame[target].head(400), task, "m")
    inputs = model_inputs(frame.head(400).select(FEATURES.names))
    made = folds(frame.head(400), Split(), 3, Columns(["id"]), "m")
    for estimator in (LOGISTIC, Estimator(params={"n_estimators": 10})):
        fitted = fit(frame, task, target, estimator=estimator, training=Training(folds=3, calibration=method)).pipeline
        unfitted = build_pipeline(FEATURES, estimator, task, "m")
        theirs = CalibratedClassifierCV(unfitted, method=method, cv=made, ensemble=False).fit(inputs, answer)
        assert fitted.predict_proba(inputs) == pytest.approx(theirs.predict_proba(inputs), abs=1e-6)
        assert len(classes) == fitted.predict_proba(inputs).shape[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_calibrated_model_is_the_same_after_it_was_stored(method: Calibration, tmp_path: Path) -> None:
    fitted = fit(rows(), training=Training(folds=3, calibration=method)).pipeline
    content = skops_store.dump(fitted)
    assert skops_store.untrusted_types(content) == []
    (tmp_path / "model.skops").write_bytes(content)
    again = skops_store.load(tmp_path / "model.skops")
    inputs = model_inputs(rows(seed=1).select(FEATURES.names))
    assert (again.predict_proba(inputs) == fitted.predict_proba(inputs)).all()
    assert digest_of_fitted(again) == digest_of_fitted(fitted)
    calibrator = again[-1].calibrated_classifiers_[0].calibrators[0]
    (calibrator.y_thresholds_ if method == "isotonic" else calibrator.__dict__)[
        0 if method == "isotonic" else "a_"
    ] += 1
    assert digest_of_fitted(again) != digest_of_fitted(fitted), "the digest covers the calibrator"


def test_calibration_by_time_learns_from_later_rows_of_the_folds_and_from_no_held_out_row() -> None:
    frame = rows(900).with_columns(at=pl.datetime(2025, 1, 1) + pl.duration(hours=pl.col("id")))
    sides = Sides(np.arange(600), np.arange(600, 700), np.arange(700, 900))
    options: dict[str, Any] = {
        "sides": sides,
        "split": Split(by="time"),
        "columns": Columns(["id"], "at"),
        "training": Training(folds=3, calibration="isotonic", class_weights={True: 20}),
    }
    fitted = fit(frame, **options).pipeline
    flipped = frame.with_columns(late=pl.when(pl.col("id") >= 600).then(~pl.col("late")).otherwise("late"))
    assert digest_of_fitted(fit(flipped, **options).pipeline) == digest_of_fitted(fitted)
    inputs = model_inputs(frame[sides.test].select(FEATURES.names))
    late = frame[sides.test]["late"].mean()
    assert fitted.predict_proba(inputs)[:, 1].mean() == pytest.approx(late, abs=0.08)
    uncalibrated = fit(frame, **(options | {"training": Training(folds=3, class_weights={True: 20})})).pipeline
    assert uncalibrated.predict_proba(inputs)[:, 1].mean() > late + 0.15, "weights make the rare class too likely"


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
