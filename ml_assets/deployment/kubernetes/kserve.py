"""KServe: one InferenceService in serverless mode, whose Knative revisions are the releases.

What is applied last is the challenger, with a share of the traffic (`canaryTrafficPercent`); the rest goes to the
revision that had all of it last. KServe keeps only those two. Without a share, all goes to what was applied last as
soon as its pods are ready. Only the serverless mode splits so: in the raw mode a staged challenger would replace the
champion.

KServe hands the labels and annotations of an InferenceService on to its pods, so that a changed one makes a new
revision. So those never change, and the record lies in a ConfigMap beside it. The status does not tell which generation
of the object it means; what a revision is, is told by its pods. A first release answers as soon as it is staged.

A champion that comes back is a new revision of its own: the old one has all traffic until its pods are ready.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ml_assets.deployment.kubernetes.cluster import Item
from ml_assets.deployment.kubernetes.counts import answers
from ml_assets.deployment.kubernetes.knative import knative_spec
from ml_assets.deployment.kubernetes.manifests import PROGRESS
from ml_assets.deployment.kubernetes.names import MODEL, RELEASE, labels_of, own, require_name
from ml_assets.deployment.kubernetes.namespaced import Namespaced
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import Packed, pod_labels
from ml_assets.deployment.kubernetes.reasons import refusal_of
from ml_assets.deployment.kubernetes.record import Record
from ml_assets.deployment.targets import Described, Observation, Refusal, Release
from ml_assets.errors import TargetError

KIND = "InferenceService"
SHARE = "canaryTrafficPercent"
REVISION = "serving.knative.dev/revision"
RAW = ("RawDeployment", "Standard")  # names of the raw mode, before and since KServe 0.16


def predictor(place: KubernetesPlace, model: str, base: str, packed: Packed) -> dict[str, Any]:
    """The predictor of a release, without its share of the traffic."""
    return {
        "labels": pod_labels(base, packed.release),
        "annotations": {RELEASE: packed.release.name, "ml-assets/archive-sha256": packed.digest},
        # Never none: a model that has to be fetched and started keeps its caller waiting.
        "minReplicas": place.replicas,
        "maxReplicas": place.most_replicas or place.replicas,
    } | knative_spec(place, model, packed)


def inference_service(model: str, base: str, predictor: dict[str, Any]) -> dict[str, Any]:
    """The object with this predictor."""
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": KIND,
        "metadata": {
            "name": base,
            "labels": labels_of(base),
            # Since 0.16 the mode is called Knative, and known by this name as well.
            "annotations": {MODEL: model, "serving.kserve.io/deploymentMode": "Serverless"},
        },
        "spec": {"predictor": predictor},
    }


def kept(model: str, base: str, record: Record) -> dict[str, Any]:
    """The ConfigMap that keeps the record."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": base,
            "labels": labels_of(base),
            "annotations": {MODEL: model} | record.to_annotations(),
        },
    }


@dataclass(frozen=True)
class Seen:
    """An InferenceService as it is.

    Attributes:
        applied: the release that was applied last.
        newest: the release of the newest revision.
        up: whether its pods answer.
        full: whether it had all traffic last.
        shares: of the traffic by release, in percent, as they are; nobody's is not there.
    """

    applied: str
    newest: str | None
    up: bool
    full: bool
    shares: dict[str, int]

    @classmethod
    def of(cls, item: Item, pods: Sequence[Item]) -> "Seen":
        status = item.get("status", {}).get("components", {}).get("predictor", {})
        labels = [each["metadata"]["labels"] for each in pods]
        releases = {each[REVISION]: each[RELEASE] for each in labels if REVISION in each}
        shares: dict[str, int] = {}
        for each in status.get("traffic", []):
            release = releases.get(each.get("revisionName", ""))
            if release and each.get("percent"):
                shares[release] = shares.get(release, 0) + each["percent"]
        created = status.get("latestCreatedRevision")
        answering = {each["metadata"]["labels"].get(REVISION) for each in pods if answers(each)}
        up = created is not None and created == status.get("latestReadyRevision") and created in answering
        full = created is not None and created == status.get("latestRolledoutRevision")
        applied = item["spec"]["predictor"]["labels"][RELEASE]
        return cls(applied, releases.get(created), up, full, shares)

    def ready(self, release: str) -> bool:
        """Whether a release was applied last, and can have traffic."""
        return self.up and self.applied == self.newest == release


