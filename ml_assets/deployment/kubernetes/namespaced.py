"""What all kinds of targets have of one model in a namespace."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from ml_assets.deployment.kubernetes.cluster import Cluster, Item
from ml_assets.deployment.kubernetes.counts import Counted, count, observation
from ml_assets.deployment.kubernetes.manifests import budget, network_policy
from ml_assets.deployment.kubernetes.names import base_of, own
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.record import Record
from ml_assets.deployment.targets import Observation


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Namespaced:
    """One model in a namespace.

    Attributes:
        releases: folder of releases here, by which pods know the bytes that were approved.
        key: that the servers ask for.
    """

    place: KubernetesPlace
    model: str
    releases: Path
    key: str | None = field(default=None, repr=False)
    now: Callable[[], datetime] = field(default=_now, repr=False)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster, asked for the first time when it is needed."""
        return Cluster(self.place)

    @property
    def base(self) -> str:
        """What the model's objects are called."""
        return base_of(self.model)

    def pods(self) -> list[Item]:
        """All pods of the model."""
        return self.cluster.all("Pod", own(self.base))

    def counted(self) -> list[Counted]:
        """What they have counted."""
        return count(self.cluster, self.pods(), self.key)

    def observed(self, record: Record, *, shadow: bool) -> Observation:
        """Both sides since the step began, which is since what the record says that pods had counted by then."""
        return observation(self.counted(), record.counted, record.stable, record.challenger, shadow=shadow)

    def surround(self) -> None:
        """Apply what pods need around them."""
        for manifest in (network_policy(self.place, self.base), budget(self.base)):
            self.cluster.apply(manifest, self.base)

    def drop_all(self, kind: str) -> None:
        """Delete all objects of a kind that are the model's."""
        for item in self.cluster.all(kind, own(self.base)):
            self.cluster.delete(kind, item)
