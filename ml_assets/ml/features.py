"""Row features: named Polars expressions, checked when definitions load, computed alike in batches and single rows."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ml_assets.digests import digest_of
from ml_assets.errors import ModelDefinitionError, ReleaseError

MISSING = "(missing)"  # the category that stands for a null, so that one row and a batch score alike


@dataclass(frozen=True)
class Features:
    """A model's features: one expression each, over columns that are known when a prediction is asked for."""

    expressions: tuple[pl.Expr, ...]
    types: dict[str, pl.DataType]

    @classmethod
    def check(
        cls,
        expressions: Sequence[pl.Expr],
        allowed: Mapping[str, pl.DataType],
        forbidden: Sequence[str],
        place: str,
    ) -> "Features":
        """Resolve `expressions` against the columns that they may read.

        Args:
            expressions: what the user wrote.
            allowed: name and type of each column that is known when a prediction is asked for.
            forbidden: columns that are known only afterwards.
            place: model and file, for messages.

        Raises:
            ModelDefinitionError: naming the feature and the column, if an expression reads a column that is known only
                afterwards or not at all, is a wildcard, runs Python code, or is neither number, text nor truth value.
        """
        if not isinstance(expressions, list | tuple) or not expressions:
            raise ModelDefinitionError(f"{place}: expected a list of Polars expressions, got {expressions!r:.80}")
        empty = pl.DataFrame(schema=dict(allowed))
        types: dict[str, pl.DataType] = {}
        for position, expression in enumerate(expressions):
            if not isinstance(expression, pl.Expr):
                raise ModelDefinitionError(f"{place}: entry {position} is no Polars expression: {expression!r:.80}")
            if expression.meta.has_multiple_outputs():
                raise ModelDefinitionError(
                    f"{place}: entry {position} ({expression}) is a wildcard or selector; name each column, so that no "
                    "outcome can slip in"
                )
            name = expression.meta.output_name()
            for column in expression.meta.root_names():
                if column in forbidden:
                    raise ModelDefinitionError(
                        f"{place}: feature {name!r} reads {column!r}, which is known only after the prediction "
                        "(outcome or target): it would leak the answer. Remove it from the expression"
                    )
                if column not in allowed:
                    raise ModelDefinitionError(
                        f"{place}: feature {name!r} reads {column!r}, which is not in the contract; "
                        f"it has {', '.join(allowed)}"
                    )
            if refused := _refused_operation(json.loads(expression.meta.serialize(format="json"))):
                raise ModelDefinitionError(
                    f"{place}: feature {name!r} {refused}; write it with Polars' own operations on the columns of one "
                    "row, because a prediction sees one row"
                )
            if name in types:
                raise ModelDefinitionError(f"{place}: two features are called {name!r}; use .alias() on one of them")
            try:
                kind = empty.select(expression).schema[name]
            except pl.exceptions.PolarsError as error:
                raise ModelDefinitionError(f"{place}: feature {name!r} cannot be computed: {error}") from None
            if not (kind.is_numeric() or kind in (pl.String, pl.Boolean)):
                raise ModelDefinitionError(
                    f"{place}: feature {name!r} is a {kind}; a feature is a number, a text or a truth value "
                    "(of a time, take .dt.hour() or the like)"
                )
            if _looks_at_other_rows(expression, allowed):
                raise ModelDefinitionError(
                    f"{place}: feature {name!r} gives a row another value when other rows stand beside it; write it "
                    "with operations on the columns of one row, because a prediction sees one row"
                )
            types[name] = pl.String() if kind == pl.String else pl.Float64()
        return cls(tuple(expressions), types)

    @property
    def names(self) -> list[str]:
        return list(self.types)

    @property
    def numeric(self) -> list[str]:
        return [name for name, kind in self.types.items() if kind == pl.Float64]

    @property
    def categorical(self) -> list[str]:
        return [name for name, kind in self.types.items() if kind == pl.String]

    @property
    def inputs(self) -> list[str]:
        """Columns that the features read, in order of first use: what a request has to carry."""
        return list(dict.fromkeys(name for each in self.expressions for name in each.meta.root_names()))

    @property
    def lineage(self) -> dict[str, list[str]]:
        """For each feature the columns that it reads."""
        return {each.meta.output_name(): list(dict.fromkeys(each.meta.root_names())) for each in self.expressions}

    @cached_property
    def digest(self) -> str:
        return digest_of([self.to_json(), {name: str(kind) for name, kind in self.types.items()}])

    def compute(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The features of each row, shape (rows, features), numbers as Float64 and texts as String.

        An expression sees no other column than those that the features read. Infinities and NaN, such as a ratio to
        zero gives, become null, which the model imputes.
        """
        computed = frame.select(self.inputs).select(
            each.cast(self.types[each.meta.output_name()]) for each in self.expressions
        )
        return computed.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in self.numeric)

    def to_json(self) -> list[dict[str, Any]]:
        """The expressions as a release stores them: Polars' JSON form, which the same Polars version reads back."""
        return [json.loads(each.meta.serialize(format="json")) for each in self.expressions]

    @classmethod
    def from_json(cls, stored: Sequence[dict[str, Any]], types: Mapping[str, str]) -> "Features":
        """What `to_json` gave, with the type (`number` or `text`) of each feature. Python code in it is refused."""
        expressions = []
        for each in stored:
            if refused := _refused_operation(each):
                raise ReleaseError(f"a stored feature {refused}, which is never loaded")
            expressions.append(pl.Expr.deserialize(io.StringIO(json.dumps(each)), format="json"))
        kinds: dict[str, pl.DataType] = {
            name: pl.String() if kind == "text" else pl.Float64() for name, kind in types.items()
        }
        return cls(tuple(expressions), kinds)


def _looks_at_other_rows(expression: pl.Expr, allowed: Mapping[str, pl.DataType]) -> bool:
    """Whether rows of made-up values get other features together than in reverse order or one by one."""
    rows = pl.DataFrame([_values(name, allowed[name]) for name in dict.fromkeys(expression.meta.root_names())])
    if not rows.width:
        return rows.select(expression).height != 1
    try:
        together = rows.select(expression).to_series()
        backwards = rows.reverse().select(expression).to_series().reverse()
        alone = pl.concat([rows[number].select(expression) for number in range(rows.height)]).to_series()
    except pl.exceptions.PolarsError:
        return False  # it cannot take made-up values, which says nothing about rows
    return not (together.equals(backwards, null_equal=True) and together.equals(alone, null_equal=True))


def _values(name: str, kind: pl.DataType) -> pl.Series:
    """A few values of a type, with repetitions and a null."""
    numbers = [3, 1, None, 2, 2, 7]
    if kind == pl.String:
        return pl.Series(name, [None if each is None else f"text {each}" for each in numbers], dtype=kind)
    if kind == pl.Boolean:
        return pl.Series(name, [None if each is None else each > 2 for each in numbers], dtype=kind)
    whole = pl.Series(name, numbers, dtype=pl.Int64)
    if kind.is_temporal():
        return (
            (whole * 90_000_000_000).cast(pl.Datetime("us")).cast(kind)
            if kind == pl.Date
            else (whole * 90_000_000_000).cast(kind)
        )
    return whole.cast(kind) + (0.25 if kind.is_float() else 0)


_REFUSED = {
    "AnonymousFunction": "calls a Python function (map_elements or map_batches)",
    "Agg": "aggregates over rows",
    "Over": "is a window over rows",
    "Window": "is a window over rows",
    "Rolling": "is a rolling window over rows",
}


def _refused_operation(node: Any) -> str | None:
    """Why an expression, given as Polars' JSON, is no function of its row alone; None if nothing in it says so."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _REFUSED:
                return _REFUSED[key]
            if found := _refused_operation(value):
                return found
    elif isinstance(node, list) and not (node and isinstance(node[0], int)):
        for each in node:
            if found := _refused_operation(each):
                return found
    return None
