"""Rows of other tables put beside rows that ask for them: by key, or by key and the latest that was available then."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

import polars as pl

AVAILABLE_AT = "available_at"  # column of such a table: from when on a row can be used; whole seconds
_AT, _POSITION, _MATCHED = "_at", "_position", "_matched"


@dataclass(frozen=True)
class Join:
    """How rows find those of another table that they belong to.

    Attributes:
        by: column of the rows: column of the table that must be equal.
        columns: columns of the table, each with its name beside the rows.
        types: type of each column of the table.
        freshness: how long a row can be used, from `available_at` on. None: for ever, and there is one row per key.
    """

    by: dict[str, str]
    columns: dict[str, str]
    types: Mapping[str, pl.DataType]
    freshness: timedelta | None

    def only(self, names: frozenset[str]) -> Self:
        """The same with fewer columns: those whose name beside the rows is in `names`."""
        return replace(self, columns={name: beside for name, beside in self.columns.items() if beside in names})


def join_table(
    rows: pl.DataFrame, table: pl.DataFrame, join: Join, event_time: str | None
) -> tuple[pl.DataFrame, pl.Series]:
    """Put the columns of another table beside the rows that they belong to.

    A row of it counts from `available_at` on while it is fresh, both ends included; of two with one key and time the
    last in the table. Nulls match nothing.

    Args:
        rows: shape (n, ...), with the columns that `by` names and the event time.
        table: rows of the other table.
        event_time: column of the rows that says when.

    Returns:
        The rows in their order with the other columns, and whether each found a row, shape (n,).
    """
    renamed = [pl.col(name).alias(each) for name, each in join.columns.items()]
    left, right = list(join.by), [f"_by_{name}" for name in join.by.values()]
    keys = [pl.col(name).alias(f"_by_{name}") for name in join.by.values()]
    if table.is_empty():
        table = pl.DataFrame(schema=dict(join.types))
    timed = join.freshness is not None
    at = [moment(pl.col(str(event_time))).alias(_AT)] if timed else []
    since = [moment(pl.col(AVAILABLE_AT)).alias(AVAILABLE_AT)] if timed else []
    marked = table.select(*keys, *renamed, *since, pl.lit(True).alias(_MATCHED))
    numbered = rows.select(pl.int_range(pl.len()).alias(_POSITION), *left, *at)
    asked, known = numbered.drop_nulls(), marked.drop_nulls([*right, *([AVAILABLE_AT] if timed else [])])
    if timed:
        found = asked.sort(_AT).join_asof(
            known.sort(AVAILABLE_AT, maintain_order=True),
            left_on=_AT,
            right_on=AVAILABLE_AT,
            by_left=left or None,
            by_right=right or None,
            strategy="backward",
            tolerance=join.freshness,
            check_sortedness=False,  # sorted a line above; Polars cannot tell within groups
        )
    else:
        found = asked.join(known, left_on=left, right_on=right, how="left")
    others = list(join.columns.values())
    beside = numbered.select(_POSITION).join(
        found.select(_POSITION, _MATCHED, *others), on=_POSITION, how="left", maintain_order="left"
    )
    return rows.hstack(beside.select(*others)), beside.get_column(_MATCHED).is_not_null()


def moment(column: pl.Expr) -> pl.Expr:
    """A time or a date, as microseconds of the same clock: UTC if it has a time zone."""
    return column.cast(pl.Datetime("us"))
