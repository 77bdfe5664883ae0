"""The same in ZenML: each step a cached step on its local stack. python with_zenml.py DATA MLFLOW"""

import sys
from typing import Annotated

import blog
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from zenml import pipeline, step


@step
def load(path: str, content: str) -> pd.DataFrame:
    return blog.load(path, content)


@step
def clean(rows: pd.DataFrame) -> pd.DataFrame:
    return blog.clean(rows)


@step
def featurise(rows: pd.DataFrame) -> pd.DataFrame:
    return blog.featurise(rows)


@step
def split(rows: pd.DataFrame) -> tuple[Annotated[pd.DataFrame, "learn"], Annotated[pd.DataFrame, "test"]]:
    learn, test = blog.split(rows)
    return learn, test


@step
def train(rows: pd.DataFrame) -> tuple[Annotated[Pipeline, "pipeline"], Annotated[list, "folds"]]:
    model, folds = blog.train(rows)
    return model, folds


@step
def evaluate(model: Pipeline, rows: pd.DataFrame) -> tuple[Annotated[dict, "values"], Annotated[np.ndarray, "scores"]]:
    values, scores = blog.evaluate(model, rows)
    return values, scores


@step
def log(model: Pipeline, folds: list, values: dict, scores: np.ndarray, test: pd.DataFrame, uri: str) -> str:
    return blog.log(model, folds, values, scores, test, uri)


@pipeline
def orders(data: str, content: str, uri: str) -> None:
    learn, test = split(featurise(clean(load(data, content))))
    model, folds = train(learn)
    values, scores = evaluate(model, test)
    log(model, folds, values, scores, test, uri)


if __name__ == "__main__":
    data, uri = sys.argv[1:]
    orders(data, blog.fingerprint(data), uri)
