"""The pods of one release: an init container brings the release, a container serves it. Whatever directs the traffic.

Nothing in them needs root, a writable image or the cluster's API. They hold no key of the storage: only the bytes that
were approved are served, by their digest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_assets.deployment.archive import pack
from ml_assets.deployment.kubernetes.names import PORT, TRAFFIC, labels_of, selected
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.targets import Release
from ml_assets.errors import TargetError
from ml_assets.serving.bundle import MANIFEST, sha256

SERVER, FETCH = "server", "fetch"
SERVERS = (SERVER, "kserve-container")  # the second name is the only one that KServe takes
USER = 10001  # of the image
RELEASES, KEYS, STATE, CLAIM = "/opt/ml/releases", "/etc/ml-assets", "/var/lib/ml-assets", "/mnt/releases"
DRAIN, GRACE = 5, 45  # seconds: for the Services to forget a pod, and then for its requests (the server's own 30)


@dataclass(frozen=True)
class Packed:
    """A release and the SHA-256 of its archive."""

    release: Release
    digest: str

    @classmethod
    def of(cls, releases: Path, model: str, release: Release) -> "Packed":
        """The archive of a release, as it lies here.

        Raises:
            TargetError: if it does not.
            ReleaseError: if it was changed.
        """
        folder = releases / model / release.name
        if not (folder / MANIFEST).exists():
            raise TargetError(f"{folder} is gone, so that nobody can say which bytes were approved; build it again")
        return cls(release, sha256(pack(folder).read_bytes()))


def pod_labels(base: str, release: Release, traffic: bool | None = None) -> dict[str, str]:
    """Labels of the pods of a release.

    Args:
        traffic: whether the model's Service is to find them; None: no Service of ours directs them.
    """
    return labels_of(base, release) | ({} if traffic is None else {TRAFFIC: "yes" if traffic else "no"})


def pod_spec(place: KubernetesPlace, model: str, base: str, packed: Packed) -> dict[str, Any]:
    """The specification of a pod that serves a release."""
    return {
        "automountServiceAccountToken": False,
        # Kubernetes would tell of a Service called ml-assets-... in variables that begin as our settings do.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selected(base)},
            }
        ],
        "initContainers": [fetch_container(place, model, packed)],
        "containers": [server_container(place)],
        "volumes": volumes_of(place),
    }


def _container(place: KubernetesPlace, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that `describe` can say why it ended
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": place.cpu, "memory": place.memory},
            # No limit of CPU: a pod that is held back in the middle of a request is slow for no reason.
            "limits": {"memory": place.memory},
        },
    }


def fetch_container(place: KubernetesPlace, model: str, packed: Packed) -> dict[str, Any]:
    """The container that brings a release."""
    file = f"{model}/{packed.release.name}.tar.gz"
    mounts = [{"name": "releases", "mountPath": RELEASES}]
    if place.claim:
        source = "/".join(filter(None, (CLAIM, place.claim[1], file)))
        mounts.append({"name": "claim", "mountPath": CLAIM, "readOnly": True})  # type: ignore[dict-item]
    else:
        source = f"{place.releases.rstrip('/')}/{file}"
    return _container(place, FETCH) | {
        "command": ["python", "-m", "ml_assets.serving.fetch"],
        "args": [source, RELEASES, model, packed.release.name, packed.digest],
        "volumeMounts": mounts,
    }


def server_container(place: KubernetesPlace) -> dict[str, Any]:
    """The container that serves it."""
    online = {"secretKeyRef": {"name": place.secret, "key": "online_store", "optional": True}}
    return _container(place, SERVER) | {
        "command": ["python", "-m", "ml_assets.serving"],
        "args": [RELEASES, str(PORT), "0.0.0.0"],
        "env": [
            {"name": "ML_ASSETS_HOME", "value": STATE},
            {"name": "ML_ASSETS_ENDPOINT_KEYS_FILE", "value": f"{KEYS}/keys"},
            # What a pod writes dies with it, and nobody would read it before.
            {"name": "ML_ASSETS_PREDICTION_LOG", "value": "off"},
            {"name": "ML_ASSETS_ONLINE_STORE", "valueFrom": online},
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/health", period=2, failures=60),
        "livenessProbe": _probe("/health", period=10, failures=3),
        # Ready means: the release is loaded, and its golden rows are answered as recorded.
        "readinessProbe": _probe("/ready", period=2, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-c", f"import time; time.sleep({DRAIN})"]}}},
        "volumeMounts": [
            {"name": "releases", "mountPath": RELEASES, "readOnly": True},
            {"name": "keys", "mountPath": KEYS, "readOnly": True},
            {"name": "state", "mountPath": STATE},
        ],
    }


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def volumes_of(place: KubernetesPlace) -> list[dict[str, Any]]:
    """The volumes of both."""
    keys = {"secretName": place.secret, "defaultMode": 0o440, "items": [{"key": "keys", "path": "keys"}]}
    volumes: list[dict[str, Any]] = [
        {"name": "releases", "emptyDir": {}},
        {"name": "state", "emptyDir": {}},
        {"name": "keys", "secret": keys},
    ]
    if place.claim:
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": place.claim[0], "readOnly": True}})
    return volumes
