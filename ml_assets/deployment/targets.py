"""What a rollout asks of a target, whatever it is: the local server, SageMaker or Kubernetes.

A target serves one model. Every call may be made again, after a crash as well, and then finishes what the first one
began; none is believed until `describe` says that it took effect.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

from ml_assets.serving.sticky import takes_challenger


@dataclass(frozen=True)
class Release:
    """What serves: a model version with its verdict, by the name of its release (`<version>-<digest>`)."""

    version: str
    name: str

    @classmethod
    def named(cls, name: str) -> Self:
        """The release of a name.

        >>> Release.named("12-ab34")
        Release(version='12', name='12-ab34')
        """
        return cls(name.partition("-")[0], name)


@dataclass(frozen=True)
class Refusal:
    """Why a target does not take a release.

    Attributes:
        at: when it was asked to; a later rollout of the same release is another attempt. None: it would still say so.
    """

    reason: str
    at: datetime | None = None


@dataclass(frozen=True)
class Described:
    """What a target serves now, by its own account. Releases are given by their names.

    Attributes:
        stable: who answers all that the challenger does not; None where nothing serves.
        challenger: who else is loaded; None where nobody is.
        weight: the challenger's share of the traffic in percent.
        shadow: whether the challenger is asked in the background about what the champion answers.
        ready: whether the challenger (who serves, if there is none) is loaded and has answered its golden rows as
            recorded.
        salt: of the split, where keys stick to a side; empty where they do not (SageMaker, Kubernetes).
        since: when this came to be, if the target knows.
        busy: whether a change is under way, during which nothing else can be asked for.
        refused: releases that it does not take, or has taken back by itself (an alarm), by name.
        share: the challenger's share that the weight comes to, where it comes in steps (replicas); None: exactly that.
    """

    stable: str | None = None
    challenger: str | None = None
    weight: int = 0
    shadow: bool = False
    ready: bool = False
    salt: str = ""
    since: datetime | None = None
    busy: bool = False
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    share: float | None = None

    def alone(self, name: str | None) -> bool:
        """Whether this release, and no other, has all traffic."""
        return self.stable == name and self.challenger is None and not self.busy

    def answers(self, key: str) -> str | None:
        """Who answers a key; None where keys do not stick, or nothing serves."""
        if self.challenger is None or not self.weight:
            return self.stable
        if not self.salt and self.weight < 100:
            return None
        return self.challenger if takes_challenger(key, self.salt, self.weight) else self.stable


@dataclass(frozen=True)
class Histogram:
    """How many values lie at or below each edge: `counts[i]` those in (edges[i - 1], edges[i]], the last ones above."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError("a histogram has rising edges, and one count more than edges")


@dataclass(frozen=True)
class Side:
    """What became of the requests that one side was given.

    Attributes:
        errors: requests that it could not answer, by its own fault (a caller's 4xx is none).
        invalid: answers that are no answers: NaN, infinite, shares out of [0, 1], unknown labels.
        golden: golden rows that it has answered otherwise than recorded.
        latency: seconds of each answer.
        scores: of answers, by name (`score`; with several classes one for each).
    """

    requests: int = 0
    errors: int = 0
    invalid: int = 0
    golden: int = 0
    latency: Histogram = Histogram()
    scores: dict[str, Histogram] = field(default_factory=dict)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        scores = {name: _histogram(each) for name, each in said["scores"].items()}
        return cls(**(said | {"latency": _histogram(said["latency"]), "scores": scores}))


@dataclass(frozen=True)
class Observation:
    """Both sides during one step. With `shadow` both have answered the same requests."""

    champion: Side
    challenger: Side
    shadow: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        return cls(Side.from_json(said["champion"]), Side.from_json(said["challenger"]), said["shadow"])


def _histogram(said: dict[str, Any]) -> Histogram:
    return Histogram(tuple(said["edges"]), tuple(said["counts"]))


class Target(Protocol):
    """Where one model serves.

    Every method raises `TargetUnavailableError` for what may be gone at the next tick (it is throttled, busy, or does
    not answer), and `TargetError` for what will not.
    """

    @property
    def address(self) -> str:
        """Where it answers, for people: a URL, if it has one."""

    def stage(self, release: Release) -> None:
        """Load a release beside what serves, let it answer its golden rows, and give it no traffic."""

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        """Give the staged release a share of the traffic in percent; the keys that the salt draws, where keys stick."""

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        """What became of requests since then."""

    def promote(self, release: Release) -> None:
        """Give a release all traffic and drop every other, whatever was there before."""

    def rollback(self, champion: Release | None) -> None:
        """Give the champion all traffic back and drop the challenger; without a champion nothing serves."""

    def describe(self) -> Described:
        """What is served now, read from the target itself."""

    def tidy(self) -> None:
        """Drop what no longer serves; called whenever no rollout is under way."""
