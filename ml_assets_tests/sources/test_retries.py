import time

import pytest

from ml_assets.errors import SourceError
from ml_assets.sources import retries
from ml_assets.sources.retries import TransientError, with_retries


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)


def failing(times: int, error: SourceError):  # type: ignore[no-untyped-def]
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return call


def test_an_error_that_passes_is_survived_and_any_other_is_not_tried_again() -> None:
    assert with_retries(failing(2, TransientError("busy"))) == 3
    refused = failing(1, SourceError("refused"))
    with pytest.raises(SourceError, match=r"^refused$"):
        with_retries(refused)
    assert refused() == 2


def test_the_last_try_ends_with_what_was_wrong() -> None:
    with pytest.raises(SourceError, match=rf"^busy \(tried {retries.MOST_TRIES} times\)$") as caught:
        with_retries(failing(99, TransientError("busy")))
    assert not isinstance(caught.value, TransientError)


def test_a_server_is_left_alone_as_long_as_it_asks_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    with_retries(failing(1, TransientError("busy", retry_after=0.2)))
    assert time.monotonic() - begun >= 0.2
    monkeypatch.setattr(retries, "LONGEST_ASKED_WAIT", 0.1)
    with_retries(failing(1, TransientError("busy", retry_after=3600)))
    assert time.monotonic() - begun < 60
