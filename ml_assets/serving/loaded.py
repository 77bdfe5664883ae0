"""A release that is loaded and has answered its golden rows."""

from dataclasses import dataclass

from ml_assets.serving.batching import Batcher
from ml_assets.serving.scorer import Scorer


@dataclass(frozen=True)
class Loaded:
    """One release, and since when it is loaded or serves."""

    release: str
    scorer: Scorer
    batcher: Batcher
    since: str

    @property
    def version(self) -> str:
        return self.scorer.manifest.version
