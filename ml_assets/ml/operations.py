"""The closed list of operations that a feature may use: Polars' name of each, and Polars' public function for it.

Our names and options stand in releases: one that is here stays, with its meaning. Polars' names are those of the
installed version's JSON, which nothing but this file, `literals.py` and `expressions.py` knows.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl

from ml_assets.ml.literals import polars_type, type_name, type_of


@dataclass(frozen=True)
class Option:
    """An option of an operation: from Polars' JSON to ours (`read`), and from ours to Polars' argument (`load`)."""

    read: Callable[[Any], Any]
    load: Callable[[Any], Any]
    theirs: str = ""

    def called(self, theirs: str) -> "Option":
        """The same option under Polars' name."""
        return Option(self.read, self.load, theirs)


@dataclass(frozen=True)
class Operation:
    """An operation: its name in Polars' JSON, how many operands it takes, and Polars' function for it."""

    theirs: str
    build: Callable[..., pl.Expr]
    least: int = 1
    most: int | None = 1
    options: Mapping[str, Option] = field(default_factory=dict)


def _of(*kinds: type, least: int | None = None) -> Option:
    def checked(value: Any) -> Any:
        if type(value) not in kinds or (least is not None and value < least):
            raise ValueError(f"{value!r:.80} is not what the option takes")
        return value

    return Option(checked, checked)


