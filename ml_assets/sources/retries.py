"""Repeat what failed for a passing reason, with growing, random waits; never what will fail again.

A source says which of its errors pass by raising `TransientError`: time-outs, 5xx, throttling, connection resets. A
wrong password or a missing bucket is a plain `SourceError`, and is not tried again.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

from ml_assets.errors import SourceError, SourceUnavailableError

MOST_TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0  # seconds; the wait is random between 0 and this, doubled at each try
LONGEST_ASKED_WAIT = 60.0  # seconds; what a server may ask for by Retry-After

log = logging.getLogger(__name__)
T = TypeVar("T")


class TransientError(SourceError):
    """An error that may be gone at the next try.

    Attributes:
        retry_after: seconds for which the server asks to be left alone.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def with_retries(call: Callable[[], T]) -> T:
    """What `call` gives, at the first try that does not raise `TransientError`, of at most `MOST_TRIES`.

    Raises:
        SourceUnavailableError: if it was transient to the last try.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(MOST_TRIES),
        wait=_wait,
        before_sleep=_tell,
        reraise=True,
    )
    try:
        return retrying(call)
    except TransientError as error:
        raise SourceUnavailableError(f"{error} (tried {MOST_TRIES} times)") from error


def _wait(state: tenacity.RetryCallState) -> float:
    random = tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, TransientError) and error.retry_after else 0.0
    return max(random, min(asked, LONGEST_ASKED_WAIT))


def _tell(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    log.warning("try %d of %d failed: %s; next in %.1f s", state.attempt_number, MOST_TRIES, error, wait)
