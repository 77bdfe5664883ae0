"""The window of a training: rows that happened at most so long before the newest one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl


@dataclass(frozen=True)
class Within:
    """Rows of the window.

    Attributes:
        since: the moment from which on rows are in it, in UTC or as it was read off the clock; None: there is none.
        left_out: how many rows happened before, or nobody says when.
    """

    rows: pl.DataFrame
    since: datetime | None
    left_out: int

    def first_day(self, zone: str) -> str | None:
        """The day in a time zone in which the window begins."""
        if self.since is None:
            return None
        return str((self.since.astimezone(ZoneInfo(zone)) if self.since.tzinfo else self.since).date())


def within(rows: pl.DataFrame, time: str, window: timedelta) -> Within:
    """Keep the rows that happened less than `window` before the newest of them; of dates so many days.

    The newest is looked for among the rows that are given, labelled ones: a window that ended at the newest row of all
    would be empty where labels come later than it is long.

    >>> days = pl.DataFrame({"on": [date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 3), None]})
    >>> within(days, "on", timedelta(days=2)).rows["on"].to_list()
    [datetime.date(2025, 1, 2), datetime.date(2025, 1, 3)]
    """
    moments = rows.get_column(time)
    happened = moments.cast(pl.Datetime("us")) if moments.dtype == pl.Date else moments
    newest = happened.max()
    if not isinstance(newest, datetime):
        return Within(rows.clear(), None, rows.height)
    since = newest - window
    kept = rows.filter((happened > since).fill_null(False))
    return Within(kept, since, rows.height - kept.height)