class KServeTarget(Namespaced):
    """One model as an InferenceService."""

    @property
    def address(self) -> str:
        return f"http://{self.base}.{self.place.namespace}.svc.cluster.local/models/{self.model}/predict"

    def stage(self, release: Release) -> None:
        require_name(release)
        item, record = self._look()
        if item is not None and record.stable == release.name:
            return
        self.surround()
        if (record.challenger, record.weight) != (release.name, 0):
            record = Record(record.stable, release.name, since=self.now())
        self._write(record)
        self._apply(item, release, 0 if record.stable else None)
        self._wait(lambda seen: seen.ready(release.name))

    def shift(self, release: Release, weight: int, salt: str, *, shadow: bool) -> None:
        if shadow:
            raise TargetError(
                "KServe cannot copy requests, so there is no shadow step; leave 0 out of the steps, or let Seldon Core "
                "split the traffic (kind: seldon)"
            )
        item, record = self._look()
        if record.challenger != release.name or record.stable is None or _applied(item) != release.name:
            raise TargetError(f"{release.name} is not staged beside a release that serves; {self.base} holds {record}")
        self._apply(item, release, weight)
        wanted = {record.stable: 100 - weight, release.name: weight}
        if self._wait(lambda seen: seen.ready(release.name) and seen.shares == wanted):
            self._write(record.step(self.counted(), self.now(), weight=weight))

    def observe(self, since: datetime, *, shadow: bool) -> Observation:
        return self.observed(self._look()[1], shadow=shadow)

    def promote(self, release: Release) -> None:
        require_name(release)
        item, record = self._look()
        self.surround()
        if _applied(item) != release.name:
            self._apply(item, release, 0 if record.stable else None)
        self._give_all(release)

    def rollback(self, champion: Release | None) -> None:
        if champion is None:
            for kind in (KIND, "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"):
                self.drop_all(kind)
            return
        require_name(champion)
        item, _ = self._look()
        self.surround()
        # A share of 0 gives all to the revision that had all of it last, at once. But asked of that very revision,
        # KServe takes it for a way back to the one before.
        seen = None if item is None else Seen.of(item, self.pods())
        whole = seen is None or (seen.full and champion.name in (seen.applied, seen.newest))
        self._apply(item, champion, None if whole else 0)
        self._give_all(champion)

    def describe(self) -> Described:
        item, record = self._look()
        if item is None:
            return Described()
        pods = self.pods()
        seen = Seen.of(item, pods)
        stable = record.stable
        beside = (seen.applied, *seen.shares)
        challenger = next((name for name in beside if name != stable), None)
        weight = seen.shares.get(challenger, 0) if stable and challenger else 0
        if challenger == record.challenger == seen.applied:  # as it was confirmed, be more applied by now or not
            weight = record.weight
        looked_at = challenger or stable or seen.applied
        mine = [pod for pod in pods if pod["metadata"]["labels"].get(RELEASE) == looked_at]
        ready = seen.ready(looked_at) if challenger else any(map(answers, mine))
        began = record.since or datetime.fromisoformat(item["metadata"]["creationTimestamp"])
        late = self.now() - began > timedelta(seconds=PROGRESS)
        refused = {}
        if not ready and (reason := refusal_of(self.cluster, mine, _failed(item) if late else "")):
            refused[looked_at] = Refusal(reason, began)
        # Who has traffic may be judged, and rolled back, while its pods come and go.
        busy = not ready and not late and not refused and not weight
        return Described(stable, challenger, weight, ready=ready, since=record.since, busy=busy, refused=refused)

    def tidy(self) -> None:
        item, record = self._look()
        if item is None or record.stable is None:
            return
        if _applied(item) != record.stable or SHARE in item["spec"]["predictor"] or record.challenger:
            self.rollback(Release.named(record.stable))

    def _look(self) -> tuple[Item | None, Record]:
        item = self.cluster.get(KIND, self.base)
        if item is None:
            return None, Record()
        if (mode := item.get("status", {}).get("deploymentMode")) in RAW:
            raise TargetError(
                f"KServe runs {KIND} {self.base} in its mode {mode}, which does not split the traffic between "
                "revisions; install Knative Serving and let KServe use it, or say kubernetes: {kind: plain}"
            )
        return item, Record.of(self.cluster.get("ConfigMap", self.base))

    def _wait(self, done: Callable[[Seen], bool]) -> bool:
        """Whether the service comes to be so, within the patience of the place."""
        return self.cluster.wait(
            KIND, own(self.base), lambda items: any(done(Seen.of(each, self.pods())) for each in items)
        )

    def _apply(self, item: Item | None, release: Release, share: int | None) -> None:
        """Apply a release with a share; one that is there already stays as it is, so that its revision does."""
        if item is not None and _applied(item) == release.name:
            found = item["spec"]["predictor"]
        else:
            found = predictor(self.place, self.model, self.base, Packed.of(self.releases, self.model, release))
        stays = {name: value for name, value in found.items() if name != SHARE}
        wanted = stays | ({} if share is None else {SHARE: share})
        self.cluster.apply(inference_service(self.model, self.base, wanted), self.base)

    def _give_all(self, release: Release) -> None:
        """All traffic to the release that was applied last, once its pods are ready."""
        if not self._wait(lambda seen: seen.ready(release.name)):
            return
        self._apply(self._look()[0], release, None)
        if self._wait(lambda seen: seen.shares == {release.name: 100}):
            self._write(Record(release.name, since=self.now()))

    def _write(self, record: Record) -> None:
        self.cluster.apply(kept(self.model, self.base, record), self.base)


def _applied(item: Item | None) -> str | None:
    return item["spec"]["predictor"]["labels"][RELEASE] if item else None


def _failed(item: Item) -> str:
    """What KServe says of a revision that does not come up."""
    conditions = {each["type"]: each for each in item.get("status", {}).get("conditions", [])}
    said = conditions.get("PredictorConfigurationReady", {}) or conditions.get("PredictorReady", {})
    return said.get("message", "") or f"no pod is ready after {PROGRESS} s"
