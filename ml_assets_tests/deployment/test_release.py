"""What a release holds, and which scorer serves it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import requests
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.release import build_release
from ml_assets.errors import ReleaseError
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.verdict import Verdict
from ml_assets.serving.bundle import GOLDEN, GRAPH, MANIFEST, MANIFEST_DIGEST, PIPELINE, REFERENCE, SCHEMA
from ml_assets.serving.scorer import Scorer
from ml_assets.status import tell_status
from ml_assets_tests.endpoint import brought
from ml_assets_tests.pipelines import fitted_on
from ml_assets_tests.project import Project, free_port
from ml_assets_tests.releases import sealed

NAME = "late_deliveries"

ALWAYS = (MANIFEST, MANIFEST_DIGEST, GOLDEN, SCHEMA, REFERENCE)


@pytest.fixture(scope="module")
def cleaned(small: Project) -> pl.DataFrame:
    return small.lake.read(NAME, "cleaned_data").sort(small.model().contract.key)


def released(small: Project, cleaned: pl.DataFrame, estimator: Any, releases: Path) -> tuple[Path, Any]:
    """A release of a Pipeline with another estimator, and the Pipeline."""
    model = small.model()
    features = model.features.compute(cleaned)
    answer = (cleaned["promised_minutes"] - cleaned["preparation_minutes"] < 2 * cleaned["items"]).to_numpy()
    pipeline = fitted_on(features, answer.astype(int), estimator)
    verdict = Verdict(NAME, "7", True, [], "m", "d", "c", "g")
    return build_release(
        model, verdict, pipeline, [False, True], None, cleaned, releases, features.head(200), features.tail(100)
    ), pipeline


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LocalTarget]:
    made = LocalTarget(tmp_path, tmp_path / "releases", free_port())
    yield made
    made.stop()


def test_what_no_graph_is_made_of_is_served_by_scikit_learn_and_said_so(
    small: Project, cleaned: pl.DataFrame, target: LocalTarget
) -> None:
    release, pipeline = released(small, cleaned, DecisionTreeClassifier(max_depth=3), target.releases)
    assert {each.name for each in release.iterdir()} == {*ALWAYS, PIPELINE}
    address, answers = brought(target, NAME, release.name)
    wanted = pipeline.predict_proba(model_inputs(small.model().features.compute(cleaned.head(20))))
    assert [each["score"] for each in answers] == wanted[:, 1].tolist()
    health = target.health()
    assert health is not None
    serves = health["models"][NAME]
    assert serves["scorer"] == "scikit-learn"
    assert serves["scorer_reason"].startswith("DecisionTreeClassifier is not on the list (SimpleImputer without")
    told: list[str] = []
    none = {"raw": 0, "cleaned": 0, "rejected": 0, "duplicates": 0}
    about = {"partitions": 0, "rows": none, "judged": None, "serves": serves}
    about |= {"rollout": None, "refused_release": None, "monitoring": None, "probed": None, "alerts": []}
    tell_status({"endpoint": address, "prediction_log": None, "models": {NAME: about}}, told.append)
    assert f"  scorer  scikit-learn: {serves['scorer_reason']}" in told
    rows = msgspec.json.decode((release / GOLDEN).read_bytes())["rows"][:1]
    refused = requests.post(address, json={"rows": [rows[0] | {"order_value": 1e300}]}, timeout=10)
    assert refused.status_code == 422
    assert "cannot be scored" in refused.json()["error"]


def test_a_release_holds_the_graph_and_no_second_scorer(small: Project, cleaned: pl.DataFrame, tmp_path: Path) -> None:
    release, pipeline = released(small, cleaned, HistGradientBoostingClassifier(max_iter=5), tmp_path)
    assert {each.name for each in release.iterdir()} == {*ALWAYS, GRAPH}
    scorer = Scorer.load(release)
    assert scorer.manifest.scorer == "onnx"
    assert set(scorer.manifest.built_with) == {"onnx", "onnxruntime", "polars", "scikit-learn"}
    features = small.model().features.compute(cleaned)
    assert np.array_equal(scorer.estimator.scores(features), pipeline.predict_proba(model_inputs(features)))


def test_a_release_without_the_file_of_its_scorer_is_refused(
    small: Project, cleaned: pl.DataFrame, tmp_path: Path
) -> None:
    release, _ = released(small, cleaned, HistGradientBoostingClassifier(max_iter=5), tmp_path)
    (release / GRAPH).unlink()
    manifest = msgspec.json.decode((release / MANIFEST).read_bytes())
    del manifest["files"][GRAPH]
    sealed(release, manifest)
    with pytest.raises(ReleaseError, match=r"the scorer is onnx, and there is no model\.onnx; build the release again"):
        Scorer.load(release)
