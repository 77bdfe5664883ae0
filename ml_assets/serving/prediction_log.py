"""What the server was asked and answered, written by a thread beside it: a bounded queue, drained many entries a time.

By default a request never waits for the disk, and what finds no room in the queue, or no disk, is counted as lost: at
`/metrics` and `/health`, in the log, and in the files, whose entries are numbered. With `durable` an answer is sent
only once its entry is on the disk; requests that wait meanwhile share one fsync.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ml_assets.errors import MlAssetsError
from ml_assets.serving.journal import Entry, Writing, encode

MOST_ENTRIES = 10_000  # that wait for the disk: what a kill -9 may take with it by default
MOST_BYTES = 64 * 2**20  # of all of them, whichever is reached first; a single larger one finds room in an empty queue
# Seconds between two looks at the queue. While requests come, so often that each look is short: the event loop has to
# wait for the GIL meanwhile.
INTERVAL, QUIET_INTERVAL = 0.01, 0.2
SEGMENT_BYTES = 64 * 2**20
SEGMENT_SECONDS = 15 * 60.0
RETRY_SECONDS = 1.0  # for which a disk that failed is left alone
SAY_SECONDS = 60.0  # between two lines about losses
STOP_SECONDS = 30.0
_DAY = 86_400_000_000  # microseconds

_log = logging.getLogger("ml_assets.serving")


class NotLoggedError(MlAssetsError):
    """A prediction that could not be logged, where none may be answered without."""

    status = 503


class _Waiting(NamedTuple):
    model: str
    day: int
    entry: bytes
    done: "asyncio.Future[None] | None"


class PredictionLog:
    """The log of one server. Entries come from its event loop alone; `start` and `close` frame its life.

    Args:
        folder: of the journals; each model has a folder in it.
        durable: an answer waits for its entry.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        most_entries: int = MOST_ENTRIES,
        most_bytes: int = MOST_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self.folder, self.durable = folder, durable
        self._most_entries, self._most_bytes = most_entries, most_bytes
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._queue: deque[_Waiting] = deque()
        # Each counter is written by one thread alone, so that none needs a lock.
        self._came, self._came_bytes = 0, 0  # event loop
        self._dropped: Counter[str] = Counter()  # event loop
        self._left, self._left_bytes = 0, 0  # writer
        self._logged: Counter[str] = Counter()  # writer
        self._failed: Counter[str] = Counter()  # writer
        self._told: Counter[str] = Counter()  # writer: losses that the files know of
        self._open: dict[tuple[str, int], Writing] = {}
        self._error, self._again = "", 0.0
        self._said, self._said_at = 0, -SAY_SECONDS
        self._wake, self._stop = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    @property
    def waiting(self) -> int:
        """Entries that are not on their way to the disk yet."""
        return self._came - self._left

    @property
    def logged(self) -> dict[str, int]:
        """Entries written, by model."""
        return dict(self._logged)

    @property
    def lost(self) -> dict[str, int]:
        """Entries that found no room or no disk, by model."""
        models = {*list(self._dropped), *list(self._failed)}  # the other thread may add to either
        return {model: self._dropped[model] + self._failed[model] for model in models}

    def health(self) -> dict[str, Any]:
        """How the log is doing, for `/health`."""
        lost, error = self.lost, self._error
        said: dict[str, Any] = {
            "mode": "fsync" if self.durable else "on",
            "waiting": self.waiting,
            "logged": sum(self._logged.values()),
            "lost": sum(lost.values()),
        }
        return said | ({"error": error} if error else {})

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and finish the segments."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def append(self, model: str, entry: Entry) -> bool:
        """Hand over an entry; whether there was room for it. To be called in the event loop."""
        return self._put(model, entry, None)

    async def append_durably(self, model: str, entry: Entry) -> None:
        """Hand over an entry and wait until it is on the disk.

        Raises:
            NotLoggedError: if it may not be, or if there is no room for it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._put(model, entry, done):
            raise NotLoggedError("the prediction log is full, and no prediction is answered without being logged")
        self._wake.set()
        await done

    def _put(self, model: str, entry: Entry, done: "asyncio.Future[None] | None") -> bool:
        encoded = encode(entry)
        waiting, size = self._came - self._left, self._came_bytes - self._left_bytes
        if waiting and (waiting >= self._most_entries or size + len(encoded) > self._most_bytes):
            self._dropped[model] += 1
            return False
        self._came += 1
        self._came_bytes += len(encoded)
        self._queue.append(_Waiting(model, entry.at // _DAY, encoded, done))
        if waiting == self._most_entries // 2:
            self._wake.set()
        return True

    def _run(self) -> None:
        busy = False
        while not (self._stop and not self._queue):
            self._wake.wait(INTERVAL if busy else QUIET_INTERVAL)
            self._wake.clear()
            busy = self._drain()
            self._rotate(lambda each: time.monotonic() - each.opened >= self._segment_seconds)
            self._say()
        self._rotate(lambda each: True)

    def _drain(self) -> bool:
        """Write what waits now; whether anything did."""
        grouped: dict[tuple[str, int], list[_Waiting]] = {}
        for _ in range(len(self._queue)):
            each = self._queue.popleft()
            grouped.setdefault((each.model, each.day), []).append(each)
        for place, some in grouped.items():
            error = self._write(place, some)
            self._left += len(some)
            self._left_bytes += sum(len(each.entry) for each in some)
            _tell(some, error)
        return bool(grouped)

    def _write(self, place: tuple[str, int], some: Sequence[_Waiting]) -> OSError | None:
        """Write some entries of one model and day; what went wrong, if anything did."""
        model, now = place[0], time.monotonic()
        segment: Writing | None = None
        try:
            if now < self._again:
                raise OSError(self._error)
            segment = self._open.get(place)
            if segment is None or segment.size >= self._segment_bytes:
                self._rotate(lambda each: each is segment)
                day = str(date(1970, 1, 1) + timedelta(days=place[1]))
                segment = self._open[place] = Writing(self.folder / model, day, now, durable=self.durable)
            lost = self._untold(model)
            segment.write([each.entry for each in some], lost)
            self._told[model] += lost
            if self.durable:
                segment.sync()
        except OSError as error:
            self._failed[model] += len(some)
            if now >= self._again:
                self._error, self._again = str(error), now + RETRY_SECONDS
            if segment is not None and self._open.pop(place, None) is not None:
                segment.abandon()
            return error
        self._logged[model] += len(some)
        self._error = ""
        return None

    def _untold(self, model: str) -> int:
        return self._dropped[model] + self._failed[model] - self._told[model]

    def _rotate(self, finished: Callable[[Writing], bool]) -> None:
        """Close segments, with what was lost since their last frame."""
        for place, segment in list(self._open.items()):
            if finished(segment):
                del self._open[place]
                lost = self._untold(place[0])
                try:
                    segment.close(lost)
                    self._told[place[0]] += lost
                except OSError as error:
                    self._error = str(error)

    def _say(self) -> None:
        """A line about losses, now and then."""
        lost, now = sum(self.lost.values()), time.monotonic()
        if lost > self._said and now >= self._said_at + SAY_SECONDS:
            why = f"the disk says: {self._error}" if self._error else "the queue was full"
            _log.error("prediction log: %d requests more were not logged (%s)", lost - self._said, why)
            self._said, self._said_at = lost, now


def _tell(some: Sequence[_Waiting], error: OSError | None) -> None:
    """Let requests that wait for their entries go on; all of them at once, in their event loop."""
    waiting = [each.done for each in some if each.done is not None]
    if waiting:
        waiting[0].get_loop().call_soon_threadsafe(_settle, waiting, error)


def _settle(waiting: "Sequence[asyncio.Future[None]]", error: OSError | None) -> None:
    for each in waiting:
        if each.done():
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(
                NotLoggedError(f"the prediction log cannot be written ({error}), and no prediction is answered without")
            )


def now_in_microseconds() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000
