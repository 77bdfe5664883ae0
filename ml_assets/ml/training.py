"""Labelled rows, and a scikit-learn Pipeline fitted on the training ones alone.

Everything that is fitted (imputer, scaler, one-hot encoder, estimator) lives in the Pipeline, so that nothing learns
from rows that it is judged on.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from ml_assets.errors import TrainingError
from ml_assets.lake import PARTITION
from ml_assets.ml.compute import Compute, Local
from ml_assets.ml.cross_validation import CrossValidation, Fold, Judged, Terms
from ml_assets.ml.features import Features
from ml_assets.ml.fitting import fit
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.search import Found, Memory, Watch, find
from ml_assets.ml.splits import Columns, Sides, folds
from ml_assets.ml.weights import weights_of_classes, weights_of_rows
from ml_assets.spec.base import LOWER_IS_BETTER, Task
from ml_assets.spec.training import DEFAULT_PARAMS, Estimator, Search, Split, Threshold, Training

KNOWN_AT = "_known_at"


@dataclass(frozen=True)
class Labelled:
    """Rows that can be learnt from.

    Attributes:
        frame: key, event time, features, target and `_known_at`, one row per labelled row, in key order.
        cleaned: cleaned rows of the window; each is labelled or not yet labelled.
        not_yet_labelled: rows without a target at the cut-off.
    """

    frame: pl.DataFrame
    cleaned: int
    not_yet_labelled: int


def label(
    features: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    key: list[str],
    target: str,
    cut_off: datetime | None,
    order: list[str],
) -> Labelled:
    """Join features with the outcomes known at the cut-off, the latest known one per key; drop rows without a target.

    Args:
        features: rows of the `features` table.
        outcomes: rows of the `outcomes` table: key, outcome columns, `_known_at`.
        key: columns that say to which row an outcome belongs.
        cut_off: outcomes that became known later are not used; None uses all.
        order: columns that give the rows their order.
    """
    if cut_off is not None:
        outcomes = outcomes.filter(pl.col(KNOWN_AT) <= cut_off)
    latest = outcomes.sort(KNOWN_AT).unique(key, keep="last").select(*key, target, KNOWN_AT)
    beside = [name for name in features.columns if name not in (PARTITION, target)]
    joined = features.select(beside).join(latest, on=key, how="left", nulls_equal=True)
    labelled = joined.filter(pl.col(target).is_not_null()).sort(order)
    waiting = joined.get_column(target).null_count()
    return Labelled(labelled, features.height, waiting)


def build_pipeline(features: Features, estimator: Estimator, task: Task, place: str) -> Any:
    """An unfitted Pipeline: median imputation and scaling of numbers, one-hot of texts, then the estimator.

    Raises:
        TrainingError: if the estimator is unknown, refuses its parameters or is for another task.
    """
    from sklearn.base import BaseEstimator, is_classifier, is_regressor
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    dotted, params = estimator.resolve(task)
    module, _, name = dotted.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        built = kind(**_seeded(kind, params))
    except (ImportError, AttributeError):
        raise TrainingError(f"{place}: estimator.class {dotted} does not exist in scikit-learn") from None
    except TypeError as error:
        raise TrainingError(f"{place}: estimator.params do not fit {dotted}: {error}") from None
    wanted = is_regressor if task == "regression" else is_classifier
    if not isinstance(built, BaseEstimator) or not wanted(built):
        raise TrainingError(
            f"{place}: estimator.class {dotted} is no {'regressor' if task == 'regression' else 'classifier'}, which a "
            f"{task} task needs; choose another one"
        )
    number = Pipeline(
        [("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
    )
    text = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("number", number, features.numeric), ("text", text, features.categorical)])
    return Pipeline([("prepare", prepare), ("estimator", built)])


def _seeded(kind: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with which the same rows give the same model, unless they say `random_state: null`."""
    takes_seed = "random_state" in inspect.signature(kind).parameters
    return ({"random_state": DEFAULT_PARAMS["random_state"]} if takes_seed else {}) | params


@dataclass(frozen=True)
class Trained:
    """A fitted Pipeline and how it was cross-validated.

    Attributes:
        classes: target values in the order of the Pipeline's scores; the last is the positive one of a binary task;
            empty for regression.
        fold_scores: F1 (macro for several classes) or RMSE per fold. A threshold that is chosen comes only after them.
        threshold: score of the positive class from which on a row is called so; None: where it is the higher one.
        chosen_for: what the threshold reaches on the validation rows that it was chosen on, by its objective's name.
        params: all keyword arguments of the estimator, the searched ones too.
        found: the search, if there was one.
    """

    pipeline: Any
    classes: list[Any]
    fold_scores: list[float] = field(default_factory=list)
    threshold: float | None = None
    chosen_for: dict[str, float] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    found: Found | None = None


def cross_validation_metric(task: Task) -> str:
    """What the folds are scored by."""
    return "rmse" if task == "regression" else "f1"


