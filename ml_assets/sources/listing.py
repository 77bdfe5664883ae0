"""The last listing of a source, kept in memory so that a tick at which nothing changed costs no listing."""

import threading
import time
from dataclasses import dataclass, field

from ml_assets.durations import parse_duration
from ml_assets.sources.batch import Batch, Source


@dataclass
class Listing:
    """Batches of a source as last listed. Two sensors of one process share it."""

    source: Source
    _batches: list[Batch] | None = None
    _listed_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def batches(self, *, certain: bool = True) -> list[Batch]:
        """What is there now.

        Args:
            certain: list it. Otherwise the last listing will do while the source says that nothing changed since and
                the listing is not older than the spec's `list_every`. Whoever starts work asks for certainty first.
        """
        with self._lock:
            if certain or self._batches is None or self._is_old() or self.source.changed():
                self._batches = None  # a listing that fails leaves nothing to rely on
                listed_at = time.monotonic()
                self._batches = self.source.batches()
                self._listed_at = listed_at
            return self._batches

    def _is_old(self) -> bool:
        return time.monotonic() - self._listed_at > parse_duration(self.source.spec.list_every).total_seconds()
