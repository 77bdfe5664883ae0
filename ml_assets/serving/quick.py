"""Scores of a few ordinary rows without a table: most of what a single row costs is to make tables of it and back.

Whatever is unusual about a row, a model or an answer is left to the way through tables (`serving.frames`), which says
what is wrong. So there is one place where rows are refused, and what is scored here gets the very same scores.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
import polars as pl

from ml_assets.errors import InvalidRequestError
from ml_assets.ml.features import MISSING, Features
from ml_assets.serving.bounds import require_within
from ml_assets.serving.bundle import Input, Manifest
from ml_assets.serving.frames import polars_type
from ml_assets.serving.graph import Graph
from ml_assets.serving.scalars import UnusualError, scalars_of

MOST = 32  # rows; above, tables are quicker
_EXACT = 2**53  # up to it every whole number is a double
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?"
_NAIVE, _AWARE = re.compile(_TIME), re.compile(_TIME + r"(Z|\+00:00)")
_WHOLE = {f"{sign}Int{bits}": bits for sign in ("", "U") for bits in (8, 16, 32, 64)}


@dataclass(frozen=True)
class Quick:
    """The quick way of one release.

    Attributes:
        columns: what reads each column that the features read.
        null_values: texts that stand for null.
        scalars: what gives a feature from the row's values.
        others: the features that take Polars, as expressions over `reads`.
    """

    known: frozenset[str]
    columns: dict[str, Callable[[Any], Any]]
    scalars: dict[str, Callable[[Any], Any]]
    others: tuple[pl.Expr, ...]
    reads: dict[str, pl.DataType]
    graph: Graph

    @classmethod
    def of(cls, manifest: Manifest, features: Features, graph: Any) -> Self | None:
        """The quick way; None for a release that needs the other: with look-ups, unusual types, or no graph."""
        needed = {column.name: column for column in manifest.inputs if column.needed}
        readers = {name: _reader(column, manifest.null_values) for name, column in needed.items()}
        if not isinstance(graph, Graph) or manifest.views or None in readers.values():
            return None
        types = {name: polars_type(column) for name, column in needed.items()}
        expressions = dict(zip(features.names, features.typed, strict=True))
        scalars = scalars_of(expressions, types)
        others = [each for name, each in expressions.items() if name not in scalars]
        if not all(each.meta.root_names() for each in others):
            return None
        reads = {column: types[column] for each in others for column in each.meta.root_names()}
        known = frozenset(column.name for column in manifest.inputs)
        return cls(known, readers, scalars, tuple(others), reads, graph)  # type: ignore[arg-type]

    def scores(self, rows: Any) -> np.ndarray | None:
        """As `Graph.scores` of the rows' features; None if that is to be found out, or refused, by way of tables."""
        if not isinstance(rows, list) or not 0 < len(rows) <= MOST:
            return None
        try:
            read = [self._read(row) for row in rows]
            features = [{name: scalar(row) for name, scalar in self.scalars.items()} for row in read]
            if self.others:
                for one, computed in zip(features, self._computed(read), strict=True):
                    one.update(computed)
            numbers = [[one[name] for name in self.graph.reads.numbers] for one in features]
            texts = [
                [MISSING if one[name] is None else one[name] for name in self.graph.reads.texts] for one in features
            ]
            return self.graph.scores_of(np.array(numbers, dtype=np.float64), np.array(texts, dtype=object))
        except (UnusualError, InvalidRequestError, pl.exceptions.PolarsError):
            return None

    def _read(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict) or not row.keys() <= self.known:
            raise UnusualError
        return {name: reader(row.get(name)) for name, reader in self.columns.items()}

    def _computed(self, read: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The features that are more than a column. One row gets a row of nulls behind it: see `purity.in_company`."""
        rows = [tuple(row[name] for name in self.reads) for row in read]
        if len(rows) == 1:
            rows.append((None,) * len(self.reads))
        computed = pl.DataFrame(rows, self.reads, orient="row").select(self.others)
        names = computed.columns
        return [
            {name: _finite(value) for name, value in zip(names, row, strict=True)}
            for row in computed.rows()[: len(read)]
        ]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reader(column: Input, null_values: Sequence[str]) -> Callable[[Any], Any] | None:
    """What turns a value of a request into one of the column, or raises `UnusualError`; None if nothing here does."""
    convert = _converter(column)
    if convert is None:
        return None
    nullable, bounded, nulls = column.nullable, column.bounds is not None, frozenset(null_values)

    def read(value: Any) -> Any:
        if type(value) is str:
            value = value.strip()
            if value in nulls:
                value = None
        if value is None:
            if not nullable:
                raise UnusualError
            return None
        found = convert(value)
        if bounded:
            require_within((found,), column)
        return found

    return read


def _converter(column: Input) -> Callable[[Any], Any] | None:
    if column.type == "Float64":
        return _float
    if column.type in _WHOLE:
        bits, signed = _WHOLE[column.type], column.type.startswith("I")
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return lambda value: _whole(value, max(least, -_EXACT), min(most, _EXACT))
    if column.type == "String":
        return _of(str)
    if column.type == "Boolean":
        return _of(bool)
    if column.type == "Datetime" and column.time_unit == "us" and column.time_zone in (None, "UTC"):
        form = _NAIVE if column.time_zone is None else _AWARE
        return lambda value: _time(value, form)
    return None


def _float(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return float(value)
    raise UnusualError


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is int and least <= value <= most:
        return value
    raise UnusualError


def _of(kind: type) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise UnusualError

    return same


def _time(value: Any, form: re.Pattern[str]) -> datetime:
    if type(value) is str and form.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise UnusualError
