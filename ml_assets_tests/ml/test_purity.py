from datetime import UTC, datetime

import polars as pl
import pytest

from ml_assets.ml.purity import ROWS, Possible, generated_rows, impure, unequal

TYPES: dict[str, pl.DataType] = {
    "whole": pl.Int64(),
    "small": pl.UInt8(),
    "number": pl.Float64(),
    "text": pl.String(),
    "truth": pl.Boolean(),
    "day": pl.Date(),
    "at": pl.Datetime("us", "UTC"),
    "local": pl.Datetime("ms", "America/New_York"),
    "naive": pl.Datetime("ns"),
    "length": pl.Duration("us"),
}


@pytest.mark.parametrize("name", TYPES)
def test_generated_values_are_many_with_nulls_and_repetitions_and_always_the_same(name: str) -> None:
    column = generated_rows(TYPES)[name]
    assert (len(column), column.dtype) == (ROWS, TYPES[name])
    assert 5 < column.null_count() < ROWS // 4
    distinct = column.n_unique()
    assert (distinct == 3) if name == "truth" else (15 < distinct < ROWS // 2)
    assert column.equals(generated_rows(TYPES)[name], null_equal=True)


def test_generated_numbers_are_negative_zero_large_and_fractional() -> None:
    numbers = generated_rows(TYPES)["number"].drop_nulls()
    assert numbers.min() < -1e9  # type: ignore[operator]
    assert numbers.max() > 1e9  # type: ignore[operator]
    assert (numbers == 0).any()
    assert (numbers % 1 != 0).any()


@pytest.mark.parametrize(
    ("kind", "possible"),
    [
        (pl.Int64(), Possible(least=16, most=120)),
        (pl.Int64(), Possible(above=10**9, below=10**9 + 50)),
        (pl.Float64(), Possible(above=0.0, most=1.0)),
        (pl.Float64(), Possible(least=-74.5, below=-73.5)),
        (pl.Float64(), Possible(least=0.0, most=float("inf"))),
        (pl.Datetime("us", "UTC"), Possible(least=datetime(2000, 1, 1, tzinfo=UTC))),
    ],
)
def test_generated_values_keep_the_limits_of_the_contract(kind: pl.DataType, possible: Possible) -> None:
    values = generated_rows({"x": kind}, {"x": possible})["x"].drop_nulls()
    assert all(possible.holds(each) for each in values)
    assert values.n_unique() > 15


def test_generated_values_are_those_that_the_contract_names() -> None:
    values = generated_rows({"x": pl.String()}, {"x": Possible(allowed=("a", "b"))})["x"]
    assert set(values) == {"a", "b", None}


ROW = generated_rows(TYPES)
PURE = [
    pl.col("number") * 3,
    pl.col("number").log() / pl.col("whole"),
    pl.col("text").str.len_chars(),
    pl.lit(1.0),
    pl.col("text").cast(pl.Int64),  # takes some rows only
    pl.col("text").str.to_date("%d.%m.%Y"),  # takes no row
]
IMPURE = [
    pl.col("number") - pl.col("number").mean(),
    pl.col("whole").shift(),
    pl.col("whole").rank(),
    pl.col("whole").cum_sum(),
    pl.col("truth").rle_id(),
    pl.col("number").sort(),
    pl.col("whole").shuffle(seed=1),
    pl.col("number").fill_null(strategy="forward"),
    pl.col("text").is_first_distinct(),
    pl.col("whole").unique(),
    pl.col("small").cast(pl.Int64).is_in(pl.col("whole")),
    pl.col("text").cast(pl.Int64).cum_max(),
    pl.len(),
    pl.int_range(pl.len()),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("expression", IMPURE, ids=str)
def test_an_expression_that_looks_at_other_rows_is_found_among_others(expression: pl.Expr) -> None:
    assert impure([*PURE, expression], ROW) == [len(PURE)]


def test_expressions_of_one_row_are_not_found() -> None:
    assert impure(PURE, ROW) == []


def test_expressions_are_equal_bit_by_bit_but_for_nan() -> None:
    number, nan = pl.col("number"), pl.lit(float("nan"))
    assert unequal([number, number * 0, nan * 1], [number, number * 0, nan * -1], ROW) == []
    assert unequal([number, number * 0], [number.cast(pl.Float32), number * -0.0], ROW) == [0, 1]
    assert unequal([number], [number + 0.1 - 0.1], ROW) == [0]
    assert unequal([pl.col("whole")], [pl.col("whole").cast(pl.Int32, strict=False)], ROW) == [0]
    assert unequal([pl.col("text")], [pl.col("nothing")], ROW) == [0]
