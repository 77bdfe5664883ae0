"""No pickle is read by anything that serves, and none is written: loading a pickle runs code of its author's choice."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import requests
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from ml_assets.deployment.local import LocalTarget
from ml_assets.errors import ReleaseError, TargetError
from ml_assets.lake import WHOLE
from ml_assets.registry import Registry
from ml_assets.serving.bundle import GOLDEN, GRAPH, MANIFEST, PIPELINE
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets_tests.deployment.test_release import released
from ml_assets_tests.endpoint import brought
from ml_assets_tests.project import Project, free_port, wait_until
from ml_assets_tests.releases import sealed
from ml_assets_tests.shop import NAME as SHOP
from ml_assets_tests.shop import add_shop

NAME = "late_deliveries"


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def skops_of_a_function() -> bytes:
    """A Pipeline with a step that calls any function, which would be harmless to load and not to ask."""
    return bytes(
        skops.io.dumps(Pipeline([("any", FunctionTransformer(os.system)), ("tree", DecisionTreeClassifier())]))
    )


@pytest.fixture(scope="module")
def graph(small: Project) -> Path:
    """A release that scores by a graph."""
    record = small.latest().get("endpoint", WHOLE)
    assert record is not None
    return small.settings.releases / NAME / str(record.details["release"])


@pytest.mark.parametrize("kind", ["pickle", "function"])
def test_a_server_refuses_a_release_whose_pipeline_is_a_pickle_or_names_a_type_that_is_not_allowed(
    kind: str, graph: Path, tmp_path: Path
) -> None:
    release = tmp_path / "releases" / NAME / "9-foreign"
    shutil.copytree(graph, release)
    content = pickle.dumps(Runs(tmp_path / "ran")) if kind == "pickle" else skops_of_a_function()
    (release / GRAPH).unlink()
    (release / PIPELINE).write_bytes(content)
    manifest = msgspec.json.decode((release / MANIFEST).read_bytes())
    del manifest["files"][GRAPH]
    sealed(release, manifest | {"scorer": "scikit-learn", "files": manifest["files"] | {PIPELINE: ""}})
    target = LocalTarget(tmp_path, tmp_path / "releases", free_port())
    said = (
        "is no skops file, and nothing else is read"
        if kind == "pickle"
        else "holds the types .*system.* not on the allow-list"
    )
    try:
        with pytest.raises(TargetError, match=f"{NAME}: release 9-foreign is refused: .*{said}"):
            brought(target, NAME, release.name)
    finally:
        target.stop()
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project]) -> Project:
    project = make_project("pickles")
    add_shop(project)
    project.materialize(SHOP)
    return project


def test_mlflow_is_given_no_pickle(shop: Project) -> None:
    files = [path for path in Path(shop.settings.mlflow_artifacts).rglob("*") if path.is_file()]
    assert {"MLmodel", "model.skops", "requirements.txt", "reproduce.json", "contract.py", "roc_curve.png"} <= {
        path.name for path in files
    }
    assert {path.suffix for path in files} <= {"", ".html", ".json", ".npy", ".png", ".py", ".skops", ".txt", ".yaml"}
    for path in files:
        assert not path.read_bytes().startswith(b"\x80"), f"{path} begins like a pickle"
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).dtype != object
    (stored,) = (path for path in files if path.suffix == ".skops")
    with zipfile.ZipFile(stored) as packed:
        for name in packed.namelist():
            assert name == "schema.json" or np.load(io.BytesIO(packed.read(name)), allow_pickle=False).dtype != object


@pytest.mark.parametrize("asset", ["metrics", "endpoint"])
@pytest.mark.parametrize("kind", ["pickle", "function", "beside"])
def test_what_judges_and_serves_refuses_a_registered_pickle(
    kind: str, asset: str, shop: Project, tmp_path: Path
) -> None:
    (stored,) = Path(shop.settings.mlflow_artifacts).rglob("model.skops")
    kept = stored.read_bytes()
    said = {"pickle": "is no skops file", "function": "not on the allow-list", "beside": "there is no .*model.skops"}
    try:
        if kind == "beside":
            stored.unlink()
            stored.with_name("model.pkl").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
        else:
            stored.write_bytes(pickle.dumps(Runs(tmp_path / "ran")) if kind == "pickle" else skops_of_a_function())
        with pytest.raises(ReleaseError, match=said[kind]):
            shop.by_hand(asset, name=SHOP)
    finally:
        stored.write_bytes(kept)
        stored.with_name("model.pkl").unlink(missing_ok=True)
    assert not (tmp_path / "ran").exists()
    assert Registry(shop.settings.mlflow_uri).champion(SHOP) == "1", "what served serves on"


# Every unpickler asks for the classes and functions that a pickle names: Python's own, joblib's and cloudpickle's.
# While it is imported (by scikit-learn, by skops), dask pickles functions of its own and reads that again, in memory.
WATCHED = """
import runpy, sys

def watch(event, arguments):
    if event == "pickle.find_class" and sys._getframe(1).f_globals.get("__name__") != "dask.tokenize":
        print("UNPICKLED", *arguments, file=sys.stderr, flush=True)

sys.addaudithook(watch)
sys.argv[:] = sys.argv[1:]
"""


@contextmanager
def watched_server(root: Path, more: str = "") -> Iterator[tuple[str, Path]]:
    port, log = free_port(), root / "log"
    code = WATCHED + more + 'runpy.run_module("ml_assets.serving", run_name="__main__")'
    command = [sys.executable, "-c", code, "ml_assets.serving", str(root / "releases"), str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"ML_ASSETS_HOME": str(root)}
        )
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait(20)


def test_a_server_unpickles_nothing_while_it_loads_and_serves_both_kinds_of_release(
    small: Project, graph: Path, tmp_path: Path
) -> None:
    cleaned = small.lake.read(NAME, "cleaned_data").sort(small.model().contract.key)
    releases = tmp_path / "releases"
    tree, _ = released(small, cleaned, DecisionTreeClassifier(max_depth=3), releases)
    shutil.copytree(graph, releases / NAME / graph.name)
    rows = msgspec.json.decode((graph / GOLDEN).read_bytes())["rows"]
    with watched_server(tmp_path) as (url, log):
        for release, scorer in ((graph, "onnx"), (tree, "scikit-learn")):
            write_pointers(releases, NAME, Pointer(release.name))

            def serves(name: str = release.name) -> Any:
                try:
                    served = requests.get(f"{url}/health", timeout=5).json()["models"].get(NAME, {})
                except requests.ConnectionError:
                    return None
                return served if served.get("release") == name else None

            assert wait_until(serves, 60, f"{release.name} serves")["scorer"] == scorer
            assert requests.post(f"{url}/predict", json={"rows": rows}, timeout=10).ok
    assert "UNPICKLED" not in log.read_text()


def test_the_watch_sees_every_unpickler(tmp_path: Path) -> None:
    seen = """
import io, joblib, pickle, pathlib, cloudpickle
pickle.loads(pickle.dumps(pathlib.PurePosixPath("by-pickle")))
cloudpickle.loads(cloudpickle.dumps(pathlib.PureWindowsPath("by-cloudpickle")))
file = io.BytesIO(); joblib.dump(io.BytesIO(b"by-joblib"), file); file.seek(0); joblib.load(file)
sys.exit()
"""
    with watched_server(tmp_path, seen) as (_, log):
        wait_until(lambda: log.read_text().count("UNPICKLED") >= 3, 30, "all three are seen")
    for name in ("PurePosixPath", "PureWindowsPath", "BytesIO"):
        assert name in log.read_text()
