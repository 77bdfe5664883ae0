"""What a fitted Pipeline consists of, as arrays: read from scikit-learn's objects, and from a closed list of them.

The list is what `ml.training.build_pipeline` makes, with the estimators below; a Pipeline without the imputer or the
scaler is on it too. Nothing here knows ONNX.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ml_assets.errors import UnlistedError
from ml_assets.serving.graph import Link

LISTED = (
    "SimpleImputer without indicator, StandardScaler, OneHotEncoder; RandomForest, ExtraTrees and HistGradientBoosting "
    "(without categorical splits), LogisticRegression, Ridge"
)


@dataclass(frozen=True)
class Numbers:
    """Number columns: null becomes `fill`, then `mean` is subtracted, then it is divided by `scale`.

    Attributes:
        fill, mean, scale: shape (columns,) each; None: that step is left out.
    """

    columns: list[str]
    fill: np.ndarray | None
    mean: np.ndarray | None
    scale: np.ndarray | None


@dataclass(frozen=True)
class Texts:
    """Text columns: for each of its `categories` a column becomes a 0 or 1; an unknown text is 0 in all of them."""

    columns: list[str]
    categories: list[list[str]]


@dataclass(frozen=True)
class Tree:
    """One tree. A row goes left where its feature is at most the threshold.

    Attributes:
        leaf: shape (nodes,), whether it is one; the root is node 0.
        feature, threshold, left, right: shape (nodes,), of no meaning for a leaf.
        missing_left: shape (nodes,), whether NaN goes left.
        value: shape (nodes, outputs), of leaves.
    """

    leaf: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Forest:
    """The mean of trees that compare the float32 of a prepared value; one output per class, or one value."""

    trees: list[Tree]


@dataclass(frozen=True)
class Boosting:
    """`baseline` plus trees that compare the float64 of a prepared value.

    Attributes:
        targets: for each tree which raw score it adds to.
        baseline: shape (raw scores,).
    """

    trees: list[Tree]
    targets: list[int]
    baseline: np.ndarray
    link: Link


@dataclass(frozen=True)
class Linear:
    """`coefficients` of shape (prepared columns, raw scores), `intercept` of shape (raw scores,)."""

    coefficients: np.ndarray
    intercept: np.ndarray
    link: Link


@dataclass(frozen=True)
class Parts:
    """A Pipeline: blocks of prepared columns, side by side, and what is estimated from them.

    Attributes:
        missing: whether the estimator takes NaN.
    """

    blocks: list[Numbers | Texts]
    estimator: Forest | Boosting | Linear
    missing: bool

    @property
    def numbers(self) -> list[str]:
        return [name for each in self.blocks if isinstance(each, Numbers) for name in each.columns]

    @property
    def texts(self) -> list[str]:
        return [name for each in self.blocks if isinstance(each, Texts) for name in each.columns]

    @cached_property
    def columns(self) -> list[tuple[str, str | None]]:
        """For each prepared column the feature that it is made of, and the category that it is about, if any."""
        found: list[tuple[str, str | None]] = []
        for block in self.blocks:
            if isinstance(block, Numbers):
                found += [(name, None) for name in block.columns]
            else:
                found += [
                    (name, category)
                    for name, some in zip(block.columns, block.categories, strict=True)
                    for category in some
                ]
        return found

    @property
    def prepared(self) -> list[str]:
        """For each prepared column the feature that it is made of."""
        return [name for name, _ in self.columns]


def parts_of(pipeline: Any) -> Parts:
    """Read a fitted Pipeline of a preparation and an estimator.

    Raises:
        UnlistedError: naming what is not on the list.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if type(pipeline) is not Pipeline or len(pipeline.steps) != 2 or type(pipeline[0]) is not ColumnTransformer:
        raise UnlistedError(f"only a Pipeline of a ColumnTransformer and an estimator is on the list ({LISTED})")
    blocks = _blocks(pipeline[0])
    estimator, missing = _estimator(pipeline[-1])
    return Parts(blocks, estimator, missing)


def _blocks(prepare: Any) -> list[Numbers | Texts]:
    from sklearn.preprocessing import OneHotEncoder

    if prepare.transformer_weights:
        raise UnlistedError("ColumnTransformer(transformer_weights=...) is not on the list")
    blocks: list[Numbers | Texts] = []
    for _, fitted, columns in prepare.transformers_:
        if fitted == "drop" or not len(columns):
            continue
        if not all(isinstance(each, str) for each in columns):
            raise UnlistedError("a ColumnTransformer that does not choose its columns by name is not on the list")
        blocks.append(
            _texts(fitted, list(columns)) if type(fitted) is OneHotEncoder else _numbers(fitted, list(columns))
        )
    if len(blocks) != len({type(each) for each in blocks}) or not blocks:
        raise UnlistedError("only one block of numbers and one of texts is on the list")
    return blocks


