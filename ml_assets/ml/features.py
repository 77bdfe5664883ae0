"""Row features: named Polars expressions, checked when definitions load, computed alike in batches and single rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import polars as pl

from ml_assets.digests import digest_of
from ml_assets.errors import ModelDefinitionError, ReleaseError
from ml_assets.ml.expressions import FORM, from_stable, to_stable
from ml_assets.ml.purity import Possible, generated_rows, impure, in_company, unequal

FEW = 16  # up to so many rows are looked at row by row, because Polars needs 0.1 ms to begin
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
        possible: Mapping[str, Possible] | None = None,
    ) -> "Features":
        """Resolve `expressions` against the columns that they may read, and prove that each sees one row only.

        The proof is by behaviour, on generated rows (see `purity.impure`); an expression that can take none of them is
        accepted for its operations alone.

        Args:
            expressions: what the user wrote.
            allowed: name and type of each column that is known when a prediction is asked for.
            forbidden: columns that are known only afterwards.
            place: model and file, for messages.
            possible: what is known of the values of the columns, so that generated rows are like real ones.

        Raises:
            ModelDefinitionError: naming the feature and the column or operation, if an expression reads a column that
                is known only afterwards or not at all, is a wildcard, uses an operation that a release cannot store,
                gives a row another value when others stand beside it, or is neither number, text nor truth value.
        """
        if not isinstance(expressions, list | tuple) or not expressions:
            raise ModelDefinitionError(f"{place}: expected a list of Polars expressions, got {expressions!r:.80}")
        empty = pl.DataFrame(schema=dict(allowed))
        types: dict[str, pl.DataType] = {}
        stored: list[pl.Expr] = []
        for position, expression in enumerate(expressions):
            if not isinstance(expression, pl.Expr):
                raise ModelDefinitionError(f"{place}: entry {position} is no Polars expression: {expression!r:.80}")
            if expression.meta.has_multiple_outputs():
                raise ModelDefinitionError(
                    f"{place}: entry {position} ({expression}) is a wildcard or selector; name each column, so that no "
                    f"outcome can slip in: {', '.join(forbidden)}"
                )
            try:
                name = expression.meta.output_name()
            except pl.exceptions.PolarsError:
                raise ModelDefinitionError(
                    f"{place}: entry {position} ({expression}) has no name; give it one with .alias()"
                ) from None
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
            try:
                stored.append(from_stable(to_stable(expression)))
            except ValueError as error:
                raise ModelDefinitionError(f"{place}: feature {name!r} {error}") from None
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
            types[name] = pl.String() if kind == pl.String else pl.Float64()
        checked = cls(tuple(expressions), types)
        rows = generated_rows({name: allowed[name] for name in checked.inputs}, possible)
        for position in impure(expressions, rows):
            raise ModelDefinitionError(
                f"{place}: feature {checked.names[position]!r} gives a row another value when other rows stand beside "
                "it; write it with operations on the columns of one row, because a prediction sees one row"
            )
        for position in unequal(expressions, stored, rows):
            raise ModelDefinitionError(
                f"{place}: feature {checked.names[position]!r} would not give the same values in a release "
                f"({expressions[position]}); write it with other operations"
            )
        return checked

    @cached_property
    def names(self) -> list[str]:
        return list(self.types)

    @cached_property
    def numeric(self) -> list[str]:
        return [name for name, kind in self.types.items() if kind == pl.Float64]

    @cached_property
    def categorical(self) -> list[str]:
        return [name for name, kind in self.types.items() if kind == pl.String]

    @cached_property
    def inputs(self) -> list[str]:
        """Columns that the features read, in order of first use: what a request has to carry."""
        return list(dict.fromkeys(name for each in self.expressions for name in each.meta.root_names()))

    @property
    def lineage(self) -> dict[str, list[str]]:
        """For each feature the columns that it reads."""
        return {each.meta.output_name(): list(dict.fromkeys(each.meta.root_names())) for each in self.expressions}

    @cached_property
    def digest(self) -> str:
        return digest_of(self.to_json())

    def compute(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The features of each row, shape (rows, features), numbers as Float64 and texts as String.

        An expression sees no other column than those that the features read. Infinities and NaN, such as a ratio to
        zero gives, become null, which the model imputes.
        """
        rows = pl.DataFrame([frame.get_column(name) for name in self.inputs])
        computed = in_company(rows).select(self.typed).head(frame.height)
        if self._is_finite(computed):
            return computed
        return computed.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in self.numeric)

    def _is_finite(self, computed: pl.DataFrame) -> bool:
        """Whether all numbers are finite, as nearly always; of many rows it may say no where they are."""
        if computed.height <= FEW:
            return all(
                each is None or isinstance(each, str) or isfinite(each) for row in computed.rows() for each in row
            )
        return not self.numeric or bool(computed.select(pl.sum_horizontal(self.numeric).is_finite().all()).item())

    @cached_property
    def typed(self) -> list[pl.Expr]:
        """The expressions, cast to the features' types."""
        return [each.cast(self.types[each.meta.output_name()]) for each in self.expressions]

    def to_json(self) -> dict[str, Any]:
        """The features as a release stores them: name, type (`number` or `text`) and expression in the stable form."""
        return {
            "form": FORM,
            "features": [
                {
                    "name": each.meta.output_name(),
                    "type": "text" if each.meta.output_name() in self.categorical else "number",
                    "expression": to_stable(each),
                }
                for each in self.expressions
            ],
        }

    @classmethod
    def from_json(cls, stored: Any) -> "Features":
        """What `to_json` gave.

        Raises:
            ReleaseError: naming the feature, if anything in it is not as this version of ml-assets reads it.
        """
        if not isinstance(stored, dict) or stored.get("form") != FORM:
            given = stored.get("form") if isinstance(stored, dict) else None
            raise ReleaseError(f"its features are stored in form {given!r:.20}; this version of ml-assets reads {FORM}")
        if set(stored) != {"form", "features"} or not isinstance(stored["features"], list):
            raise ReleaseError(f"stored features have a form and a list of features, not {', '.join(map(str, stored))}")
        expressions: list[pl.Expr] = []
        types: dict[str, pl.DataType] = {}
        for each in stored["features"]:
            if not isinstance(each, dict) or set(each) != {"name", "type", "expression"}:
                raise ReleaseError(f"a stored feature has name, type and expression, which {each!r:.80} has not")
            name = each["name"]
            if not isinstance(name, str) or name in types or each["type"] not in ("number", "text"):
                raise ReleaseError(
                    f"stored feature {name!r:.80}: no name of its own, or of the type {each['type']!r:.80}"
                )
            try:
                expressions.append(from_stable(each["expression"]).alias(name))
            except ReleaseError as error:
                raise ReleaseError(f"stored feature {name!r}: {error}") from None
            types[name] = pl.String() if each["type"] == "text" else pl.Float64()
        return cls(tuple(expressions), types)
