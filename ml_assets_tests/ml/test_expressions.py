"""Every operation on the list keeps its values through the stable form, alone and composed; all else is refused."""

import json
import pickle
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.digests import digest_of
from ml_assets.errors import ReleaseError
from ml_assets.ml.expressions import DEEPEST, from_stable, to_stable
from ml_assets.ml.operations import OPERATIONS
from ml_assets.ml.purity import Possible, generated_rows, unequal

I, J, F, S, R, N, M = (pl.col(name) for name in "ijfsrnm")  # noqa: E741
AT, LOCAL, DAY, LENGTH = (pl.col(name) for name in ("at", "local", "day", "length"))
ROWS = generated_rows(
    {
        **{"i": pl.Int64(), "j": pl.Int64(), "f": pl.Float64(), "s": pl.String(), "r": pl.String()},
        **{"n": pl.Boolean(), "m": pl.Boolean(), "at": pl.Datetime("us", "UTC"), "local": pl.Datetime("us")},
        **{"day": pl.Date(), "length": pl.Duration("us"), "code": pl.String()},
    },
    {
        "j": Possible(least=0, most=20),
        "code": Possible(allowed=("1", "27", "ff", "x", "2025-01-31 10:30", "31.01.2025")),
    },
)
CODE = pl.col("code")
PARIS = "Europe/Paris"

