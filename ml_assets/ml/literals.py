"""Values and types inside expressions: as Polars' JSON has them, as a release stores them, and back."""

import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl


def read_literal(body: Any) -> dict[str, Any]:
    """`{"literal": value, "type": type}` of what Polars' JSON has under `Literal`.

    Raises:
        ValueError: if the value has no form here; the text goes on after "feature 'x' ".
    """
    form, held = next(iter(body.items()))
    kind, value = next(iter(held.items())) if isinstance(held, dict) else (form, held)
    if kind in ("Float", "Float32", "Float64") and value is None:
        raise ValueError(
            "holds the number NaN or infinity, for which JSON has no form; ask with .is_nan() or .is_infinite(), "
            "or write None"
        )
    if form == "Dyn" and kind == "Int" and not _SMALLEST <= value <= _LARGEST:
        raise ValueError(f"holds the number {value}, which does not fit into 64 bits; write it as a float")
    if form == "Dyn" and kind in ("Int", "Float"):  # of no width: it takes that of what stands beside it
        return {"literal": value, "type": kind.lower()}
    if form == "Scalar" and kind == "Null":
        return {"literal": None, "type": "null" if value == "Null" else type_name(polars_type(value))}
    if form == "Scalar" and kind == "List":
        return read_list(body)
    if form == "Scalar" and kind in _PLAIN:
        return {"literal": value, "type": _PLAIN[kind]}
    if form == "Scalar" and kind in ("Date", "Time", "Datetime", "Duration"):
        moment = _evaluated(body)
        in_nanoseconds = kind == "Time" or getattr(moment.dtype, "time_unit", None) == "ns"
        if in_nanoseconds and moment.to_physical().item() % 1000:
            raise ValueError("holds a time finer than a microsecond; leave the nanoseconds out")
        return {"literal": _plain(moment.item()), "type": type_name(moment.dtype)}
    if kind == "Series":
        raise ValueError("holds a Series of values, one for each of several rows; a prediction sees one row")
    raise ValueError(f"holds a value of type {kind}, which a release cannot store; use numbers, texts or times")


def read_list(body: Any) -> dict[str, Any]:
    """The same of a list, whose values Polars' JSON has as bytes."""
    held = _evaluated(body)
    values = held.item() if isinstance(held.dtype, pl.List) else held
    kind = type_name(values.dtype)
    return {"literal": [_plain(each) for each in values.to_list()], "type": f"list[{kind}]"}


def build_literal(value: Any, kind: Any) -> pl.Expr:
    """The literal that `read_literal` was given.

    Raises:
        ValueError: if `kind` is no type, or `value` none of it.
    """
    if kind == "int" and type(value) is int and _SMALLEST <= value <= _LARGEST:
        return pl.lit(value)
    if kind == "float" and type(value) in (int, float):
        return pl.lit(float(value))
    if kind == "null" and value is None:
        return pl.lit(None)
    if isinstance(kind, str) and kind.startswith("list[") and kind.endswith("]") and isinstance(value, list):
        held = pl.Null() if kind == "list[null]" else type_of(kind[5:-1])
        return pl.lit([_value(each, held) for each in value], dtype=pl.List(held))
    held = type_of(kind)
    return pl.lit(_value(value, held), dtype=held)


def type_name(kind: pl.DataType) -> str:
    """Our name of a type: `int64`, `text`, `date`, `datetime[us, UTC]`, `duration[ms]`, and so on."""
    if isinstance(kind, pl.Datetime):
        return f"datetime[{kind.time_unit}{f', {kind.time_zone}' if kind.time_zone else ''}]"
    if isinstance(kind, pl.Duration):
        return f"duration[{kind.time_unit}]"
    if kind == pl.Null:
        return "null"
    for ours, each in _TYPES.items():
        if each == kind:
            return ours
    raise ValueError(f"holds a value of type {kind}, which a release cannot store; use numbers, texts or times")


