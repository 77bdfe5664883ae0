"""Side tables joined to rows: by key, or by key and the latest time that was known at the event."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

import polars as pl

from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.ml.joins import AVAILABLE_AT, Join, moment
from ml_assets.spec.tables import LookupSpec


@dataclass(frozen=True)
class Lookup:
    """A side table of a model.

    Attributes:
        contract: its columns; the key is what it is joined by, with the event time if it has one.
    """

    spec: LookupSpec
    contract: Contract

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def timed(self) -> bool:
        """Whether its rows are of some time, so that the latest one known at the event counts."""
        return self.contract.event_time is not None

    @property
    def columns(self) -> dict[str, str]:
        """Its columns beside those that it is joined by, each with its name beside the rows."""
        by = set(self.spec.by.values())
        return {name: f"{self.name}_{name}" for name in self.contract.types if name not in by}

    @property
    def types(self) -> dict[str, pl.DataType]:
        """Type of each column by its name beside the rows."""
        return {renamed: self.contract.types[name] for name, renamed in self.columns.items()}

    @property
    def join(self) -> Join:
        """How its rows join others."""
        return Join(
            by=self.spec.by,
            columns=self.columns,
            types=self.contract.types | {AVAILABLE_AT: pl.Datetime("us", "UTC")},
            freshness=parse_duration(self.spec.tolerance) - parse_duration(self.spec.lag) if self.timed else None,
        )

    def available(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Cleaned rows with `available_at`: the lag after their time, or always. Of two in one second the later comes
        last, and counts.
        """
        if self.contract.event_time is None:
            since = pl.lit(datetime(1970, 1, 1, tzinfo=UTC), pl.Datetime("us", "UTC"))
        else:
            known = moment(pl.col(self.contract.event_time)) + parse_duration(self.spec.lag)
            whole = (known + timedelta(seconds=1, microseconds=-1)).dt.truncate("1s")  # an online store knows no less
            since = whole.dt.replace_time_zone("UTC")
            rows = rows.sort(self.contract.event_time, maintain_order=True)
        return rows.with_columns(since.alias(AVAILABLE_AT))

    @cached_property
    def digest(self) -> str:
        """Changes when the same rows could be joined otherwise."""
        return digest_of([self.name, self.spec.by, self.spec.lag, self.spec.tolerance, self.contract.digest])

    def days(self, day: str, zone: str, first: date) -> list[str]:
        """Days of the side table whose rows may count for an event of `day`, both as text.

        Args:
            zone: time zone of the days.
            first: first day of the calendar; what happened before is kept there.
        """
        assert self.contract.event_time is not None
        last = date.fromisoformat(day)
        naive = getattr(self.contract.types[self.contract.event_time], "time_zone", None) is None
        local = UTC if naive else ZoneInfo(zone)
        begin = datetime.combine(last, time(), local).astimezone(UTC) - parse_duration(self.spec.tolerance)
        earliest = max(begin.astimezone(local).date(), first)
        return [str(earliest + timedelta(days=number)) for number in range((last - earliest).days + 1)]


def refused(lookups: Mapping[str, Lookup], unmatched: Mapping[str, int], rows: int) -> str | None:
    """Which lookup leaves more rows unmatched than it may, and what to do; None if none does."""
    for name, lookup in lookups.items():
        count, spec = unmatched[name], lookup.spec
        most = spec.max_unmatched
        if rows and count / rows > most:
            return (
                f"{count:,} of {rows:,} rows ({count / rows:.1%}) find no row in the lookup {name!r}, and its "
                f"max_unmatched is {most:.1%}; mend {spec.source.where}, or set max_unmatched in defs.yaml"
            )
    return None
