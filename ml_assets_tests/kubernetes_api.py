"""The HTTP API of a cluster as far as a target asks it: kmock keeps and streams the objects; what it lacks is here.

Added: server-side apply with owners of fields and conflicts, label selectors, scale, preconditions of deletions, what
the controllers of Deployments, of Seldon and of KServe do, and pods that can be asked through the proxy. Lists in
objects belong to one owner as a whole, which is coarser than a real API server. It never ran beside one.
"""

import asyncio
import contextlib
import copy
import json
import math
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp.web
import attrs
import kmock
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ml_assets.deployment.kubernetes.names import PORT, RELEASE
from ml_assets_tests.knative import reconcile
from ml_assets_tests.rollouts import EDGES, SECONDS

Item = dict[str, Any]
Path = tuple[str, ...]
DEPLOYMENTS = kmock.resource("apps", "v1", "deployments")
PODS = kmock.resource("", "v1", "pods")
SELDON = kmock.resource("machinelearning.seldon.io", "v1", "seldondeployments")
KSERVE = kmock.resource("serving.kserve.io", "v1beta1", "inferenceservices")
SERVICES = kmock.resource("", "v1", "services")
RESOURCES = (
    DEPLOYMENTS,
    PODS,
    SELDON,
    KSERVE,
    SERVICES,
    kmock.resource("", "v1", "configmaps"),
    kmock.resource("autoscaling", "v2", "horizontalpodautoscalers"),
    kmock.resource("policy", "v1", "poddisruptionbudgets"),
    kmock.resource("networking.k8s.io", "v1", "networkpolicies"),
)


