"""What probes of a model's endpoint found: the `probes` table, and what holds by it now.

A row sums up the probes of some minutes: one is written when the state changes, and every ten minutes otherwise. The
probes since the last row are in the `Watch`, which whoever probes keeps. A state changes after two probes in a row that
say so: one alone may have met a server that was just started again.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Literal, Self, get_args

import polars as pl

from ml_assets.lake import Lake

TABLE = "probes"
Found = Literal["good", "slow", "wrong", "hanging", "dead"]
GOOD: Found = "good"
BAD: tuple[Found, ...] = tuple(each for each in get_args(Found) if each != GOOD)
ENOUGH = 2  # probes in a row that say the same, good or bad
ROW_EVERY = timedelta(minutes=10)

_MOMENT = pl.Datetime("us", "UTC")
SCHEMA: dict[str, pl.DataType] = {
    "from": _MOMENT,
    "to": _MOMENT,
    "probes": pl.Int64(),
    GOOD: pl.Int64(),
    "dead": pl.Int64(),
    "hanging": pl.Int64(),
    "wrong": pl.Int64(),
    "slow": pl.Int64(),
    "p50_ms": pl.Float64(),
    "max_ms": pl.Float64(),
    "reason": pl.String(),
    "state": pl.String(),
    "since": _MOMENT,
}


@dataclass(frozen=True)
class Probe:
    """What became of one probe.

    Attributes:
        ms: how long the known prediction took, in milliseconds; None where there was no answer.
        reason: why it is not good, for people.
        at: when it began.
    """

    found: Found
    ms: float | None = None
    reason: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class State:
    """What holds of an endpoint.

    Attributes:
        since: when the first of the probes that say so began.
        at: when the last probe of the row that says so began.
        reason: of the last bad probe; empty if it is good.
    """

    found: Found
    since: datetime
    at: datetime
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.found == GOOD


@dataclass(frozen=True)
class Watch:
    """What whoever probes keeps between two probes: the state, and what was found since the last row.

    Attributes:
        state: what holds; None before the first two probes that agree.
        since: when it began; None before.
        turning: probes in a row, up to now, that say otherwise than the state.
        turned: when the first of these began.
        begun: when the first probe since the last row began; None if there was none.
        last: when the last probe of all began, if any, and what it found.
        counts: probes since the last row, by what they found.
        ms: how long each of these took that got an answer.
        reason: of the last bad probe of these.
    """

    state: Found | None = None
    since: datetime | None = None
    turning: int = 0
    turned: datetime | None = None
    begun: datetime | None = None
    last: datetime | None = None
    last_found: Found = GOOD
    counts: dict[Found, int] = field(default_factory=dict)
    ms: tuple[float, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, state: State | None) -> Self:
        """Where nothing else is known, as when a cursor is lost: go on from the table."""
        return cls() if state is None else cls(state=state.found, since=state.since, last=state.at)

    def due(self, now: datetime, every: timedelta) -> bool:
        """Whether it is time for the next probe. One that says otherwise than the state is confirmed, or not, after a
        third of the interval: so two of them fit into two intervals, with the time that they take and the five seconds
        between two looks of a daemon.
        """
        return self.last is None or now >= self.last + (every / 3 if self.turning else every)

    def after(self, probe: Probe) -> "tuple[Watch, pl.DataFrame | None]":
        """What is known with one probe more, and the row to write, if it is time for one."""
        counts = self.counts | {probe.found: self.counts.get(probe.found, 0) + 1}
        now = replace(
            self,
            begun=self.begun or probe.at,
            last=probe.at,
            last_found=probe.found,
            counts=counts,
            ms=self.ms if probe.ms is None else (*self.ms, probe.ms),
            reason=probe.reason or self.reason,
        )
        changed = False
        if self.state is not None and _alike(self.state, probe.found):
            now = replace(now, turning=0, turned=None)
        else:
            goes_on = self.turning > 0 and _alike(self.last_found, probe.found)
            now = replace(now, turning=self.turning + 1 if goes_on else 1, turned=self.turned if goes_on else probe.at)
            if now.turning >= ENOUGH:
                changed = True
                now = replace(now, state=probe.found, since=now.turned, turning=0, turned=None)
        assert now.begun is not None
        # Before the first state there is nothing that a row could say.
        if now.state is None or not (changed or probe.at - now.begun >= ROW_EVERY):
            return now, None
        return replace(now, begun=None, counts={}, ms=(), reason=""), _row(now)

    def to_json(self) -> str:
        """As the text that a sensor's cursor is."""
        return json.dumps(asdict(self), default=lambda value: value.isoformat())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            said = json.loads(text)
            for name in ("since", "turned", "begun", "last"):
                said[name] = None if said[name] is None else datetime.fromisoformat(said[name])
            return cls(**(said | {"ms": tuple(said["ms"])}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no watch: {error}") from None


def _alike(one: Found, other: Found) -> bool:
    """Whether both are good or both are bad: of two ways to be bad the first one stays the state, until it is good."""
    return (one == GOOD) == (other == GOOD)


def _row(watch: Watch) -> pl.DataFrame:
    counted = {name: watch.counts.get(name, 0) for name in get_args(Found)}
    row = {
        "from": watch.begun,
        "to": watch.last,
        "probes": sum(counted.values()),
        "p50_ms": median(watch.ms) if watch.ms else None,
        "max_ms": max(watch.ms, default=None),
        "reason": watch.reason,
        "state": watch.state,
        "since": watch.since,
    }
    return pl.DataFrame([counted | row], schema=SCHEMA)


def append_row(lake: Lake, model: str, row: pl.DataFrame) -> None:
    """Add what `Watch.after` gave."""
    lake.append(model, TABLE, row)


def read_probes(lake: Lake, model: str, since: datetime | None = None) -> pl.DataFrame:
    """What was found, oldest first; columns and types as `SCHEMA`, without rows if nothing was probed.

    `from` and `to` are when the first and the last probe of a row began, `good` and the four others how many of them
    found what, `state` is what held at the row's end and `since` when that began.

    Args:
        since: rows that ended then or later; None: all of them.
    """
    rows = lake.read(model, TABLE)
    if rows.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    rows = rows.select(list(SCHEMA))
    return (rows if since is None else rows.filter(pl.col("to") >= since)).sort("to")


def state_of(lake: Lake, model: str) -> State | None:
    """What holds now by the table; None if nothing was probed yet."""
    rows = read_probes(lake, model)
    if rows.is_empty():
        return None
    last = rows.row(-1, named=True)
    good = last["state"] == GOOD
    return State(last["state"], last["since"], last["to"], "" if good else last["reason"])
