"""Random fitted Pipelines, and rows for them: mixed columns of all sizes, missing values, unseen categories."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ml_assets.ml.inputs import model_inputs
from ml_assets.spec.base import Task

FORESTS = (RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor)
BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
ESTIMATORS = (*FORESTS, *BOOSTED, LogisticRegression, Ridge)


@dataclass(frozen=True)
class Fitted:
    """A fitted Pipeline; features of rows that it was fitted on and of others, with categories that it has not seen."""

    pipeline: Any
    task: Task
    known: pl.DataFrame
    others: pl.DataFrame

    @property
    def name(self) -> str:
        return type(self.pipeline[-1]).__name__


def fitted_on(
    frame: pl.DataFrame, answer: np.ndarray, estimator: Any, *, impute: bool = True, scale: bool = True
) -> Any:
    """The Pipeline of `ml.training.build_pipeline`, or one without imputer or scaler."""
    numeric = [name for name, kind in frame.schema.items() if kind == pl.Float64]
    texts = [name for name in frame.columns if name not in numeric]
    imputer = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))] if impute else []
    scaler = [("scale", StandardScaler())] if scale else []
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("number", Pipeline([*imputer, *scaler]), numeric), ("text", encoder, texts)])
    return Pipeline([("prepare", prepare), ("estimator", estimator)]).fit(model_inputs(frame), answer)


def frame_of(random: np.random.Generator, rows: int, numbers: int, texts: int, missing: float) -> pl.DataFrame:
    """Columns `n0`, ... and `t0`, ...: tiny, huge, whole, skewed and constant numbers, few and many categories."""
    kinds = [
        lambda: random.normal(size=rows) * 10.0 ** random.integers(-8, 9),
        lambda: random.integers(-3, 4, rows).astype(float),
        lambda: np.exp(random.normal(size=rows) * 4),
        lambda: 1e6 + random.normal(size=rows) * 1e-3,
        lambda: np.full(rows, 7.0),
    ]
    columns: dict[str, Any] = {f"n{each}": kinds[random.integers(len(kinds))]() for each in range(numbers)}
    for each in range(texts):
        columns[f"t{each}"] = [f"c{value}" for value in random.integers(0, random.integers(1, 12), rows)]
    frame = pl.DataFrame(columns)
    gone = {name: pl.Series(random.random(rows) < missing) for name in columns}
    return frame.select(pl.when(gone[name]).then(None).otherwise(pl.col(name)).alias(name) for name in columns)


@st.composite
def fitted(draw: st.DrawFn, kind: Any) -> Fitted:
    """A random Pipeline of one of `ESTIMATORS`."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = draw(st.integers(0, 5))
    texts = draw(st.integers(0 if numbers else 1, 3))
    missing = draw(st.sampled_from([0.0, 0.2]))
    impute, scale = draw(st.sampled_from([(True, True), (True, True), (True, False), (False, True)]))
    rows = draw(st.integers(40, 250))
    frame = frame_of(random, rows + 60, numbers, texts, missing)
    known, others = frame.head(rows), frame.tail(60)
    unseen = pl.Series(random.random(60) < 0.2)
    others = others.with_columns(
        pl.when(unseen).then(pl.lit("never seen")).otherwise(pl.col(name)).alias(name)
        for name in frame.columns
        if name.startswith("t")
    )
    options: dict[str, Any] = {}
    if kind in FORESTS:
        options = {"n_estimators": draw(st.integers(1, 12)), "random_state": 0, "n_jobs": 1}
        options["max_depth"] = draw(st.sampled_from([None, 1, 3, 8]))
    elif kind in BOOSTED:
        options = {"max_iter": draw(st.integers(1, 12)), "min_samples_leaf": draw(st.sampled_from([1, 5]))}
    elif missing:
        impute = True
    ranks = sum(
        each.rank(method="average", seed=0).fill_null(0).to_numpy() / rows
        if each.dtype == pl.Float64
        else each.fill_null("").hash(seed=each.len()).to_numpy() % 7 / 7
        for each in known
    )
    signal = ranks + 0.1 * random.normal(size=rows)
    task: Task = "regression"
    answer = signal * 10.0 ** random.integers(-3, 4)
    if hasattr(kind, "predict_proba"):
        classes = draw(st.sampled_from([2, 2, 3, 9]))
        task = "binary" if classes == 2 else "multiclass"
        answer = np.argsort(np.argsort(signal)) * classes // rows
    elif kind is HistGradientBoostingRegressor and draw(st.booleans()):
        options["loss"], answer = "poisson", np.exp(signal)
    pipeline = fitted_on(known, answer, kind(**options), impute=impute, scale=scale)
    return Fitted(pipeline, task, known, others)
