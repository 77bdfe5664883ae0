"""`ml-assets reproduce`: old versions are made again to the last bit, and what differs is named."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_assets import reproduce as reproducing
from ml_assets.digests import digest_of
from ml_assets.errors import TrackingError
from ml_assets.registry import FACTS_TAG, Registry
from ml_assets.reproduce import differences, reproduce
from ml_assets.reproduction import retrain
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project
from ml_assets_tests.shop import NAME, add_shop, land_shop

SPLIT = {"by": "random", "validation": 0.2}


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project]) -> Project:
    """Two versions, the second of more rows, other parameters and another contract."""
    project = make_project("reproduce")
    add_shop(project, split=SPLIT, threshold={"objective": "f1"})
    project.materialize(NAME)
    land_shop(project, 500)
    add_shop(project, split=SPLIT, estimator={"params": {"n_estimators": 4, "max_depth": 3}})
    contract = project.settings.models / NAME / "contract.py"
    contract.write_text(contract.read_text().replace("gt=0", "gt=0, lt=10_000"))
    project.materialize(NAME)
    return project


def registry_of(project: Project) -> Registry:
    return Registry(project.settings.mlflow_uri)


def facts_of(project: Project, version: str) -> dict[str, Any]:
    registry = registry_of(project)
    registry.reach()
    return registry.facts(NAME, version)


def state_of(project: Project) -> dict[str, str]:
    """Digest of every file of the lake and of the artefacts, and what MLflow's database holds."""
    folders = [project.settings.lake, Path(project.settings.mlflow_artifacts), project.settings.releases]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    client = registry_of(project).client
    runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    versions = client.search_model_versions(f"name = '{NAME}'")
    told = {"runs": str([run.to_dictionary() for run in runs]), "versions": str([dict(each) for each in versions])}
    return told | {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_old_version_is_made_again_by_a_command_that_changes_nothing(shop: Project) -> None:
    before = state_of(shop)
    done = shop.run("ml-assets", "reproduce", NAME, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    digest = facts_of(shop, "1")["model_digest"]
    assert "shop version 1: 400 labelled rows, of features version 0 and outcomes version 0" in done.stdout
    assert f"Reproduced: the same rows gave the same model ({digest[:12]})." in done.stdout
    assert state_of(shop) == before
    with pytest.raises(TrackingError, match="has no version 7 of shop; there are: 1, 2"):
        registry_of(shop).facts(NAME, "7")


def test_the_platform_is_taken_from_its_recorded_commit_where_it_has_changed_since(
    shop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    shutil.copytree(PROJECT_ROOT / "ml_assets", tmp_path / "ml_assets", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "As it was trained"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "ml_assets" / "digests.py").write_text("raise SystemExit('not this one')")
    monkeypatch.setattr(reproducing, "PROJECT_ROOT", tmp_path)
    facts = facts_of(shop, "2")
    facts["code"]["git"] = {"commit": head, "dirty": False, "changed": []}
    rewritten(shop, "2", facts)
    said: list[str] = []
    with shop.active():
        assert reproduce(shop.settings, NAME, "2", said.append), said
    assert f"code: commit {head[:10]}, unpacked beside the one that is here" in said

    facts["code"]["ml_assets_digest"] = "of files that were never committed"
    folder = tmp_path / "again"
    folder.mkdir()
    used, notes = reproducing._platform(facts, folder)
    assert used == "the one that is here, because the recorded one is not to be had"
    assert notes == [
        f"code: ml_assets at {head[:10]}, here {head[:10]}; other files: ml_assets/digests.py",
    ]


def rewritten(project: Project, version: str, facts: dict[str, Any]) -> None:
    """As if the version's training had written other facts."""
    client = registry_of(project).client
    run = client.get_model_version(NAME, version).tags["mlflow_run"]
    client.log_dict(run, facts, "reproduce.json")
    client.set_model_version_tag(NAME, version, FACTS_TAG, digest_of(facts))


def test_a_parameter_and_a_package_that_differ_are_named(shop: Project) -> None:
    right = facts_of(shop, "2")
    wrong = json.loads(json.dumps(right))
    wrong["params"]["max_depth"] = 2
    wrong["environment"]["packages"]["scikit-learn"] = "1.8.0"
    here = right["environment"]["packages"]["scikit-learn"]
    rewritten(shop, "2", wrong)
    said: list[str] = []
    with shop.active():
        assert not reproduce(shop.settings, NAME, "2", said.append)
    assert "  parameter max_depth: 3 recorded, 2 here" in said
    assert f"  package scikit-learn {here}, recorded 1.8.0" in said
    rewritten(shop, "2", right)


def test_facts_or_code_that_were_changed_are_not_believed(shop: Project, tmp_path: Path) -> None:
    registry, facts = registry_of(shop), facts_of(shop, "1")
    run = registry.client.get_model_version(NAME, "1").tags["mlflow_run"]
    registry.client.log_dict(run, facts | {"params": {"max_depth": 9}}, "reproduce.json")
    with pytest.raises(TrackingError, match=r"shop version 1: reproduce.json in MLflow was changed after the training"):
        registry.facts(NAME, "1")
    registry.client.log_dict(run, facts, "reproduce.json")
    kept = (Path(registry.client.download_artifacts(run, "code")) / "contract.py").read_text()
    registry.client.log_text(run, kept + "\n", "code/contract.py")
    with pytest.raises(TrackingError, match=r"code/contract.py in MLflow was changed after the training"):
        registry.code(NAME, "1", facts, tmp_path / NAME)
    registry.client.log_text(run, kept, "code/contract.py")
    registry.code(NAME, "1", facts, tmp_path / "again" / NAME)


def test_the_table_and_the_row_sets_whose_content_differs_are_named(shop: Project) -> None:
    facts = facts_of(shop, "2")
    folder = shop.lake.path(NAME, "features")
    kept = folder.with_name("kept")
    folder.rename(kept)

    def remade() -> list[str]:
        with shop.active():
            return differences(facts, retrain(shop.settings, facts))

    assert remade() == [f"features version 1: there is no such table in {shop.settings.lake}"]
    rows = pl.read_delta(str(kept), version=1)
    changed = pl.when(pl.col("number") == 7).then(1.5).otherwise("size").alias("size")
    for frame in (rows, rows.with_columns(changed)):  # another table in its place, whose version 1 has another value
        shop.lake.replace(NAME, "features", frame, ["all"])
    content, row_set = remade()
    assert content == "features version 1: its content differs (500 rows, 500 then)"
    assert row_set in {f"row set {side}: other values in its rows" for side in ("train", "validation", "test")}
    shutil.rmtree(folder)

    shutil.copytree(kept, folder)
    for path in folder.rglob("*.parquet"):
        path.unlink()  # as by a vacuum
    (gone,) = remade()
    assert gone.startswith("features version 1: it cannot be read any more: ")
    shutil.rmtree(folder)
    kept.rename(folder)
    assert remade() == []
