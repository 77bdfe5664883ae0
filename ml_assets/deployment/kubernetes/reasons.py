"""Why pods do not come up: what their containers said last, and what a server says of the release that it refuses."""

import json
from collections.abc import Sequence
from typing import Any

from ml_assets.deployment.kubernetes.cluster import Cluster
from ml_assets.deployment.kubernetes.counts import answers
from ml_assets.deployment.kubernetes.pods import SERVERS
from ml_assets.errors import TargetUnavailableError

MOST = 500  # characters of a reason


def refusal_of(cluster: Cluster, pods: Sequence[dict[str, Any]], failed: str) -> str:
    """Why a release is not taken; empty while it may still be.

    Args:
        failed: why the pods were given up, if they were.
    """
    for pod in pods:
        if not answers(pod) and _runs(pod) and (reason := _refused(cluster, pod["metadata"]["name"])):
            return reason
    if not failed:
        return ""
    said = next((reason for pod in pods if (reason := _said(pod))), "")
    return f"{failed.rstrip('.')}. {said}".rstrip(". ")[:MOST]


def _runs(pod: dict[str, Any]) -> bool:
    containers = pod.get("status", {}).get("containerStatuses", [])
    return any(each["name"] in SERVERS and "running" in each.get("state", {}) for each in containers)


def _refused(cluster: Cluster, pod: str) -> str:
    """What the server in a pod says of the release that it does not serve."""
    try:
        health = json.loads(cluster.of_pod(pod, "/health"))
    except (TargetUnavailableError, ValueError):
        return ""  # it is still to start
    return next((f"pod {pod}: {said['reason']}"[:MOST] for said in health.get("refused", {}).values()), "")


def _said(pod: dict[str, Any]) -> str:
    """The last words of a container that ended, or what keeps it from its start."""
    status = pod.get("status", {})
    for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        ended = each.get("lastState", {}).get("terminated") or each.get("state", {}).get("terminated") or {}
        waits = each.get("state", {}).get("waiting") or {}
        if ended.get("exitCode"):
            return (
                f"Container {each['name']} of pod {pod['metadata']['name']} ended: {ended.get('message', '').strip()}"
            )
        if waits.get("message"):
            return f"Container {each['name']} of pod {pod['metadata']['name']}: {waits['reason']}: {waits['message']}"
    return next((each.get("message", "") for each in status.get("conditions", []) if each["status"] == "False"), "")
