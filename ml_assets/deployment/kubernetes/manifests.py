"""What is applied for a model besides its pods: Deployments, Service, autoscaler, budget and network policy."""

from typing import Any
from urllib.parse import urlsplit

from ml_assets.deployment.kubernetes.names import MODEL, PORT, RELEASE, TRAFFIC, labels_of, selected
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import Packed, pod_labels, pod_spec
from ml_assets.deployment.targets import Release

PROGRESS = 300  # seconds after which pods that are not ready are given up
QUEUE_PROXY = (8012, 8013, 8022, 8112, 9090, 9091)  # where Knative's container beside ours is asked
BUSY = 70  # percent of the CPU asked for, from which on pods are added


def deployment(place: KubernetesPlace, model: str, base: str, packed: Packed, *, traffic: bool) -> dict[str, Any]:
    """The Deployment of one release.

    How many replicas it has is not in it: that is changed through the scale of the Deployment, as autoscalers do it,
    so that what is applied never takes it back.
    """
    release = packed.release
    labels = labels_of(base, release)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(base, release),
            "labels": labels,
            "annotations": {MODEL: model, RELEASE: release.name, "ml-assets/archive-sha256": packed.digest},
        },
        "spec": {
            "selector": {"matchLabels": selected(base) | {RELEASE: release.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": PROGRESS,
            "revisionHistoryLimit": 1,
            "template": {
                "metadata": {"labels": pod_labels(base, release, traffic)},
                "spec": pod_spec(place, model, base, packed),
            },
        },
    }


def deployment_name(base: str, release: Release) -> str:
    """What the Deployment of a release is called."""
    return f"{base}-{release.name}"


def service(model: str, base: str, annotations: dict[str, str]) -> dict[str, Any]:
    """The Service before all pods that are to have traffic, with the record of the rollout in its annotations."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": base, "labels": labels_of(base), "annotations": {MODEL: model} | annotations},
        "spec": {
            "type": "ClusterIP",
            "selector": selected(base) | {TRAFFIC: "yes"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
        },
    }


def autoscaler(place: KubernetesPlace, base: str, release: Release) -> dict[str, Any]:
    """Scales the release that has all traffic."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": base, "labels": labels_of(base)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment_name(base, release)},
            "minReplicas": place.replicas,
            "maxReplicas": place.most_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": BUSY}},
                }
            ],
        },
    }


def budget(base: str) -> dict[str, Any]:
    """One pod at a time may be taken away, so that a single one holds up no node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": base, "labels": labels_of(base)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selected(base)}},
    }


def network_policy(place: KubernetesPlace, base: str) -> dict[str, Any]:
    """Pods are asked at their one port, and ask names, the place of releases and the online store.

    Knative has requests go to a container of its own beside ours, and asks that one how busy it is.
    """
    ports = {place.online_port}
    if not place.claim:
        address = urlsplit(place.releases)
        ports.add(address.port or (443 if address.scheme == "https" else 80))
    asked = (PORT, *QUEUE_PROXY) if place.kind == "kserve" else (PORT,)
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": base, "labels": labels_of(base)},
        "spec": {
            "podSelector": {"matchLabels": selected(base)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": port} for port in asked]}],
            "egress": [{"ports": [*dns, *({"protocol": "TCP", "port": port} for port in sorted(ports))]}],
        },
    }
