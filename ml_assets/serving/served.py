"""Which release of which model serves: what the pointer files say, once it is loaded and verified."""

import ctypes
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_assets.errors import InvalidRequestError, MlAssetsError
from ml_assets.serving.batching import Batcher
from ml_assets.serving.bundle import MANIFEST, POINTER, read_pointer
from ml_assets.serving.online import open_online
from ml_assets.serving.scorer import Scorer

_log = logging.getLogger("ml_assets.serving")


class UnknownModelError(MlAssetsError):
    """No such model serves here."""

    status = 404


@dataclass(frozen=True)
class Serving:
    """One model as it serves now."""

    release: str
    scorer: Scorer
    batcher: Batcher
    since: str


class Served:
    """The models below a folder of releases, or the one model whose release is the folder itself.

    A new release is loaded beside the old one and takes its place between two requests; one that cannot be loaded never
    serves, and the old one goes on.

    Attributes:
        models: what serves, by model.
        refused: for each model the release that is pointed to and does not serve, and why.
    """

    def __init__(self, releases: Path, online: str | None) -> None:
        self.releases = releases
        self.models: dict[str, Serving] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self._online = online
        self._looked = False

    @property
    def ready(self) -> bool:
        """Whether everything that is pointed to serves, be it an older release of it."""
        return self._looked and bool(self.models) and not self.refused.keys() - self.models.keys()

    def get(self, model: str | None) -> Serving:
        """A model by its name; without one, the only model.

        Raises:
            UnknownModelError, InvalidRequestError: naming those that there are.
        """
        if model is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if model in self.models:
            return self.models[model]
        known = ", ".join(sorted(self.models)) or "none yet"
        if model is None:
            raise InvalidRequestError(f"say which model: POST /models/<model>/predict; there is {known}")
        raise UnknownModelError(f"no model {model!r} serves here; there is {known}")

    def refresh(self) -> None:
        """Follow the pointer files. A release that cannot be loaded is refused, once, with the reason."""
        pointed = self._pointed()
        for model in self.models.keys() - pointed.keys():
            del self.models[model]
        for model in self.refused.keys() - pointed.keys():
            del self.refused[model]
        for model, folder in pointed.items():
            if isinstance(folder, str):
                self.refused[model] = {"release": "?", "reason": folder}
            elif model in self.models and self.models[model].release == folder.name:
                self.refused.pop(model, None)
            elif self.refused.get(model, {}).get("release") != folder.name:
                self._take_up(model, folder)
        self._looked = True

    def _take_up(self, model: str, folder: Path) -> None:
        try:
            scorer = Scorer.load(folder, open_online(self._online, model) if self._online else None)
            if scorer.manifest.model != model and folder != self.releases:
                raise MlAssetsError(f"it is a release of {scorer.manifest.model}")
        except Exception as error:
            # Whatever is wrong with a release must not take down the models that serve.
            self.refused[model] = {"release": folder.name, "reason": f"{type(error).__name__}: {error}"}
            _log.error("%s: release %s is refused: %s", model, folder.name, self.refused[model]["reason"])
            return
        since = datetime.now(UTC).isoformat()
        give_back_memory()
        self.models[model] = Serving(folder.name, scorer, Batcher(scorer), since)
        self.refused.pop(model, None)
        _log.info("%s: release %s serves", model, folder.name)

    def _pointed(self) -> dict[str, Path | str]:
        """The release folder of each model, or what is wrong with its pointer."""
        if (self.releases / MANIFEST).exists():
            return {"model": self.releases}
        found: dict[str, Path | str] = {}
        for path in self.releases.glob(f"*/{POINTER}"):
            model = path.parent.name
            try:
                name = read_pointer(self.releases, model)
            except (OSError, ValueError, KeyError) as error:
                found[model] = f"{POINTER} cannot be read: {error}"
                continue
            if name is not None:
                found[model] = self.releases / model / name
        return found

    def health(self) -> dict[str, Any]:
        """What serves since when, and what does not and why."""
        models = {
            model: {
                "version": serving.scorer.manifest.version,
                "release": serving.release,
                "since": serving.since,
                "scorer": serving.scorer.manifest.scorer,
                "scorer_reason": serving.scorer.manifest.scorer_reason,
                "looked_up": serving.scorer.counts,
            }
            for model, serving in sorted(self.models.items())
        }
        return {"models": models, "refused": self.refused}


def give_back_memory() -> None:
    """Give back to the system what loading a release took and no longer needs: some 40 MiB for a forest.

    The C library would keep it for later. Where it cannot be told so, nothing is done.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
