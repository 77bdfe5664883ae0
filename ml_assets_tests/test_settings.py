from pathlib import Path

import pytest

from ml_assets.definitions import models_in
from ml_assets.errors import SettingsError
from ml_assets.serving.options import Options
from ml_assets.settings import PROJECT_ROOT, Settings


def test_without_any_variable_all_state_lies_in_one_folder_of_the_project() -> None:
    settings = Settings.from_environment({})
    assert settings.home == PROJECT_ROOT / ".state"
    for place in (settings.lake, settings.releases, settings.dagster_home, Path(settings.landing)):
        assert place.is_relative_to(settings.home)


def test_every_wrong_variable_is_named_at_once_with_its_value() -> None:
    environ = {"ML_ASSETS_ENDPOINT_PORT": "eighty", "ML_ASSETS_ENV": "moon", "ML_ASSETS_HOEM": "/x", "PATH": "/bin"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ)
    for part in ("ML_ASSETS_ENDPOINT_PORT", "eighty", "ML_ASSETS_ENV", "moon", "ML_ASSETS_HOEM"):
        assert part in str(caught.value)


def test_the_online_store_is_sqlite_below_home_or_redis_and_its_password_is_never_shown(tmp_path: Path) -> None:
    settings = Settings.from_environment({"ML_ASSETS_HOME": str(tmp_path)})
    assert settings.online_place == str(tmp_path / "feast")
    url = "redis://:sesame@127.0.0.1:6379/0"
    settings = Settings.from_environment({"ML_ASSETS_ONLINE_STORE": url})
    assert settings.online_place == url
    assert "sesame" not in repr(settings)
    with pytest.raises(SettingsError, match=r"ML_ASSETS_ONLINE_STORE=.*not redis://\[user:password@\]host") as caught:
        Settings.from_environment({"ML_ASSETS_ONLINE_STORE": "http://:sesame@127.0.0.1"})
    assert "sesame" not in str(caught.value)


def test_mlflow_is_in_the_home_unless_a_database_or_a_server_is_set(tmp_path: Path) -> None:
    settings = Settings.from_environment({"ML_ASSETS_HOME": str(tmp_path)})
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert settings.mlflow_artifacts == f"{tmp_path}/mlflow/artifacts"
    assert settings.mlflow_ui == "http://127.0.0.1:5000"
    database, bucket = "postgresql://user:sesame@host/mlflow", "s3://bucket/artefacts"
    settings = Settings.from_environment(
        {"ML_ASSETS_MLFLOW_URI": database, "ML_ASSETS_MLFLOW_ARTIFACTS": f"{bucket}/", "ML_ASSETS_HOME": str(tmp_path)}
    )
    assert (settings.mlflow_uri, settings.mlflow_artifacts) == (database, bucket)
    assert "sesame" not in repr(settings)
    settings = Settings.from_environment({"ML_ASSETS_MLFLOW_URI": "https://127.0.0.1:5443/"})
    assert settings.mlflow_ui == settings.mlflow_server == settings.mlflow_uri == "https://127.0.0.1:5443"
    assert settings.mlflow_artifacts == "", "the server decides"
    with pytest.raises(SettingsError, match="neither s3://bucket/prefix nor a folder"):
        Settings.from_environment({"ML_ASSETS_MLFLOW_ARTIFACTS": "gs://bucket"})


def test_predictions_are_logged_unless_that_is_switched_off_or_sagemaker_does_it(tmp_path: Path) -> None:
    def options(way: str, **started: str) -> tuple[Path | None, bool]:
        given = {"ML_ASSETS_HOME": str(tmp_path), "ML_ASSETS_PREDICTION_LOG": way}
        made = Options.of(Settings.from_environment(given), **started)
        return made.journal, made.durable

    journal = tmp_path / "predictions" / "journal"
    assert [options(way) for way in ("", "on", "fsync", "off")] == [
        (journal, False),
        (journal, False),
        (journal, True),
        (None, False),
    ]
    assert [options(way, log="off")[0] for way in ("", "on")] == [None, journal]
    with pytest.raises(SettingsError, match=r"ML_ASSETS_PREDICTION_LOG='sync'.*'on', 'fsync' or 'off'"):
        options("sync")


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head.ray.svc:6379", ""])
def test_ray_is_at_an_address_or_started_for_each_training(address: str) -> None:
    assert Settings.from_environment({"ML_ASSETS_RAY_ADDRESS": address}).ray_address == address
    with pytest.raises(SettingsError, match=r"ML_ASSETS_RAY_ADDRESS='http://head:1': .*not host:port; leave"):
        Settings.from_environment({"ML_ASSETS_RAY_ADDRESS": "http://head:1"})


def test_a_models_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ML_ASSETS_MODELS"):
        models_in(tmp_path)


@pytest.mark.parametrize(
    "variable",
    [
        "ML_ASSETS_ONLINE_STORE=redis://host/0?password=sesame",
        "ML_ASSETS_ONLINE_STORE=redis://:ses/ame#sesame@host",
        "ML_ASSETS_ONLINE_STORE= redis://:sesame@host",
        "ML_ASSETS_ONLINE_STOR=redis://:sesame@host",
        "ML_ASSETS_DATABASES_SHOP=postgresql://u:sesame@host/shop",
        "ML_ASSETS_MLFLOW_URI=https://user:sesame@host",
        "ML_ASSETS_MLFLOW_URI=mysql://user:sesame@host/mlflow",
        "ML_ASSETS_MLFLOW=postgresql://user:sesame@host/mlflow",
    ],
)
def test_no_message_shows_what_may_be_a_password(variable: str) -> None:
    name, _, value = variable.partition("=")
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_environment({name: value})
    assert "sesame" not in str(caught.value)
