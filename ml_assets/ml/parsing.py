"""One column as it arrived becomes one of the contract's type: strictly, so that no value changes on the way."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Reading:
    """How text is to be understood.

    Attributes:
        null_values: texts that stand for a missing value.
        decimal: mark between a number's whole part and its fraction; no mark groups digits.
    """

    null_values: tuple[str, ...] = ("",)
    decimal: str = "."


def read_column(series: pl.Series, kind: pl.DataType, reading: Reading) -> tuple[pl.Series, pl.Series]:
    """A column as given, null where it stands for nothing, and the same as `kind`, null too where it cannot be one."""
    return read_columns(series.to_frame(), {series.name: kind}, reading)[series.name]


def read_columns(
    frame: pl.DataFrame, kinds: Mapping[str, pl.DataType], reading: Reading
) -> dict[str, tuple[pl.Series, pl.Series]]:
    """For each column of `kinds` what `read_column` gives, all of them at once."""
    arrived = frame.schema
    marked = frame.select(_without_null_markers(name, arrived[name], kind, reading) for name, kind in kinds.items())
    return {
        name: (marked.get_column(name), parse_column(marked.get_column(name), kind, reading.decimal))
        for name, kind in kinds.items()
    }


def _without_null_markers(name: str, arrived: pl.DataType, kind: pl.DataType, reading: Reading) -> pl.Expr:
    """Text without blanks at its ends, and null where it is a marker of a missing value; numbers null where NaN.

    A text such as `NaN` is a missing number. A marker that is a number, such as -999, stands for a missing one however
    it is written, and in typed columns too: whether a column is text depends on what else arrived.
    """
    column, numbers = pl.col(name), _numbers(reading.null_values) if kind.is_numeric() else []
    if arrived == pl.String:
        text = column.str.strip_chars()
        missing = text.is_in(list(reading.null_values))
        if kind.is_numeric():
            missing |= text.str.to_lowercase().is_in(["nan", "+nan", "-nan"])
        if numbers:
            missing |= text.cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
        return pl.when(~missing).then(text).alias(name)
    column = column.fill_nan(None) if arrived.is_float() else column
    if numbers and arrived.is_numeric():
        return pl.when(~column.cast(pl.Float64).is_in(numbers)).then(column).alias(name)
    return column


def _numbers(null_values: tuple[str, ...]) -> list[float]:
    found = pl.Series(list(null_values), dtype=pl.String).cast(pl.Float64, strict=False)
    return [each for each in found.to_list() if each is not None]


def parse_column(series: pl.Series, kind: pl.DataType, decimal: str = ".") -> pl.Series:
    """`series` as `kind`; values that do not fit without loss are null. Text is read as programs write it."""
    arrived = series.dtype
    if arrived == kind:
        return series
    try:
        if arrived == pl.String:
            return _parse_text(series, kind, decimal)
        if arrived.is_temporal() or kind.is_temporal():
            return _convert_time(series, kind)
        if kind == pl.String:
            return _as_text(series)
        if kind == pl.Boolean:
            return series.set(~series.is_in([0.0, 1.0] if arrived.is_float() else [0, 1]), None).cast(kind)
        if kind.is_integer() or (kind.is_float() and arrived.is_integer()):
            return _same(series, kind)
        return series.cast(kind, strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series(series.name, [None] * len(series), dtype=kind)


def _same(series: pl.Series, kind: pl.DataType) -> pl.Series:
    """A cast that keeps only what the way back gives again."""
    there = series.cast(kind, strict=False)
    return (
        there
        if series.dtype == pl.Boolean
        else there.set(there.cast(series.dtype, strict=False).ne_missing(series), None)
    )


def _as_text(series: pl.Series) -> pl.Series:
    """Text of a column; whole numbers that a missing one beside them made floats (`12.0`) as what they were (`12`)."""
    if not series.dtype.is_float():
        return series.cast(pl.String)
    whole = _same(series, pl.Int64())
    return whole.cast(pl.String).fill_null(series.cast(pl.String))


_TRUE, _FALSE = ["true", "1", "t", "yes"], ["false", "0", "f", "no"]


def _parse_text(series: pl.Series, kind: pl.DataType, decimal: str) -> pl.Series:
    if kind == pl.Boolean:
        text = series.str.to_lowercase()
        return text.is_in(_TRUE).set(~text.is_in(_TRUE + _FALSE), None)
    if isinstance(kind, pl.Datetime):
        return _parse_times(series, kind)
    if kind == pl.Date:
        return series.str.to_date("%Y-%m-%d", strict=False)
    if kind.is_numeric() and decimal != ".":
        # "1.500" is fifteen hundred to some and one and a half to others: a point is no part of such a number.
        series = series.set(series.str.contains(".", literal=True), None).str.replace(decimal, ".", literal=True)
    return _parse_integers(series, kind) if kind.is_integer() else series.cast(kind, strict=False)


def _parse_integers(texts: pl.Series, kind: pl.DataType) -> pl.Series:
    """Whole numbers, exactly. Also `2.0`, and `5E+02` as far as a float counts every integer."""
    typed = texts.cast(kind, strict=False)
    others = typed.is_null() & texts.is_not_null()
    if not others.any():
        return typed
    rest = texts.set(~others, None)
    plain = rest.str.replace(r"^([+-]?[0-9]+)\.0*$", "${1}").cast(kind, strict=False)
    exponent = rest.set(~rest.str.contains("[eE]"), None).cast(pl.Float64, strict=False)
    exponent = exponent.set(exponent.abs() > 2**53, None)
    return typed.fill_null(plain).fill_null(_same(exponent, kind))


# One value is read like any other, whatever its neighbours look like; a day before a month is never guessed.
_ZONED = ("%+", "%Y-%m-%d %H:%M:%S%.f%#z")
_LOCAL = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def _parse_times(texts: pl.Series, kind: pl.Datetime) -> pl.Series:
    """Times; those without a zone are in the one that the contract names."""
    times = pl.Series(texts.name, [None] * len(texts), dtype=kind)
    for form in (*_ZONED, *_LOCAL) if kind.time_zone else _LOCAL:
        rest = texts.set(times.is_not_null(), None)
        if rest.null_count() == len(rest):
            break
        zone = "UTC" if form in _ZONED else None
        read = rest.str.to_datetime(form, time_unit=kind.time_unit, time_zone=zone, strict=False)
        times = times.fill_null(_in_zone(read, kind))
    return times


def _in_zone(times: pl.Series, kind: pl.Datetime) -> pl.Series:
    """Times in the zone of `kind`; null where a time without a zone is none there, or two, because clocks change."""
    there = times.dtype.time_zone if isinstance(times.dtype, pl.Datetime) else None
    if kind.time_zone is None:
        return times if there is None else times.dt.replace_time_zone(None)
    if there is None:
        return times.dt.replace_time_zone(kind.time_zone, ambiguous="null", non_existent="null")
    return times.dt.convert_time_zone(kind.time_zone)


def _convert_time(series: pl.Series, kind: pl.DataType) -> pl.Series:
    """A typed time as another: in another unit or zone, or as a day. Numbers are none, because none says its unit."""
    arrived = series.dtype
    if kind == pl.String:
        return series.cast(kind)
    if not (arrived.is_temporal() and kind.is_temporal()):
        raise pl.exceptions.InvalidOperationError(f"{arrived} is no {kind}")
    if isinstance(arrived, pl.Datetime) and isinstance(kind, pl.Datetime):
        if kind.time_zone is None and arrived.time_zone not in (None, "UTC"):
            raise pl.exceptions.InvalidOperationError(f"{arrived} loses its zone as {kind}")
        return _same(_in_zone(series, kind), kind)
    if isinstance(arrived, pl.Datetime) and kind == pl.Date:
        return _same(series.dt.replace_time_zone(None), kind)
    if arrived == pl.Date and isinstance(kind, pl.Datetime):
        return _in_zone(series.cast(pl.Datetime(kind.time_unit)), kind)
    return series.cast(kind, strict=False)
