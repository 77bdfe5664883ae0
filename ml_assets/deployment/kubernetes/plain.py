"""Plain Deployments behind one Service, whose replicas carry the weights.

Each release has a Deployment of its own, called by its name: what runs is never turned into something else, and what is
applied twice changes nothing. The Service finds the pods that are labelled to have traffic, and spreads *connections*
evenly among them; so a challenger has the share that its replicas have. With n replicas that share comes in steps of
1/n, and is at least one of them: `Described.share` says what it really is.

What adds is brought about first and recorded then; what takes away is done first as well. So a crash between any two
calls leaves something that `describe` tells from what was wanted, and that the same call finishes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ml_assets.deployment.kubernetes.cluster import Item
from ml_assets.deployment.kubernetes.manifests import (
    autoscaler,
    deployment,
    service,
)
from ml_assets.deployment.kubernetes.names import RELEASE, TRAFFIC, own, require_name
from ml_assets.deployment.kubernetes.namespaced import Namespaced
from ml_assets.deployment.kubernetes.pods import Packed
from ml_assets.deployment.kubernetes.reasons import refusal_of
from ml_assets.deployment.kubernetes.record import Record
from ml_assets.deployment.targets import Described, Observation, Refusal, Release
from ml_assets.errors import TargetError

DELETED = ("HorizontalPodAutoscaler", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service")  # in this order


@dataclass(frozen=True)
class Fleet:
    """The Deployment of a release, as it is now.

    Attributes:
        traffic: whether its pods are to have any.
        wanted: replicas.
        available: of them ready.
        rolling: whether pods of what was applied last are still to come up for the first time.
        failed: why they are given up; empty if they are not.
    """

    item: Item
    release: str
    traffic: bool
    wanted: int
    available: int
    complete: bool
    rolling: bool
    failed: str

    @classmethod
    def of(cls, item: Item) -> "Fleet":
        spec, status = item["spec"], item.get("status", {})
        wanted = spec.get("replicas", 1)
        seen = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        progress = conditions.get("Progressing", {})
        failed = progress.get("message", "") or "no progress" if seen and progress.get("status") == "False" else ""
        return cls(
            item,
            item["metadata"]["labels"][RELEASE],
            spec["template"]["metadata"]["labels"].get(TRAFFIC) == "yes",
            wanted,
            available,
            complete=seen and updated == available == status.get("replicas", 0) == wanted,
            # Pods that are lost later do not change this reason, so that they hold up no rollback.
            rolling=not failed and not (seen and progress.get("reason") == "NewReplicaSetAvailable"),
            failed=failed,
        )

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.complete or bool(self.failed)


@dataclass(frozen=True)
class Found:
    """All that is there of a model.

    Attributes:
        fleets: by release.
    """

    record: Record
    fleets: dict[str, Fleet]

    def others(self, *kept: str | None) -> list[Fleet]:
        return [fleet for name, fleet in self.fleets.items() if name not in kept]


def shares(total: int, weight: int) -> tuple[int, int]:
    """Replicas of challenger and champion whose share comes closest to a weight in percent; each has one at least.

    >>> shares(4, 5), shares(4, 40), shares(20, 5), shares(1, 50)
    ((1, 3), (2, 2), (1, 19), (1, 1))
    """
    challenger = max(1, min(round(total * weight / 100), total - 1))
    return challenger, max(1, total - challenger)


class PlainTarget(Namespaced):
    """One model behind a plain Service."""

    @property
    def address(self) -> str:
        return f"http://{self.base}.{self.place.namespace}.svc/models/{self.model}/predict"

    def stage(self, release: Release) -> None:
        require_name(release)
        found = self._look()
        record = found.record
        if record.stable == release.name and release.name in found.fleets:
            return
        self.surround()
        self._write(record)
        self._drop(found.others(record.stable, release.name))
        self._deploy(release, traffic=False, replicas=1)
        if (record.challenger, record.weight) != (release.name, 0):
            self._write(Record(record.stable, release.name, since=self.now()))
        self._wait(lambda fleets: _of(fleets, release.name, lambda each: each.settled))

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        if shadow:
            raise TargetError(
                "plain Services cannot copy requests, so there is no shadow step; leave 0 out of the steps, or let "
                "Seldon Core split the traffic (kind: seldon)"
            )
        found = self._look()
        record = found.record
        champion = found.fleets.get(record.stable or "")
        if record.challenger != release.name or release.name not in found.fleets or champion is None:
            raise TargetError(f"{release.name} is not staged beside a release that serves; {self.base} holds {record}")
        total = record.replicas or max(self.place.replicas, champion.wanted)
        ours, theirs = shares(total, weight)
        if record.replicas != total:  # or who is killed would not know any more how many there were
            record = replace(record, replicas=total)
            self._write(record)
        self.drop_all("HorizontalPodAutoscaler")  # it would move the weights
        self._deploy(release, traffic=True, replicas=ours)
        if not self._wait(lambda fleets: _of(fleets, release.name, lambda each: each.traffic and each.settled)):
            return
        self.cluster.scale(champion.item["metadata"]["name"], theirs)
        if not self._wait(
            lambda fleets: (
                _of(fleets, release.name, lambda each: each.complete and each.wanted == ours)
                and _of(fleets, record.stable, lambda each: each.complete and each.wanted == theirs)
            )
        ):
            return
        self._write(record.step(self.counted(), self.now(), weight=weight))

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        return self.observed(self._look().record, shadow=shadow)

    def promote(self, release: Release) -> None:
        require_name(release)
        found = self._look()
        total = self._total(found)
        self.surround()
        self._write(found.record)
        self.drop_all("HorizontalPodAutoscaler")
        self._deploy(release, traffic=True, replicas=total)
        ready = self._wait(lambda fleets: _of(fleets, release.name, lambda each: each.traffic and each.settled))
        fleet = self._look().fleets.get(release.name)
        if ready and fleet is not None and fleet.complete:
            self._give_all(release)

    def rollback(self, champion: Release | None) -> None:
        if champion is None:
            for kind in DELETED:
                self.drop_all(kind)
            return
        require_name(champion)
        found = self._look()
        fleet = found.fleets.get(champion.name)
        self.drop_all("HorizontalPodAutoscaler")
        if fleet is not None and fleet.traffic:
            # What serves is not applied anew: it is to take over at once, whatever the settings have become.
            self._scale(fleet, self._total(found))
        else:
            self.surround()
            self._write(found.record)
            self._deploy(champion, traffic=True, replicas=self._total(found))
        if fleet is None or not fleet.traffic or not fleet.available:
            self._wait(lambda fleets: _of(fleets, champion.name, lambda each: bool(each.available or each.failed)))
            fleet = self._look().fleets.get(champion.name)
        if fleet is not None and fleet.available:
            self._give_all(champion)

    def describe(self) -> Described:
        found = self._look()
        record = found.record
        stable = found.fleets.get(record.stable or "")
        # Pods that have traffic without being recorded are of a call that was cut off.
        beside = [each for each in found.others(record.stable) if each.traffic or each.release == record.challenger]
        challenger = max(beside, key=lambda each: each.release == record.challenger, default=None)
        weight, share = 0, None
        if challenger is not None and challenger.traffic:
            answering = challenger.available + (stable.available if stable else 0)
            share = 100 * challenger.available / answering if answering else 0.0
            weight = record.weight if challenger.release == record.challenger else max(1, round(share))
            weight = weight if challenger.wanted else 0
        looked_at = challenger or stable
        there = [each for each in (stable, challenger) if each is not None]
        refused = self._refused(there)
        return Described(
            stable.release if stable and stable.traffic else None,
            challenger.release if challenger else None,
            weight,
            ready=looked_at is not None and looked_at.complete and looked_at.wanted > 0,
            since=record.since,
            busy=any(each.rolling and each.release not in refused for each in there),
            refused=refused,
            share=share,
        )

    def tidy(self) -> None:
        found = self._look()
        self._drop(found.others(found.record.stable))
        if (serves := found.fleets.get(found.record.stable or "")) is not None:
            self._scale_by_itself(Release.named(serves.release))

    def _look(self) -> Found:
        record = Record.of(self.cluster.get("Service", self.base))
        fleets = map(Fleet.of, self.cluster.all("Deployment", own(self.base)))
        return Found(record, {each.release: each for each in fleets})

    def _wait(self, done: Callable[[Sequence[Fleet]], bool]) -> bool:
        return self.cluster.wait("Deployment", own(self.base), lambda items: done([Fleet.of(each) for each in items]))

    def _total(self, found: Found) -> int:
        """Replicas of the model: as many as there were, if an autoscaler has made them more."""
        serves = found.fleets.get(found.record.stable or "")
        return found.record.replicas or max(self.place.replicas, serves.wanted if serves else 0)

    def _deploy(self, release: Release, *, traffic: bool, replicas: int) -> None:
        packed = Packed.of(self.releases, self.model, release)
        applied = self.cluster.apply(deployment(self.place, self.model, self.base, packed, traffic=traffic), self.base)
        self._scale(Fleet.of(applied), replicas)

    def _scale(self, fleet: Fleet, replicas: int) -> None:
        if fleet.wanted != replicas:
            self.cluster.scale(fleet.item["metadata"]["name"], replicas)

    def _write(self, record: Record) -> None:
        self.cluster.apply(service(self.model, self.base, record.to_annotations()), self.base)

    def _give_all(self, release: Release) -> None:
        """All traffic to a release whose pods are there."""
        self._drop(self._look().others(release.name))
        self._write(Record(release.name, since=self.now()))
        self._scale_by_itself(release)

    def _scale_by_itself(self, release: Release) -> None:
        if self.place.most_replicas is None:
            self.drop_all("HorizontalPodAutoscaler")
        else:
            self.cluster.apply(autoscaler(self.place, self.base, release), self.base)

    def _drop(self, fleets: Sequence[Fleet]) -> None:
        for each in fleets:
            self.cluster.delete("Deployment", each.item)

    def _refused(self, fleets: Sequence[Fleet]) -> dict[str, Refusal]:
        """Why pods do not come up, of releases that are given up or that their server refuses."""
        waiting = [each for each in fleets if not each.complete]
        pods = self.pods() if waiting else []
        found = {}
        for each in waiting:
            own_pods = [pod for pod in pods if pod["metadata"]["labels"].get(RELEASE) == each.release]
            if reason := refusal_of(self.cluster, own_pods, each.failed):
                began = datetime.fromisoformat(each.item["metadata"]["creationTimestamp"])
                found[each.release] = Refusal(reason, began)
        return found


def _of(fleets: Sequence[Fleet], release: str | None, is_so: Callable[[Fleet], bool]) -> bool:
    """Whether a release is there and is so."""
    return any(each.release == release and is_so(each) for each in fleets)
