"""The last listing of a source, kept in memory so that a tick at which nothing changed costs no listing."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_assets.durations import parse_duration
from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch, Source
from ml_assets.waits import wait_after


class ListingFailedError(SourceError):
    """A source could not be listed, perhaps not for the first time.

    Attributes:
        failures: how often in a row.
        at: when it failed last.
    """

    def __init__(self, reason: str, failures: int, at: datetime) -> None:
        super().__init__(reason)
        self.failures = failures
        self.at = at


@dataclass
class Listing:
    """Batches of a source as last listed, or why it could not be. Two sensors of one process share it."""

    source: Source
    _batches: list[Batch] | None = None
    _listed_at: datetime | None = None
    _failed: ListingFailedError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def batches(self, *, certain: bool = True) -> list[Batch]:
        """What is there now.

        Args:
            certain: list it. Otherwise the last listing will do while the source says that nothing changed since and
                the listing is not older than the spec's `list_every`; and a source that failed is left alone for a
                while. Whoever starts work asks for certainty first.

        Raises:
            ListingFailedError: if it cannot be listed.
        """
        with self._lock:
            now = datetime.now(UTC)
            if not certain and self._failed is not None and now < self._failed.at + wait_after(self._failed.failures):
                raise self._failed
            try:
                if certain or self._batches is None or self._is_old(now) or self.source.changed():
                    self._batches = None  # a listing that fails leaves nothing to rely on
                    self._batches = self.source.batches()
                    self._listed_at = now
            except SourceError as error:
                failures = self._failed.failures + 1 if self._failed else 1
                self._failed = ListingFailedError(str(error), failures, now)
                raise self._failed from error
            self._failed = None
            return self._batches

    def _is_old(self, now: datetime) -> bool:
        return self._listed_at is None or now - self._listed_at > parse_duration(self.source.spec.list_every)
