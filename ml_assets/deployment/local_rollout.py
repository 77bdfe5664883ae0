"""The local endpoint server as a target of rollouts: the traffic is split inside it, as a model's pointer file says."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.targets import Described, Observation, Refusal, Release
from ml_assets.errors import EndpointError, TargetError, TargetUnavailableError
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.pointer import Beside, By, Pointer, read_pointers, write_pointers
from ml_assets.serving.scorer import same_answer

SECONDS = 60.0  # for the server to do what the pointer says; loading a large release takes seconds


@dataclass(frozen=True)
class LocalRollout:
    """One model on the endpoint server of a state folder. The server is started when it is needed.

    The server counts since the split is as it is, in memory: if it is started again, the step has no requests yet, and
    whoever decides waits for new ones.

    Attributes:
        by: what sticks to a side, an entity or a request.
    """

    server: LocalTarget
    model: str
    by: By = "entity"

    @property
    def address(self) -> str:
        """Where the model answers; it is known once the server runs."""
        return f"{self.server.url() or ''}/models/{self.model}/predict"

    def stage(self, release: Release) -> None:
        """Load a release beside what serves and have its golden rows answered over HTTP; it gets no traffic."""
        pointer = self._pointer()
        if pointer.release == release.name:
            self._point(Pointer(release.name), lambda said: said["stable"] == release.name)
            return
        staged = Pointer(pointer.release, Beside(release.name, by=self.by))
        self._point(staged, lambda said: said["challenger"] == release.name and not (said["weight"] or said["shadow"]))
        if reason := self._golden(release.name)[1]:
            raise TargetError(f"{self.model}: {reason}")

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        """Give the staged release a share of the keys."""
        pointer = self._pointer()
        if pointer.challenger is None or pointer.challenger.release != release.name:
            raise TargetError(f"{self.model}: release {release.name} is not staged")
        beside = Beside(release.name, weight, salt, shadow, self.by)
        wanted = release.name, weight, salt, shadow
        names = "challenger", "weight", "salt", "shadow"
        self._point(Pointer(pointer.release, beside), lambda said: tuple(said[name] for name in names) == wanted)

    def promote(self, release: Release) -> None:
        """Let a release answer everything."""
        wanted = release.name, None, None
        names = "stable", "challenger", "refused"
        self._point(Pointer(release.name), lambda said: tuple(said[name] for name in names) == wanted)

    def rollback(self, champion: Release | None) -> None:
        """Let the champion answer everything, or nobody."""
        if champion is not None:
            self.promote(champion)
            return
        self._point(None, lambda said: said["stable"] is None and said["challenger"] is None)

    def describe(self) -> Described:
        """What the server says; nothing serves where it does not run.

        A challenger without traffic answers its golden rows here, so that one that was staged by whoever died then is
        proven as well.
        """
        said = self._said()
        if said is None:
            return Described()
        refused = {said["refused"]["release"]: Refusal(said["refused"]["reason"])} if said["refused"] else {}
        name = said["challenger"] or said["stable"]
        ready = name is not None
        if ready and not said["weight"] and not said["shadow"] and (reason := self._golden(name)[1]):
            ready = False
            refused[name] = Refusal(reason)
        return Described(
            stable=said["stable"],
            challenger=said["challenger"],
            weight=said["weight"],
            shadow=said["shadow"],
            ready=ready,
            salt=said["salt"],
            since=datetime.fromisoformat(said["since"]) if said["since"] else None,
            refused=refused,
        )

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        """What became of requests since the split is as it is. The challenger answers its golden rows once more."""
        said = self._said()
        if said is None or said["observed"] is None:
            raise TargetUnavailableError(f"{self.model}: the endpoint server does not split its traffic just now")
        seen = Observation.from_json(said["observed"])
        return replace(seen, challenger=replace(seen.challenger, golden=self._golden(said["challenger"])[0]))

    def tidy(self) -> None:
        """Nothing: releases stay, because logged requests are read by the release that answered them."""

    def _pointer(self) -> Pointer:
        try:
            return read_pointers(self.server.releases, self.model) or Pointer()
        except ValueError as error:
            raise TargetError(f"{self.model}: the pointer file cannot be read: {error}") from None

    def _point(self, pointer: Pointer | None, done: Callable[[dict[str, Any]], bool]) -> None:
        """Write the pointer and wait until the server says that it is so.

        Raises:
            TargetError: if it refuses a release.
            TargetUnavailableError: if it does not answer, or takes longer than `SECONDS`.
        """
        write_pointers(self.server.releases, self.model, pointer)
        try:
            self.server.start()
        except EndpointError as error:
            raise TargetUnavailableError(f"{self.model}: {error}") from error
        named = {pointer.release, pointer.challenger.release if pointer.challenger else None} if pointer else set()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            said = self._said() or _NOTHING
            if done(said):
                return
            refused = said["refused"]
            if refused and refused["release"] in named:
                raise TargetError(f"{self.model}: release {refused['release']} is refused: {refused['reason']}")
            time.sleep(0.05)
        raise TargetUnavailableError(f"{self.model}: the endpoint server did not do so in {SECONDS:.0f} s")

    def _said(self) -> dict[str, Any] | None:
        """What the server says of the model's rollout; None if it does not run."""
        try:
            answer = self.server.get(f"/models/{self.model}/rollout")
        except EndpointError as error:
            raise TargetUnavailableError(f"{self.model}: {error}") from error
        if answer is None:
            return None
        if answer.status_code == 404:
            return dict(_NOTHING)
        if answer.status_code != 200:
            kind = TargetUnavailableError if answer.status_code >= 500 else TargetError
            raise kind(f"{self.model}: the endpoint server answered {answer.status_code}: {answer.text[:500]}")
        return dict(answer.json())

    def _golden(self, name: str) -> tuple[int, str]:
        """How many golden rows a loaded release answers otherwise than recorded, over HTTP; and what is wrong with it.

        Raises:
            TargetUnavailableError: if the server does not answer, or is too busy to.
        """
        try:
            golden = msgspec.json.decode((self.server.releases / self.model / name / GOLDEN).read_bytes())
            answer = self.server.respond(self.model, golden["rows"], looked_up=golden["looked_up"], probe=name)
        except FileNotFoundError as error:
            return 0, f"{error.filename} is gone"
        except (EndpointError, OSError) as error:
            raise TargetUnavailableError(f"{self.model}: {error}") from error
        if answer.status_code in (408, 503, 504):
            raise TargetUnavailableError(f"{self.model}: the endpoint server answered {answer.status_code}")
        if answer.status_code != 200:
            return 0, f"{name} does not answer its golden rows: {answer.status_code} {answer.text[:500]}"
        said = answer.json()["predictions"]
        differ = sum(not same_answer(wanted, got) for wanted, got in zip(golden["answers"], said, strict=True))
        return differ, f"{name} answers {differ} golden rows otherwise than recorded" if differ else ""


_NOTHING: dict[str, Any] = {
    "stable": None,
    "challenger": None,
    "weight": 0,
    "shadow": False,
    "salt": "",
    "since": None,
    "refused": None,
    "observed": None,
}