def type_of(name: Any) -> pl.DataType:
    """The type that `type_name` was given; raises ValueError if `name` is none."""
    if isinstance(name, str) and (timed := _TIMED.fullmatch(name)):
        kind, unit, zone = timed.groups()
        if kind == "datetime":
            return pl.Datetime(unit, zone)  # type: ignore[arg-type]
        if zone is None:
            return pl.Duration(unit)  # type: ignore[arg-type]
    if not isinstance(name, str) or name not in _TYPES:
        raise ValueError(f"{name!r:.80} is no type")
    return _TYPES[name]


def polars_type(written: Any) -> pl.DataType:
    """A type as Polars' JSON has it; raises ValueError if it has no name here."""
    if isinstance(written, dict) and set(written) == {"Literal"}:
        written = written["Literal"]
    if isinstance(written, str) and (written in _PLAIN or written in ("Date", "Time")):
        return getattr(pl, written)()  # type: ignore[no-any-return]
    if isinstance(written, dict) and "Datetime" in written:
        unit, zone = written["Datetime"]
        return pl.Datetime(_UNITS[unit], zone["inner"] if zone else None)  # type: ignore[arg-type]
    if isinstance(written, dict) and "Duration" in written:
        return pl.Duration(_UNITS[written["Duration"]])  # type: ignore[arg-type]
    said = next(iter(written)) if isinstance(written, dict) else written
    raise ValueError(f"the type {said} (there are numbers, text, truth values, dates and times)")


_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_PLAIN = {
    **{f"{sign}Int{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{"Float32": "float32", "Float64": "float64", "String": "text", "Boolean": "boolean"},
}
_TYPES: dict[str, pl.DataType] = {
    **{ours: getattr(pl, theirs)() for theirs, ours in _PLAIN.items()},
    **{"date": pl.Date(), "time": pl.Time()},
}
_UNITS = {"Milliseconds": "ms", "Microseconds": "us", "Nanoseconds": "ns"}
_TIMED = re.compile(r"(datetime|duration)\[(ms|us|ns)(?:, ([A-Za-z0-9_+\-/]+))?\]")
_DURATION = re.compile(r"(-?)PT(\d{1,15})\.(\d{6})S")


def _evaluated(body: Any) -> pl.Series:
    """The value of a literal in the installed Polars' own JSON, which this process wrote a moment ago."""
    node = io.StringIO(json.dumps({"Literal": body}))
    return pl.select(pl.Expr.deserialize(node, format="json")).to_series()


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601, those with a zone in UTC."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.isoformat("T", "microseconds")
        return value.astimezone(UTC).replace(tzinfo=None).isoformat("T", "microseconds") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, time):
        return value.isoformat("microseconds")
    if isinstance(value, timedelta):
        seconds, rest = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
        return f"{'-' if value < timedelta(0) else ''}PT{seconds}.{rest:06d}S"
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value


def _value(written: Any, kind: pl.DataType) -> Any:
    """What `_plain` was given; raises ValueError if it is none of the type."""
    text = isinstance(written, str)
    if written is None:
        return None
    if isinstance(kind, pl.Datetime) and text and written.endswith("Z") == (kind.time_zone is not None):
        moment = datetime.fromisoformat(written.removesuffix("Z"))
        return moment.replace(tzinfo=UTC).astimezone(ZoneInfo(kind.time_zone)) if kind.time_zone else moment
    if isinstance(kind, pl.Duration) and text and (found := _DURATION.fullmatch(written)):
        length = timedelta(seconds=int(found[2]), microseconds=int(found[3]))
        return -length if found[1] else length
    if kind == pl.Date and text:
        return date.fromisoformat(written)
    if kind == pl.Time and text:
        return time.fromisoformat(written)
    if kind.is_float() and (type(written) in (int, float) or written in ("nan", "inf", "-inf")):
        return float(written)
    if type(written) is (int if kind.is_integer() else {pl.String: str, pl.Boolean: bool}.get(type(kind))):
        return written
    raise ValueError(f"{written!r:.80} is no {type_name(kind)}")
