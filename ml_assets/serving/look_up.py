"""The columns that a model looks up: of each row's entities, as they were available at its event time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_assets.errors import OnlineStoreError
from ml_assets.feature_store.types import stored_type
from ml_assets.serving.bundle import View
from ml_assets.serving.frames import polars_type
from ml_assets.serving.online import Ask, Found, OnlineStore, entity_key

FOUND, UNKNOWN, STALE, LATER = "found", "unknown", "stale", "later"


@dataclass(frozen=True)
class LookedUp:
    """What was looked up for some rows.

    Attributes:
        columns: shape (rows, looked-up columns), null where there was nothing.
        missing: for each row the views that gave nothing, and why: `unknown` (no such entity), `stale` (older than the
            view's freshness), `later` (the newest value became available after the row's event, and the store holds no
            older one).
        counts: of each view how many rows had which outcome.
    """

    columns: pl.DataFrame
    missing: list[dict[str, str]]
    counts: dict[str, Counter[str]]


def look_up(store: OnlineStore, views: Sequence[View], rows: pl.DataFrame, event_time: str | None) -> LookedUp:
    """Ask the online store for everything that some rows need, at once.

    Args:
        rows: shape (n, ...), with the key columns of the views and the event time.

    Raises:
        OnlineStoreError: if the store does not answer.
    """
    at = _microseconds(rows, event_time)
    answers = store.read([Ask(each.name, list(each.columns), _keys(each, rows)) for each in views])
    missing: list[dict[str, str]] = [{} for _ in range(rows.height)]
    columns: list[pl.Series] = []
    counts = {}
    for view, found in zip(views, answers, strict=True):
        said = [_outcome(view, each, moment) for each, moment in zip(found, at, strict=True)]
        counts[view.name] = Counter(said)
        for row, outcome in zip(missing, said, strict=True):
            if outcome != FOUND:
                row[view.name] = outcome
        values = [each.values if each and outcome == FOUND else None for each, outcome in zip(found, said, strict=True)]
        for name, column in view.columns.items():
            kind = polars_type(column)
            held = [each and each[name] for each in values]
            try:
                columns.append(pl.Series(column.name, held, dtype=stored_type(kind), strict=True).cast(kind))
            except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
                raise OnlineStoreError(
                    f"the online store holds {name!r} of {view.name} in another type than the release reads, a {kind}; "
                    f"train and deploy anew: {error}"
                ) from None
    return LookedUp(pl.DataFrame(columns), missing, counts)


def _outcome(view: View, found: Found | None, at: int | None) -> str:
    """Whether a value counts for an event: the rule of the join in training, seen from the other side."""
    if found is None or any(name not in found.values for name in view.columns):
        return UNKNOWN
    if view.freshness is None:
        return FOUND
    if at is None:
        return UNKNOWN
    age = at - found.at
    if age < 0:
        return LATER
    return FOUND if age <= view.freshness * 1_000_000 else STALE


def _keys(view: View, rows: pl.DataFrame) -> list[bytes | None]:
    """The entity of each row; None where a part of its key is null."""
    parts: list[list[Any]] = []
    for column in view.keys:
        series = rows.get_column(column)
        parts.append(series.cast(stored_type(series.dtype)).to_list())
    if not parts:
        return [entity_key([])] * rows.height
    names = list(view.keys.values())
    return [
        None if None in values else entity_key(zip(names, values, strict=True)) for values in zip(*parts, strict=True)
    ]


def _microseconds(rows: pl.DataFrame, event_time: str | None) -> list[int | None]:
    """The rows' event times in microseconds since 1970; those without a time zone as they stand."""
    if event_time is None:
        return [None] * rows.height
    return rows.get_column(event_time).cast(pl.Datetime("us")).cast(pl.Int64).to_list()
