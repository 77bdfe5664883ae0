"""The same in Kedro: each step a node, whose outputs are files in the catalog."""

import os

import blog
from kedro.pipeline import Pipeline, node


def log(pipeline, folds, values, scores, test):
    return blog.log(pipeline, folds, values, scores, test, os.environ["ORDERS_MLFLOW"])


def register_pipelines() -> dict[str, Pipeline]:
    nodes = [
        node(blog.clean, "raw", "cleaned"),
        node(blog.featurise, "cleaned", "features"),
        node(blog.split, "features", ["learn", "test"]),
        node(blog.train, "learn", ["pipeline", "folds"]),
        node(blog.evaluate, ["pipeline", "test"], ["values", "scores"]),
        node(log, ["pipeline", "folds", "values", "scores", "test"], "version"),
    ]
    return {"__default__": Pipeline(nodes)}
