"""Requests that wait while others are scored are scored together next. Nobody waits for company."""

import asyncio
import functools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ml_assets.serving.scorer import Answered, Scorer

AT_ONCE = 256  # rows of several requests that are scored together
INLINE = 32  # rows that the event loop scores itself: quicker than a thread is told to, and short enough for others
SLOW = 0.05  # seconds of one scoring
# So many scorings with so few slow ones let a challenger into the event loop; so many slow ones send it back.
PROVEN, FEW = 20, 2


@dataclass
class _Waiting:
    """A request until it is answered.

    Attributes:
        outcome: its answers, or what is wrong with it.
        told: who is to be told of the outcome; None as long as the request comes and looks itself.
    """

    rows: list[Any]
    looked_up: Any
    outcome: Answered | Exception | None = None
    told: "asyncio.Future[None] | None" = None
    given_up: bool = False


class Batcher:
    """The requests of one release.

    Args:
        apart: whether they are scored in a thread of their own until the release has been quick for some time, so that
            one that is slow or hangs holds up no other. A thread takes milliseconds to get its turn while the event
            loop is busy: a release that always had to wait for that would look slower than it is.
    """

    def __init__(self, scorer: Scorer, *, apart: bool = False) -> None:
        self._scorer = scorer
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._executor = ThreadPoolExecutor(1, "challenger") if apart else None
        self._apart = apart
        self._slow: deque[bool] = deque(maxlen=PROVEN)
        self._began = 0.0
        # A look-up may have to wait for the store: not in the event loop.
        self._inline = 0 if scorer.manifest.views else INLINE

    @property
    def seconds(self) -> float:
        """For how long what is scored now has been scored; 0 if nothing is."""
        return time.monotonic() - self._began if self._began else 0.0

    async def predict(self, rows: list[Any], looked_up: Any = None) -> Answered:
        """As `Scorer.answer`."""
        one = _Waiting(rows, looked_up)
        self._waiting.append(one)
        try:
            await asyncio.sleep(0)  # those that came in the same turn of the event loop are there then
            if one.outcome is None:
                if not self._busy:
                    self._score_what_waits()
                if one.outcome is None:
                    one.told = asyncio.get_running_loop().create_future()
                    await one.told
        finally:
            one.given_up = one.outcome is None
        assert one.outcome is not None
        if isinstance(one.outcome, Exception):
            raise one.outcome
        return one.outcome

    def _score_what_waits(self) -> None:
        """Score what waits, as far as it goes together: here, or in a thread, which goes on with what came since."""
        while batch := self._take():
            if self._apart or sum(len(each.rows) for each in batch) > self._inline:
                self._busy, self._began = True, time.monotonic()
                loop = asyncio.get_running_loop()
                scoring = loop.run_in_executor(self._executor, _score, self._scorer, batch)
                scoring.add_done_callback(functools.partial(self._scored, batch))
                return
            began = time.monotonic()
            self._deliver(batch, _score(self._scorer, batch))
            self._took(time.monotonic() - began)

    def _scored(self, batch: list[_Waiting], done: "asyncio.Future[list[Answered | Exception]]") -> None:
        self._took(self.seconds)
        self._busy, self._began = False, 0.0
        self._deliver(batch, done.result())
        self._score_what_waits()

    def _took(self, seconds: float) -> None:
        """Let a challenger into the event loop, or send it back. One slow scoring says nothing: the machine is busy."""
        if self._executor is None:
            return
        self._slow.append(seconds >= SLOW)
        slow = sum(self._slow)
        if (slow <= FEW and len(self._slow) == PROVEN) if self._apart else slow >= FEW:
            self._apart = not self._apart
            self._slow.clear()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            each = self._waiting[0]
            if each.given_up:
                self._waiting.popleft()
                continue
            rows += len(each.rows)
            # What was looked up before goes alone: it is asked for once per release.
            if batch and (rows > AT_ONCE or each.looked_up is not None or batch[0].looked_up is not None):
                break
            batch.append(self._waiting.popleft())
        return batch

    @staticmethod
    def _deliver(batch: list[_Waiting], outcomes: list[Answered | Exception]) -> None:
        for each, outcome in zip(batch, outcomes, strict=True):
            each.outcome = outcome
            if each.told is not None and not each.told.done():
                each.told.set_result(None)


def _score(scorer: Scorer, batch: list[_Waiting]) -> list[Answered | Exception]:
    """For each request its answers, or what is wrong with it."""
    if len(batch) > 1:
        try:
            answers, beside = scorer.answer([row for each in batch for row in each.rows])
        except Exception:
            pass  # one of them is wrong: each is asked alone, and only that one is refused
        else:
            found: list[Answered | Exception] = []
            start = 0
            for each in batch:
                end = start + len(each.rows)
                found.append(Answered(answers[start:end], None if beside is None else beside[start:end]))
                start = end
            return found
    return [_alone(scorer, each) for each in batch]


def _alone(scorer: Scorer, each: _Waiting) -> Answered | Exception:
    try:
        return scorer.answer(each.rows, each.looked_up)
    except Exception as error:
        return error
