"""What the contract's checks say of a request's values: the same that keep a row out of training."""

import operator
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

from ml_assets.errors import InvalidRequestError
from ml_assets.serving.bundle import Input

_SAID: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "above": (operator.gt, "has to be above"),
    "least": (operator.ge, "has to be at least"),
    "below": (operator.lt, "has to be below"),
    "most": (operator.le, "may be at most"),
}


def require_within(values: Sequence[Any], column: Input) -> None:
    """Hold a column's values against the contract.

    Args:
        values: of the column's type; null is not judged here.

    Raises:
        InvalidRequestError: naming row, column and value of the first that the contract refuses.
    """
    bounds = column.bounds
    if bounds is None:
        return
    if bounds.allowed is not None:
        for number, value in enumerate(values):
            if value is not None and value not in bounds.allowed:
                raise _refused(number, column, value, f"not one of {', '.join(map(repr, bounds.allowed)):.500}")
    for name, (holds, said) in _SAID.items():
        limit = getattr(bounds, name)
        if limit is None:
            continue
        compared = _moment(limit, column) if isinstance(limit, str) else limit
        for number, value in enumerate(values):
            if value is not None and not holds(value, compared):
                raise _refused(number, column, value, f"and {said} {limit}")


def _moment(text: str, column: Input) -> Any:
    if column.type == "Datetime":
        return datetime.fromisoformat(text)
    return date.fromisoformat(text) if column.type == "Date" else text


def _refused(number: int, column: Input, value: Any, said: str) -> InvalidRequestError:
    shown = value.isoformat() if isinstance(value, date) else f"{value!r:.80}"
    return InvalidRequestError(f"row {number}: column {column.name!r} is {shown}, {said}")
