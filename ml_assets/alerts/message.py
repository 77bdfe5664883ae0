"""What people are told: conditions of one model and kind as one title and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_assets.alerts.conditions import Condition
from ml_assets.spec.operating import Severity

MOST_NAMES, MOST_LINES = 3, 20

# What a kind is called where several of it hold.
PLURALS = {
    "drift": "features have drifted",
    "scores": "scores have drifted",
    "quality": "metrics are worse than promised",
    "unknown": "features have too many unknown categories",
    "stale": "looked-up tables are too often stale or missing",
    "rejected": "reasons refuse too many requests",
    "requests": "limits of requests are broken",
    "check_failed": "checks failed",
    "run_failed": "runs failed",
}
EVENTS = {
    "opened": "",
    "worse": "now an error: ",
    "again": "again: ",
    "reminded": "still: ",
    "recovered": "recovered: ",
    "test": "",
}


@dataclass(frozen=True)
class Message:
    """Something that each channel is to be sent once.

    Attributes:
        id: by which receivers know a message that is repeated: one may be, after a crash between sending and noting.
        alert: id of the alert that it is about; all its messages have it.
        event: one of `EVENTS`.
        since: when what it is about began.
        at: when it was written.
    """

    id: str
    alert: str
    event: str
    model: str
    kind: str
    severity: Severity
    title: str
    text: str
    url: str
    since: datetime | None
    at: datetime

    @property
    def subject(self) -> str:
        """One line for people."""
        return f"{EVENTS[self.event]}{self.title}"


def title_of(conditions: Sequence[Condition]) -> str:
    """One line that says what holds.

    Args:
        conditions: of one model and kind, at least one.
    """
    first = conditions[0]
    if len(conditions) == 1:
        return _cut(f"{first.model}: {first.text}", 200)
    names = [each.thing for each in conditions]
    said = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        said += f" and {len(names) - MOST_NAMES} more"
    return _cut(f"{first.model}: {len(names)} {PLURALS.get(first.kind, first.kind)} ({said})", 200)


def text_of(conditions: Sequence[Condition]) -> str:
    """What holds, one line each."""
    lines = [_cut(f"{each.text}.", 1000) for each in conditions[:MOST_LINES]]
    if len(conditions) > MOST_LINES:
        lines.append(f"And {len(conditions) - MOST_LINES} more.")
    return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    """One line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
