"""The outbox: which alerts are open, and what each channel was sent. A table of events in the lake, only added to.

Everything is decided from the table and from what holds now, so it does not matter who was killed when. A message is
noted as sent after the channel took it: a crash between these two repeats that one message, with the same id.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import polars as pl

from ml_assets.alerts.addresses import LEAST, Address
from ml_assets.alerts.conditions import Condition
from ml_assets.alerts.message import Message, text_of, title_of
from ml_assets.appended import Appended
from ml_assets.digests import digest_of
from ml_assets.errors import AlertError
from ml_assets.lake import Lake
from ml_assets.spec.operating import Severity
from ml_assets.waits import wait_after

PLACE, TABLE = "_alerts", "outbox"  # beside the models, none of which has such a name
CALM, LONGEST_CALM = timedelta(minutes=10), timedelta(hours=6)
REMIND = timedelta(days=1)  # of an error that nobody mended
SECONDS = 10.0  # after which a channel is sent no further message in one go: a sensor's tick has sixty
Send = Callable[[Address, Message], str]

_MESSAGES = frozenset({"opened", "worse", "again", "reminded", "recovered"})
_MOMENT = pl.Datetime("us", "UTC")
_SCHEMA: dict[str, pl.DataType] = {
    "at": _MOMENT,
    "event": pl.String(),
    "channel": pl.String(),
    "alert": pl.String(),
    "message": pl.String(),
    "model": pl.String(),
    "kind": pl.String(),
    "severity": pl.String(),
    "title": pl.String(),
    "text": pl.String(),
    "url": pl.String(),
    "since": _MOMENT,
    "remark": pl.String(),
}


@dataclass(frozen=True)
class Alert:
    """Something that people were told of.

    Attributes:
        severity: the worst of what it said so far.
        messages: what there is to send of it, in order.
        closed: when its recovery was told; None while it is open.
        gone: since when nothing of it holds, if its recovery is not told yet.
        again: how often it came back soon after.
    """

    id: str
    severity: Severity
    messages: tuple[Message, ...]
    closed: datetime | None = None
    gone: datetime | None = None
    again: int = 0

    @property
    def last(self) -> Message:
        return self.messages[-1]

    @property
    def group(self) -> tuple[str, str]:
        return self.last.model, self.last.kind

    @property
    def opened(self) -> datetime:
        return self.messages[0].at

    @property
    def calm(self) -> timedelta:
        """How soon after its recovery it is the same alert, and if it did come back, how long it has to be gone before
        its recovery is told: longer each time.
        """
        return min(CALM * (1 << min(self.again, 10)), LONGEST_CALM)


@dataclass(frozen=True)
class Channel:
    """What one address was sent.

    Attributes:
        joined: since when it is sent anything; None if it is not any more.
        sent: ids of messages.
        failures: in a row, up to now; `failed` is when the last one was, and `error` what was wrong.
    """

    joined: datetime | None = None
    sent: frozenset[str] = frozenset()
    failures: int = 0
    failed: datetime | None = None
    error: str = ""

    def again(self) -> datetime | None:
        """When it may be tried again; None: now."""
        return self.failed + wait_after(self.failures) if self.failed and self.failures else None


@dataclass(frozen=True)
class Known:
    """What the table says. Alerts in the order in which they were opened."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)

    def open(self) -> list[Alert]:
        return [each for each in self.alerts.values() if each.closed is None]

    def latest(self) -> dict[tuple[str, str], Alert]:
        """The last alert of each model and kind."""
        return {each.group: each for each in self.alerts.values()}

    def pending(self, address: Address) -> list[Message]:
        """What an address is still to be sent, oldest first: of alerts that were open when it was added, or opened
        since, what is as severe as it wants, and then their recovery.
        """
        channel = self.channels.get(address.name, Channel())
        if channel.joined is None:
            return []
        found = []
        for alert in self.alerts.values():
            if alert.closed is not None and alert.closed <= channel.joined:
                continue
            told = False
            for each in alert.messages:
                if not (told or address.takes(each.severity)):
                    continue
                told = True
                # Of an alert that is older than the channel, its last message then says what there is.
                if each.at < channel.joined and (
                    each is not _newest(alert, channel.joined) or each.event == "recovered"
                ):
                    continue
                if each.id not in channel.sent:
                    found.append(each)
        return sorted(found, key=lambda each: each.at)