def train(
    frame: pl.DataFrame,
    sides: Sides,
    *,
    features: Features,
    estimator: Estimator,
    split: Split,
    task: Task,
    target: str,
    columns: Columns,
    training: Training,
    threshold: Threshold | None,
    place: str,
    log: Callable[[str], None] = lambda message: None,
    search: Search | None = None,
    compute: Compute | None = None,
    memory: Memory | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Cross-validate within the training rows, then fit on all of them. No test row is looked at.

    Weights count while fitting, not in the scores of the folds. A search judges each of its trials by the same folds,
    and the best parameters are fitted. A calibrator is fitted on what the folds gave to rows that they had not seen. A
    threshold is chosen on the validation rows, unless it is stated.

    Args:
        compute: where fits run; default: here.
        memory: where a search keeps what its trials gave.
        watch: who is told of trials.

    Raises:
        TrainingError: if the training rows cannot be learnt from, or no threshold can be chosen.
    """
    from ml_assets.ml.calibration import calibrate
    from ml_assets.ml.evaluation import scores_of
    from ml_assets.ml.threshold import choose

    compute = compute or Local()
    rows = frame[sides.train]
    inputs = model_inputs(rows.select(features.names))
    classes, answer = encode(rows.get_column(target), task, place)
    unfitted = build_pipeline(features, estimator, task, place)
    judged_by = cross_validation_metric(task)
    stated = threshold if isinstance(threshold, float) else None
    samples = weights_of_rows(rows, training.sample_weights, columns.key, place) if training.sample_weights else None

    def weights(positions: np.ndarray) -> np.ndarray | None:
        counted = None if samples is None else samples[positions]
        if training.class_weights is None:
            return counted
        by_class = weights_of_classes(answer[positions], classes, training.class_weights, place)
        return by_class if counted is None else by_class * counted

    made = []
    for number, (learn, judge) in enumerate(folds(rows, split, training.folds, columns, place), start=1):
        if task != "regression" and len(np.unique(answer[learn])) < len(classes):
            raise TrainingError(
                f"{place}: fold {number} has no row of some class; set training.folds lower or split by random"
            )
        made.append(Fold(learn, judge, weights(learn)))
    terms = Terms(task, classes, stated, judged_by, training.calibration is not None, place)
    validation = CrossValidation(inputs, answer, made, terms, compute)
    found = None
    if search is not None:
        found = find(
            search,
            lambda tried: validation.scores([_attempt(features, estimator.with_(each), task, place) for each in tried]),
            metric=judged_by,
            place=place,
            memory=memory,
            watch=watch,
            log=log,
        )
        estimator = estimator.with_(found.best.params)
        unfitted = build_pipeline(features, estimator, task, place)
    scores = found.best.result.scores if found else []
    judged: list[Judged] = []
    if found is None or training.calibration:
        judged = validation.judge(unfitted)
        scores = [each.score for each in judged]
    for number, score in enumerate(scores, start=1):
        log(f"fold {number} of {training.folds}: {judged_by} {score:.4f}")
    every = np.arange(rows.height)
    fitted = compute.fit(lambda workers: fit(unfitted, inputs, answer, weights(every), place, workers))
    if training.calibration:
        # Without the weights of classes, which make scores of a rare class too high on purpose.
        unseen = np.concatenate([each.judge for each in made])
        responses = np.concatenate([each.responses for each in judged if each.responses is not None])
        counted = None if samples is None else samples[unseen]
        fitted = calibrate(fitted, training.calibration, responses, answer[unseen], counted)
    params = _seeded(type(unfitted[-1]), estimator.resolve(task)[1])
    trained = Trained(fitted, classes, scores, stated, params=params, found=found)
    if threshold is None or isinstance(threshold, float):
        return trained
    held = frame[sides.validation]
    if held.is_empty():
        raise TrainingError(
            f"{place}: the threshold is chosen on validation rows, and the split leaves none of {frame.height:,}; "
            "change split in defs.yaml"
        )
    _, truth = encode(held.get_column(target), task, place, classes)
    chosen = choose(truth, scores_of(fitted, model_inputs(held.select(features.names)), task)[:, 1], threshold, place)
    log(
        f"threshold {chosen.threshold:.4f}: {threshold.objective} {chosen.value:.4f} on {held.height:,} validation rows"
    )
    return replace(trained, threshold=chosen.threshold, chosen_for={threshold.objective: chosen.value})


def _attempt(features: Features, estimator: Estimator, task: Task, place: str) -> Any:
    """The unfitted Pipeline of a trial, or why there is none."""
    try:
        return build_pipeline(features, estimator, task, place)
    except TrainingError as error:
        return error


def encode(target: pl.Series, task: Task, place: str, classes: list[Any] | None = None) -> tuple[list[Any], np.ndarray]:
    """Target values as numbers: position in the sorted classes, or the value itself for regression.

    Returns:
        The classes, and an array of shape (rows,).

    Raises:
        TrainingError: if the number of classes does not fit the task.
    """
    if task == "regression":
        return [], target.cast(pl.Float64).to_numpy()
    found = sorted(target.unique().to_list()) if classes is None else classes
    if len(found) < 2 or (task == "binary" and len(found) > 2):
        raise TrainingError(
            f"{place}: target {target.name!r} has the values {found[:10]} in the training rows; "
            f"a {task} task needs {'exactly' if task == 'binary' else 'at least'} two"
        )
    position = {value: number for number, value in enumerate(found)}
    if unknown := sorted(set(target.unique().to_list()) - set(found)):
        raise TrainingError(
            f"{place}: held-out rows have the classes {unknown[:10]} of {target.name!r}, which no training row has; "
            "change split in defs.yaml"
        )
    return found, np.array([position[value] for value in target.to_list()], dtype=np.int64)


def better(metric: str, value: float, threshold: float) -> bool:
    """Whether `value` reaches `threshold`, in the metric's own direction."""
    return value <= threshold if metric in LOWER_IS_BETTER else value >= threshold
