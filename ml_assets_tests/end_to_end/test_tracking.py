"""What MLflow holds of a training, and of one that failed."""

import hashlib
import json
import platform

import mlflow
import pytest
from mlflow.entities import Run

from ml_assets.errors import RunFailedError
from ml_assets.lake import WHOLE
from ml_assets.provenance import files_of
from ml_assets.registry import Registry
from ml_assets_tests.project import SMALL_MODEL, Project

MODEL = "late_deliveries"


def runs(project: Project) -> list[Run]:
    client = Registry(project.settings.mlflow_uri).client
    return list(client.search_runs([client.get_experiment_by_name(MODEL).experiment_id]))


def test_one_training_is_one_finished_run_with_all_that_belongs_to_it(small: Project) -> None:
    (run,) = runs(small)
    trained, judged = (small.latest().get(each, WHOLE) for each in ("trained_model", "metrics"))
    assert trained is not None
    assert judged is not None
    assert run.info.status == "FINISHED"
    assert run.info.run_id == trained.details["mlflow_run_id"]
    assert run.data.params["estimator"] == "sklearn.ensemble.RandomForestClassifier"
    assert run.data.params["n_estimators"] == "10"
    assert run.data.params["rows_trained_on"] == str(trained.details["counts"]["trained_on"])
    assert {"cv_f1", "cv_f1_fold_1", "cv_f1_fold_2"} <= set(run.data.metrics)
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc"):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(judged.details["values"][name])
    assert run.data.tags["model_digest"] == trained.content
    assert run.data.tags["dagster_run_id"] == trained.run_id
    client = Registry(small.settings.mlflow_uri).client
    plots = {each.path for each in client.list_artifacts(run.info.run_id, "plots")}
    names = ("calibration", "confusion_matrix", "permutation_importance", "precision_recall", "roc_curve")
    assert plots == {f"plots/{name}.png" for name in names}


def test_a_run_says_from_what_code_data_and_environment_its_model_came(small: Project) -> None:
    import sklearn

    import ml_assets
    from ml_assets.provenance import commit_of
    from ml_assets.settings import PROJECT_ROOT

    (run,) = runs(small)
    trained = small.latest().get("trained_model", WHOLE)
    assert trained is not None
    tags, facts = run.data.tags, Registry(small.settings.mlflow_uri).facts(MODEL, "1")
    assert tags["package.scikit-learn"] == sklearn.__version__ == facts["environment"]["packages"]["scikit-learn"]
    assert tags["python"] == platform.python_version()
    assert tags["lock_digest"] == hashlib.sha256((PROJECT_ROOT / "requirements.lock").read_bytes()).hexdigest()
    assert tags["ml_assets_version"] == ml_assets.__version__
    assert tags["code_digest"] == small.model().code_digest == facts["code_digest"]
    at = facts["code"]["git"]  # not compared with the commit of now: somebody may commit while tests run
    assert (at is None) == (commit_of(PROJECT_ROOT) is None)
    assert tags.get("mlflow.source.git.commit") == (at["commit"] if at else None)
    assert facts["features"] == small.model().features.names
    assert facts["params"] == trained.details["params"] == {"n_estimators": 10, "max_depth": 8, "random_state": 42}
    assert facts["parameters"]["estimator__max_features"] == "sqrt", "scikit-learn's own defaults too"
    assert sum(each["rows"] for each in facts["rows"].values()) == trained.details["counts"]["labelled"]
    versions = {table: str(version) for table, version in trained.details["table_versions"].items()}
    assert {table: tags[f"table_version.{table}"] for table in versions} == versions
    used = {each.dataset.name: json.loads(each.dataset.source) for each in run.inputs.dataset_inputs}
    # MLflow leaves version 0 out.
    assert {name: str(source.get("delta_table_version", 0)) for name, source in used.items()} == {
        f"{MODEL}/{table}": version for table, version in versions.items()
    }
    for name, content in files_of(small.settings.models / MODEL).items():
        assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/code/{name}").encode() == content


def test_the_registered_version_has_a_signature_from_the_contract_and_loads_without_a_pickle(small: Project) -> None:
    from mlflow.models import get_model_info

    registry = Registry(small.settings.mlflow_uri)
    tags = registry.client.get_model_version(MODEL, "1").tags
    assert tags["mlflow_run"] == runs(small)[0].info.run_id
    aliases = registry.client.get_registered_model(MODEL).aliases
    assert {name: str(version) for name, version in aliases.items()} == {"candidate": "1", "champion": "1"}
    info = get_model_info(f"models:/{MODEL}/1")
    signature = {each.name: str(each.type) for each in info.signature.inputs}
    features = small.model().features
    assert signature == {
        name: "DataType.double" if name in features.numeric else "DataType.string" for name in features.names
    }
    assert info.flavors["sklearn"]["serialization_format"] == "skops"
    stored = registry.client.get_model_version_download_uri(MODEL, "1")
    assert "scikit-learn==" in mlflow.artifacts.load_text(f"{stored}/requirements.txt")


def test_a_training_that_fails_ends_its_run_as_failed_and_registers_nothing(project: Project) -> None:
    project.add_demo_model(**(SMALL_MODEL | {"estimator": {"params": {"oob_score": True, "bootstrap": False}}}))
    project.land(4)
    with pytest.raises(RunFailedError, match=r"late_deliveries: scikit-learn refuses to fit: .*[Oo]ut of bag"):
        project.materialize()
    assert [run.info.status for run in runs(project)] == ["FAILED"]
    assert not Registry(project.settings.mlflow_uri).client.search_model_versions(f"name = '{MODEL}'")
    assert project.latest().get("trained_model", WHOLE) is None


def test_a_run_that_a_killed_process_left_behind_is_failed_by_the_next_training(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    project.land(4)
    client = Registry(project.settings.mlflow_uri).client
    abandoned = client.create_run(client.create_experiment(MODEL, artifact_location=f"{project.root}/artifacts"))
    project.materialize()
    assert client.get_run(abandoned.info.run_id).info.status == "FAILED"
    assert sorted(run.info.status for run in runs(project)) == ["FAILED", "FINISHED"]