def _newest(alert: Alert, at: datetime) -> Message:
    """The last message of an alert that there was at a time."""
    return [each for each in alert.messages if each.at < at][-1]


def _learn(known: Known, rows: pl.DataFrame) -> Known:
    alerts, channels = dict(known.alerts), dict(known.channels)
    for row in rows.sort("at", maintain_order=True).to_dicts():
        event, name, number = row["event"], row["channel"], row["alert"]
        if event in _MESSAGES:
            alerts[number] = _told(alerts.get(number), row)
        elif event in ("gone", "back"):
            alerts[number] = replace(alerts[number], gone=row["at"] if event == "gone" else None)
        else:
            channels[name] = _noted(channels.get(name, Channel()), row)
    return Known(alerts, channels)


def _told(alert: Alert | None, row: dict[str, Any]) -> Alert:
    names = ("event", "alert", "model", "kind", "severity", "title", "text", "url", "since", "at")
    message = Message(id=row["message"], **{name: row[name] for name in names})
    if alert is None:
        return Alert(message.alert, message.severity, (message,))
    return replace(
        alert,
        severity=_worst([alert.severity, message.severity]),
        messages=(*alert.messages, message),
        closed=message.at if message.event == "recovered" else None,
        gone=None,
        again=alert.again + (message.event == "again"),
    )


def _noted(channel: Channel, row: dict[str, Any]) -> Channel:
    event = row["event"]
    if event == "joined":
        return replace(channel, joined=row["at"], failures=0, failed=None, error="")
    if event == "left":
        return replace(channel, joined=None)
    if event == "sent":
        return replace(channel, sent=channel.sent | {row["message"]}, failures=0, failed=None, error="")
    return replace(channel, failures=channel.failures + 1, failed=row["at"], error=row["remark"])


def _worst(severities: Sequence[Severity]) -> Severity:
    return max(severities, key=LEAST.index)


_known = Appended(Known(), _learn)


