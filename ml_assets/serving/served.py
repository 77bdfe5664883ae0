"""Which release of which model serves: what the pointer files say, once it is loaded and verified."""

import ctypes
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_assets.errors import InvalidRequestError, MlAssetsError
from ml_assets.serving.batching import Batcher
from ml_assets.serving.bundle import MANIFEST, POINTER
from ml_assets.serving.loaded import Loaded
from ml_assets.serving.observed import edges_of
from ml_assets.serving.online import open_online
from ml_assets.serving.pointer import Beside, Pointer, read_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets.serving.sides import Split

_log = logging.getLogger("ml_assets.serving")


class UnknownModelError(MlAssetsError):
    """No such model serves here."""

    status = 404


@dataclass(frozen=True)
class Serving(Loaded):
    """One model as it serves now.

    Attributes:
        split: who else answers or is compared; None where nobody is.
    """

    split: Split | None = None


class Served:
    """The models below a folder of releases, or the one model whose release is the folder itself.

    A new release is loaded beside the old one and takes its place between two requests; one that cannot be loaded never
    serves, and the old one goes on. A change of the traffic loads nothing.

    Attributes:
        models: what serves, by model.
        challengers: what is loaded beside it, with what the pointer says of it.
        refused: for each model the release that is pointed to and does not serve, and why.
        refused_challengers: for each model the release that is not taken as a challenger, and why.
    """

    def __init__(self, releases: Path, online: str | None, seconds: float = 30.0) -> None:
        self.releases = releases
        self.models: dict[str, Serving] = {}
        self.challengers: dict[str, tuple[Loaded, Beside]] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.refused_challengers: dict[str, dict[str, str]] = {}
        self._online = online
        self._seconds = seconds
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

    def named(self, model: str | None, release: str) -> Serving:
        """A loaded release by its name, alone, whether it serves or not.

        Raises:
            UnknownModelError: naming those that are loaded.
        """
        if model is None:
            model = self.get(None).scorer.manifest.model
        there = [each for each in (self.models.get(model), self._challenger(model)) if each is not None]
        for each in there:
            if each.release == release:
                return Serving(each.release, each.scorer, each.batcher, each.since)
        known = ", ".join(each.release for each in there) or "none"
        raise UnknownModelError(f"no release {release!r:.80} of {model!r} is loaded here; there is {known}")

    def _challenger(self, model: str) -> Loaded | None:
        return self.challengers[model][0] if model in self.challengers else None

    def refresh(self) -> None:
        """Follow the pointer files. A release that cannot be loaded is refused, once, with the reason."""
        pointed = self._pointed()
        for known in (self.models, self.challengers, self.refused, self.refused_challengers):
            for model in known.keys() - pointed.keys():
                del known[model]  # type: ignore[attr-defined]
        for model, said in pointed.items():
            if isinstance(said, str):
                self.refused[model] = {"release": "?", "reason": said}
            else:
                self._follow(model, said)
        self._looked = True

    def _follow(self, model: str, pointer: Pointer) -> None:
        champion: Loaded | None = self.models.get(model)
        if pointer.release is None:
            champion = None
            self.refused.pop(model, None)
        elif champion is None or champion.release != pointer.release:
            champion = self._take_up(model, pointer.release, self.refused) or champion
        else:
            self.refused.pop(model, None)
        beside = pointer.challenger
        challenger = self._beside(model, beside.release, champion) if beside else None
        if champion is None:
            self.models.pop(model, None)
        else:
            self._serve(model, champion, challenger, beside)
        if beside is None or challenger is None:
            self.challengers.pop(model, None)
        else:
            self.challengers[model] = challenger, beside
        if beside is None:
            self.refused_challengers.pop(model, None)

    def _beside(self, model: str, release: str, champion: Loaded | None) -> Loaded | None:
        there = self._challenger(model)
        if there is None or there.release != release:
            there = self._take_up(model, release, self.refused_challengers, beside=True)
        if there and champion and (reason := _unlike(there, champion)):
            self.refused_challengers[model] = {"release": release, "reason": reason}
            return None
        return there

    def _serve(self, model: str, champion: Loaded, challenger: Loaded | None, beside: Beside | None) -> None:
        """Let a release answer, alone or beside another one; a split that goes on keeps its counts."""
        before = self.models.get(model)
        split = before.split if before else None
        if challenger is None or beside is None or not (beside.weight or beside.shadow):
            split = None
        elif (
            split is None
            or split.said != beside
            or split.champion.release != champion.release
            or split.challenger is not challenger
        ):
            edges = edges_of(self._folder(model, champion.release), champion.scorer.manifest)
            split = Split(champion, challenger, beside, edges, self._seconds)
        if before is None or before.release != champion.release or before.split is not split:
            self.models[model] = Serving(champion.release, champion.scorer, champion.batcher, champion.since, split)

    def _take_up(
        self, model: str, release: str, refused: dict[str, dict[str, str]], *, beside: bool = False
    ) -> Loaded | None:
        """A release, loaded unless it is already; None if it is refused."""
        known = self.models.get(model) if beside else self._challenger(model)
        if refused.get(model, {}).get("release") == release:
            return None
        if known is not None and known.release == release:
            scorer = known.scorer
        else:
            folder = self._folder(model, release)
            try:
                scorer = Scorer.load(folder, open_online(self._online, model) if self._online else None)
                if scorer.manifest.model != model and folder != self.releases:
                    raise MlAssetsError(f"it is a release of {scorer.manifest.model}")
            except Exception as error:
                # Whatever is wrong with a release must not take down the models that serve.
                refused[model] = {"release": release, "reason": f"{type(error).__name__}: {error}"}
                _log.error("%s: release %s is refused: %s", model, release, refused[model]["reason"])
                return None
            give_back_memory()
        refused.pop(model, None)
        _log.info("%s: release %s %s", model, release, "is loaded as challenger" if beside else "serves")
        return Loaded(release, scorer, Batcher(scorer, apart=beside), datetime.now(UTC).isoformat())

    def _folder(self, model: str, release: str) -> Path:
        return self.releases if (self.releases / MANIFEST).exists() else self.releases / model / release

    def _pointed(self) -> dict[str, Pointer | str]:
        """What is pointed to for each model, or what is wrong with its pointer."""
        if (self.releases / MANIFEST).exists():
            return {"model": Pointer(self.releases.name)}
        found: dict[str, Pointer | str] = {}
        for path in self.releases.glob(f"*/{POINTER}"):
            model = path.parent.name
            try:
                pointer = read_pointers(self.releases, model)
            except (OSError, ValueError) as error:
                found[model] = f"{POINTER} cannot be read: {error}"
                continue
            if pointer is not None:
                found[model] = pointer
        return found

    def rollout(self, model: str) -> dict[str, Any]:
        """Who answers a model's requests, and what became of them since the split is as it is.

        Raises:
            UnknownModelError: if nothing is pointed to.
        """
        serving, beside = self.models.get(model), self.challengers.get(model)
        refused = self.refused_challengers.get(model) or self.refused.get(model)
        if serving is None and beside is None and refused is None:
            raise UnknownModelError(f"no model {model!r} serves here")
        split = serving.split if serving else None
        since = split.since.isoformat() if split else beside[0].since if beside else serving.since if serving else None
        return {
            "stable": serving.release if serving else None,
            "challenger": beside[0].release if beside else None,
            "weight": split.said.weight if split else 0,
            "shadow": split is not None and split.said.shadow,
            "salt": split.said.salt if split else "",
            "since": since,
            "refused": refused,
            "observed": split.to_json() if split else None,
        }

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
        for model, (challenger, _) in sorted(self.challengers.items()):
            if model in models:
                split = self.models[model].split
                models[model]["challenger"] = {
                    "version": challenger.version,
                    "release": challenger.release,
                    "since": split.since.isoformat() if split else challenger.since,
                    "weight": split.said.weight if split else 0,
                    "shadow": split is not None and split.said.shadow,
                }
        return {"models": models, "refused": self.refused, "refused_challengers": self.refused_challengers}


def _unlike(challenger: Loaded, champion: Loaded) -> str:
    """Why one cannot answer in the place of the other."""
    ours, theirs = challenger.scorer.manifest.task, champion.scorer.manifest.task
    return "" if ours == theirs else f"its task is {ours}, and that of {champion.release}, which serves, is {theirs}"


def give_back_memory() -> None:
    """Give back to the system what loading a release took and no longer needs: some 40 MiB for a forest.

    The C library would keep it for later. Where it cannot be told so, nothing is done.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
