"""Features of a single row by Python's own arithmetic, for operations that it computes with the same bits as Polars.

For one row Polars spends its time on planning and on waking a thread. What is not on the short list here, and what does
not give the same bits on generated rows, stays with Polars.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl

from ml_assets.ml.expressions import to_stable
from ml_assets.ml.purity import generated_rows, in_company

Row = Mapping[str, Any]
_EXACT = 2**53  # up to it every whole number is a double


class UnusualError(Exception):
    """A value that is left to Polars."""


class _Scalar(NamedTuple):
    """What a node gives: `float`, `int` (Int64), `small` (a smaller integer, with which nothing is added up), `bool`,
    `text` or `time`; from a row, with None for null.
    """

    kind: str
    of: Callable[[Row], Any]
    literal: bool = False


_KINDS = {pl.Float64: "float", pl.Int64: "int", pl.String: "text", pl.Boolean: "bool", pl.Datetime: "time"}
_ARITHMETIC = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}
_COMPARED = {
    **{"equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_or_equal": operator.le},
    **{"greater": operator.gt, "greater_or_equal": operator.ge},
}
_TIMES: dict[str, Callable[[Any], int]] = {
    **{name: operator.attrgetter(name) for name in ("month", "day", "hour", "minute", "second")},
    "weekday": lambda at: int(at.isoweekday()),
}


def scalars_of(expressions: Mapping[str, pl.Expr], types: Mapping[str, pl.DataType]) -> dict[str, Callable[[Row], Any]]:
    """For each feature that can be had this way what gives it from a row, proven on generated rows.

    Args:
        expressions: by the features' names, of the type Float64 or String.
        types: of the columns that they read.

    Returns:
        Functions of a row, that may raise `UnusualError`; None is null, as is what is not finite.
    """
    rows = generated_rows(types)
    try:
        wanted = in_company(rows).select(**expressions)
    except pl.exceptions.PolarsError:
        return {}
    found: dict[str, Callable[[Row], Any]] = {}
    given = rows.to_dicts()
    compiler = _Compiler(types)
    for name, expression in expressions.items():
        try:
            scalar = compiler.scalar(to_stable(expression))
        except (UnusualError, ValueError):
            continue
        if _same(scalar.of, given, [_finite(each) for each in wanted.get_column(name).to_list()]):
            found[name] = scalar.of
    return found


def _same(function: Callable[[Row], Any], rows: list[dict[str, Any]], expected: list[Any]) -> bool:
    """Whether a function gives what is expected, bit by bit, for each row that it takes, which must be most of them."""
    taken = 0
    for row, wanted in zip(rows, expected, strict=True):
        try:
            value = function(row)
        except UnusualError:
            continue
        taken += 1
        if repr(value) != repr(wanted):  # of 0.0 and -0.0 too
            return False
    return taken > len(rows) // 2


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def _by_reciprocal() -> bool | None:
    """Whether Polars makes a division by a literal a product with its reciprocal, as 2.1 does; None: neither.

    Of a sum that holds a quotient few rows would show it.
    """
    values = [float(each) for each in range(1, 500)]
    frame = pl.DataFrame({"value": values})
    products = quotients = True
    for by in (3, 7.0, 60, 0.3):
        given = frame.select(pl.col("value") / by).to_series().to_list()
        products &= given == [value * (1.0 / by) for value in values]
        quotients &= given == [value / by for value in values]
    return None if products == quotients else products


class _Compiler:
    """From the stable form of an expression to a function."""

    def __init__(self, types: Mapping[str, pl.DataType]) -> None:
        self.types = types

    def scalar(self, node: dict[str, Any]) -> _Scalar:
        """
        Raises:
            UnusualError: if something in it is on no list here.
        """
        if "column" in node:
            name = node["column"]
            kind = _KINDS.get(type(self.types[name]))
            if kind is None:
                raise UnusualError
            return _Scalar(kind, operator.itemgetter(name))
        if "literal" in node:
            value, kind = node["literal"], {"int": "int", "float": "float", "text": "text"}.get(node["type"])
            if kind is None or value is None:
                raise UnusualError
            return _Scalar(kind, lambda row: value, literal=True)
        return self._operation(node["op"], [self.scalar(each) for each in node["of"]], node)

    def _operation(self, name: str, of: list[_Scalar], node: dict[str, Any]) -> _Scalar:
        kinds = [each.kind for each in of]
        if name in _ARITHMETIC:
            return self._arithmetic(_ARITHMETIC[name], of)
        if name == "divide" and set(kinds) <= {"float", "int", "small"}:
            return self._quotient(*of)
        if name in _COMPARED and kinds[0] == kinds[1] and kinds[0] in ("float", "int", "text"):
            return _Scalar("bool", _strict(_COMPARED[name], *of))
        if name in _TIMES and kinds == ["time"]:
            return _Scalar("small", _strict(_TIMES[name], *of))
        if name in ("abs", "negate") and kinds == ["float"]:
            return _Scalar("float", _strict(abs if name == "abs" else operator.neg, *of))
        if name in ("is_null", "is_not_null"):
            value, missing = of[0].of, name == "is_null"
            return _Scalar("bool", lambda row: (value(row) is None) == missing)
        if name == "cast" and node["to"] == "float64" and kinds[0] in ("float", "int", "small", "bool"):
            return _Scalar("float", _strict(float, *of))
        if name == "cast" and node["to"] == "text" and kinds[0] in ("int", "small", "text"):
            return _Scalar("text", _strict(str, *of))
        raise UnusualError

    def _arithmetic(self, operation: Callable[[Any, Any], Any], of: list[_Scalar]) -> _Scalar:
        kinds = {each.kind for each in of}
        if "float" in kinds and kinds <= {"float", "int", "small"}:
            return _Scalar("float", _strict(lambda one, other: _is(operation(float(one), float(other))), *of))
        if kinds == {"int"}:
            return _Scalar("int", _strict(lambda one, other: _exact(operation(one, other)), *of))
        raise UnusualError

    def _quotient(self, one: _Scalar, other: _Scalar) -> _Scalar:
        if other.literal:
            by = float(other.of({}))
            if one.literal or not by or _by_reciprocal() is None:
                raise UnusualError
            if not _by_reciprocal():
                return _Scalar("float", _strict(lambda value: _is(float(value) / by), one))
            factor = 1.0 / by
            return _Scalar("float", _strict(lambda value: _is(float(value) * factor), one))

        def quotient(value: Any, by: Any) -> float:
            if by == 0:
                raise UnusualError
            return _is(float(value) / float(by))

        return _Scalar("float", _strict(quotient, one, other))


def _strict(function: Callable[..., Any], *of: _Scalar) -> Callable[[Row], Any]:
    """A function of a row that is null where an operand is."""
    if len(of) == 1:
        [value] = (each.of for each in of)

        def unary(row: Row) -> Any:
            given = value(row)
            return None if given is None else function(given)

        return unary
    first, second = (each.of for each in of)

    def binary(row: Row) -> Any:
        one, other = first(row), second(row)
        return None if one is None or other is None else function(one, other)

    return binary


def _is(value: float) -> float:
    if not math.isfinite(value):
        raise UnusualError
    return value


def _exact(value: int) -> int:
    if not -_EXACT <= value <= _EXACT:
        raise UnusualError
    return value
