"""A graph answers exactly like the Pipeline that it was made of, and one that does not is refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import ModelProto, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ml_assets.deployment.exactness import require_exact
from ml_assets.deployment.graph import graph_of
from ml_assets.deployment.parts import Parts, parts_of
from ml_assets.deployment.threshold_rows import MOST_ROWS, threshold_rows
from ml_assets.errors import InvalidRequestError, ReleaseError, UnlistedError
from ml_assets.ml.evaluation import scores_of
from ml_assets.ml.inputs import model_inputs
from ml_assets.serving.graph import AT_ONCE, Graph
from ml_assets_tests.drills.exactness import drill
from ml_assets_tests.pipelines import ESTIMATORS, fitted_on


def rows(number: int = 200, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "size": random.normal(size=number) * 50,
            "age": np.exp(random.normal(size=number)),
            "zone": random.choice(["a", "b", "c"], number).tolist(),
        }
    )
    gone = pl.Series(random.random(number) < 0.1)
    return frame.with_columns(pl.when(gone).then(None).otherwise(pl.col(name)).alias(name) for name in ("age", "zone"))


def answer_of(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(pl.col("size") / 50 + pl.col("age").fill_null(0) + (pl.col("zone") == "b").fill_null(True))[
        :, 0
    ].to_numpy()


def made(estimator: Any, **options: bool) -> tuple[Any, Parts, bytes]:
    """A fitted Pipeline, its parts and its graph."""
    frame = rows()
    answer = answer_of(frame)
    if hasattr(estimator, "predict_proba"):
        answer = (answer > np.median(answer)).astype(int)
    pipeline = fitted_on(frame, answer, estimator, **options)
    parts = parts_of(pipeline)
    return pipeline, parts, graph_of(parts)


def test_random_pipelines_answer_like_scikit_learn() -> None:
    shown = drill(40, first=1)
    assert [each.pipelines for each in shown.values()] == [5] * len(ESTIMATORS)
    for name, each in shown.items():
        assert each.rows["threshold"] > 100 or name in ("LogisticRegression", "Ridge")


def test_a_forest_adds_up_to_the_last_bit_however_many_rows_are_asked() -> None:
    pipeline, _, content = made(RandomForestClassifier(30, random_state=0, n_jobs=1))
    frame = rows(AT_ONCE + 10, seed=1)
    given = Graph.load(content).scores(frame)
    assert (given == scores_of(pipeline, model_inputs(frame), "binary")).all()
    assert (given[:20] == np.vstack([Graph.load(content).scores(frame[row]) for row in range(20)])).all()


@pytest.mark.parametrize("estimator", [RandomForestClassifier(5), HistGradientBoostingClassifier(max_iter=5)])
def test_a_null_category_scores_alone_as_in_a_batch(estimator: Any) -> None:
    _, _, content = made(estimator)
    graph = Graph.load(content)
    frame = rows().with_columns(pl.lit(None, pl.String).alias("zone")).vstack(rows())
    [alone] = graph.scores(frame[0])
    for batch in (frame.head(10), frame):
        assert graph.scores(batch)[0] == pytest.approx(alone, abs=1e-15)


def test_threshold_rows_lie_on_both_sides_of_a_split_as_near_as_numbers_can() -> None:
    """A graph without the cast to float32 is equal on ordinary rows, and not on these."""
    pipeline, parts, content = made(RandomForestRegressor(5, random_state=0))
    model = onnx.load_from_string(content)
    casts = [each for each in model.graph.node if each.op_type == "Cast"]
    [cast] = [each for each in casts if each.attribute[0].i == onnx.TensorProto.FLOAT]
    cast.attribute[0].i = onnx.TensorProto.DOUBLE
    uncast = Graph.load(model.SerializeToString())
    ordinary = rows(2000, seed=2)
    assert (uncast.scores(ordinary) == scores_of(pipeline, model_inputs(ordinary), "regression")).all()
    on_splits = threshold_rows(parts, rows()).features
    assert (uncast.scores(on_splits) != scores_of(pipeline, model_inputs(on_splits), "regression")).mean() > 0.05
    with pytest.raises(ReleaseError, match=r"threshold row \d+ gets .* by feature '(size|age)', which is"):
        require_exact(uncast, parts, pipeline, "regression", {"golden": rows(20)}, "m version 1")


def test_there_are_threshold_rows_of_every_feature_and_not_more_than_stated() -> None:
    frame = rows(3000)
    pipeline = fitted_on(frame, answer_of(frame), RandomForestRegressor(20, random_state=0))
    found = threshold_rows(parts_of(pipeline), frame)
    assert found.features.height == len(found.at) <= MOST_ROWS
    counts = {name: found.at.count(name) for name in frame.columns}
    assert min(counts.values()) > MOST_ROWS / len(frame.columns) / 4
    assert max(counts.values()) <= MOST_ROWS / len(frame.columns)


def tree_attribute(model: ModelProto, name: str) -> Any:
    [trees] = [each for each in model.graph.node if each.op_type == "TreeEnsemble"]
    [found] = [each for each in trees.attribute if each.name == name]
    return found


def changed_constant(content: bytes, changed: Callable[[np.ndarray], np.ndarray | None]) -> bytes:
    """The graph with the first constant changed that `changed` gives another value for."""
    model = onnx.load_from_string(content)
    for each in model.graph.initializer:
        value = changed(numpy_helper.to_array(each).copy())
        if value is not None:
            each.CopyFrom(numpy_helper.from_array(value, each.name))
            return bytes(model.SerializeToString())
    raise AssertionError("no such constant")


def test_a_graph_with_any_one_threshold_changed_is_refused_by_row_and_feature() -> None:
    pipeline, parts, content = made(RandomForestRegressor(3, max_depth=4, random_state=0))
    splits = numpy_helper.to_array(tree_attribute(onnx.load_from_string(content), "nodes_splits").t)
    features = tree_attribute(onnx.load_from_string(content), "nodes_featureids").ints
    seen = set()
    for position, feature in enumerate(features):
        name, category = parts.columns[feature]
        moved = splits.copy()
        moved[position] += 1e-5 if category is None else 0.6
        model = onnx.load_from_string(content)
        tree_attribute(model, "nodes_splits").t.CopyFrom(numpy_helper.from_array(moved))
        false = Graph.load(model.SerializeToString())
        with pytest.raises(ReleaseError, match=rf"m version 1: .*threshold row \d+ gets .* by feature '{name}'"):
            require_exact(false, parts, pipeline, "regression", {"golden": rows(20)}, "m version 1")
        seen.add(name)
    assert seen == {"size", "age", "zone"}


def test_a_graph_that_sends_missing_values_elsewhere_is_refused() -> None:
    """As converters did without a warning: the missing value goes right wherever the tree sends it."""
    pipeline, parts, content = made(RandomForestClassifier(10, random_state=0), impute=False)
    require_exact(Graph.load(content), parts, pipeline, "binary", {"golden": rows(20)}, "m version 1")
    model = onnx.load_from_string(content)
    missing = tree_attribute(model, "nodes_missing_value_tracks_true")
    assert 1 in missing.ints
    missing.ints[:] = [0] * len(missing.ints)
    with pytest.raises(ReleaseError, match="by feature 'age', which is None"):
        require_exact(
            *(Graph.load(model.SerializeToString()), parts, pipeline, "binary", {"golden": rows(20)}, "m version 1")
        )


@pytest.mark.parametrize("estimator", [RandomForestRegressor(5, random_state=0), Ridge()])
@pytest.mark.parametrize("column", [0, 1])
def test_a_graph_with_another_scale_is_refused_by_the_feature(estimator: Any, column: int) -> None:
    pipeline, parts, content = made(estimator)

    def other_scale(value: np.ndarray) -> np.ndarray | None:
        if value.shape != (2,) or value[0] != pipeline[0].named_transformers_["number"][1].scale_[0]:
            return None
        value[column] *= 1.001
        return value

    false = Graph.load(changed_constant(content, other_scale))
    with pytest.raises(ReleaseError, match=f"by feature '{['size', 'age'][column]}'"):
        require_exact(false, parts, pipeline, "regression", {"golden": rows(20)}, "m version 1")


def test_a_difference_that_only_the_models_threshold_sees_is_refused() -> None:
    pipeline, parts, content = made(LogisticRegression())

    def a_little_less(value: np.ndarray) -> np.ndarray | None:
        return value - 1e-9 if value.shape == (1,) and value[0] == pipeline[-1].intercept_[0] else None

    false, golden = Graph.load(changed_constant(content, a_little_less)), {"golden": rows(20)}
    score = float(scores_of(pipeline, model_inputs(golden["golden"]), "binary")[7, 1])
    given = (false, parts, pipeline, "binary", golden, "m version 1")
    require_exact(*given)
    require_exact(*given, threshold=score + 1e-4)
    with pytest.raises(ReleaseError, match="golden row 7 gets"):
        require_exact(*given, threshold=score)


def test_a_difference_on_a_golden_row_alone_names_the_feature_too() -> None:
    """An intercept for the one category of a linear model, which has no threshold rows."""
    pipeline, parts, content = made(LogisticRegression())

    def other_coefficient(value: np.ndarray) -> np.ndarray | None:
        if value.shape != (len(parts.columns), 1):
            return None
        value[parts.columns.index(("zone", "b"))] += 1
        return value

    false = Graph.load(changed_constant(content, other_coefficient))
    with pytest.raises(ReleaseError, match=r"held-out row \d+ gets .* by feature 'zone', which is 'b'"):
        require_exact(
            false,
            parts,
            pipeline,
            "binary",
            {"golden": rows(20).filter(pl.col("zone") == "a"), "held-out": rows()},
            "m version 1",
        )


@pytest.mark.parametrize(
    ("estimator", "value", "refused"),
    [
        (RandomForestRegressor(3), 1e300, True),
        (RandomForestRegressor(3), -1e300, True),
        (RandomForestRegressor(3), 1e30, False),
        (RandomForestRegressor(3), float("inf"), True),
        (HistGradientBoostingRegressor(max_iter=3), 1e300, False),
        (HistGradientBoostingRegressor(max_iter=3), float("-inf"), True),
        (Ridge(), 1e300, False),
        (Ridge(), float("inf"), True),
    ],
)
def test_a_number_is_too_large_for_the_graph_where_it_is_for_scikit_learn(
    estimator: Any, value: float, refused: bool
) -> None:
    pipeline, _, content = made(estimator)
    graph = Graph.load(content)
    frame = rows(5).with_columns(pl.when(pl.int_range(pl.len()) == 3).then(value).otherwise("size").alias("size"))
    if not refused:
        wanted = pipeline.predict(model_inputs(frame))
        assert graph.scores(frame) == pytest.approx(wanted, rel=1e-9)
        return
    with pytest.raises(ValueError, match="infinity"):
        pipeline.predict(model_inputs(frame))
    with pytest.raises(InvalidRequestError, match=r"row 3: feature 'size' is .*, which is too large for the model"):
        graph.scores(frame)


def test_the_largest_number_that_a_forest_takes_is_scikit_learns_to_the_bit() -> None:
    frame = rows().with_columns(pl.col("age").fill_null(0))
    pipeline = Pipeline(
        [
            ("prepare", ColumnTransformer([("number", SimpleImputer(), ["size", "age"])])),
            ("estimator", RandomForestRegressor(2, random_state=0)),
        ]
    ).fit(model_inputs(frame), answer_of(frame))
    graph = Graph.load(graph_of(parts_of(pipeline)))
    edge = 2.0**128 - 2.0**103
    for value, taken in ((np.nextafter(edge, 0), True), (edge, False)):
        one = frame.head(1).with_columns(pl.lit(value).alias("size"))
        if taken:
            assert graph.scores(one) == pipeline.predict(model_inputs(one))
            continue
        with pytest.raises(ValueError, match="too large"):
            pipeline.predict(model_inputs(one))
        with pytest.raises(InvalidRequestError, match="row 0: feature 'size'"):
            graph.scores(one)


def test_a_missing_number_is_refused_where_the_model_takes_none() -> None:
    frame = rows()
    pipeline = fitted_on(frame.with_columns(pl.col("age").fill_null(0)), answer_of(frame), Ridge(), impute=False)
    graph = Graph.load(graph_of(parts_of(pipeline)))
    gone = frame["age"].is_null().arg_true()[0]
    with pytest.raises(InvalidRequestError, match=f"row {gone}: feature 'age' is null"):
        graph.scores(frame)


def prepared_by(numbers: Any = None, texts: Any = None) -> Any:
    """A fitted Pipeline with other steps."""
    frame = rows()
    numbers = numbers or SimpleImputer()
    texts = texts or OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("number", numbers, ["size", "age"]), ("text", texts, ["zone"])])
    return Pipeline([("prepare", prepare), ("estimator", Ridge())]).fit(model_inputs(frame), answer_of(frame))


class OwnForest(RandomForestRegressor):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        (lambda: prepared_by(SimpleImputer(add_indicator=True)), "SimpleImputer"),
        (lambda: prepared_by(Pipeline([("a", StandardScaler()), ("b", SimpleImputer())])), "StandardScaler, SimpleIm"),
        (lambda: prepared_by(texts=OneHotEncoder(sparse_output=False)), "OneHotEncoder"),
        (lambda: prepared_by(texts=OneHotEncoder(handle_unknown="ignore")), "OneHotEncoder"),
        (lambda: prepared_by(texts=OneHotEncoder(drop="first", handle_unknown="ignore", sparse_output=False)), "drops"),
        (lambda: fitted_on(rows(), answer_of(rows()), Lasso()), "Lasso is not on the list"),
        (lambda: fitted_on(rows(), answer_of(rows()), OwnForest(2)), "OwnForest is not on the list"),
        (
            lambda: fitted_on(rows(), np.tile(answer_of(rows()), (2, 1)).T, RandomForestRegressor(2)),
            "several targets",
        ),
        (
            lambda: fitted_on(
                rows(), answer_of(rows()), HistGradientBoostingRegressor(categorical_features=[2, 3, 4], max_iter=2)
            ),
            "categorical splits",
        ),
    ],
)
def test_what_is_not_on_the_list_is_named(pipeline: Callable[[], Any], named: str) -> None:
    with pytest.raises(UnlistedError, match=named):
        parts_of(pipeline())


def test_what_is_no_graph_of_ours_is_refused() -> None:
    with pytest.raises(ReleaseError, match="cannot be read"):
        Graph.load(b"no graph")
