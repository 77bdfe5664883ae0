"""Where in a cluster models serve, and what their pods need."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ml_assets.errors import SettingsError

Kind = Literal["plain", "seldon", "kserve"]
MOST_REPLICAS = 100  # their counts are kept in annotations, of which an object has 256 KiB

_DNS = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_QUANTITY = r"\d+(\.\d+)?(m|[kMGT]i?)?"
_HTTP = r"https?://[\w.-]+(:\d+)?(/[^\s?#]*)?"
_CLAIM = rf"pvc://{_DNS}(/[^\s?#]*)?"


@dataclass(frozen=True)
class KubernetesPlace:
    """One namespace of one cluster. Its models do not touch each other, nor anything that ml-assets did not make.

    Attributes:
        image: of the endpoint server (`deploy/docker/endpoint.Dockerfile`), with a version.
        releases: where pods find `<model>/<release>.tar.gz`, as they lie in the folder of releases: `https://...`, or
            `pvc://claim/path` for a PersistentVolumeClaim that all nodes can mount.
        secret: Secret of the namespace. `keys` holds the keys that callers send, one a line; `online_store`, if there
            is one, the address of the Redis server.
        kind: what splits the traffic: plain Services, whose replicas carry the weights, Seldon Core, or KServe.
        replicas: pods of a model; with plain Services the share of a challenger comes in steps of one of them, with
            KServe a challenger has as many as the champion.
        most_replicas: up to which they are scaled by their CPU while no rollout is under way (with KServe: by the
            requests that they answer at a time, and always); None: they are not.
        cpu, memory: what a pod asks for; it gets no more memory than that.
        context: of the kubeconfig; empty: the current one. Without any kubeconfig: the cluster that this runs in.
        online_port: of the Redis server, which pods may then reach.
        patience: seconds for which a call waits for pods; what takes longer is gone on with at the next tick.
    """

    namespace: str
    image: str
    releases: str
    secret: str
    kind: Kind = "plain"
    replicas: int = 4
    most_replicas: int | None = None
    cpu: str = "250m"
    memory: str = "512Mi"
    context: str = ""
    kubeconfig: Path | None = None
    online_port: int = 6379
    patience: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what no cluster would take.

        Raises:
            SettingsError: with everything that is wrong at once.
        """
        wrong = [f"{name}={value!r}: {why}" for name, value, why in self._wrong()]
        if wrong:
            raise SettingsError(f"Wrong settings of the Kubernetes target: {'; '.join(wrong)}")

    def _wrong(self) -> list[tuple[str, object, str]]:
        found: list[tuple[str, object, str]] = []
        for name, value in (("namespace", self.namespace), ("secret", self.secret)):
            if not re.fullmatch(_DNS, value):
                found.append((name, value, "no name of Kubernetes: lower-case letters, digits and -, 63 at most"))
        tag = self.image.rpartition("/")[2].partition("@")[2] or self.image.rpartition("/")[2].partition(":")[2]
        if re.search(r"\s", self.image) or tag in ("", "latest"):
            found.append(("image", self.image, "name one version of it, like registry/ml-assets-endpoint:1.2.0"))
        if self.releases.startswith("s3://"):
            why = "pods hold no keys of S3; mount the bucket as a claim (pvc://), or give its address as https://"
            found.append(("releases", self.releases, why))
        elif not re.fullmatch(f"{_HTTP}|{_CLAIM}", self.releases):
            why = "neither https://host/path, without user and password, nor pvc://claim/path"
            found.append(("releases", self.releases if "@" not in self.releases else "(not shown)", why))
        if self.kind not in get_args(Kind):
            found.append(("kind", self.kind, f"there are {', '.join(get_args(Kind))}"))
        if self.kind == "kserve" and self.claim:
            why = (
                "Knative, which KServe lets run the pods, mounts claims only where that was switched on; take https://"
            )
            found.append(("releases", self.releases, why))
        if not 1 <= self.replicas <= MOST_REPLICAS:
            found.append(("replicas", self.replicas, f"1 to {MOST_REPLICAS}"))
        if self.most_replicas is not None and not self.replicas <= self.most_replicas <= MOST_REPLICAS:
            found.append(("most_replicas", self.most_replicas, f"from replicas={self.replicas} to {MOST_REPLICAS}"))
        for name, value in (("cpu", self.cpu), ("memory", self.memory)):
            if not re.fullmatch(_QUANTITY, value):
                found.append((name, value, "no quantity of Kubernetes, like 250m or 512Mi"))
        if not 0 < self.online_port < 65536:
            found.append(("online_port", self.online_port, "no port"))
        return found

    @property
    def shadows(self) -> bool:
        """Whether a shadow step can be had: 0 among the steps of a rollout."""
        return self.kind == "seldon"

    @property
    def claim(self) -> tuple[str, str] | None:
        """The claim and the path in it where releases lie; None where they are fetched by HTTP."""
        if not self.releases.startswith("pvc://"):
            return None
        name, _, path = self.releases.removeprefix("pvc://").partition("/")
        return name, path.strip("/")
