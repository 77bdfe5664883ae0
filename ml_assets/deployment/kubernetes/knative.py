"""The pod of one release as Knative takes it: one container, which brings the release and then serves it.

Without flags of its own Knative takes no init container, no claim, no security context of the pod, no start-up probe,
no `lifecycle` and no named port of ours; it drains requests itself.
"""

from typing import Any

from ml_assets.deployment.kubernetes.names import PORT
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import (
    RELEASES,
    SERVERS,
    USER,
    Packed,
    fetch_container,
    server_container,
    volumes_of,
)

START = 120  # seconds that a server may take before it is asked whether it lives
# What differs comes in arguments, so that no shell reads it.
SCRIPT = 'python -m ml_assets.serving.fetch "$1" "$2" "$3" "$4" "$5" && exec python -m ml_assets.serving "$2" "$6" "$7"'


def knative_spec(place: KubernetesPlace, model: str, packed: Packed) -> dict[str, Any]:
    """The specification of a pod that serves a release."""
    brings, serves = fetch_container(place, model, packed), server_container(place)
    _, *where = serves["args"]
    kept = {name: value for name, value in serves.items() if name not in ("startupProbe", "lifecycle")}
    of_pod = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = kept | {
        "name": SERVERS[-1],
        "command": ["sh", "-c", SCRIPT, "serve"],
        "args": [*brings["args"], *where],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "livenessProbe": _probe(serves["livenessProbe"]) | {"initialDelaySeconds": START},
        "readinessProbe": _probe(serves["readinessProbe"]),
        "securityContext": serves["securityContext"] | of_pod,
        "volumeMounts": [
            {name: value for name, value in each.items() if each["mountPath"] != RELEASES or name != "readOnly"}
            for each in serves["volumeMounts"]
        ],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": [_readable(each) for each in volumes_of(place)],
    }


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    return probe | {"httpGet": probe["httpGet"] | {"port": PORT}}


def _readable(volume: dict[str, Any]) -> dict[str, Any]:
    """A Secret's files belong to root; without a group of the pod's own nobody else could read them."""
    return volume | {"secret": volume["secret"] | {"defaultMode": 0o444}} if "secret" in volume else volume
