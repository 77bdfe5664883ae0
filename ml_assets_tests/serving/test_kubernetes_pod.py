"""A rendered pod: commands, arguments and variables of its containers are run as they stand, in other folders."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.deployment.archive import archive_of
from ml_assets.deployment.kubernetes.counts import side_of
from ml_assets.deployment.kubernetes.knative import knative_spec
from ml_assets.deployment.kubernetes.names import PORT
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import CLAIM, KEYS, RELEASES, STATE, Packed, pod_spec
from ml_assets.deployment.targets import Release
from ml_assets.errors import ReleaseError, TargetError
from ml_assets.serving.bundle import GOLDEN, sha256
from ml_assets.serving.fetch import fetch
from ml_assets_tests.endpoint import served
from ml_assets_tests.project import Project, free_port

MODEL = "late_deliveries"


@pytest.fixture(scope="module")
def storage(small: Project) -> Iterator[str]:
    """Address of the folder of releases over HTTP."""
    handler = functools.partial(Quiet, directory=str(small.settings.releases))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said: Any) -> None:
        pass


def spec_of(small: Project, release: Path, releases: str) -> dict[str, Any]:
    place = KubernetesPlace("ml", "registry/endpoint:1.0", releases, "endpoint")
    packed = Packed.of(small.settings.releases, MODEL, Release.named(release.name))
    return pod_spec(place, MODEL, "late-deliveries", packed)


def moved(container: dict[str, Any], folders: dict[str, Path], port: int) -> tuple[list[str], dict[str, str]]:
    """Command and variables of a container, with folders and port of this machine. What is optional is not there."""
    replaced = {name: str(folder) for name, folder in folders.items()} | {str(PORT): str(port)}

    def here(text: str) -> str:
        for name, other in replaced.items():
            text = other + text[len(name) :] if text == name or text.startswith(f"{name}/") else text
        return text

    command = [here(each) for each in (*container["command"], *container["args"])]
    named = {each["name"]: here(each["value"]) for each in container.get("env", []) if "value" in each}
    if command[0] == "sh":
        return command, named | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert command[0] == "python"
    return [sys.executable, *command[1:]], named


def test_the_rendered_containers_fetch_the_release_and_serve_it(
    small: Project, release: Path, storage: str, tmp_path: Path
) -> None:
    spec = spec_of(small, release, storage)
    folders = {RELEASES: tmp_path / "releases", KEYS: tmp_path / "secret", STATE: tmp_path / "state"}
    for each in folders.values():
        each.mkdir()
    (folders[KEYS] / "keys").write_text("of-the-secret\n")
    port = free_port()
    brings, serves = spec["initContainers"][0], spec["containers"][0]
    command, _ = moved(brings, folders, port)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folders[RELEASES] / MODEL / release.name)
    command, named = moved(serves, folders, port)
    with served(tmp_path, port, command, **named) as url:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert requests.get(url + serves[probe]["httpGet"]["path"], timeout=5).status_code == 200
        golden = msgspec.json.decode((release / GOLDEN).read_bytes())
        body = {"rows": golden["rows"], "looked_up": golden["looked_up"]}
        where = f"{url}/models/{MODEL}/predict"
        assert requests.post(where, json=body, timeout=10).status_code == 401
        answer = requests.post(where, json=body, headers={"X-API-Key": "of-the-secret"}, timeout=10)
        assert answer.json()["predictions"] == golden["answers"]
        assert requests.post(f"{url}/predict", json=body, headers={"X-API-Key": "of-the-secret"}, timeout=10).ok
        health = requests.get(f"{url}/health", timeout=5).json()
        assert health["models"][MODEL]["release"] == release.name
        metrics = requests.get(f"{url}/metrics", headers={"X-API-Key": "of-the-secret"}, timeout=5).text
    side = side_of(metrics)
    # The one without a key was its caller's fault.
    assert (side.requests, side.errors, sum(side.latency.counts)) == (2, 0, 2)
    scores, first = side.scores["score"], golden["answers"][0]["score"]
    assert sum(scores.counts) == 2, "of the first row of each request"
    assert scores.counts[bisect_left(scores.edges, first)] == 2


def test_the_one_container_of_knative_fetches_the_release_and_then_serves_it(
    small: Project, release: Path, storage: str, tmp_path: Path
) -> None:
    """A shell runs it, whose process is the server in the end, so that it gets the signal to stop."""
    place = KubernetesPlace("ml", "registry/endpoint:1.0", storage, "endpoint", kind="kserve")
    packed = Packed.of(small.settings.releases, MODEL, Release.named(release.name))
    (container,) = knative_spec(place, MODEL, packed)["containers"]
    folders = {RELEASES: tmp_path / "releases", KEYS: tmp_path / "secret", STATE: tmp_path / "state"}
    for each in folders.values():
        each.mkdir()
    (folders[KEYS] / "keys").write_text("of-the-secret\n")
    port = free_port()
    command, named = moved(container, folders, port)
    with served(tmp_path, port, command, **named) as url:
        golden = msgspec.json.decode((release / GOLDEN).read_bytes())
        body = {"rows": golden["rows"], "looked_up": golden["looked_up"]}
        where = f"{url}/models/{MODEL}/predict"
        answer = requests.post(where, json=body, headers={"X-API-Key": "of-the-secret"}, timeout=10)
        assert answer.json()["predictions"] == golden["answers"]
    with pytest.raises(requests.ConnectionError):  # terminated with the process that was started
        requests.get(f"{url}/health", timeout=5)
    # Other bytes than those that were approved: nothing is served, and nothing of them is read by the shell.
    spoilt = replace(packed, digest="$(touch spoilt); " + "ab" * 20)
    command, named = moved(knative_spec(place, MODEL, spoilt)["containers"][0], folders, port)
    ended = subprocess.run(
        command, env=os.environ | named, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20
    )
    assert ended.returncode == 1
    assert "was approved; copy the release there again" in ended.stderr
    assert not (tmp_path / "spoilt").exists()


def test_a_release_on_a_claim_is_fetched_from_where_it_is_mounted(
    small: Project, release: Path, tmp_path: Path
) -> None:
    spec = spec_of(small, release, "pvc://shared/ml")
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "ml").symlink_to(small.settings.releases)
    folders = {RELEASES: tmp_path / "releases", CLAIM: tmp_path / "claim"}
    command, _ = moved(spec["initContainers"][0], folders, 1)
    subprocess.run(command, check=True, capture_output=True)
    there = tmp_path / "releases" / MODEL / release.name
    assert {each.name: each.read_bytes() for each in there.iterdir()} == {
        each.name: each.read_bytes() for each in release.iterdir()
    }
    assert spec["volumes"][-1] == {
        "name": "claim",
        "persistentVolumeClaim": {"claimName": "shared", "readOnly": True},
    }


def test_other_bytes_than_those_that_were_approved_are_not_served(
    small: Project, release: Path, storage: str, tmp_path: Path
) -> None:
    archive = archive_of(release)
    good = sha256(archive.read_bytes())
    other = tmp_path / "other.tar.gz"
    other.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(ReleaseError, match=f"has the SHA-256 [0-9a-f]+, and {good} was approved"):
        fetch(str(other), tmp_path / "releases", MODEL, release.name, good)
    with pytest.raises(ReleaseError, match="holds late_deliveries version 1, not late_deliveries 9-ab"):
        fetch(str(archive), tmp_path / "releases", MODEL, "9-ab", good)
    with pytest.raises(ReleaseError, match="cannot be read: HTTP Error 404"):
        fetch(f"{storage}/{MODEL}/none.tar.gz", tmp_path / "releases", MODEL, release.name, good)
    assert not list((tmp_path / "releases").glob("*/*"))
    failed = subprocess.run(
        [sys.executable, "-m", "ml_assets.serving.fetch", str(other), str(tmp_path), MODEL, release.name, good],
        capture_output=True,
        text=True,
        check=False,
    )
    # The last words of the container, which `describe` passes on.
    assert failed.returncode == 1
    assert "was approved; copy the release there again" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_release_that_is_not_here_any_more_cannot_be_deployed(small: Project) -> None:
    with pytest.raises(TargetError, match="9-ab is gone, so that nobody can say which bytes were approved"):
        Packed.of(small.settings.releases, MODEL, Release.named("9-ab"))