class Served:
    """What the server in a pod counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("ml_assets_requests", ".", ["model", "status"], registry=self.registry)
        self.invalid = Counter("ml_assets_invalid_answers", ".", ["model"], registry=self.registry)
        self.seconds = Histogram("ml_assets_request_seconds", ".", ["model"], buckets=SECONDS, registry=self.registry)
        self.scores = Histogram("ml_assets_scores", ".", ["model", "name"], buckets=EDGES, registry=self.registry)

    def answer(self, requests: int, errors: int = 0, invalid: int = 0, score: float = 0.3) -> None:
        self.requests.labels("m", "200").inc(requests - errors)
        self.requests.labels("m", "500").inc(errors)
        self.requests.labels("m", "422").inc(7)
        self.invalid.labels("m").inc(invalid)
        for turn in range(requests - errors):
            self.seconds.labels("m").observe(0.003)
            self.scores.labels("m", "score").observe(score + 0.1 * (turn % 5))


@attrs.define(kw_only=True)
class ApiServer(kmock.KubernetesEmulator):
    """One cluster.

    Attributes:
        delay: seconds until pods come up; 0: at once; infinite: when `bring_up` is called.
        refuses: releases whose servers refuse them, and why.
        unpullable: images that no node gets.
        faults: status and headers of the next answers; 0 closes the connection.
        cut: after how many events each watch is closed; None: never.
        watches, asked: how often it was watched, and what was asked of it.
        answering: after each change, how many pods answer requests.
    """

    delay: float = 0.0
    refuses: dict[str, str] = attrs.field(factory=dict)
    unpullable: set[str] = attrs.field(factory=set)
    faults: list[tuple[int, dict[str, str]]] = attrs.field(factory=list)
    cut: int | None = None
    watches: int = 0
    asked: list[str] = attrs.field(factory=list)
    answering: list[int] = attrs.field(factory=list)
    owners: dict[Any, dict[str, dict[Path, Any]]] = attrs.field(factory=dict)
    served: dict[str, Served] = attrs.field(factory=dict)
    revisions: dict[str, dict[str, Item]] = attrs.field(factory=dict)
    tasks: set[Any] = attrs.field(factory=set)
    late: list[Any] = attrs.field(factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for resource in RESOURCES:
            self.resources[resource] = {}

    # What tests do and look at.

    def items(self, resource: kmock.resource, namespace: str = "ml") -> dict[str, Item]:
        return {
            name: copy.deepcopy(each.raw)
            for (of, where, name), each in self.objects.items()
            if (of, where) == (resource, namespace) and not each.deleted
        }

    def edit(self, resource: kmock.resource, name: str, path: Path, value: Any, manager: str) -> None:
        """What a person does with an editor."""
        key = (resource, "ml", name)
        item = copy.deepcopy(self.objects[key].raw)
        _put(item, path, value)
        for owned in self.owners.setdefault(key, {}).values():
            owned.pop(path, None)
        self.owners[key].setdefault(manager, {})[path] = value
        self.objects[key].history.append(item)

    def answer(self, release: str, requests: int, errors: int = 0, **said: Any) -> None:
        """Let the ready pods of a release answer requests, each its part."""
        pods = [each for each in self.items(PODS).values() if _has_traffic(each) and _label(each) == release]
        for turn, pod in enumerate(sorted(pods, key=lambda each: each["metadata"]["name"])):
            part, failed = (each // len(pods) + (turn < each % len(pods)) for each in (requests, errors))
            self.served[pod["metadata"]["uid"]].answer(part, failed, **said)

    def restart(self, release: str, *, ready: bool = True) -> None:
        """A container of a release ends and is started anew, and is ready again or not yet."""
        pod = next(each for each in self.items(PODS).values() if _label(each) == release)
        pod["status"]["containerStatuses"][0]["restartCount"] += 1
        pod["status"]["conditions"][0]["status"] = "True" if ready else "False"
        self.served[pod["metadata"]["uid"]] = Served()
        self.objects[PODS, "ml", pod["metadata"]["name"]].history.append(pod)

    def bring_up(self) -> None:
        """Let the pods come up that are late."""
        assert self.loop is not None
        for key in self.late:
            asyncio.run_coroutine_threadsafe(self._control(key), self.loop).result(10)
        self.late.clear()

    def touch(self, resource: kmock.resource, name: str) -> None:
        """Let the controllers look at an object again, and try pods anew that did not come up."""
        assert self.loop is not None
        for pod in [name for name, each in self.items(PODS).items() if not _is_ready(each)]:
            self.objects[PODS, "ml", pod].delete()
        asyncio.run_coroutine_threadsafe(self._control((resource, "ml", name)), self.loop).result(10)

    def kept(self) -> Any:
        """All objects as they are now, for `restore`."""
        objects = {key: copy.deepcopy(each.raw) for key, each in self.objects.items() if not each.deleted}
        return objects, copy.deepcopy(self.owners), copy.deepcopy(self.revisions)

    def restore(self, kept: Any) -> None:
        """Go back to what was kept; no request was answered yet."""
        for key in list(self.objects):
            del self.objects[key]
        objects, owners, self.revisions = copy.deepcopy(kept)
        for key, item in objects.items():
            self.objects[key] = item
        self.owners = owners
        self.served = {item["metadata"]["uid"]: Served() for key, item in objects.items() if key[0] == PODS}

    # What is asked over HTTP.

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        del self._requests[:-1]  # each of them is compared with each pattern anew at each request
        self.asked.append(f"{request.method.value} {request.url.path}".replace("/namespaces/ml", ""))
        if self.faults:
            status, headers = self.faults.pop(0)
            if not status:
                assert request._raw_request.transport is not None
                request._raw_request.transport.close()
            return _said(status or 500, f"fault {status}", headers=headers)
        if (request.subresource or "").startswith("proxy/"):
            return self._proxy(request)
        if request.method.value == "PATCH":
            return await self._patch(request)
        if request.method.value == "DELETE":
            return await self._delete(request)
        if request.params.get("watch") != "true":
            return self._get(request)
        return await super()._handle(request)

    def _get(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        """An object or a list, without kmock's search for a reaction, which takes most of a request's time."""
        there = {
            name: each.raw
            for (of, where, name), each in self.objects.items()
            if (of, where) == (request.resource, request.namespace) and not each.deleted
        }
        if request.name is None:
            listed = [each for each in there.values() if _selected(each, request)]
            return aiohttp.web.json_response({"metadata": {"resourceVersion": "1"}, "items": listed})
        if request.name not in there:
            return _said(404, f"{request.name} not found")
        return aiohttp.web.json_response(there[request.name])

    async def _serve_watch(self, request: kmock.Request) -> Any:
        self.watches += 1
        seen = 0
        async for event in super()._serve_watch(request):
            if isinstance(event, dict) and not _selected(event["object"], request):
                continue
            yield event
            seen += isinstance(event, dict)
            if self.cut is not None and seen >= self.cut:
                return

    async def _patch(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        key = (request.resource, request.namespace, request.name)
        manager = request.params["fieldManager"]
        body = json.loads(request.body)
        async with self._lock:
            there = key in self.objects and not self.objects[key].deleted
            if request.subresource == "scale":
                item = copy.deepcopy(self.objects[key].raw)
                for owned in self.owners[key].values():
                    owned.pop(("spec", "replicas"), None)
                self.owners[key].setdefault(f"{manager} (scale)", {})["spec", "replicas"] = body["spec"]["replicas"]
                item["spec"]["replicas"] = body["spec"]["replicas"]
            else:
                assert request.headers["Content-Type"] == "application/apply-patch+yaml"
                assert request.params["force"] == "false"
                before = copy.deepcopy(self.objects[key].raw) if there else _born(request, body)
                if not there:
                    self.owners[key] = {}
                item = before
                if conflicts := self._apply(key, manager, body, item):
                    return _said(409, f"Apply failed with {len(conflicts)} conflict", causes=conflicts)
            await self._store(key, item, there)
        return aiohttp.web.json_response(self.objects[key].raw)

    def _apply(self, key: Any, manager: str, body: Item, item: Item) -> list[Item]:
        """Set what a manager applies and drop what it applied before and does not any more; or say who is against."""
        owners, new = self.owners[key], dict(_leaves(body))
        conflicts = [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{other}"',
                "field": "." + ".".join(path),
            }
            for other, owned in owners.items()
            for path, value in owned.items()
            if other != manager and path in new and new[path] != value
        ]
        if conflicts:
            return conflicts
        for path in owners.get(manager, {}).keys() - new.keys():
            if not any(path in owned for other, owned in owners.items() if other != manager):
                _drop(item, path)
        for path, value in new.items():
            _put(item, path, copy.deepcopy(value))
        owners[manager] = new
        return []

    async def _store(self, key: Any, item: Item, there: bool) -> None:
        before = self.objects[key].raw.get("spec", {}).get("replicas", 0) if there else 0
        if there and item.get("spec") != self.objects[key].raw.get("spec"):
            item["metadata"]["generation"] += 1
        changed = not there or item != self.objects[key].raw
        if not changed:
            return
        if key in self.objects:
            self.objects[key].history.append(item)
        else:
            self.objects[key] = item
        await self._buses[key[0]].put({"type": "MODIFIED" if there else "ADDED", "object": item})
        if key[0] not in (DEPLOYMENTS, SELDON, KSERVE):
            return
        if not self.delay or item["spec"].get("replicas", 0) < before:  # pods go at once
            await self._control(key)
            return
        if self.delay == math.inf:
            self.late.append(key)
            return

        async def later() -> None:
            await asyncio.sleep(self.delay)
            async with self._lock:
                await self._control(key)

        task = asyncio.get_running_loop().create_task(later())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _delete(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        key = (request.resource, request.namespace, request.name)
        async with self._lock:
            if key not in self.objects or self.objects[key].deleted:
                return _said(404, "not found")
            item = self.objects[key].raw
            if json.loads(request.body)["preconditions"]["uid"] != item["metadata"]["uid"]:
                return _said(409, "the uid is another one")
            self.objects[key].delete()
            await self._buses[key[0]].put({"type": "DELETED", "object": item})
            for name, pod in self.items(PODS).items():
                if pod["metadata"]["owner"] == item["metadata"]["uid"]:
                    self.objects[PODS, "ml", name].delete()
            self._look_who_answers()
        return aiohttp.web.json_response({"kind": "Status", "status": "Success"})

    # What controllers do.

    async def _control(self, key: Any) -> None:
        if key not in self.objects or self.objects[key].deleted:
            return
        item = copy.deepcopy(self.objects[key].raw)
        if key[0] == DEPLOYMENTS:
            self._run_pods(item, item["metadata"]["name"], item["spec"]["template"], item["spec"]["replicas"])
            ready = self._stuck(item["spec"]["template"]) is None
            self._control_deployment(item, ready)
        elif key[0] == KSERVE:
            self._control_service(item)
        else:
            ready = True
            for each in item["spec"]["predictors"]:
                part = each["componentSpecs"][0]
                self._run_pods(item, f"{item['metadata']['name']}-{each['name']}", part, each["replicas"])
                ready &= self._stuck(part) is None
            wanted = {f"{item['metadata']['name']}-{each['name']}" for each in item["spec"]["predictors"]}
            for name, pod in self.items(PODS).items():
                if pod["metadata"]["owner"] == item["metadata"]["uid"] and pod["metadata"]["of"] not in wanted:
                    self.objects[PODS, "ml", name].delete()
            item["status"] = {"state": "Available" if ready else "Creating"}
        self.objects[key].history.append(item)
        await self._buses[key[0]].put({"type": "MODIFIED", "object": item})
        for pod in self.items(PODS).values():
            await self._buses[PODS].put({"type": "MODIFIED", "object": pod})
        self._look_who_answers()

    def _control_service(self, item: Item) -> None:
        """What KServe and Knative make of an InferenceService: revisions, their pods, and the traffic between them."""
        revisions = self.revisions.setdefault(item["metadata"]["uid"], {})
        running = reconcile(item, revisions, lambda template: self._stuck(template) is None)
        for name in running:
            self._run_pods(item, name, revisions[name], item["spec"]["predictor"]["minReplicas"])
        for name, pod in self.items(PODS).items():
            if pod["metadata"]["owner"] == item["metadata"]["uid"] and pod["metadata"]["of"] not in running:
                self.objects[PODS, "ml", name].delete()

    def _look_who_answers(self) -> None:
        pods = self.items(PODS).values()
        self.answering.append(sum(_has_traffic(each) and _is_ready(each) for each in pods))

    def _control_deployment(self, item: Item, ready: bool) -> None:
        replicas = item["spec"]["replicas"]
        stuck = self._stuck(item["spec"]["template"])
        progress = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
        if stuck == "unpullable":
            progress |= {
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "message": "it has timed out progressing.",
            }
        elif stuck:
            progress |= {"reason": "ReplicaSetUpdated"}
        item["status"] = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "conditions": [progress],
        } | ({"availableReplicas": replicas} if ready and replicas else {})

    def _stuck(self, template: Item) -> str | None:
        if template["spec"]["containers"][0]["image"] in self.unpullable:
            return "unpullable"
        return self.refuses.get(template["metadata"]["labels"][RELEASE])

    def _run_pods(self, owner: Item, of: str, template: Item, replicas: int) -> None:
        wanted = json.dumps(template, sort_keys=True)
        mine = {name: pod for name, pod in self.items(PODS).items() if pod["metadata"]["of"] == of}
        for name, pod in list(mine.items())[::-1]:
            if pod["metadata"]["template"] != wanted or len(mine) > replicas:
                self.objects[PODS, "ml", name].delete()
                del mine[name]
        for _ in range(replicas - len(mine)):
            name, uid = f"{of}-{uuid.uuid4().hex[:5]}", uuid.uuid4().hex
            self.served[uid] = Served()
            self.objects[PODS, "ml", name] = {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "ml",
                    "uid": uid,
                    "labels": template["metadata"]["labels"],
                    "owner": owner["metadata"]["uid"],
                    "of": of,
                    "template": wanted,
                },
                "status": self._pod_status(template),
            }

    def _pod_status(self, template: Item) -> Item:
        stuck = self._stuck(template)
        ready = {"type": "Ready", "status": "False" if stuck else "True", "message": "containers are not ready"}
        state: Item = {"running": {}}
        name = template["spec"]["containers"][0]["name"]
        if stuck == "unpullable":
            state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
        return {
            "conditions": [ready],
            "containerStatuses": [{"name": name, "restartCount": 0, "state": state}],
        }

    def _proxy(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        assert request.name is not None
        assert request.subresource is not None
        pod, _, port = request.name.partition(":")
        assert port == str(PORT)
        item = self.items(PODS)[pod]
        if request.subresource == "proxy/metrics":
            if request.headers.get("X-API-Key") != "the key":
                return aiohttp.web.json_response({"error": "send a key that counts here"}, status=401)
            return aiohttp.web.Response(body=generate_latest(self.served[item["metadata"]["uid"]].registry))
        assert request.subresource == "proxy/health"
        reason = self.refuses.get(item["metadata"]["labels"][RELEASE])
        name = item["metadata"]["labels"][RELEASE]
        refused = {"m": {"release": name, "reason": reason}} if reason else {}
        models = {} if reason else {"late_deliveries": {"release": name}}
        return aiohttp.web.json_response({"status": "ok", "models": models, "refused": refused})


@contextlib.contextmanager
def api_server() -> Iterator[tuple[str, ApiServer]]:
    """Address of a cluster in a thread of its own, and the cluster."""
    started: Any = threading.Event()
    said: dict[str, Any] = {}

    async def run() -> None:
        stop = asyncio.Event()
        api = ApiServer(loop=asyncio.get_running_loop())
        async with api, kmock.Server(api) as server:
            said.update(url=str(server.url).rstrip("/"), api=api, loop=api.loop, stop=stop)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield said["url"], said["api"]
    finally:
        said["loop"].call_soon_threadsafe(said["stop"].set)
        thread.join(20)


def _born(request: kmock.Request, body: Item) -> Item:
    item: Item = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "uid": uuid.uuid4().hex,
            "generation": 1,
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "spec": {},
    }
    if body["kind"] == "Deployment":
        item["spec"]["replicas"] = 1
    return item


def _leaves(body: Item, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in body.items():
        here = (*path, name)
        if here in (("apiVersion",), ("kind",), ("metadata", "name")):
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _put(item: Item, path: Path, value: Any) -> None:
    for name in path[:-1]:
        item = item.setdefault(name, {})
    item[path[-1]] = value


def _drop(item: Item, path: Path) -> None:
    for name in path[:-1]:
        item = item.get(name, {})
    item.pop(path[-1], None)


def _selected(item: Item, request: kmock.Request) -> bool:
    wanted = dict(each.split("=") for each in request.params.get("labelSelector", "").split(",") if each)
    labels = item["metadata"].get("labels", {})
    return all(labels.get(name) == value for name, value in wanted.items())


def _label(pod: Item) -> str:
    return str(pod["metadata"]["labels"][RELEASE])


def _has_traffic(pod: Item) -> bool:
    return pod["metadata"]["labels"].get("ml-assets/traffic", "yes") == "yes"


def _is_ready(pod: Item) -> bool:
    return bool(pod["status"]["conditions"][0]["status"] == "True")


def _said(
    status: int, message: str, causes: list[Item] | None = None, headers: dict[str, str] | None = None
) -> aiohttp.web.Response:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": status,
        "message": message,
        "details": {"causes": causes or []},
    }
    return aiohttp.web.json_response(body, status=status, headers=headers)
