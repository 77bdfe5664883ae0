from datetime import UTC, datetime

import polars as pl
import pytest

from ml_assets.errors import ModelDefinitionError, ReleaseError
from ml_assets.ml.features import Features

ALLOWED: dict[str, pl.DataType] = {
    "a": pl.Int64(),
    "b": pl.Int64(),
    "zone": pl.String(),
    "at": pl.Datetime("us", "UTC"),
    "new": pl.Boolean(),
}


def check(*expressions: pl.Expr) -> Features:
    return Features.check(list(expressions), ALLOWED, ["late"], "demo: features.py")


RATIO = (pl.col("a") / pl.col("b")).alias("ratio")


def test_features_are_numbers_or_texts_and_a_division_by_zero_is_missing() -> None:
    features = check(RATIO, pl.col("zone"), pl.col("new"), pl.col("at").dt.hour().alias("hour"))
    at = datetime(2025, 1, 1, 13, tzinfo=UTC)
    frame = pl.DataFrame(
        {"a": [1, 1, 0], "b": [2, 0, 0], "zone": ["x", None, "y"], "at": [at] * 3, "new": [True, None, False]},
        schema=ALLOWED,
    )
    computed = features.compute(frame)
    assert computed.schema == {"ratio": pl.Float64, "zone": pl.String, "new": pl.Float64, "hour": pl.Float64}
    assert computed["ratio"].to_list() == [0.5, None, None]
    assert computed["new"].to_list() == [1.0, None, 0.0]
    assert features.lineage["ratio"] == ["a", "b"]
    assert features.inputs == ["a", "b", "zone", "new", "at"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (pl.col("late"), "'late'.*leak"),
        ((pl.col("a") + pl.col("late")).alias("x"), "'x' reads 'late'.*leak"),
        (pl.all(), "wildcard"),
        (pl.col("a", "b"), "wildcard"),
        (pl.col("nothing"), "not in the contract"),
        (pl.col("a").map_elements(lambda value: value, return_dtype=pl.Int64), "Python function"),
        ((pl.col("a") - pl.col("a").mean()).alias("x"), "aggregates"),
        (pl.col("a").sum().over("zone"), "window"),
        (pl.col("a").rank().alias("x"), "other rows"),
        (pl.col("a").shift().alias("x"), "other rows"),
        (pl.col("a").cum_sum().alias("x"), "other rows|window"),
        (pl.col("a").rolling_mean(2).alias("x"), "other rows|window"),
        (pl.col("zone").fill_null(strategy="forward").alias("x"), "other rows"),
        (pl.col("at").sort().dt.hour().alias("x"), "other rows"),
        (pl.col("a").is_duplicated().alias("x"), "other rows"),
        ((pl.col("a") * pl.len()).alias("x"), "other rows|aggregates"),
        (pl.col("at"), r"dt\.hour"),
        (pl.col("zone") + 1, "cannot be computed|is a"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_expression_that_is_no_function_of_what_is_known_of_its_row_is_refused(
    expression: pl.Expr, said: str
) -> None:
    with pytest.raises(ModelDefinitionError, match=said) as caught:
        check(expression)
    assert "demo: features.py" in str(caught.value)


def test_what_looks_at_one_row_only_is_accepted_whatever_it_does() -> None:
    hour = pl.col("at").dt.convert_time_zone("America/New_York").dt.hour()
    check(
        pl.col("zone").str.to_lowercase().replace({"text 1": "other"}),
        pl.when(pl.col("a") > 2).then(pl.lit("much")).otherwise(pl.lit("little")).alias("amount"),
        pl.col("zone").is_in(["x", "y"]).alias("known"),
        (hour >= 18).alias("evening"),
        (pl.col("a") - pl.col("b")).abs().log1p().clip(0, 5).alias("distance"),
        pl.col("a").fill_null(0),
        pl.max_horizontal("a", "b").alias("most"),
        pl.lit(1.0).alias("one"),
    )


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ModelDefinitionError, match="two features are called 'a'"):
        check(pl.col("a"), pl.col("b").alias("a"))


def test_stored_features_compute_the_same_and_stored_python_code_is_refused() -> None:
    features = check(RATIO, pl.col("zone").str.to_uppercase().alias("upper"))
    frame = pl.DataFrame({"a": [3, None], "b": [4, 5], "zone": ["x", "y"]})
    again = Features.from_json(features.to_json(), {"ratio": "number", "upper": "text"})
    assert again.compute(frame).equals(features.compute(frame))
    python = {"AnonymousFunction": {"input": [], "function": [80, 76]}}
    with pytest.raises(ReleaseError, match="Python"):
        Features.from_json([python], {"x": "number"})
