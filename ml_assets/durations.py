"""Durations as they are written in a model's YAML: `30s`, `15m`, `6h`, `1d`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

PATTERN = r"^\d+[smhd]$"
LONGEST = timedelta(days=36_500)  # dates that are so far away can still be reckoned with
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta:
    """`"6h"` → six hours.

    >>> parse_duration("6h")
    datetime.timedelta(seconds=21600)
    """
    if not re.match(PATTERN, text):
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h or d, such as 6h")
    try:
        duration = timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years; write {LONGEST.days}d at most")
    return duration


def _duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, StringConstraints(pattern=PATTERN), AfterValidator(_duration)]