EXAMPLES: dict[str, list[pl.Expr]] = {
    "add": [I + J, F + 1, S + "x", AT + timedelta(hours=1), 1.5 + I],
    "subtract": [
        I - J,
        2013 - I,
        AT - datetime(2020, 1, 1, tzinfo=UTC),
        LOCAL - datetime(2020, 1, 1),
        DAY - date(2020, 1, 1),
    ],
    "multiply": [I * J, F * 2.5, J * timedelta(minutes=1)],
    "divide": [I / J, F / 3, I.truediv(J)],
    "floor_divide": [I // 100, F // J],
    "modulo": [I % 100, F % 2.5, I.mod(J)],
    "power": [J**2, 2**J, F.pow(0.5), J**F],
    "negate": [-I, F.neg()],
    "abs": [I.abs(), F.abs()],
    "sign": [I.sign(), F.sign()],
    "sqrt": [J.sqrt(), F.sqrt()],
    "cbrt": [F.cbrt()],
    "exp": [F.exp()],
    "log": [F.log(), F.log(10), F.log10(), F.log(J)],
    "log1p": [F.log1p()],
    "floor": [F.floor()],
    "ceil": [F.ceil()],
    "sin": [F.sin()],
    "cos": [F.cos()],
    "tan": [F.tan()],
    "cot": [F.cot()],
    "sinh": [F.sinh()],
    "cosh": [F.cosh()],
    "tanh": [F.tanh()],
    "arcsin": [F.arcsin()],
    "arccos": [F.arccos()],
    "arctan": [F.arctan()],
    "arcsinh": [F.arcsinh()],
    "arccosh": [F.arccosh()],
    "arctanh": [F.arctanh()],
    "degrees": [F.degrees()],
    "radians": [F.radians()],
    "arctan2": [pl.arctan2("f", "j")],
    "round": [F.round(), F.round(2), F.round(1, mode="half_away_from_zero")],
    "round_sig_figs": [F.round_sig_figs(2)],
    "truncate_number": [F.truncate(1)],
    "clip": [I.clip(0, 5), F.clip(lower_bound=0.5), I.clip(upper_bound=J), J.clip(J, 7)],
    "max_horizontal": [pl.max_horizontal("i", "j"), pl.max_horizontal("f", 0)],
    "min_horizontal": [pl.min_horizontal("i", "j", 3)],
    "sum_horizontal": [pl.sum_horizontal("i", "j"), pl.sum_horizontal("f", "j", ignore_nulls=False)],
    "mean_horizontal": [pl.mean_horizontal("f", "j"), pl.mean_horizontal("f", "j", ignore_nulls=False)],
    "equal": [I == J, S == "a", N == True],  # noqa: E712
    "not_equal": [S != "a"],
    "less": [I < 3, AT.dt.date() < DAY],
    "less_or_equal": [I <= J],
    "greater": [F > 0.5, LENGTH.dt.total_days() > 1],
    "greater_or_equal": [F >= J],
    "equal_missing": [I.eq_missing(J), S.eq_missing(None)],
    "not_equal_missing": [I.ne_missing(3)],
    "and": [N & M, N.and_(M), I & 3],
    "or": [N | M, I | 8],
    "xor": [N ^ M, I ^ J],
    "not": [~N, N.not_()],
    "all_horizontal": [pl.all_horizontal("n", "m")],
    "any_horizontal": [pl.any_horizontal("n", "m", I > 3)],
    "is_null": [I.is_null(), S.is_null()],
    "is_not_null": [I.is_not_null()],
    "is_nan": [F.log().is_nan()],
    "is_not_nan": [F.log().is_not_nan(), F.log().fill_nan(0), F.log().fill_nan(None)],
    "is_finite": [(F / 0).is_finite()],
    "is_infinite": [(F / 0).is_infinite()],
    "is_in": [
        *(
            I.is_in([1, 2, None]),
            S.is_in({"a", "b"}),
            S.is_in(["a", None], nulls_equal=True),
            I.is_in([]),
            F.is_in([0.5]),
        ),
        *(I.is_in(pl.Series([1, 2])), I.is_in(range(3)), AT.dt.weekday().is_in([6, 7]), DAY.is_in([date(1970, 1, 1)])),
        *(F.log().is_in([float("nan"), float("inf")]), N.is_in([True]), S.is_in(R.str.split("-"))),
    ],
    "is_between": [I.is_between(1, 100), F.is_between(0, J, closed="left"), I.is_between(0, 9, closed="none")],
    "is_close": [F.is_close(0.5), F.is_close(J, abs_tol=1.5, rel_tol=0.1, nans_equal=True)],
    "when": [
        pl.when(I > 1).then(1).when(J > 1).then(2).otherwise(None),
        pl.when(N).then(pl.lit("x")),
        pl.when(N, M).then(F).otherwise(I),
        pl.when(n=True).then(S).otherwise(R),
    ],
    "fill_null": [I.fill_null(0), S.fill_null("none"), I.fill_null(J)],
    "coalesce": [pl.coalesce("i", "j", 0)],
    "replace": [
        S.replace({"a": "z", "b": None}),
        I.replace(1, 100),
        S.replace(["a", "b"], "c"),
        S.replace(["a", "b"], ["c", "d"]),
    ],
    "replace_strict": [
        S.replace_strict({"a": 1.5}, default=0),
        S.replace_strict({"a": 1}, default=None, return_dtype=pl.Int8),
        N.replace_strict({True: "yes", False: "no", None: "?"}),
    ],
    "cast": [
        *(I.cast(pl.Float64), I.cast(str), F.cast(pl.Float32), N.cast(pl.UInt8), I.cast(bool), DAY.dt.epoch("d")),
        *(I.cast(pl.Int8, strict=False), I.cast(pl.Int8, wrap_numerical=True), CODE.cast(pl.Int64)),
        *(DAY.cast(pl.Datetime("ms")), AT.cast(pl.Date), AT.cast(pl.Time), LENGTH.cast(pl.Duration("ms"))),
        *(AT.cast(pl.Datetime("ns", "UTC")), pl.lit(1).cast(pl.UInt16) + J.cast(pl.UInt32), pl.from_epoch(J)),
    ],
    **{
        name: [getattr(AT.dt, name)(), getattr(LOCAL.dt, name)()]
        for name in (
            *("year", "iso_year", "quarter", "month", "week", "weekday", "day", "ordinal_day", "hour", "minute"),
            *("second", "millisecond", "microsecond", "nanosecond", "date", "time", "is_leap_year", "days_in_month"),
            *("month_start", "month_end"),
        )
    },
    **{
        f"total_{unit}": [getattr(LENGTH.dt, f"total_{unit}")(fractional=each) for each in (True, False)]
        for unit in ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")
    },
    "timestamp": [AT.dt.timestamp("ms"), AT.dt.epoch(), AT.dt.epoch("s"), DAY.dt.epoch("ms")],
    "cast_time_unit": [LOCAL.dt.cast_time_unit("ms")],
    "convert_time_zone": [AT.dt.convert_time_zone(PARIS).dt.hour()],
    "replace_time_zone": [
        AT.dt.replace_time_zone(None),
        LOCAL.dt.replace_time_zone(PARIS, ambiguous="earliest", non_existent="null"),
        LOCAL.dt.replace_time_zone(PARIS),
    ],
    "truncate_time": [AT.dt.truncate("1d"), LOCAL.dt.truncate("15m")],
    "round_time": [AT.dt.round("1h")],
    "offset_by": [AT.dt.offset_by("1mo"), AT.dt.offset_by(pl.concat_str(J, pl.lit("d")))],
    "datetime": [
        pl.datetime(J + 2000, 1, 31, hour=J),
        pl.datetime(2000, 1, J, time_zone="UTC", time_unit="ms"),
        pl.date(J, 1, 2),
    ],
    "duration": [
        pl.duration(days=J, hours=2),
        pl.duration(minutes=J, seconds=I % 7, time_unit="ms"),
        pl.duration(weeks=J),
    ],
    "format_time": [AT.dt.strftime("%H:%M"), DAY.dt.to_string("%a")],
    "parse_time": [
        CODE.str.to_datetime("%Y-%m-%d %H:%M", strict=False),
        CODE.str.strptime(pl.Date, "%d.%m.%Y", strict=False, exact=False),
        CODE.str.to_date("%d.%m.%Y"),
        CODE.str.to_datetime("%Y-%m-%d %H:%M", time_zone=PARIS, time_unit="ms", ambiguous="latest", strict=False),
    ],
    "len_chars": [S.str.len_chars()],
    "len_bytes": [S.str.len_bytes()],
    "to_lowercase": [S.str.to_lowercase()],
    "to_uppercase": [S.str.to_uppercase()],
    "to_titlecase": [S.str.to_titlecase()],
    "strip_chars": [S.str.strip_chars(), S.str.strip_chars(" a")],
    "strip_chars_start": [S.str.strip_chars_start()],
    "strip_chars_end": [S.str.strip_chars_end("b")],
    "strip_prefix": [S.str.strip_prefix("a")],
    "strip_suffix": [S.str.strip_suffix("a")],
    "starts_with": [S.str.starts_with("a"), S.str.starts_with(R)],
    "ends_with": [S.str.ends_with("z")],
    "contains": [S.str.contains("^[a-z]"), S.str.contains(".", literal=True), S.str.contains(R, strict=False)],
    "find": [S.str.find("[0-9]"), S.str.find(".", literal=True)],
    "count_matches": [S.str.count_matches("[a-z]"), S.str.count_matches(".", literal=True)],
    "extract": [S.str.extract("([a-z]+)", 1), S.str.extract(r"\d(\d)", 0)],
    "slice": [S.str.slice(1, 2), S.str.slice(-2), S.str.slice(J)],
    "head": [S.str.head(2)],
    "tail": [S.str.tail(J)],
    "replace_text": [
        *(S.str.replace("a", "b"), S.str.replace("a", "b", n=2, literal=True)),
        *(S.str.replace_all("[0-9]", "#"), S.str.replace_all(".", "", literal=True)),
    ],
    "zfill": [S.str.zfill(6)],
    "pad_start": [S.str.pad_start(6)],
    "pad_end": [S.str.pad_end(6, "*")],
    "concat_text": [pl.concat_str("s", "r", separator="-"), pl.concat_str("s", I, ignore_nulls=True)],
    "parse_integer": [CODE.str.to_integer(strict=False), CODE.str.to_integer(base=16, dtype=pl.Int32, strict=False)],
    "split": [S.str.split("-").list.len(), S.str.split("-", inclusive=True).list.first()],
    "get": [S.str.split("-").list.get(0), S.str.split(" ").list.get(1, null_on_oob=True), S.str.split("-").list.last()],
    "length": [S.str.split("-").list.len()],
}
LITERALS = [
    *(pl.lit(1), pl.lit(-(2**63)), pl.lit(2**64 - 1), pl.lit(0.1), pl.lit(1e300), pl.lit(-0.0), pl.lit(3.0)),
    *(pl.lit("ü"), pl.lit(""), pl.lit(True), pl.lit(None), pl.lit(None, dtype=pl.Float64), pl.lit(date(1, 1, 1))),
    *(pl.lit(7, dtype=kind) for kind in (pl.Int8, pl.UInt64, pl.Float32, pl.Float64)),
    *(pl.lit(datetime(2024, 2, 29, 1, 2, 3, 4)), pl.lit(datetime(2024, 2, 29), dtype=pl.Datetime("ns"))),
    *(pl.lit(datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo(PARIS), fold=fold)) for fold in (0, 1)),
    *(
        pl.lit(timedelta(days=-1, microseconds=3)),
        pl.lit(timedelta(1), dtype=pl.Duration("ms")),
        pl.lit(time(1, 2, 3, 4)),
    ),
    pl.lit([datetime(2020, 1, 1, tzinfo=UTC), None]),
]