def _choice(choices: Mapping[str, str]) -> Option:
    backwards = {theirs: ours for ours, theirs in choices.items()}

    def read(value: Any) -> Any:
        if value not in backwards:
            raise ValueError(f"{value!r:.80} is none of {', '.join(backwards)}")
        return backwards[value]

    def load(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{value!r:.80} is none of {', '.join(choices)}")
        return value

    return Option(read, load)


def _text_or_none(value: Any) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise ValueError(f"{value!r:.80} is no text")
    return value


_FLAG, _TEXT, _COUNT, _NUMBER = _of(bool), _of(str), _of(int, least=0), _of(float, int)
_UNIT = _choice({"ms": "Milliseconds", "us": "Microseconds", "ns": "Nanoseconds"})
_ZONE = Option(lambda value: None if value is None else value["inner"], _text_or_none)
_TYPE = Option(lambda value: type_name(polars_type(value)), type_of)
_TYPE_OR_NONE = Option(
    lambda value: None if value is None else _TYPE.read(value), lambda value: None if value is None else type_of(value)
)
_FAILING = _choice({"raise": "Strict", "null": "NonStrict", "wrap": "Overflowing"})
_NON_EXISTENT = _choice({"raise": "Raise", "null": "Null"})
_CLOSED = _choice({"both": "Both", "left": "Left", "right": "Right", "none": "None"})
_ROUNDING = _choice({"half_to_even": "HalfToEven", "half_away_from_zero": "HalfAwayFromZero"})


def _two(theirs: str, build: Callable[..., Any], **options: Option) -> Operation:
    return Operation(theirs, build, 2, 2, options)


def _many(theirs: str, build: Callable[..., pl.Expr], least: int = 1, **options: Option) -> Operation:
    return Operation(theirs, build, least, None, options)


def _binary(theirs: str, build: Callable[[Any, Any], Any]) -> Operation:
    return _two(f"BinaryExpr.{theirs}", build)


def _clip(value: pl.Expr, *limits: pl.Expr, least: bool, most: bool) -> pl.Expr:
    if len(limits) != least + most:
        raise ValueError(f"clip takes {1 + least + most} operands, not {1 + len(limits)}")
    return value.clip(limits[0] if least else None, limits[-1] if most else None)


def _cast(value: pl.Expr, to: pl.DataType, failing: str) -> pl.Expr:
    return value.cast(to, strict=failing == "raise", wrap_numerical=failing == "wrap")


def _replace_text(text: pl.Expr, pattern: pl.Expr, value: pl.Expr, count: int, literal: bool) -> pl.Expr:
    if count < 0:
        return text.str.replace_all(pattern, value, literal=literal)
    return text.str.replace(pattern, value, literal=literal, n=count)


def _replace_all_values(
    value: pl.Expr, old: pl.Expr, new: pl.Expr, *default: pl.Expr, to: pl.DataType | None
) -> pl.Expr:
    if default:
        return value.replace_strict(old, new, default=default[0], return_dtype=to)
    return value.replace_strict(old, new, return_dtype=to)


def _datetime(*parts: pl.Expr, unit: Any, zone: str | None) -> pl.Expr:
    return pl.datetime(*parts[:-1], time_unit=unit, time_zone=zone, ambiguous=parts[-1])


def _duration(*parts: pl.Expr, unit: Any) -> pl.Expr:
    names = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")
    return pl.duration(**dict(zip(names, parts, strict=True)), time_unit=unit)


def _parse_time(text: pl.Expr, ambiguous: pl.Expr, to: Any, written: str, strict: bool, exact: bool) -> pl.Expr:
    return text.str.strptime(to, written, strict=strict, exact=exact, ambiguous=ambiguous)


def _format_option(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no format, so that it would be guessed from the rows; give format=")
    return value


def _method(path: str, *args: pl.Expr, **options: Any) -> pl.Expr:
    """Call a public method of an expression, such as `str.len_chars`."""
    return operator.attrgetter(path)(args[0])(*args[1:], **options)  # type: ignore[no-any-return]


def _methods(space: str, theirs: str, *names: str) -> dict[str, Operation]:
    """Operations of one operand and no options, whose name here is that of Polars' method today.

    A name may be followed by Polars' JSON name, if that is no CamelCase of it.
    """
    found = {}
    for each in names:
        name, _, written = each.partition(":")
        written = written or "".join(part.capitalize() for part in name.split("_"))
        found[name] = Operation(theirs + written, partial(_method, space + name))
    return found


OPERATIONS: dict[str, Operation] = {
    # arithmetic
    "add": _binary("Plus", operator.add),
    "subtract": _binary("Minus", operator.sub),
    "multiply": _binary("Multiply", operator.mul),
    "divide": _binary("TrueDivide", operator.truediv),
    "floor_divide": _binary("FloorDivide", operator.floordiv),
    "modulo": _binary("Modulus", operator.mod),
    "power": _two("Pow.Generic", operator.pow),
    "negate": Operation("Negate", operator.neg),
    **_methods("", "", "abs", "sign", "exp", "log1p", "floor", "ceil"),
    **_methods("", "Pow.", "sqrt", "cbrt"),
    **_methods("", "Trigonometry.", "sin", "cos", "tan", "cot", "sinh", "cosh", "tanh", "degrees", "radians"),
    **_methods("", "Trigonometry.", "arcsin:ArcSin", "arccos:ArcCos", "arctan:ArcTan"),
    **_methods("", "Trigonometry.", "arcsinh:ArcSinh", "arccosh:ArcCosh", "arctanh:ArcTanh"),
    "arctan2": _two("Atan2", pl.arctan2),
    "log": _two("Log", lambda value, base: value.log(base)),
    "round": Operation(
        "Round",
        partial(_method, "round"),
        options={"decimals": _COUNT.called("decimals"), "mode": _ROUNDING.called("mode")},
    ),
    "round_sig_figs": Operation(
        "RoundSF", partial(_method, "round_sig_figs"), options={"digits": _COUNT.called("digits")}
    ),
    "truncate_number": Operation(
        "Truncate", partial(_method, "truncate"), options={"decimals": _COUNT.called("decimals")}
    ),
    "clip": Operation("Clip", _clip, 2, 3, {"least": _FLAG.called("has_min"), "most": _FLAG.called("has_max")}),
    "max_horizontal": _many("MaxHorizontal", pl.max_horizontal),
    "min_horizontal": _many("MinHorizontal", pl.min_horizontal),
    "sum_horizontal": _many("SumHorizontal", pl.sum_horizontal, ignore_nulls=_FLAG.called("ignore_nulls")),
    "mean_horizontal": _many("MeanHorizontal", pl.mean_horizontal, ignore_nulls=_FLAG.called("ignore_nulls")),
    # comparisons and truth values
    "equal": _binary("Eq", operator.eq),
    "not_equal": _binary("NotEq", operator.ne),
    "less": _binary("Lt", operator.lt),
    "less_or_equal": _binary("LtEq", operator.le),
    "greater": _binary("Gt", operator.gt),
    "greater_or_equal": _binary("GtEq", operator.ge),
    "equal_missing": _binary("EqValidity", lambda one, other: one.eq_missing(other)),
    "not_equal_missing": _binary("NotEqValidity", lambda one, other: one.ne_missing(other)),
    "and": _binary("And", operator.and_),
    "or": _binary("Or", operator.or_),
    "xor": _binary("Xor", operator.xor),
    "not": Operation("Boolean.Not", operator.invert),
    "all_horizontal": _many("Boolean.AllHorizontal", pl.all_horizontal),
    "any_horizontal": _many("Boolean.AnyHorizontal", pl.any_horizontal),
    **_methods("", "Boolean.", "is_null", "is_not_null", "is_nan", "is_not_nan", "is_finite", "is_infinite"),
    "is_in": _two("Boolean.IsIn", partial(_method, "is_in"), nulls_equal=_FLAG.called("nulls_equal")),
    "is_between": Operation(
        "Boolean.IsBetween", partial(_method, "is_between"), 3, 3, {"closed": _CLOSED.called("closed")}
    ),
    "is_close": _two(
        "Boolean.IsClose",
        partial(_method, "is_close"),
        abs_tol=_NUMBER.called("abs_tol"),
        rel_tol=_NUMBER.called("rel_tol"),
        nans_equal=_FLAG.called("nans_equal"),
    ),
    # choices and missing values
    "when": Operation("Ternary", lambda asked, yes, no: pl.when(asked).then(yes).otherwise(no), 3, 3),
    "fill_null": _two("FillNull", lambda value, other: value.fill_null(other)),
    "coalesce": _many("Coalesce", pl.coalesce),
    "replace": Operation("Replace", partial(_method, "replace"), 3, 3),
    "replace_strict": Operation(
        "ReplaceStrict", _replace_all_values, 3, 4, {"to": _TYPE_OR_NONE.called("return_dtype")}
    ),
    "cast": Operation("Cast", _cast, options={"to": _TYPE.called("dtype"), "failing": _FAILING.called("options")}),
    # times
    **_methods("dt.", "TemporalExpr.", "year", "iso_year", "quarter", "month", "week", "weekday:WeekDay", "day"),
    **_methods("dt.", "TemporalExpr.", "ordinal_day", "hour", "minute", "second", "millisecond", "microsecond"),
    **_methods("dt.", "TemporalExpr.", "nanosecond", "date", "time", "is_leap_year", "days_in_month"),
    **_methods("dt.", "TemporalExpr.", "month_start", "month_end"),
    **{
        f"total_{each}": Operation(
            f"TemporalExpr.Total{each.capitalize()}",
            partial(_method, f"dt.total_{each}"),
            options={"fractional": _FLAG.called("fractional")},
        )
        for each in ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")
    },
    "timestamp": Operation("TemporalExpr.TimeStamp", lambda at, unit: at.dt.timestamp(unit), options={"unit": _UNIT}),
    "cast_time_unit": Operation(
        "TemporalExpr.CastTimeUnit", lambda at, unit: at.dt.cast_time_unit(unit), options={"unit": _UNIT}
    ),
    "convert_time_zone": Operation(
        "TemporalExpr.ConvertTimeZone",
        lambda at, zone: at.dt.convert_time_zone(zone),
        options={"zone": Option(_ZONE.read, _TEXT.load)},
    ),
    "replace_time_zone": _two(
        "TemporalExpr.ReplaceTimeZone",
        lambda at, ambiguous, zone, non_existent: at.dt.replace_time_zone(
            zone, ambiguous=ambiguous, non_existent=non_existent
        ),
        zone=_ZONE,
        non_existent=_NON_EXISTENT,
    ),
    "truncate_time": _two("TemporalExpr.Truncate", partial(_method, "dt.truncate")),
    "round_time": _two("TemporalExpr.Round", partial(_method, "dt.round")),
    "offset_by": _two("TemporalExpr.OffsetBy", partial(_method, "dt.offset_by")),
    "datetime": Operation(
        "TemporalExpr.DatetimeFunction",
        _datetime,
        8,
        8,
        {"unit": _UNIT.called("time_unit"), "zone": _ZONE.called("time_zone")},
    ),
    "duration": Operation("TemporalExpr.Duration", _duration, 8, 8, {"unit": _UNIT}),
    "format_time": Operation(
        "TemporalExpr.ToString", lambda at, written: at.dt.to_string(written), options={"written": _TEXT}
    ),
    "parse_time": _two(
        "StringExpr.Strptime",
        _parse_time,
        to=_TYPE.called("dtype"),
        written=Option(_format_option, _TEXT.load, "format"),
        strict=_FLAG.called("strict"),
        exact=_FLAG.called("exact"),
    ),
    # texts
    **_methods("str.", "StringExpr.", "len_chars", "len_bytes", "to_lowercase:Lowercase", "to_uppercase:Uppercase"),
    **_methods("str.", "StringExpr.", "to_titlecase:Titlecase"),
    **{
        name: _two(f"StringExpr.{theirs}", partial(_method, f"str.{name}"))
        for name, theirs in {
            "strip_chars": "StripChars",
            "strip_chars_start": "StripCharsStart",
            "strip_chars_end": "StripCharsEnd",
            "strip_prefix": "StripPrefix",
            "strip_suffix": "StripSuffix",
            "starts_with": "StartsWith",
            "ends_with": "EndsWith",
            "head": "Head",
            "tail": "Tail",
            "zfill": "ZFill",
        }.items()
    },
    "slice": Operation("StringExpr.Slice", partial(_method, "str.slice"), 3, 3),
    "contains": _two(
        "StringExpr.Contains",
        partial(_method, "str.contains"),
        literal=_FLAG.called("literal"),
        strict=_FLAG.called("strict"),
    ),
    "find": _two(
        "StringExpr.Find", partial(_method, "str.find"), literal=_FLAG.called("literal"), strict=_FLAG.called("strict")
    ),
    "count_matches": _two("StringExpr.CountMatches", partial(_method, "str.count_matches"), literal=_FLAG),
    "extract": _two("StringExpr.Extract", lambda text, pattern, group: text.str.extract(pattern, group), group=_COUNT),
    "replace_text": Operation(
        "StringExpr.Replace",
        _replace_text,
        3,
        3,
        {"count": _of(int, least=-1).called("n"), "literal": _FLAG.called("literal")},
    ),
    "pad_start": _two(
        "StringExpr.PadStart",
        lambda text, length, fill: text.str.pad_start(length, fill),
        fill=_TEXT.called("fill_char"),
    ),
    "pad_end": _two(
        "StringExpr.PadEnd", lambda text, length, fill: text.str.pad_end(length, fill), fill=_TEXT.called("fill_char")
    ),
    "concat_text": _many(
        "StringExpr.ConcatHorizontal",
        lambda *texts, separator, ignore_nulls: pl.concat_str(texts, separator=separator, ignore_nulls=ignore_nulls),
        separator=_TEXT.called("delimiter"),
        ignore_nulls=_FLAG.called("ignore_nulls"),
    ),
    "parse_integer": _two(
        "StringExpr.ToInteger",
        lambda text, base, to, strict: text.str.to_integer(base=base, dtype=to, strict=strict),
        to=_TYPE.called("dtype"),
        strict=_FLAG.called("strict"),
    ),
    "split": _two("StringExpr.Split", partial(_method, "str.split"), inclusive=_FLAG),
    "get": _two("ListExpr.Get", partial(_method, "list.get"), null_on_oob=_FLAG),
    "length": Operation("ListExpr.Length", lambda texts: texts.list.len()),
}
