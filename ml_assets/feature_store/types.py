"""Types in which an online store keeps values: the few that Feast gives back bit by bit."""

import polars as pl

# Field of every view: its `available_at` in microseconds since 1970. Feast keeps its own times to the second, and in
# SQLite by the clock of the machine's time zone.
AVAILABLE_AT_US = "available_at_us"


def stored_type(kind: pl.DataType) -> pl.DataType:
    """Int64, Float64, Boolean or String, which holds every value of `kind`.

    Times become microseconds and dates days since 1970, because Feast keeps a time to the second only.

    >>> stored_type(pl.Float32())
    Float64
    """
    if kind.is_integer() or kind.is_temporal():
        return pl.Int64()
    if kind.is_float():
        return pl.Float64()
    return pl.Boolean() if kind == pl.Boolean else pl.String()
