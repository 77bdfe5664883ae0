"""The endpoint's container image: what is in it, who it runs as, and that its own command serves a release."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import requests
from sklearn.tree import DecisionTreeClassifier

from ml_assets.serving.bundle import GOLDEN, POINTER
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.deployment.test_release import released
from ml_assets_tests.endpoint import served
from ml_assets_tests.image import DOCKERFILE, Image, built, instructions
from ml_assets_tests.project import Project, free_port

MODEL = "late_deliveries"
HEAVY = ("dagster", "pandas", "sklearn", "mlflow", "scipy", "deltalake", "onnx", "skops")


def at(port: int, command: list[str]) -> list[str]:
    """The image's arguments, with a port that is free here."""
    assert command[1] == "8080"
    return [command[0], str(port), *command[2:]]


def test_the_dockerfile_is_as_hadolint_wants_it() -> None:
    program = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["endpoint", "endpoint-skops"])
def test_it_says_how_it_is_to_be_run(target: str) -> None:
    said = instructions(target)
    assert said["EXPOSE"] == "8080"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["USER"] == "10001:10001", "a number, which Kubernetes can hold against runAsNonRoot"
    assert msgspec.json.decode(said["ENTRYPOINT"])[0] == "python", "no shell, which would keep SIGTERM to itself"
    assert "ml_assets.serving.healthy" in said["HEALTHCHECK"]


@pytest.mark.parametrize("name", ["endpoint", "endpoint-skops"])
def test_its_packages_are_those_of_the_lock(name: str) -> None:
    pinned = (DOCKERFILE.parent / f"{name}.txt").read_text().splitlines()
    locked = set((PROJECT_ROOT / "requirements.lock").read_text().splitlines())
    # Markers say less here: another package of the lock asks for uvloop by system, and the image has one system.
    assert {line.split(" ;")[0] for line in pinned} <= {line.split(" ;")[0] for line in locked}, "run `make lock`"
    asked = {line.strip() for line in (DOCKERFILE.parent / f"{name}.in").read_text().splitlines()}
    direct = {line for line in asked if line and not line.startswith(("#", "-"))}
    assert direct <= {line.split("==")[0] for line in pinned}


def test_its_command_serves_releases_with_a_key_and_writes_nothing(image: Image, release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, image.model / MODEL / release.name)
    write_pointers(image.model, MODEL, Pointer(release.name))
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    port, before = free_port(), image.files()
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())
    key = {"X-API-Key": "secret"}
    run = image.run(*at(port, image.command), ML_ASSETS_ENDPOINT_KEYS_FILE=str(keys))
    try:
        with served(tmp_path, port=port, run=run) as url:
            assert requests.get(f"{url}/ping", timeout=5).status_code == 200
            healthy = image.run("-m", "ml_assets.serving.healthy", SAGEMAKER_BIND_TO_PORT=str(port))
            check = [healthy["args"][0], *healthy["args"][3:]]
            assert subprocess.run(check, env=healthy["env"], cwd=healthy["cwd"], check=False).returncode == 0
            for path in ("/predict", f"/models/{MODEL}/predict", "/invocations"):
                assert requests.post(f"{url}{path}", json={"rows": golden["rows"]}, timeout=10).status_code == 401
                said = requests.post(f"{url}{path}", json={"rows": golden["rows"]}, headers=key, timeout=10)
                assert said.json()["predictions"] == golden["answers"]
    finally:
        shutil.rmtree(image.model / MODEL)
    assert {path for path in image.files() - before if path.exists()} == set()


def test_another_user_than_who_deploys_can_read_what_is_mounted(small: Project, release: Path) -> None:
    pointer = release.parent / POINTER
    assert release.stat().st_mode & 0o005 == 0o005
    for each in (pointer, *release.iterdir()):
        assert each.stat().st_mode & 0o004, each


def test_its_command_does_not_serve_everybody(image: Image) -> None:
    done = subprocess.run(**image.run(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "set ML_ASSETS_ENDPOINT_KEYS or ML_ASSETS_ENDPOINT_KEYS_FILE" in done.stderr


def test_it_holds_the_servers_few_packages_and_nothing_of_training(image: Image) -> None:
    code = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    done = subprocess.run([image.python, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not (image.root / "opt" / "endpoint" / "ml_assets" / "demo").exists()


def test_the_variant_serves_what_no_graph_is_made_of(small: Project, tmp_path: Path) -> None:
    cleaned = small.lake.read(MODEL, "cleaned_data").sort(small.model().contract.key)
    release, _ = released(small, cleaned, DecisionTreeClassifier(max_depth=3), tmp_path / "releases")
    image = built("endpoint-skops", tmp_path / "image")
    shutil.copytree(release, image.model)
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())
    port = free_port()
    place = {"SM_MODEL_DIR": str(image.model), "SAGEMAKER_BIND_TO_PORT": str(port)}
    with served(tmp_path, port=port, run=image.run("serve", **place)) as url:
        assert requests.get(f"{url}/health", timeout=5).json()["models"]["model"]["scorer"] == "scikit-learn"
        said = requests.post(f"{url}/predict", json={"rows": golden["rows"]}, timeout=10)
        assert said.json()["predictions"] == golden["answers"]
