"""One namespace of a cluster over its API, by the official client: apply, scale, list, watch, delete, ask a pod.

Objects are plain dictionaries, as they are on the wire: kinds that a client of another version does not know yet, and
those of Seldon and KServe, go the same way as all others.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from ml_assets.deployment.kubernetes.names import MANAGER, PORT, require_own
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.errors import TargetError, TargetUnavailableError

PATHS = {
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Pod": ("/api/v1", "pods"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "SeldonDeployment": ("/apis/machinelearning.seldon.io/v1", "seldondeployments"),
    "InferenceService": ("/apis/serving.kserve.io/v1beta1", "inferenceservices"),
}
CONNECT, READ = 10.0, 30.0  # seconds
PAUSE = 0.5  # seconds before a list after a watch that was closed

Item = dict[str, Any]


class Cluster:
    """The namespace of a place.

    Every method raises `TargetUnavailableError` if the API server does not answer, is throttling or fails, and
    `TargetError`, with what it says, if it refuses.
    """

    def __init__(self, place: KubernetesPlace) -> None:
        self.place = place

    @cached_property
    def _client(self) -> Any:
        try:
            from kubernetes import client, config
        except ImportError:
            raise TargetError(
                "the target kubernetes needs the client of Kubernetes: pip install '.[kubernetes]'"
            ) from None

        settings = client.Configuration()
        # At the next tick all is asked again, so that waiting here, for as long as a server likes, helps nobody.
        settings.retries = False
        place = self.place
        try:
            if place.kubeconfig or place.context:
                config.load_kube_config(
                    str(place.kubeconfig) if place.kubeconfig else None, place.context or None, settings
                )
            else:
                config.load_config(client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise TargetError(
                f"no cluster can be asked: {error} (kubeconfig {str(place.kubeconfig or 'by default')!r}, context "
                f"{place.context or 'the current one'!r})"
            ) from None
        return client.ApiClient(settings)

    def get(self, kind: str, name: str) -> Item | None:
        """An object, or None."""
        answer = self._ask("GET", self._path(kind, name))
        return None if answer.status == 404 else self._json(answer, f"get {kind} {name}")

    def all(self, kind: str, selector: str) -> list[Item]:
        """All objects with these labels."""
        return self._list(kind, selector)[0]

    def apply(self, manifest: Item, base: str) -> Item:
        """Create an object or change it to what a manifest says (server-side apply).

        Raises:
            TargetError: if there is one of this name that is not of the model `base`, or if somebody else has set one
                of the fields to another value since; both are left as they are.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if (there := self.get(kind, name)) is not None:
            require_own(there, base)
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": "false"}
        answer = self._ask("PATCH", self._path(kind, name), query, manifest, "application/apply-patch+yaml")
        return self._json(answer, f"apply {kind} {name}")

    def scale(self, deployment: str, replicas: int) -> None:
        """Give a Deployment so many replicas, whoever gave it others before."""
        path = f"{self._path('Deployment', deployment)}/scale"
        body = {"spec": {"replicas": replicas}}
        answer = self._ask("PATCH", path, {"fieldManager": MANAGER}, body, "application/merge-patch+json")
        self._json(answer, f"scale Deployment {deployment}")

    def delete(self, kind: str, item: Item) -> None:
        """Delete an object as it was found: not another one of its name, and what is gone already is no error."""
        name = item["metadata"]["name"]
        body = {"propagationPolicy": "Background", "preconditions": {"uid": item["metadata"]["uid"]}}
        answer = self._ask("DELETE", self._path(kind, name), body=body)
        if answer.status != 404:
            self._json(answer, f"delete {kind} {name}")

    def of_pod(self, pod: str, path: str, key: str | None = None, read: float = READ) -> bytes:
        """What a pod's server answers to GET, through the API server, so that it can be asked from anywhere.

        Args:
            key: that the server asks for.
            read: seconds to wait for its answer.
        """
        where = f"{self._path('Pod', f'{pod}:{PORT}')}/proxy{path}"
        answer = self._ask("GET", where, headers={"X-API-Key": key} if key else {}, read=read)
        if answer.status == 401 and "kind" not in _object(answer.read()):
            raise TargetError(
                f"pod {pod} does not know the key it is asked with; ML_ASSETS_ENDPOINT_KEYS has to hold one that is in "
                f"`keys` of the Secret {self.place.secret}"
            )
        if answer.status != 200:
            raise self._error(answer, f"ask pod {pod} for {path}")
        return bytes(answer.read())

    def wait(self, kind: str, selector: str, done: Callable[[Sequence[Item]], bool]) -> bool:
        """Whether objects come to be so, within the patience of the place.

        They are listed and then watched. A watch that ends, for whatever reason, is begun anew with a list.
        """
        deadline = time.monotonic() + self.place.patience
        while True:
            items, version = self._list(kind, selector)
            there = {each["metadata"]["name"]: each for each in items}
            if done(list(there.values())):
                return True
            if (left := deadline - time.monotonic()) <= 0:
                return False
            for event in self._events(kind, selector, version, left):
                item = event["object"]
                if event["type"] == "ERROR":  # what was listed is too old to go on from
                    break
                if event["type"] == "DELETED":
                    there.pop(item["metadata"]["name"], None)
                elif event["type"] != "BOOKMARK":
                    there[item["metadata"]["name"]] = item
                if done(list(there.values())):
                    return True
                if time.monotonic() > deadline:
                    return False
            time.sleep(max(0.0, min(PAUSE, deadline - time.monotonic())))

    def _list(self, kind: str, selector: str) -> tuple[list[Item], str]:
        answer = self._json(self._ask("GET", self._path(kind), {"labelSelector": selector}), f"list {PATHS[kind][1]}")
        return answer.get("items", []), answer.get("metadata", {}).get("resourceVersion", "")

    def _events(self, kind: str, selector: str, version: str, seconds: float) -> Iterator[Item]:
        """Events of a watch until it is closed."""
        import urllib3

        query = {"labelSelector": selector, "watch": "true", "timeoutSeconds": str(math.ceil(seconds))}
        if version:
            query["resourceVersion"] = version
        answer = self._ask("GET", self._path(kind), query, read=max(seconds, 1.0))
        if answer.status == 410:
            return
        if answer.status != 200:
            raise self._error(answer, f"watch {PATHS[kind][1]}")
        rest = b""
        try:
            for part in answer.response.stream(2**16, decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        except urllib3.exceptions.HTTPError:
            return
        finally:
            answer.response.close()

    def _path(self, kind: str, name: str = "") -> str:
        api, plural = PATHS[kind]
        return f"{api}/namespaces/{self.place.namespace}/{plural}{f'/{name}' if name else ''}"

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Item | None = None,
        content: str = "application/json",
        headers: dict[str, str] | None = None,
        read: float = READ,
    ) -> Any:
        """The answer of the API server, whatever its status."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        sent = {"Accept": "application/json"} | (headers or {})
        if body is not None:
            sent["Content-Type"] = content
        try:
            verb, url, sent, body, _ = self._client.param_serialize(
                method, path, header_params=sent, body=body, auth_settings=["BearerToken"]
            )
            url = f"{url}?{urlencode(query)}" if query else url
            return self._client.call_api(verb, url, sent, body, _request_timeout=(CONNECT, read))
        except urllib3.exceptions.HTTPError as error:
            raise TargetUnavailableError(f"the API server of Kubernetes does not answer: {error}") from None
        except ApiException as error:  # of a certificate
            raise TargetError(f"the API server of Kubernetes cannot be trusted: {error.reason}") from None

    def _json(self, answer: Any, what: str) -> Item:
        if not 200 <= answer.status < 300:
            raise self._error(answer, what)
        return _object(answer.read())

    def _error(self, answer: Any, what: str) -> TargetError:
        """What an answer other than the one that was asked for means."""
        said = _object(answer.read())
        where = f"Kubernetes, namespace {self.place.namespace}: {what}"
        message = said.get("message") or said.get("error") or answer.reason
        causes = said.get("details", {}).get("causes") or []
        if others := [each for each in causes if each.get("reason") == "FieldManagerConflict"]:
            fields = "; ".join(f"{each.get('field')}: {each.get('message')}" for each in others)
            return TargetError(
                f"{where}: somebody else has changed it, and ml-assets does not take it back by force ({fields}). Undo "
                "that, or delete the object"
            )
        if answer.status == 429:
            later = answer.headers.get("Retry-After")
            return TargetUnavailableError(f"{where}: throttled{f', for {later} s' if later else ''}: {message}")
        if answer.status in (408, 409) or answer.status >= 500:
            return TargetUnavailableError(f"{where}: {answer.status}: {message}")
        return TargetError(f"{where}: {answer.status}: {message}")


def _object(content: bytes) -> Item:
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {"message": content.decode(errors="replace")[:500]} if content else {}
