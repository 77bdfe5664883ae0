"""The server as SageMaker starts it: its command, folders and port, `/ping` and `/invocations`."""

import csv
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.deployment.archive import archive_of, pack
from ml_assets.errors import SettingsError
from ml_assets.serving.bundle import GOLDEN
from ml_assets.settings import SageMakerPlace
from ml_assets_tests.endpoint import served
from ml_assets_tests.image import Image
from ml_assets_tests.project import free_port

SECONDS_TO_PING = 60  # SageMaker gives up after eight minutes; nobody should wait one


@pytest.fixture(scope="module")
def container(release: Path, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, started as SageMaker does: with `serve`, and the archive unpacked in its model folder."""
    home = tmp_path_factory.mktemp("sagemaker")
    with tarfile.open(archive_of(release)) as archive:
        archive.extractall(home / "model", filter="data")
    port = free_port()
    run = image.run("serve", SM_MODEL_DIR=str(home / "model"), SAGEMAKER_BIND_TO_PORT=str(port))
    started = time.monotonic()
    with served(home, port, run) as url:
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


def test_csv_is_read_with_and_without_a_header_and_answered_as_asked(container: str, golden: dict[str, Any]) -> None:
    columns = list(golden["rows"][0])
    rows = [["" if row[name] is None else str(row[name]) for name in columns] for row in golden["rows"][:4]]
    lines = [",".join(each) for each in ([columns, *rows])]
    for body, accept in (("\n".join(lines), "text/csv"), ("\n".join(lines[1:]), "application/json")):
        answer = invoke(container, body, content_type="text/csv", accept=accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, accept), answer.text
        if accept == "text/csv":
            scores = [float(each["score"]) for each in csv.DictReader(io.StringIO(answer.text))]
        else:
            scores = [each["score"] for each in answer.json()["predictions"]]
        assert scores == [each["score"] for each in golden["answers"][:4]]


def test_without_more_the_model_lies_where_sagemaker_puts_it_and_the_port_is_8080() -> None:
    assert SageMakerPlace.from_environment({}) == SageMakerPlace(Path("/opt/ml/model"), 8080)
    with pytest.raises(SettingsError, match="SAGEMAKER_BIND_TO_PORT='no' is no port"):
        SageMakerPlace.from_environment({"SAGEMAKER_BIND_TO_PORT": "no"})


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
