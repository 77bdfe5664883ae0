"""A request's rows as a table of the contract's types, by declaration and never by inference."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from ml_assets.errors import InvalidRequestError
from ml_assets.serving.bounds import require_within
from ml_assets.serving.bundle import Bounds, Input

SERVED_TYPES: tuple[type[pl.DataType], ...] = (  # of columns that a request can carry
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.String, pl.Boolean, pl.Date, pl.Datetime),
)
_TYPES = {kind.__name__: kind for kind in SERVED_TYPES}

_AWARE = re.compile(r"(?:Z|[+-]\d{2}:?\d{2})$")  # a time that says its zone


def describe(name: str, kind: pl.DataType, *, nullable: bool, needed: bool, bounds: Bounds | None = None) -> Input:
    """How a manifest says what a column of the contract is."""
    if isinstance(kind, pl.Datetime):
        return Input(name, "Datetime", nullable, needed, kind.time_unit, kind.time_zone, bounds)
    return Input(name, type(kind).__name__, nullable, needed, bounds=bounds)


@functools.cache
def polars_type(column: Input) -> pl.DataType:
    """The type that `describe` was given."""
    if column.type == "Datetime":
        return pl.Datetime(column.time_unit or "us", column.time_zone)  # type: ignore[arg-type]
    return _TYPES[column.type]()


def frame_of(rows: Any, inputs: Sequence[Input], null_values: Sequence[str] = ("",)) -> pl.DataFrame:
    """Rows as JSON gave them, as a table of the columns that the features read.

    Columns of the contract that no feature reads may be there and are ignored; a nullable one may be left out. Texts
    lose the blanks at their ends, and are null where they are in `null_values`, as in cleaning. Values have to keep the
    contract's limits and lists, as in cleaning too.

    Raises:
        InvalidRequestError: naming row, column and value, at the first thing that is wrong.
    """
    if not isinstance(rows, list) or not rows:
        raise InvalidRequestError('send {"rows": [{column: value, ...}, ...]} with one row at least')
    known = {column.name for column in inputs}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidRequestError(f"row {number} is no object: {row!r:.80}")
        if unknown := sorted(set(row) - known):
            raise InvalidRequestError(
                f"row {number}: column {unknown[0]!r} is not in the contract; it has {', '.join(sorted(known))}"
            )
    return pl.DataFrame([_series(rows, column, null_values) for column in inputs if column.needed])


def _series(rows: list[dict[str, Any]], column: Input, null_values: Sequence[str]) -> pl.Series:
    kind = polars_type(column)
    values = [_value(row, number, column, kind, null_values) for number, row in enumerate(rows)]
    if isinstance(kind, pl.Datetime) or kind == pl.Date:
        times = _times(values, column, kind)
        if column.bounds is not None:
            require_within(times.to_list(), column)
        return times
    try:
        series = pl.Series(column.name, values, dtype=kind, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        number, value = next(each for each in enumerate(values) if not _fits(each[1], kind))
        raise InvalidRequestError(f"row {number}: column {column.name!r} is {value!r:.80}, not a {kind}") from None
    require_within(values, column)
    return series


def _value(row: dict[str, Any], number: int, column: Input, kind: pl.DataType, null_values: Sequence[str]) -> Any:
    value = row.get(column.name)
    if isinstance(value, str):
        value = value.strip()
        value = None if value in null_values else value
    if value is None:
        if column.nullable:
            return None
        said = "is null" if column.name in row else "is missing"
        raise InvalidRequestError(f"row {number}: column {column.name!r} {said}; it is needed, as a {kind}")
    if isinstance(value, bool) != (kind == pl.Boolean):
        raise InvalidRequestError(f"row {number}: column {column.name!r} is {value!r:.80}, not a {kind}")
    if kind.is_integer() and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _times(values: list[Any], column: Input, kind: pl.DataType) -> pl.Series:
    for number, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise InvalidRequestError(f"row {number}: column {column.name!r} is {value!r:.80}, not a {kind} as text")
    texts = pl.Series(column.name, values, dtype=pl.String)
    if isinstance(kind, pl.Datetime):
        for number, value in enumerate(values if kind.time_zone else ()):
            if value is not None and not _AWARE.search(value):
                raise InvalidRequestError(
                    f"row {number}: column {column.name!r} is {value!r:.80}, without a time zone; "
                    "write it like 2025-01-31T12:00:00Z"
                )
        zone = "UTC" if kind.time_zone else None
        times = texts.str.to_datetime(time_unit=kind.time_unit, time_zone=zone, strict=False)
        if kind.time_zone not in (None, "UTC"):
            times = times.dt.convert_time_zone(kind.time_zone)  # type: ignore[arg-type]
    else:
        times = texts.str.to_date(strict=False)
    if times.null_count() > texts.null_count():
        number = (times.is_null() & texts.is_not_null()).to_list().index(True)
        raise InvalidRequestError(f"row {number}: column {column.name!r} is {values[number]!r:.80}, not a {kind}")
    return times


def _fits(value: Any, kind: pl.DataType) -> bool:
    try:
        pl.Series([value], dtype=kind, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return False
    return True