@dataclass(frozen=True)
class Outbox:
    """The outbox of a lake.

    Attributes:
        ui: address of Dagster's UI, for links.
        clock: what time it is.
    """

    lake: Lake
    ui: str = ""
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def known(self) -> Known:
        return _known.of(self.lake, PLACE, TABLE)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process decides or sends."""
        with self.lake.alone(PLACE, TABLE):
            yield

    def update(
        self,
        conditions: Sequence[Condition],
        addresses: Sequence[Address],
        unknown: Collection[str] = (),
    ) -> list[Message]:
        """Open and close alerts, by what holds now; nothing is sent.

        Args:
            unknown: models of which nobody can say what holds; their alerts stay as they are.

        Returns:
            What there is to say.
        """
        known, now = self.known(), self.clock()
        rows = [*_of_channels(known, addresses, now)]
        groups: dict[tuple[str, str], list[Condition]] = {}
        for each in conditions:
            if each.model not in unknown:
                groups.setdefault((each.model, each.kind), []).append(each)
        latest = known.latest()
        for group, holds in groups.items():
            rows += self._holds(latest.get(group), sorted(holds, key=lambda each: each.key), now)
        for alert in known.open():
            if alert.group not in groups and alert.last.model not in unknown:
                rows += _is_gone(alert, now)
        self._add(rows)
        wanted = {row["message"] for row in rows if row["event"] in _MESSAGES}
        return [each for alert in self.known().alerts.values() for each in alert.messages if each.id in wanted]

    def deliver(self, addresses: Sequence[Address], send: Send) -> dict[str, str]:
        """Send each address what it is still to get, in order, all addresses at once. What an address does not take is
        tried again later, with growing waits, before anything else goes there.

        Returns:
            What went wrong, by address.
        """
        known, now = self.known(), self.clock()
        work = {each: messages for each in addresses if (messages := known.pending(each))}
        if not work:
            return {}
        ready = [each for each in work if (known.channels[each.name].again() or now) <= now]
        with ThreadPoolExecutor(max_workers=max(1, len(ready))) as pool:
            errors = pool.map(lambda each: self._send_all(each, work[each], send), ready)
            return {each.name: error for each, error in zip(ready, errors, strict=True) if error}

    def _send_all(self, address: Address, messages: Sequence[Message], send: Send) -> str:
        """Why it stopped; empty if all was sent, or the rest is for the next time."""
        deadline = time.monotonic() + SECONDS
        for each in messages:
            if time.monotonic() > deadline:
                break
            try:
                remark = send(address, each)
            except AlertError as error:
                self._note("failed", address.name, each.id, str(error))
                return str(error)
            self._note("sent", address.name, each.id, remark)
        return ""

    def _note(self, event: str, channel: str, message: str, remark: str) -> None:
        row = {"at": self.clock(), "event": event, "channel": channel, "message": message, "remark": remark}
        with self._lock:
            self._add([row])

    def _add(self, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            frame = pl.DataFrame([dict.fromkeys(_SCHEMA) | each for each in rows], schema=_SCHEMA)
            self.lake.append(PLACE, TABLE, frame)

    def _holds(self, alert: Alert | None, conditions: Sequence[Condition], now: datetime) -> list[dict[str, Any]]:
        """What is to be added because conditions of one model and kind hold."""
        severity = _worst([each.severity for each in conditions])
        if alert is None or (alert.closed is not None and now - alert.closed > alert.calm):
            first = conditions[0]
            number = digest_of([first.model, first.kind, now.isoformat()])[:12]
            return [self._row("opened", number, 1, severity, conditions, now)]
        count = len(alert.messages) + 1
        if alert.closed is not None:
            return [self._row("again", alert.id, count, severity, conditions, now)]
        if LEAST.index(severity) > LEAST.index(alert.severity):
            return [self._row("worse", alert.id, count, severity, conditions, now)]
        if severity == "error" and now - alert.last.at >= REMIND:
            return [self._row("reminded", alert.id, count, severity, conditions, now)]
        return [{"at": now, "event": "back", "alert": alert.id}] if alert.gone is not None else []

    def _row(
        self, event: str, alert: str, count: int, severity: Severity, conditions: Sequence[Condition], now: datetime
    ) -> dict[str, Any]:
        first = conditions[0]
        place = first.place if len(conditions) == 1 or first.kind == "run_failed" else first.place.partition("?")[0]
        began = [each.since for each in conditions if each.since is not None]
        return {
            "at": now,
            "event": event,
            "alert": alert,
            "message": f"{alert}-{count}",
            "model": first.model,
            "kind": first.kind,
            "severity": severity,
            "title": title_of(conditions),
            "text": text_of(conditions),
            "url": f"{self.ui.rstrip('/')}/{place}",
            "since": min(began, default=now),
        }


def _of_channels(known: Known, addresses: Sequence[Address], now: datetime) -> Iterator[dict[str, Any]]:
    """Channels that are new, and those that there are no more."""
    names = {each.name for each in addresses}
    for name in sorted(names):
        if known.channels.get(name, Channel()).joined is None:
            yield {"at": now, "event": "joined", "channel": name}
    for name, channel in known.channels.items():
        if channel.joined is not None and name not in names:
            yield {"at": now, "event": "left", "channel": name}


def _is_gone(alert: Alert, now: datetime) -> list[dict[str, Any]]:
    """What is to be added because nothing of an open alert holds."""
    gone = alert.gone or now
    if alert.again and now - gone < alert.calm:
        return [] if alert.gone else [{"at": now, "event": "gone", "alert": alert.id}]
    last = alert.last
    row = {name: cast(Any, getattr(last, name)) for name in ("model", "kind", "title", "url", "since")}
    lasted = str(gone - (last.since or alert.opened)).partition(".")[0]
    told = {"severity": alert.severity, "text": f"It is over. It lasted {lasted}.", "alert": alert.id}
    return [row | told | {"at": now, "event": "recovered", "message": f"{alert.id}-{len(alert.messages) + 1}"}]
