import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pytest

from ml_assets.errors import ModelDefinitionError, ReleaseError
from ml_assets.ml.expressions import _NAMES
from ml_assets.ml.features import Features
from ml_assets.ml.operations import OPERATIONS, Operation
from ml_assets.ml.purity import Possible

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
        (pl.all(), "wildcard or selector; name each column.*late"),
        (pl.col("a", "b"), "wildcard"),
        (pl.col("^l.*$"), "wildcard or selector.*late"),
        (cs.by_name("late"), "wildcard or selector.*late"),
        (pl.sum_horizontal(cs.numeric()).alias("x"), "wildcard or selector.*late"),
        ((pl.col("a") + cs.by_name("late")).alias("x"), "wildcard or selector.*late"),
        (pl.nth(0), "wildcard or selector"),
        (pl.element(), "has no name"),
        (pl.col("nothing"), "not in the contract"),
        (pl.col("a").map_elements(lambda value: value, return_dtype=pl.Int64), "Python function"),
        ((pl.col("a") - pl.col("a").mean()).alias("x"), "aggregates"),
        (pl.col("a").map_batches(lambda values: values).alias("x"), "'x' calls a Python function"),
        (pl.col("a").sum().over("zone"), "window"),
        (pl.col("a").rolling("at", period="1d").alias("x"), "'x' is a rolling window"),
        (
            pl.col("a").rank().alias("x"),
            r"'x' looks at other rows \(rank\); write it with operations on the columns of one",
        ),
        (pl.col("a").shift().alias("x"), r"'x' looks at other rows \(shift\)"),
        (pl.col("a").cum_sum().alias("x"), r"'x' looks at other rows \(cum_sum\)"),
        (pl.col("a").rolling_mean(2).alias("x"), r"'x' looks at other rows \(rolling_mean or the like\)"),
        (pl.col("a").sample(fraction=1.0).alias("x"), r"'x' looks at other rows \(sample or shuffle\)"),
        (
            pl.col("zone").fill_null(strategy="forward").alias("x"),
            r"'x' looks at other rows .*write \.fill_null\(value\)",
        ),
        (pl.col("at").sort().dt.hour().alias("x"), r"'x' looks at other rows \(sort\)"),
        (pl.col("a").is_duplicated().alias("x"), r"'x' looks at other rows \(is_duplicated\)"),
        ((pl.col("a") * pl.len()).alias("x"), r"'x' looks at other rows \(pl\.len\)"),
        (
            pl.col("a").is_in(pl.col("b")).alias("x"),
            r"'x' looks at other rows \(is_in with a column\); compare with ==",
        ),
        (pl.col("a").replace(pl.col("b"), 1).alias("x"), r"'x' looks at other rows \(replace with a column\)"),
        (pl.col("zone").str.reverse().alias("x"), r"'x' uses str\.reverse, .*bring-your-own-data\.md says which are"),
        (pl.col("zone").hash().alias("x"), "'x' uses hash, which is not among the operations that a release can store"),
        (pl.col("zone").cast(pl.Enum(["x"])).alias("x"), "'x' uses cast .*the type Enum"),
        (pl.col("a").fill_null(float("inf")).alias("x"), "'x' holds the number NaN or infinity"),
        ((pl.col("a") + pl.Series([1, 2])).alias("x"), "'x' holds a Series of values"),
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