def _texts(encoder: Any, columns: list[str]) -> Texts:
    if encoder.handle_unknown != "ignore" or encoder.sparse_output or encoder.dtype != np.float64:
        raise UnlistedError(
            'OneHotEncoder is on the list with handle_unknown="ignore", sparse_output=False and dtype float64'
        )
    if encoder.drop is not None or encoder.min_frequency is not None or encoder.max_categories is not None:
        raise UnlistedError("OneHotEncoder that drops or joins categories is not on the list")
    categories = [list(each) for each in encoder.categories_]
    if not all(isinstance(each, str) for some in categories for each in some):
        raise UnlistedError("OneHotEncoder of other categories than texts is not on the list")
    return Texts(columns, categories)


def _numbers(fitted: Any, columns: list[str]) -> Numbers:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [step for _, step in fitted.steps] if type(fitted) is Pipeline else [fitted]
    kinds = [type(each) for each in steps]
    if kinds not in ([SimpleImputer], [StandardScaler], [SimpleImputer, StandardScaler]):
        raise UnlistedError(f"{', '.join(each.__name__ for each in kinds)} of numbers is not on the list ({LISTED})")
    fill = mean = scale = None
    for step in steps:
        if type(step) is SimpleImputer:
            if step.add_indicator or not _is_nan(step.missing_values) or np.isnan(step.statistics_).any():
                raise UnlistedError(
                    "SimpleImputer is on the list if it fills NaN, adds no indicator and drops no empty column"
                )
            fill = np.asarray(step.statistics_, np.float64)
        else:
            mean = np.asarray(step.mean_, np.float64) if step.with_mean else None
            scale = np.asarray(step.scale_, np.float64) if step.with_std else None
    return Numbers(columns, fill, mean, scale)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def _estimator(fitted: Any) -> tuple[Forest | Boosting | Linear, bool]:
    from sklearn import ensemble, linear_model

    read: dict[type, Callable[[Any], tuple[Forest | Boosting | Linear, bool]]] = {
        ensemble.RandomForestClassifier: _forest,
        ensemble.RandomForestRegressor: _forest,
        ensemble.ExtraTreesClassifier: _forest,
        ensemble.ExtraTreesRegressor: _forest,
        ensemble.HistGradientBoostingClassifier: _boosting,
        ensemble.HistGradientBoostingRegressor: _boosting,
        linear_model.LogisticRegression: _logistic,
        linear_model.Ridge: _ridge,
    }
    if type(fitted) not in read:
        raise UnlistedError(f"{type(fitted).__name__} is not on the list ({LISTED})")
    return read[type(fitted)](fitted)


def _forest(fitted: Any) -> tuple[Forest, bool]:
    if fitted.n_outputs_ != 1:
        raise UnlistedError(f"{type(fitted).__name__} of several targets is not on the list")
    outputs = getattr(fitted, "n_classes_", 1)
    trees = []
    for each in fitted.estimators_:
        nodes = each.tree_
        trees.append(
            Tree(
                leaf=nodes.children_left < 0,
                feature=nodes.feature,
                threshold=nodes.threshold,
                left=nodes.children_left,
                right=nodes.children_right,
                missing_left=nodes.missing_go_to_left.astype(bool),
                value=nodes.value[:, 0, :outputs],
            )
        )
    return Forest(trees), bool(fitted.estimators_[0].__sklearn_tags__().input_tags.allow_nan)


def _boosting(fitted: Any) -> tuple[Boosting, bool]:
    if fitted._preprocessor is not None:
        raise UnlistedError(f"{type(fitted).__name__} with categorical splits is not on the list")
    links: dict[str, Link] = {"IdentityLink": "identity", "LogLink": "exp"}
    if hasattr(fitted, "classes_"):
        if fitted.loss != "log_loss":
            raise UnlistedError(f"{type(fitted).__name__} with a loss of one's own is not on the list")
        link: Link = "logit" if len(fitted.classes_) == 2 else "softmax"
    elif (name := type(fitted._loss.link).__name__) in links:
        link = links[name]
    else:
        raise UnlistedError(f"{type(fitted).__name__} with the link {name} is not on the list")
    trees, targets = [], []
    for iteration in fitted._predictors:
        for target, predictor in enumerate(iteration):
            nodes = predictor.nodes
            targets.append(target)
            trees.append(
                Tree(
                    leaf=nodes["is_leaf"].astype(bool),
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=nodes["num_threshold"],
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    value=nodes["value"][:, None],
                )
            )
    return Boosting(trees, targets, np.ravel(fitted._baseline_prediction).astype(np.float64), link), True


def _logistic(fitted: Any) -> tuple[Linear, bool]:
    link: Link = "logit" if len(fitted.classes_) == 2 else "softmax"
    return Linear(np.asarray(fitted.coef_, np.float64).T, np.asarray(fitted.intercept_, np.float64), link), False


def _ridge(fitted: Any) -> tuple[Linear, bool]:
    coefficients = np.atleast_2d(np.asarray(fitted.coef_, np.float64)).T
    if coefficients.shape[1] != 1:
        raise UnlistedError("Ridge of several targets is not on the list")
    return Linear(coefficients, np.ravel(np.asarray(fitted.intercept_, np.float64)), "identity"), False
