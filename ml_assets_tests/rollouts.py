"""A target of rollouts in memory, a journal and a registry, all of which die where they are told to."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from ml_assets.deployment.rollout import State
from ml_assets.deployment.targets import Described, Histogram, Observation, Release, Side
from ml_assets.errors import TargetError, TargetUnavailableError

START = datetime(2026, 1, 1, tzinfo=UTC)
EDGES = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Killed(BaseException):
    """The process died."""


class Chaos:
    """Dies at the given moments, counted from when it is armed; there is one before and one after each effect."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.moment = 0

    def arm(self, at: Sequence[int]) -> None:
        self.at, self.moment = sorted(at), 0

    def here(self) -> None:
        self.moment += 1
        if self.at and self.moment == self.at[0]:
            self.at.pop(0)
            raise Killed


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)


def histogram(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return Histogram(edges, tuple(counts.tolist()))


def side(
    requests: int, random: np.random.Generator, *, errors: float = 0.0, shift: float = 0.0, slower: float = 0.0
) -> Side:
    """So many requests, with scores around a third, answered in about 3 ms."""
    failed = int(random.binomial(requests, errors))
    scores = np.clip(random.beta(2, 4, requests - failed) + shift, 0, 1)
    latency = random.gamma(3, 0.001, requests - failed) + slower
    return Side(
        requests,
        errors=failed,
        latency=histogram(latency, SECONDS),
        scores={"score": histogram(scores, EDGES)},
    )


@dataclass
class MemoryTarget:
    """What a target does, at once and in memory.

    Attributes:
        approved: releases that were ever approved; none other may be loaded.
        refuses: releases that it does not take.
        asked: all that it was asked to do.
    """

    clock: Clock
    chaos: Chaos = field(default_factory=Chaos)
    described: Described = field(default_factory=Described)
    approved: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    unavailable: int = 0
    champion: Side = field(default_factory=Side)
    challenger: Side = field(default_factory=Side)
    asked: list[str] = field(default_factory=list)

    def _set(self, said: str, release: Release | None, described: Described) -> None:
        self.chaos.here()
        if self.unavailable:
            self.unavailable -= 1
            raise TargetUnavailableError("throttled")
        if release is not None:
            assert release.name in self.approved, f"{release.name} was never approved"
            if release.name in self.refuses and said != "rollback":
                raise TargetError(f"{release.name} answers its golden rows otherwise")
        self.asked.append(f"{said} {release.name if release else None}")
        self.described = replace(described, since=self.clock())
        self.chaos.here()

    def stage(self, release: Release) -> None:
        self._set("stage", release, Described(self.described.stable, release.name, ready=True))

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        if self.described.challenger != release.name:
            raise TargetError(f"{release.name} is not staged")
        stable = self.described.stable
        self._set(f"shift {weight}", release, Described(stable, release.name, weight, shadow, True, salt))

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        self.chaos.here()
        return Observation(self.champion, self.challenger, shadow)

    def promote(self, release: Release) -> None:
        self._set("promote", release, Described(release.name, ready=True))

    def rollback(self, champion: Release | None) -> None:
        self._set("rollback", champion, Described(champion.name if champion else None))

    def describe(self) -> Described:
        self.chaos.here()
        return self.described

    def tidy(self) -> None:
        self.chaos.here()


@dataclass
class MemoryRegistry:
    chaos: Chaos = field(default_factory=Chaos)
    alias: str | None = None

    def champion(self) -> str | None:
        return self.alias

    def set_champion(self, version: str | None) -> None:
        self.chaos.here()
        self.alias = version
        self.chaos.here()


@dataclass
class MemoryJournal:
    chaos: Chaos = field(default_factory=Chaos)
    kept: list[State] = field(default_factory=list)

    def states(self) -> Sequence[State]:
        return list(self.kept)

    def append(self, state: State) -> None:
        self.chaos.here()
        self.kept.append(state)
        self.chaos.here()


def release(number: int) -> Release:
    return Release.named(f"{number}-{number:012x}")
