"""Days of a time zone as moments."""

from datetime import timedelta

import numpy as np
import polars as pl


def end_of_day(day: pl.Expr, zone: str) -> pl.Expr:
    """The moment at which a day (a date) ends in a time zone, in UTC."""
    midnight = (day + timedelta(days=1)).cast(pl.Datetime("us"))
    # Where summer time begins at midnight, the day begins at one.
    starts = [
        each.dt.replace_time_zone(zone, non_existent="null", ambiguous="earliest")
        for each in (midnight, midnight + timedelta(hours=1))
    ]
    return pl.coalesce(starts).dt.convert_time_zone("UTC")


def dates(times: pl.Series, zone: str) -> np.ndarray:
    """The date of each time in a time zone, datetime64[D]; shape (rows,). A time without a zone, or a date, is of that
    zone already.
    """
    return np.asarray(_local(times, zone).dt.date().to_numpy())  # a cast would give the date in UTC


def weekdays(times: pl.Series, zone: str) -> np.ndarray:
    """The day of the week of each time in a time zone, 1 (Monday) to 7; shape (rows,). A time without a zone, or a
    date, is of that zone already.
    """
    return _local(times, zone).dt.weekday().to_numpy()


def _local(times: pl.Series, zone: str) -> pl.Series:
    return times.dt.convert_time_zone(zone) if getattr(times.dtype, "time_zone", None) else times
