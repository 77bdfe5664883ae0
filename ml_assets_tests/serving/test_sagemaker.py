"""The server as SageMaker starts it: its command, folders and port, `/ping` and `/invocations`."""

import csv
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.deployment.archive import archive_of, pack
from ml_assets.serving.bundle import GOLDEN
from ml_assets_tests.endpoint import served
from ml_assets_tests.project import free_port

SECONDS_TO_PING = 60  # SageMaker gives up after eight minutes; nobody should wait one


@pytest.fixture(scope="module")
def container(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over the unpacked archive, started like the container."""
    home = tmp_path_factory.mktemp("sagemaker")
    with tarfile.open(archive_of(release)) as archive:
        archive.extractall(home / "model", filter="data")
    port = free_port()
    environment = {
        "SM_MODEL_DIR": str(home / "model"),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "ML_ASSETS_ONLINE_STORE": "",
        "ML_ASSETS_ENDPOINT_KEYS": "",
    }
    started = time.monotonic()
    with served(home, [sys.executable, "-m", "ml_assets.serving", "serve"], port, **environment) as url:
        assert requests.get(f"{url}/ping", timeout=2).status_code == 200
        assert time.monotonic() - started < SECONDS_TO_PING
        yield url


@pytest.fixture(scope="module")
def golden(release: Path) -> dict[str, Any]:
    return dict(msgspec.json.decode((release / GOLDEN).read_bytes()))


def invoke(url: str, body: Any, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{url}/invocations", data=body, headers=named, timeout=10)


def test_the_archive_is_the_release_and_equal_for_equal_releases(release: Path) -> None:
    before = archive_of(release).read_bytes()
    with tarfile.open(archive_of(release)) as archive:
        held = {each.name: archive.extractfile(each).read() for each in archive.getmembers()}  # type: ignore[union-attr]
    assert held == {path.name: path.read_bytes() for path in release.iterdir()}
    archive_of(release).unlink()
    assert pack(release).read_bytes() == before


def test_json_and_csv_get_the_approved_models_answers(container: str, golden: dict[str, Any]) -> None:
    body = msgspec.json.encode({"rows": golden["rows"][:4]})
    answer = invoke(container, body, content_type="application/json", accept="application/json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["predictions"] == golden["answers"][:4]
    as_csv = invoke(container, body, content_type="application/json", accept="text/csv, application/json;q=0.5")
    assert as_csv.headers["content-type"] == "text/csv"
    read = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [(each["label"], float(each["score"])) for each in read] == [
        (str(each["label"]), each["score"]) for each in golden["answers"][:4]
    ]


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({"content_type": "application/x-npy"}, 415, "application/x-npy"),
        ({"content_type": "application/json", "accept": "image/png"}, 406, "image/png"),
    ],
)
def test_other_kinds_are_refused(
    container: str, golden: dict[str, Any], headers: dict[str, str], status: int, said: str
) -> None:
    answer = invoke(container, msgspec.json.encode({"rows": golden["rows"][:1]}), **headers)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True)
