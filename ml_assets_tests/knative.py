"""What KServe in serverless mode and Knative make of an InferenceService, all at once and in memory.

After `createKnativeService` and `PropagateStatus` of KServe 0.15: labels and annotations of the object are its pods' as
well; each changed template is a new revision; traffic for the latest revision goes to the latest one that is ready.
"""

import json
from collections.abc import Callable
from typing import Any

Item = dict[str, Any]


def reconcile(item: Item, revisions: dict[str, Item], ready: Callable[[Item], bool]) -> set[str]:
    """Give an InferenceService its status, and its template a revision.

    Args:
        revisions: templates by the names of all revisions, oldest first.
        ready: whether the pods of a template come up.

    Returns:
        The revisions that have pods.
    """
    share = item["spec"]["predictor"].get("canaryTrafficPercent")
    template = _template(item)
    if not revisions or _bare(list(revisions.values())[-1]) != json.dumps(template, sort_keys=True):
        name = f"{item['metadata']['name']}-predictor-{len(revisions) + 1:05}"
        template["metadata"]["labels"]["serving.knative.dev/revision"] = name
        revisions[name] = template
    created = list(revisions)[-1]
    status = item.setdefault("status", {})
    said = status.setdefault("components", {}).setdefault("predictor", {})
    newest = next((name for name in reversed(revisions) if ready(revisions[name])), None)
    last = said.get("latestRolledoutRevision")
    traffic: list[Item] = []
    if newest is not None:
        traffic.append({"latestRevision": True, "revisionName": newest, "percent": 100})
        if share is not None and last:
            traffic[0]["percent"] = share
            if share < 100:
                prev = {"latestRevision": False, "revisionName": last, "tag": "prev", "percent": 100 - share}
                traffic.append(prev)
    said["latestCreatedRevision"] = created
    _roll_out(said, traffic, newest, created)
    if newest is not None:
        said["latestReadyRevision"] = newest
    moved = said.get("latestRolledoutRevision") != last and share is not None
    said["traffic"] = traffic
    up = {"status": "True"} if newest == created else {"status": "False", "message": f'Revision "{created}" failed.'}
    status["conditions"] = [{"type": "PredictorConfigurationReady"} | up]
    if moved:  # what was rolled out last is another one now, and KServe looks again
        return reconcile(item, revisions, ready)
    return {created} | {each["revisionName"] for each in traffic}


def _roll_out(said: Item, traffic: list[Item], newest: str | None, created: str) -> None:
    """Which revisions had all traffic last, as `PropagateStatus` says."""
    total: dict[str, int] = {}
    for each in traffic:
        total[each["revisionName"]] = total.get(each["revisionName"], 0) + each["percent"]
    for each in traffic:
        if each["revisionName"] != newest or not each["latestRevision"]:
            continue
        if said.get("latestRolledoutRevision") != newest:
            if each["percent"] == 100:
                said["previousRolledoutRevision"] = said.get("latestRolledoutRevision", "")
                said["latestRolledoutRevision"] = newest
        elif newest == created and each["percent"] < 100 and total[newest] == 100:
            said["latestRolledoutRevision"] = said.get("previousRolledoutRevision") or newest


def _template(item: Item) -> Item:
    predictor, about = item["spec"]["predictor"], item["metadata"]
    bounds = ("minReplicas", "maxReplicas")
    scale = {f"autoscaling.knative.dev/{each[:3]}-scale": str(predictor[each]) for each in bounds}
    beside = ("labels", "annotations", *bounds, "canaryTrafficPercent")
    return {
        "metadata": {
            "labels": about["labels"] | predictor["labels"] | {"serving.kserve.io/inferenceservice": about["name"]},
            "annotations": about["annotations"] | predictor["annotations"] | scale,
        },
        "spec": {name: value for name, value in predictor.items() if name not in beside},
    }


def _bare(template: Item) -> str:
    labels = {name: each for name, each in template["metadata"]["labels"].items() if name[:15] != "serving.knative"}
    return json.dumps(template | {"metadata": template["metadata"] | {"labels": labels}}, sort_keys=True)