def operations(stored: dict[str, Any]) -> set[str]:
    return {stored["op"]}.union(*map(operations, stored["of"])) if "op" in stored else set()


def through_json(expression: pl.Expr) -> pl.Expr:
    return from_stable(json.loads(json.dumps(to_stable(expression), allow_nan=False)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_gives_the_same_values_after_it_was_stored(name: str) -> None:
    for expression in EXAMPLES[name]:
        stored = to_stable(expression)
        assert name in operations(stored)
        again = through_json(expression)
        assert to_stable(again) == stored
        assert unequal([expression], [again], ROWS) == [], expression
        assert takes(expression) > 15, "the rows say something about it"


def takes(expression: pl.Expr) -> int:
    """How many rows the expression can take."""
    try:
        return ROWS.select(expression).height
    except pl.exceptions.PolarsError:
        return sum(taken(expression, row) for row in ROWS.iter_slices(1))


def taken(expression: pl.Expr, row: pl.DataFrame) -> bool:
    try:
        row.select(expression)
    except pl.exceptions.PolarsError:
        return False
    return True


@pytest.mark.parametrize("literal", LITERALS, ids=str)
def test_every_literal_keeps_its_type_and_value(literal: pl.Expr) -> None:
    assert to_stable(through_json(literal)) == to_stable(literal)
    assert unequal([literal], [through_json(literal)], ROWS) == []


def test_names_within_an_expression_are_left_out() -> None:
    hour = AT.dt.hour().alias("hour")
    assert to_stable((hour + 1).name.suffix("_late")) == to_stable(AT.dt.hour() + 1)


def numbers(children: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    two = st.tuples(children, children)
    truths = st.one_of(
        two.map(lambda pair: pair[0] < pair[1]),
        two.map(lambda pair: pair[0].eq_missing(pair[1])),
        children.map(lambda each: each.is_between(0, 10)),
        children.map(lambda each: each.is_null()),
        children.map(lambda each: each.cast(pl.Float64).is_finite()),
    )
    return st.one_of(
        two.map(lambda pair: pair[0] + pair[1]),
        two.map(lambda pair: pair[0] - pair[1]),
        two.map(lambda pair: pair[0] * pair[1]),
        two.map(lambda pair: pair[0] / pair[1]),
        two.map(lambda pair: pl.max_horizontal(*pair)),
        two.map(lambda pair: pl.coalesce(*pair)),
        two.map(lambda pair: pair[0].fill_null(pair[1])),
        children.map(lambda each: each.cast(pl.Float64).log1p().fill_nan(None)),
        children.map(lambda each: each.cast(pl.Float64).round(2)),
        children.map(lambda each: -each.cast(pl.Float64)),
        children.map(lambda each: each.clip(-5, 5)),
        children.map(lambda each: each.cast(pl.String).str.len_chars()),
        st.tuples(truths, children, children).map(lambda some: pl.when(some[0]).then(some[1]).otherwise(some[2])),
        st.tuples(truths, truths).map(lambda pair: (pair[0] & ~pair[1]).cast(pl.Int32)),
    )


LEAVES = st.one_of(
    st.sampled_from([I, J, F, AT.dt.hour(), S.str.len_chars(), DAY.dt.weekday(), LENGTH.dt.total_hours()]),
    st.integers(-(2**40), 2**40).map(pl.lit),
    st.floats(allow_nan=False, allow_infinity=False).map(pl.lit),
)


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, numbers, max_leaves=12))
def test_composed_expressions_give_the_same_values_and_digests_after_they_were_stored(expression: pl.Expr) -> None:
    again = through_json(expression)
    assert unequal([expression], [again], ROWS) == []
    assert digest_of(to_stable(again)) == digest_of(to_stable(expression))


def test_no_digest_is_shared_by_expressions_that_differ_a_little() -> None:
    some = [
        I + J,
        J + I,
        I + 1,
        I + 1.0,
        I.round(1),
        I.round(2),
        S.str.contains("a"),
        S.str.contains("a", literal=True),
    ]
    assert len({digest_of(to_stable(each)) for each in [*some, S.is_in(["a"]), S.is_in(["b"])]}) == len(some) + 2


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (pl.all(), "wildcard or selector"),
        (I.map_elements(lambda value: value, return_dtype=pl.Int64), "Python function"),
        (I.mean(), r"aggregates over rows \(mean\)"),
        (F.quantile(0.5), "other rows|aggregates"),
        (I.over("s"), "window"),
        (I.diff(), r"other rows \(diff\)"),
        (I.is_in(pl.len()), r"other rows \(pl\.len\)"),
        (I.cut([1, 2]), "uses cut, which is not among the operations"),
        (pl.struct("i", "j"), "uses as_struct, which is not among the operations"),
        (DAY.dt.is_business_day(), "uses is_business_day, which is not"),
        (S.str.json_decode(pl.Int64), r"uses str\.json_decode, which is not"),
        (S.str.to_date(), "guessed from the rows; give format="),
        (S.cast(pl.Categorical), "the type Categorical"),
        (pl.lit(float("nan")), r"NaN or infinity.*\.is_nan\(\)"),
        (pl.lit(2**64), "does not fit into 64 bits"),
        (pl.lit(b"x"), "a value of type Binary"),
        (pl.lit(pl.Series([1, 2])), "a Series of values"),
        (pl.lit(7).cast(pl.Datetime("ns")).dt.combine(time(1)), r"uses dt\.combine"),
        (reduce(lambda one, _: one + 1, range(DEEPEST + 1), I), "more than 100 operations"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_on_the_list_is_refused_with_what_it_is(expression: pl.Expr, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_stable(expression)


ONE, A = {"literal": 1, "type": "int"}, {"column": "a"}
DEEP: dict[str, Any] = A
for _ in range(5000):
    DEEP = {"op": "abs", "of": [DEEP]}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"op": "shift", "of": [A]}, "'shift' is no operation that this version"),
        ({"op": ["add"], "of": [A, A]}, "no operation"),
        ({"op": "add", "of": [A, A], "python": "print"}, "add takes op, of, not op, of, python"),
        ({"op": "round", "of": [A], "decimals": 1}, "round takes op, of, decimals, mode"),
        ({"op": "round", "of": [A], "decimals": 1, "mode": "up"}, "'up' is none of half_to_even"),
        ({"op": "round", "of": [A], "decimals": True, "mode": "half_to_even"}, "True is not what the option takes"),
        ({"op": "add", "of": [A]}, "add takes 2 to 2 operands"),
        ({"op": "abs", "of": [A, A]}, "abs takes 1 to 1 operands"),
        ({"op": "coalesce", "of": []}, "coalesce takes 1 or more operands"),
        ({"op": "clip", "of": [A, ONE], "least": True, "most": True}, "clip takes 3 operands, not 2"),
        ({"op": "abs", "of": A}, "abs takes 1 to 1 operands"),
        ({"op": "abs", "of": [7]}, "7 is no operation"),
        ({"op": "cast", "of": [A], "to": "object", "failing": "raise"}, "'object' is no type"),
        ({"op": "convert_time_zone", "of": [A], "zone": None}, "None is not what the option takes"),
        ({"column": "*"}, "no column's name"),
        ({"column": "^a.*$"}, "no column's name"),
        ({"column": ["a", "b"]}, "no column's name"),
        ({"literal": "1", "type": "int"}, "no type|'1'"),
        ({"literal": 2**70, "type": "int"}, "int"),
        ({"literal": 2**40, "type": "int8"}, "not valid"),
        ({"literal": True, "type": "int64"}, "True is no int64"),
        ({"literal": 1, "type": "text"}, "1 is no text"),
        ({"literal": "2020-01-01T00:00:00.000000", "type": "datetime[us, UTC]"}, "no datetime"),
        ({"literal": "2020-01-01T00:00:00.000000Z", "type": "datetime[us, Nowhere/Town]"}, "not valid"),
        ({"literal": "a day", "type": "duration[us]"}, "no duration"),
        ({"literal": ["a", 1], "type": "list[text]"}, "1 is no text"),
        ({"literal": [[1]], "type": "list[list[int64]]"}, "no type"),
        ({"literal": 1, "type": {}}, "no type"),
        ({"Column": "a"}, "no operation"),
        ({"AnonymousFunction": {"input": [A], "function": list(pickle.dumps(print))}}, "no operation"),
        (pickle.dumps(print), "no operation"),
        ([A], "no operation"),
        (None, "no operation"),
        (DEEP, "more than 100 operations"),
    ],
)
def test_what_no_release_could_hold_is_never_built(stored: object, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        from_stable(stored)
