"""MLflow on PostgreSQL with artefacts on S3, at a database's address and behind a server: training through both."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import requests

from ml_assets.errors import TrackingError
from ml_assets.lake import WHOLE
from ml_assets.registry import Registry
from ml_assets_tests.postgres import PASSWORD, Postgres
from ml_assets_tests.project import PROGRAMS, Project, end_session, free_port, wait_until
from ml_assets_tests.s3 import S3, s3_server
from ml_assets_tests.shop import NAME, add_shop

BUCKET = "models"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    postgres.execute("postgres", "CREATE DATABASE mlflow")
    return postgres.url("mlflow")


@pytest.fixture(scope="module")
def elsewhere(make_project: Callable[..., Project], database: str, s3: S3) -> Project:
    project = make_project("elsewhere")
    project.variables |= s3.variables() | {
        "ML_ASSETS_MLFLOW_URI": database,
        "ML_ASSETS_MLFLOW_ARTIFACTS": f"s3://{BUCKET}/artefacts",
        "ML_ASSETS_S3_ENDPOINT_URL": s3.url,
    }
    add_shop(project)
    project.materialize(NAME)
    return project


def client_of(project: Project) -> object:
    with project.active():
        return Registry(project.settings.mlflow_uri, project.settings.s3_endpoint_url).client


def test_a_model_is_trained_judged_and_served_through_postgresql_and_s3(elsewhere: Project, s3: S3) -> None:
    client = client_of(elsewhere)
    (run,) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])  # type: ignore[attr-defined]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith(f"s3://{BUCKET}/artefacts/{NAME}/")
    assert "test_f1" in run.data.metrics
    stored = s3.keys(BUCKET)
    for name in ("reproduce.json", "features.json", "verdict.json", "plots/roc_curve.png", "code/contract.py"):
        assert any(key.endswith(f"/artifacts/{name}") for key in stored), name
    assert any(key.endswith("/model.skops") for key in stored)
    registered = client.get_registered_model(NAME)  # type: ignore[attr-defined]
    assert {name: str(version) for name, version in registered.aliases.items()} == {"candidate": "1", "champion": "1"}
    assert elsewhere.latest(NAME).get("endpoint", WHOLE)
    assert not (elsewhere.settings.home / "mlflow").exists(), "nothing of it lies on this machine"


def test_no_password_is_shown_where_dagster_or_mlflow_show_things(elsewhere: Project) -> None:
    from urllib.parse import quote

    secrets = [PASSWORD, quote(PASSWORD, safe=""), elsewhere.variables["AWS_SECRET_ACCESS_KEY"]]
    with elsewhere.active(), dg.DagsterInstance.get() as instance:
        events = "".join(str(entry) for run in instance.get_runs() for entry in instance.all_logs(run.run_id))
    tracking = elsewhere.definitions().get_repository_def().get_top_level_resources()["tracking"]
    configured = str(tracking.configurable_resource_cls.__name__) + str(
        tracking.config_schema.default_value_as_json_str
    )
    client = client_of(elsewhere)
    (run,) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])  # type: ignore[attr-defined]
    shown = events + configured + str(run.to_dictionary()) + repr(elsewhere.settings)
    assert "ML_ASSETS_MLFLOW_URI" in configured
    for secret in secrets:
        assert secret not in shown


def test_a_wrong_password_fails_at_once_and_says_where_to_look(elsewhere: Project, postgres: Postgres) -> None:
    with pytest.raises(TrackingError, match=r"does not answer: .*password.*look at ML_ASSETS_MLFLOW_URI") as raised:
        Registry(postgres.url("mlflow", password="wrong-Sesame")).reach()
    assert "wrong-Sesame" not in str(raised.value)
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:\d+ does not answer"):
        Registry(f"http://127.0.0.1:{free_port()}").reach()


@contextlib.contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    """A real server that keeps artefacts itself: its callers need not know where. (On S3 it would have them fetched by
    signed addresses, which moto does not take.)
    """
    port = free_port()
    command = [str(PROGRAMS / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artefacts")]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": Registry(database).address}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{url}/health", timeout=5).ok
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            return False

        wait_until(answers, 60, "MLflow's server answers")
        yield url
    finally:
        end_session(process)


def test_the_same_through_a_server_whose_callers_know_neither_database_nor_folder(
    project: Project, elsewhere: Project, database: str, tmp_path: Path
) -> None:
    with mlflow_server(tmp_path, database) as url:
        project.variables["ML_ASSETS_MLFLOW_URI"] = f"{url}/"
        add_shop(project)
        spec = project.settings.models / NAME / "defs.yaml"
        spec.write_text(spec.read_text().replace(f"name: {NAME}", "name: kiosk"))
        spec.parent.rename(project.settings.models / "kiosk")
        project.materialize("kiosk")
        trained = project.latest("kiosk").get("trained_model", WHOLE)
        assert trained is not None
        assert list((tmp_path / "artefacts").rglob("model.skops"))
        assert not (project.settings.home / "mlflow").exists(), "nothing of it lies on this side"
        client = Registry(url).client
        assert client.get_run(trained.details["mlflow_run_id"]).info.status == "FINISHED"
        assert set(client.get_registered_model("kiosk").aliases) == {"candidate", "champion"}
        assert project.settings.mlflow_ui == url
