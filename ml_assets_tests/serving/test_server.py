"""The endpoint server as a real process over a real release."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.targets import Release
from ml_assets.errors import EndpointError, ReleaseError, SettingsError, TargetError
from ml_assets.serving.bundle import GOLDEN, GRAPH, MANIFEST, MANIFEST_DIGEST, REFERENCE, SCHEMA, read_manifest
from ml_assets.serving.options import Options
from ml_assets.serving.pointer import Pointer, read_pointers, write_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets.settings import Settings
from ml_assets_tests.endpoint import brought
from ml_assets_tests.project import Project, free_port, wait_until
from ml_assets_tests.releases import sealed

MODEL = "late_deliveries"


@pytest.fixture
def target(release: Path, tmp_path: Path) -> Iterator[LocalTarget]:
    """A server of the test's own, over a copy of the release."""
    shutil.copytree(release, tmp_path / "releases" / MODEL / release.name)
    made = LocalTarget(tmp_path, tmp_path / "releases", free_port())
    yield made
    made.stop()


def golden(release: Path) -> dict[str, Any]:
    return dict(msgspec.json.decode((release / GOLDEN).read_bytes()))


def test_the_server_answers_like_the_approved_model_and_says_which_version_does(small: Project, release: Path) -> None:
    url = small.target.url()
    health = requests.get(f"{url}/health", timeout=5).json()
    assert health["status"] == "ok"
    assert health["models"][MODEL]["release"] == release.name
    assert health["models"][MODEL]["scorer"] == "onnx"
    assert "it answers like scikit-learn on" in health["models"][MODEL]["scorer_reason"]
    rows = golden(release)["rows"]
    for path in ("/predict", f"/models/{MODEL}/predict"):
        answer = requests.post(f"{url}{path}", json={"rows": rows}, timeout=10).json()
        assert answer["version"] == "1"
        assert answer["predictions"] == golden(release)["answers"]
    alone = [requests.post(f"{url}/predict", json={"rows": [row]}, timeout=10).json() for row in rows[:5]]
    assert [each["predictions"][0] for each in alone] == golden(release)["answers"][:5]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", b"{broken", 422, "no JSON"),
        ("/predict", b"[]", 422, "rows"),
        ("/predict", b'{"rows": []}', 422, "rows"),
        ("/predict", b'{"rows": [{"zone": "a"}]}', 422, "row 0"),
        ("/models/nothing/predict", b'{"rows": []}', 404, "late_deliveries"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(
    small: Project, path: str, body: bytes, status: int, said: str
) -> None:
    answer = requests.post(f"{small.target.url()}{path}", data=body, timeout=10)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_number_that_is_too_large_is_refused_by_row_and_feature(small: Project, release: Path) -> None:
    rows = golden(release)["rows"][:3]
    rows[2]["order_value"] = 1e300
    answer = requests.post(f"{small.target.url()}/predict", json={"rows": rows}, timeout=10)
    assert answer.status_code == 422
    assert answer.json()["error"] == "row 2: feature 'order_value' is 1e+300, which is too large for the model"


def test_a_server_of_graphs_loads_and_predicts_without_scikit_learn_and_pandas(release: Path) -> None:
    code = (
        "import sys, msgspec; from pathlib import Path; import ml_assets.serving.__main__;"
        "from ml_assets.serving.scorer import Scorer; folder = Path(sys.argv[1]); scorer = Scorer.load(folder);"
        "golden = msgspec.json.decode((folder / 'golden.json').read_bytes());"
        "assert scorer.predict(golden['rows'][:1]) == golden['answers'][:1];"
        "heavy = ('sklearn', 'scipy', 'pandas', 'joblib', 'skops', 'onnx', 'dagster', 'mlflow');"
        "print('onnxruntime' in sys.modules, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(release)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


FILES = (MANIFEST, MANIFEST_DIGEST, GRAPH, GOLDEN, SCHEMA, REFERENCE)


def with_a_changed_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], Any]] = {
    **{f"a byte of {name}": lambda folder, name=name: with_a_changed_byte(folder / name) for name in FILES},
    **{f"without {name}": lambda folder, name=name: (folder / name).unlink() for name in FILES},
    "with another file": lambda folder: (folder / "more.txt").write_text("x"),
    "with a pickle beside it": lambda folder: (folder / "model.pkl").write_bytes(b"x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_release_that_was_changed_is_refused(release: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    folder = tmp_path / "release"
    shutil.copytree(release, folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    read_manifest(folder)
    change(folder)
    with pytest.raises(ReleaseError, match=r"build the release again|is no release|cannot be read"):
        Scorer.load(folder)


def test_a_release_of_another_format_or_with_features_of_another_form_is_refused(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    shutil.copytree(release, folder)
    written = msgspec.json.decode((folder / MANIFEST).read_bytes())
    older = {name: value for name, value in written.items() if name != "features"} | {"format": 1, "expressions": []}
    polars = {"form": 1, "features": [{"name": "items", "type": "number", "expression": {"Column": "items"}}]}
    for manifest, said in (
        (older, "has the format 1; this server reads 5: build the release again"),
        (
            written | {"features": written["features"] | {"form": 2}},
            "stored in form 2; this version of ml-assets reads 1",
        ),
        (written | {"features": polars}, "stored feature 'items': a stored expression is not valid"),
    ):
        sealed(folder, manifest)
        with pytest.raises(ReleaseError, match=said):
            Scorer.load(folder)


def test_a_bad_release_never_serves_and_the_old_one_goes_on(release: Path, target: LocalTarget) -> None:
    url, answers = brought(target, MODEL, release.name)
    assert answers == golden(release)["answers"]
    bad = target.releases / MODEL / "9-bad"
    shutil.copytree(release, bad)
    with_a_changed_byte(bad / GRAPH)
    with pytest.raises(TargetError, match=r"late_deliveries: release 9-bad is refused: .*changed"):
        brought(target, MODEL, bad.name)
    LocalRollout(target, MODEL).rollback(Release.named(release.name))
    assert (read_pointers(target.releases, MODEL) or Pointer()).release == release.name
    rows = golden(release)["rows"][:2]
    assert requests.post(url, json={"rows": rows}, timeout=10).json()["version"] == "1"


def test_a_guarded_server_is_brought_to_a_release_with_a_key_and_refuses_who_has_none(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("\n")
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("ML_ASSETS_ENDPOINT_KEYS_FILE", str(keys))
    folder = tmp_path / "releases" / MODEL / release.name
    shutil.copytree(release, folder)
    target = LocalTarget.of(Settings.from_environment(), free_port())
    try:
        with pytest.raises(SettingsError, match="holds no key, so that nobody can ask the endpoint server"):
            brought(target, MODEL, folder.name)
        keys.write_text("of-today\nolder\n")
        rows = golden(release)["rows"]
        wait_until(lambda: _answered(target, rows), 10, "the key counts")
        url, answers = brought(target, MODEL, folder.name)
        assert answers == golden(release)["answers"]
        assert requests.post(url, json={"rows": rows}, timeout=10).status_code == 401
        other = LocalTarget(target.home, target.releases, target.port, guard=Options(keys=frozenset({"another"})))
        with pytest.raises(EndpointError, match="was started with other keys than are set now; `ml-assets stop`"):
            other.ask(MODEL, rows)
        assert "of-today" not in repr(target) + repr(other)
    finally:
        target.stop()


def _answered(target: LocalTarget, rows: list[Any]) -> bool:
    """Whether a key is let in, be it to hear that no such model serves."""
    try:
        target.ask(MODEL, rows)
    except EndpointError as error:
        return "404" in str(error)
    return True


def test_a_restarted_server_serves_what_it_served_and_stop_ends_it(release: Path, target: LocalTarget) -> None:
    brought(target, MODEL, release.name)
    assert target.stop()
    assert target.url() is None
    assert not target.stop()
    url = target.start()
    assert target.start() == url, "a second start finds the running server"
    target.wait_for(url, MODEL, release.name)
    write_pointers(target.releases, MODEL, Pointer(None))
    wait_until(lambda: requests.get(f"{url}/health", timeout=5).json()["models"] == {}, 5, "nothing serves")
