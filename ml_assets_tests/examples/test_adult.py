from collections.abc import Callable
from pathlib import Path

import pytest

from ml_assets.lake import WHOLE
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project


@pytest.fixture(scope="module")
def adult(make_project: Callable[..., Project], shared_data: Path) -> Project:
    project = make_project("adult", models=PROJECT_ROOT / "examples", landing=str(shared_data))
    project.materialize("adult")
    return project


def test_the_raw_files_with_all_their_dirt_become_two_classes_and_a_good_model(adult: Project) -> None:
    latest = adult.latest("adult")
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    assert trained is not None
    assert judged is not None
    assert trained.details["classes"] == ["<=50K", ">50K"]
    assert judged.details["values"]["accuracy"] >= 0.85
    assert judged.details["values"]["roc_auc"] >= 0.91


def test_its_rows_are_those_of_the_published_data(adult: Project) -> None:
    cleaned = adult.latest("adult").get("cleaned_data", WHOLE)
    assert cleaned is not None
    assert cleaned.details["raw"] == 48_842
    assert (cleaned.rows, cleaned.details["rejected"], cleaned.details["duplicates"]) == (48_790, 0, 52)
    rows = adult.lake.read("adult", "cleaned_data")
    raw = adult.lake.read("adult", "raw_data")
    assert (raw["workclass"].str.strip_chars() == "?").sum() == 2_799
    assert 2_799 - 52 <= rows["workclass"].null_count() <= 2_799
    assert not rows["education"].str.contains("^ ").any()
