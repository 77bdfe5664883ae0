"""Requests that wait are scored together, and each gets its own answers or its own error."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ml_assets.errors import InvalidRequestError
from ml_assets.serving.batching import AT_ONCE, FEW, INLINE, PROVEN, SLOW, Batcher
from ml_assets.serving.scorer import Answered


class Doubling:
    """Answers each row with its double, refuses negative ones, and notes what it was asked."""

    def __init__(self, views: Any = ()) -> None:
        self.manifest = type("Manifest", (), {"views": views})
        self.asked: list[list[Any]] = []

    def answer(self, rows: list[int], looked_up: Any = None) -> Answered:
        self.asked.append(rows)
        if wrong := [number for number, row in enumerate(rows) if row < 0]:
            raise InvalidRequestError(f"row {wrong[0]}: negative")
        return Answered([{"value": 2 * row} for row in rows])


def outcomes(scorer: Doubling, requests: list[list[int]], looked_up: Any = None) -> list[Any]:
    async def all_at_once() -> list[Any]:
        batcher = Batcher(scorer)  # type: ignore[arg-type]
        asked = [batcher.predict(rows, looked_up) for rows in requests]
        done = await asyncio.gather(*asked, return_exceptions=True)
        return [each.answers if isinstance(each, Answered) else each for each in done]

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("views", [(), ("a view",)], ids=["in the event loop", "in a thread"])
def test_waiting_requests_are_scored_together(views: Any) -> None:
    scorer = Doubling(views)
    assert outcomes(scorer, [[1], [2, 3], [4]]) == [
        [{"value": 2}],
        [{"value": 4}, {"value": 6}],
        [{"value": 8}],
    ]
    assert scorer.asked == [[1, 2, 3, 4]]


def test_a_wrong_request_is_refused_by_its_own_row_and_the_others_are_answered() -> None:
    good, bad, more = outcomes(Doubling(), [[1], [2, -3], [4]])
    assert (good, more) == ([{"value": 2}], [{"value": 8}])
    assert isinstance(bad, InvalidRequestError)
    assert str(bad) == "row 1: negative"


def test_no_more_rows_than_stated_are_scored_at_once() -> None:
    scorer = Doubling()
    large = [list(range(AT_ONCE - 1)), [1, 2], list(range(2 * AT_ONCE)), [3]]
    assert [len(each) for each in outcomes(scorer, large)] == [AT_ONCE - 1, 2, 2 * AT_ONCE, 1]
    assert [len(each) for each in scorer.asked] == [AT_ONCE - 1, 2, 2 * AT_ONCE, 1]


def test_what_was_looked_up_before_is_asked_alone() -> None:
    scorer = Doubling()
    outcomes(scorer, [[1], [2]], looked_up=[{}])
    assert scorer.asked == [[1], [2]]


def test_who_gives_up_waits_no_longer_and_holds_up_nobody() -> None:
    scorer = Doubling()

    async def given_up() -> Answered:
        batcher = Batcher(scorer)  # type: ignore[arg-type]
        first = asyncio.ensure_future(batcher.predict([1]))
        second = asyncio.ensure_future(batcher.predict([2]))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(given_up()).answers == [{"value": 4}]


def test_a_failure_of_ours_reaches_the_caller_and_the_next_is_answered() -> None:
    scorer = Doubling()
    broken: Callable[..., Answered] = scorer.answer

    async def both() -> tuple[Any, Answered]:
        batcher = Batcher(scorer)  # type: ignore[arg-type]
        scorer.answer = lambda rows, looked_up=None: 1 / 0  # type: ignore[assignment, return-value, method-assign]
        failed = await asyncio.gather(batcher.predict([1] * (INLINE + 1)), return_exceptions=True)
        scorer.answer = broken  # type: ignore[method-assign]
        return failed[0], await batcher.predict([2])

    failed, answered = asyncio.run(both())
    assert isinstance(failed, ZeroDivisionError)
    assert answered.answers == [{"value": 4}]


def test_a_failure_of_ours_among_several_reaches_its_own_caller_alone() -> None:
    scorer = Doubling()
    honest = scorer.answer
    scorer.answer = lambda rows, looked_up=None: 1 / 0 if 13 in rows else honest(rows)  # type: ignore[assignment, return-value, method-assign]
    first, failed, last = outcomes(scorer, [[1], [13], [2]])
    assert (first, last) == ([{"value": 2}], [{"value": 4}])
    assert isinstance(failed, ZeroDivisionError)


def test_a_challenger_comes_into_the_event_loop_once_it_was_quick_and_leaves_it_when_it_is_slow() -> None:
    scorer, threads = Doubling(), list[bool]()
    honest = scorer.answer

    def answer(rows: list[int], looked_up: Any = None) -> Answered:
        threads.append(threading.current_thread() is not threading.main_thread())
        if rows == [13]:
            time.sleep(SLOW)
        return honest(rows)

    scorer.answer = answer  # type: ignore[method-assign]

    async def one_by_one() -> None:
        batcher = Batcher(scorer, apart=True)  # type: ignore[arg-type]
        for row in [*[1] * (PROVEN + 5), *[13] * FEW, 1]:
            await batcher.predict([row])

    asyncio.run(one_by_one())
    assert threads[:PROVEN] == [True] * PROVEN
    assert threads[PROVEN:-1] == [False] * (5 + FEW)
    assert threads[-1], "it was slow too often"