@pytest.fixture
def mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that looks at other rows is on the list."""
    monkeypatch.setitem(OPERATIONS, "shift", Operation("Shift", lambda value, by: value.shift(by), 2, 2))
    monkeypatch.setitem(_NAMES, "Shift", "shift")


@pytest.mark.usefixtures("mistake")
def test_what_looks_at_other_rows_is_found_even_if_the_list_of_operations_lets_it_pass() -> None:
    with pytest.raises(ModelDefinitionError, match=r"demo: features\.py: feature 'x' gives a row another value"):
        check(RATIO, pl.col("a").shift().alias("x"))


@pytest.mark.usefixtures("mistake")
def test_a_feature_that_takes_only_what_the_contract_allows_is_tried_on_that() -> None:
    day = pl.col("zone").str.to_date("%d.%m.%Y").dt.day().shift().alias("x")
    possible = {"zone": Possible(allowed=("01.05.2025", "02.05.2025", "03.05.2025"))}
    with pytest.raises(ModelDefinitionError, match="'x' gives a row another value"):
        Features.check([day], ALLOWED, [], "demo: features.py", possible)


def test_a_feature_that_takes_none_of_the_generated_rows_is_accepted() -> None:
    check((pl.col("zone").fill_null("").str.to_date("%d.%m.%Y").dt.day()).alias("x"))


def test_stored_features_compute_the_same_and_have_the_same_digest() -> None:
    features = check(RATIO, pl.col("zone").str.to_uppercase().alias("upper"), pl.col("a"))
    frame = pl.DataFrame({"a": [3, None], "b": [4, 5], "zone": ["x", "y"]})
    again = Features.from_json(json.loads(json.dumps(features.to_json())))
    assert again.compute(frame).equals(features.compute(frame))
    assert (again.names, again.inputs, again.types) == (features.names, features.inputs, features.types)
    assert again.digest == features.digest
    assert check(RATIO, pl.col("a")).digest != check(pl.col("a"), RATIO).digest


STORED = Path(__file__).with_name("stored_features_1.json")  # written once, by the first version; never written again


def test_features_that_the_first_version_of_the_form_stored_are_read_for_ever() -> None:
    written = json.loads(STORED.read_text())
    features = Features.from_json(written["stored"])
    rows = pl.DataFrame(written["rows"]).with_columns(
        pl.col("ordered_at").str.to_datetime(time_unit="us", time_zone="UTC"), pl.col("day").str.to_date()
    )
    assert features.compute(rows).to_dict(as_series=False) == written["expected"]
    assert features.to_json() == written["stored"], "what is stored today means the same and looks the same"


def test_the_stored_features_of_the_first_version_use_each_kind_of_literal() -> None:
    text = STORED.read_text()
    for kind in ("int", "float", "text", "boolean", "null", "date", "datetime[us, UTC]", "duration[us]", "list[text]"):
        assert f'"type": "{kind}"' in text


A = {"column": "a"}
PYTHON = {"AnonymousFunction": {"input": [A], "function": list(pickle.dumps(print))}}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"form": 2, "features": []}, "form 2; this version of ml-assets reads 1"),
        ([{"Column": "a"}], "form None"),
        ({"form": 1, "features": [], "more": 1}, "form, features, more"),
        ({"form": 1, "features": [{"name": "x", "type": "number"}]}, "name, type and expression"),
        ({"form": 1, "features": [{"name": "x", "type": "date", "expression": A}]}, "'x'.*'date'"),
        ({"form": 1, "features": [{"name": "x", "type": "number", "expression": A}] * 2}, "no name of its own"),
        ({"form": 1, "features": [{"name": "x", "type": "number", "expression": PYTHON}]}, "'x': .*no operation"),
        (
            {"form": 1, "features": [{"name": "x", "type": "number", "expression": {"Column": "a"}}]},
            "'x': .*no operation",
        ),
    ],
)
def test_stored_features_that_are_not_of_the_form_are_refused(stored: object, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        Features.from_json(stored)


def test_a_request_of_one_row_gets_the_bits_that_a_batch_gets_also_where_polars_divides_otherwise() -> None:
    """Polars multiplies many numbers with the reciprocal of a constant, and divides a single one."""
    features = Features.check([(pl.col("km") / 60).alias("hours")], {"km": pl.Float64()}, [], "demo")
    batch = pl.DataFrame({"km": [number / 7 for number in range(1, 500)]})
    alone = pl.concat([features.compute(each) for each in batch.iter_slices(1)])
    assert alone["hours"].to_list() == features.compute(batch)["hours"].to_list()
