"""Seldon Core 1: one SeldonDeployment, whose predictors are the releases and whose traffic its ingress splits exactly.

Each release is a predictor called by its name, so that a promotion starts no pods: it moves traffic. Seldon's own
orchestrator is left out (`seldon.io/no-engine`): the ingress asks our server as it is. A shadow step lets the ingress
(Istio or Ambassador) copy each request to the challenger.

Seldon Core up to 1.17 is under the Apache License 2.0; from 1.18 on it is under the Business Source License 1.1.

All lies in one object, which also keeps the record: the traffic is applied first, and recorded when the pods are ready.
Pods are looked at themselves: Seldon's status tells neither which predictor is available nor which generation of the
object it means. A first release answers as soon as it is staged, since there is nobody else.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ml_assets.deployment.kubernetes.cluster import Item
from ml_assets.deployment.kubernetes.counts import answers
from ml_assets.deployment.kubernetes.manifests import BUSY, PROGRESS
from ml_assets.deployment.kubernetes.names import MODEL, RELEASE, labels_of, own, require_name
from ml_assets.deployment.kubernetes.namespaced import Namespaced
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import SERVER, Packed, pod_labels, pod_spec
from ml_assets.deployment.kubernetes.reasons import refusal_of
from ml_assets.deployment.kubernetes.record import Record
from ml_assets.deployment.targets import Described, Observation, Refusal, Release
from ml_assets.errors import TargetError

KIND = "SeldonDeployment"


def predictor(place: KubernetesPlace, model: str, base: str, packed: Packed) -> dict[str, Any]:
    """The predictor of a release, without its traffic and replicas."""
    name = predictor_name(packed.release.name)
    # Seldon's rules for Istio tell pods of predictors apart by this label.
    version = {"version": name}
    component: dict[str, Any] = {
        "metadata": {"labels": pod_labels(base, packed.release) | version},
        "spec": pod_spec(place, model, base, packed),
    }
    if place.most_replicas is not None:
        busy = {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": BUSY}}
        scaled = {"minReplicas": place.replicas, "maxReplicas": place.most_replicas, "metrics": [busy]}
        component["hpaSpec"] = scaled
    return {
        "name": name,
        "annotations": {"seldon.io/no-engine": "true"},
        "labels": {RELEASE: packed.release.name} | version,
        "componentSpecs": [component],
        "graph": {"name": SERVER, "type": "MODEL"},
    }


def predictor_name(release: str) -> str:
    """A name that begins with a letter, as the Services that Seldon makes of it have to."""
    return f"v{release}"


def seldon_deployment(model: str, base: str, predictors: list[dict[str, Any]], record: Record) -> dict[str, Any]:
    """The object with these predictors, which says that what was brought about last is `record`."""
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": KIND,
        "metadata": {
            "name": base,
            "labels": labels_of(base),
            "annotations": {MODEL: model} | record.to_annotations(),
        },
        "spec": {"predictors": predictors},
    }


class SeldonTarget(Namespaced):
    """One model as a SeldonDeployment."""

    @property
    def address(self) -> str:
        where = f"/seldon/{self.place.namespace}/{self.base}"
        return f"{where}/models/{self.model}/predict at the cluster's ingress"

    def stage(self, release: Release) -> None:
        require_name(release)
        item, record = self._look()
        if record.stable == release.name and release.name in _releases(item):
            return
        self.surround()
        if (record.challenger, record.weight, record.shadow) != (release.name, 0, False):
            record = Record(record.stable, release.name, since=self.now())
        self._apply(item, record, record)
        self._wait(release.name, 1)

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        item, record = self._look()
        if record.challenger != release.name or record.stable is None or release.name not in _releases(item):
            raise TargetError(f"{release.name} is not staged beside a release that serves; {self.base} holds {record}")
        wanted = replace(record, weight=weight, shadow=shadow)
        self._apply(item, wanted, record)
        if self._wait(release.name, _split(wanted, release.name, self.place.replicas)["replicas"]):
            item, record = self._look()
            self._apply(item, wanted, wanted.step(self.counted(), self.now()))

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        return self.observed(self._look()[1], shadow=shadow)

    def promote(self, release: Release) -> None:
        require_name(release)
        item, record = self._look()
        self.surround()
        if record.stable not in (None, release.name):
            # Its pods first: the one that serves goes when they are there.
            self._apply(item, replace(record, challenger=release.name, weight=100, shadow=False), record)
            if not self._wait(release.name, self.place.replicas):
                return
            item, record = self._look()
        alone = Record(release.name, since=self.now())
        self._apply(item, alone, alone)

    def rollback(self, champion: Release | None) -> None:
        if champion is None:
            for kind in (KIND, "PodDisruptionBudget", "NetworkPolicy"):
                self.drop_all(kind)
            return
        require_name(champion)
        item, _ = self._look()
        alone = Record(champion.name, since=self.now())
        self._apply(item, alone, alone)

    def describe(self) -> Described:
        item, record = self._look()
        there = _releases(item)
        stable = record.stable if record.stable in there else None
        challenger = next((name for name in there if name != stable), None)
        if item is None or (looked_at := challenger or stable) is None:
            return Described()
        weight, shadow = 0, False
        if challenger == record.challenger:  # as it was confirmed, be more applied by now or not
            weight, shadow = record.weight, record.shadow
        elif stable:
            weight, shadow = there[challenger or ""]["traffic"] if challenger else 0, False
        pods = [pod for pod in self.pods() if pod["metadata"]["labels"].get(RELEASE) == looked_at]
        ready = any(map(answers, pods))
        began = record.since or datetime.fromisoformat(item["metadata"]["creationTimestamp"])
        late = self.now() - began > timedelta(seconds=PROGRESS)
        refused = {}
        if not ready:
            failed = item.get("status", {}).get("description", "") or f"no pod is ready after {PROGRESS} s"
            if reason := refusal_of(self.cluster, pods, failed if late else ""):
                refused[looked_at] = Refusal(reason, began)
        # Who has traffic may be judged, and rolled back, while its pods come and go.
        busy = not ready and not late and not refused and not weight and not shadow
        return Described(stable, challenger, weight, shadow, ready, since=record.since, busy=busy, refused=refused)

    def tidy(self) -> None:
        item, record = self._look()
        if set(_releases(item)) - {record.stable} and record.stable:
            self._apply(item, replace(record, challenger=None, weight=0, shadow=False), record)

    def _look(self) -> tuple[Item | None, Record]:
        item = self.cluster.get(KIND, self.base)
        return item, Record.of(item)

    def _wait(self, release: str, pods: int) -> bool:
        """Whether so many pods of a release answer, within the patience of the place."""

        def there(items: Sequence[Item]) -> bool:
            mine = [each for each in items if each["metadata"]["labels"][RELEASE] == release]
            return sum(map(answers, mine)) >= pods

        return self.cluster.wait("Pod", own(self.base), there)

    def _apply(self, item: Item | None, wanted: Record, record: Record) -> None:
        """Apply the predictors of a record that is wanted; those that are there already stay as they are.

        Args:
            record: what is known to be brought about.
        """
        there = _releases(item)
        predictors = []
        for name in filter(None, (wanted.stable, wanted.challenger)):
            found = there.get(name) or predictor(
                self.place, self.model, self.base, Packed.of(self.releases, self.model, Release.named(name))
            )
            kept = {key: value for key, value in found.items() if key not in ("traffic", "replicas", "shadow")}
            predictors.append(kept | _split(wanted, name, self.place.replicas))
        self.cluster.apply(seldon_deployment(self.model, self.base, predictors, record), self.base)


def _split(wanted: Record, name: str, total: int) -> dict[str, Any]:
    """Traffic and replicas of a release; a shadow gets a copy of all requests, and needs as many pods."""
    if name == wanted.stable:
        return {"traffic": 100 if wanted.challenger is None else 100 - wanted.weight, "replicas": total}
    if wanted.stable is None or wanted.shadow:
        return {"traffic": 100, "replicas": total} | ({"shadow": True} if wanted.shadow else {})
    return {"traffic": wanted.weight, "replicas": max(1, math.ceil(total * wanted.weight / 100))}


def _releases(item: Item | None) -> dict[str, dict[str, Any]]:
    """The predictors by release."""
    found = item["spec"]["predictors"] if item else []
    return {each["labels"][RELEASE]: each for each in found}
