"""Where things are: the only place that reads the environment (`ML_ASSETS_*`).

Everything has a default that is right on a laptop; all local state lies below one folder, `.state/`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ml_assets.access import Access
from ml_assets.alerts.addresses import Address, read_addresses
from ml_assets.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PREFIX = "ML_ASSETS_"
JOURNAL = Path("predictions") / "journal"  # the prediction log as the endpoint server writes it, below `home`


class Settings(BaseModel):
    """One environment's settings. Each field is read from `ML_ASSETS_<FIELD>`, in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = Field("local", description="Environment. Only `local` exists today.")
    home: Path = Field(PROJECT_ROOT / ".state", description="Folder of all local state.")
    landing: str = Field("", description="Where outside systems put data: a folder or s3://. Default: home/landing.")
    models: Path = Field(PROJECT_ROOT / "ml_assets" / "defs", description="Folder with one folder per model.")
    endpoint_port: int = Field(8080, ge=1, le=65535, description="Endpoint server; the next free one if it is taken.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="MLflow's UI, which the links in the metadata name.")
    report_port: int = Field(3001, ge=1, le=65535, description="Report pages, which `ml-assets ui` serves.")
    mlflow: SecretStr = Field(
        SecretStr(""),
        alias="mlflow_uri",
        description="postgresql://user:password@host/db, or http(s):// of an MLflow server; default: SQLite in "
        "home/mlflow.",
    )
    mlflow_folder: str = Field(
        "",
        alias="mlflow_artifacts",
        description="Where MLflow's artefacts lie: s3://bucket/prefix or a folder. Default: where a server keeps them, "
        "else home/mlflow/artifacts.",
    )
    online_store: SecretStr = Field(SecretStr(""), description="redis://host:port/db; default: SQLite in home/feast.")
    ray_address: str = Field("", description="Ray cluster, host:port; default: one is started per training.")
    endpoint_keys: SecretStr = Field(SecretStr(""), description="Keys, with commas between them, that callers send.")
    endpoint_keys_file: Path | None = Field(None, description="File of more keys, one a line; read again when changed.")
    endpoint_max_bytes: int = Field(10 * 2**20, ge=1, description="Largest body of a request.")
    endpoint_max_rows: int = Field(10_000, ge=1, description="Most rows of a request.")
    prediction_log: Literal["", "on", "fsync", "off"] = Field(
        "", description="Default: on; off where SageMaker starts the server. fsync: no answer before it is on the disk."
    )
    sagemaker_role: str = Field("", description="ARN of the role that SageMaker's containers run as.")
    sagemaker_image: str = Field(
        "", description="The endpoint server's image in ECR: account.dkr.ecr.region.../name:tag."
    )
    sagemaker_store: str = Field("", description="s3://bucket/prefix of the releases that SageMaker reads.")
    kubernetes_namespace: str = Field("", description="Where models with `endpoint: {target: kubernetes}` serve.")
    kubernetes_image: str = Field("", description="The endpoint server's image, with a version.")
    kubernetes_releases: str = Field(
        "", description="Where pods find the folder of releases: https://host/path, or pvc://claim/path."
    )
    kubernetes_secret: str = Field("", description="Secret of the namespace, with the keys that callers send.")
    kubernetes_context: str = Field("", description="Of the kubeconfig; default: its current one, or the own cluster.")
    s3_endpoint_url: str | None = Field(None, description="S3-compatible server; empty for AWS.")
    alerts: SecretStr = Field(
        SecretStr(""), description="Where alerts go, with spaces between addresses; see ml_assets/alerts/addresses.py."
    )
    ui: str = Field("http://127.0.0.1:3000", description="Address of Dagster's UI, for links in alerts.")
    databases: dict[str, SecretStr] = Field({}, description="SQLAlchemy URLs, from ML_ASSETS_DATABASE_<NAME>.")
    tokens: dict[str, SecretStr] = Field({}, description="Bearer tokens, from ML_ASSETS_TOKEN_<NAME>.")

    @field_validator("env")
    @classmethod
    def _known_environment(cls, value: str) -> str:
        if value != "local":
            raise ValueError(f"{value!r} is no environment; `local` is the only one so far")
        return value

    @field_validator("ray_address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\w.-]+:\d+", value):
            raise ValueError("not host:port; leave it empty to start Ray here for each training")
        return value

    @field_validator("alerts")
    @classmethod
    def _are_addresses(cls, value: SecretStr) -> SecretStr:
        read_addresses(value.get_secret_value())
        return value

    @field_validator("ui")
    @classmethod
    def _is_a_web_address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/@]+(/[^\s]*)?", value):
            raise ValueError("not http(s)://host[:port]")
        return value.rstrip("/")

    @field_validator("online_store")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        address = value.get_secret_value()
        if address and not re.fullmatch(r"rediss?://([^@/?#]*@)?[\w.-]+(:\d+)?(/\d*)?", address):
            raise ValueError(
                "not redis://[user:password@]host[:port][/db], or rediss://, with / ? # @ in a password written as %2F "
                "%3F %23 %40; leave it empty for SQLite"
            )
        return value

    @field_validator("mlflow")
    @classmethod
    def _is_a_store(cls, value: SecretStr) -> SecretStr:
        address = value.get_secret_value()
        if re.match(r"https?://[^/]*@", address):
            raise ValueError(
                "a server's address holds no user and password; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        if address and not re.match(r"(https?|postgresql(\+\w+)?|sqlite)://[^\s]+$", address):
            raise ValueError(
                "not postgresql://user:password@host[:port]/database, http(s)://host[:port] or sqlite:///file; leave "
                "it empty for SQLite in home/mlflow"
            )
        return value

    @field_validator("sagemaker_store")
    @classmethod
    def _is_in_s3(cls, value: str) -> str:
        if value and not re.fullmatch(r"s3://[\w.-]+(/[^\s]*)?", value):
            raise ValueError("not s3://bucket/prefix")
        return value.rstrip("/")

    @field_validator("sagemaker_role")
    @classmethod
    def _is_a_role(cls, value: str) -> str:
        if value and not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+", value):
            raise ValueError("no ARN of a role, such as arn:aws:iam::123456789012:role/ml-assets")
        return value

    @field_validator("mlflow_folder")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        if "://" in value and not re.fullmatch(r"s3://[\w.-]+(/[^\s]*)?", value):
            raise ValueError("neither s3://bucket/prefix nor a folder")
        return value.rstrip("/")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: with every wrong or unknown `ML_ASSETS_*` variable at once.
        """
        given = {
            key.removeprefix(PREFIX).lower(): value
            for key, value in (os.environ if environ is None else environ).items()
            if key.startswith(PREFIX) and value != ""
        }
        secrets: dict[str, dict[str, str]] = {"databases": {}, "tokens": {}}
        for name in list(given):
            for prefix, group in (("database_", "databases"), ("token_", "tokens")):
                if name.startswith(prefix):
                    secrets[group][name.removeprefix(prefix)] = given.pop(name)
        try:
            settings = cls.model_validate(given | secrets)
        except ValidationError as error:
            wrong = "; ".join(
                f"{PREFIX}{'.'.join(map(str, each['loc'])).upper()}={_shown(each)}: {each['msg']}"
                for each in error.errors()
            )
            raise SettingsError(f"Wrong settings in the environment: {wrong}. See ml_assets/settings.py.") from None
        home = settings.home.expanduser().resolve()
        return settings.model_copy(
            update={
                "home": home,
                "landing": settings.landing.rstrip("/") or str(home / "landing"),
                "models": settings.models.expanduser().resolve(),
            }
        )

    @property
    def access(self) -> Access:
        """What sources need of the environment."""
        databases = {name: url.get_secret_value() for name, url in self.databases.items()}
        tokens = {name: token.get_secret_value() for name, token in self.tokens.items()}
        return Access(self.s3_endpoint_url, databases, tokens)

    @property
    def channels(self) -> tuple[Address, ...]:
        """Where alerts go."""
        return read_addresses(self.alerts.get_secret_value())

    @property
    def feast(self) -> Path:
        """Feast's repositories, one folder per model."""
        return self.home / "feast"

    @property
    def online_place(self) -> str:
        """Where the models' online stores are: a Redis server's address, or the folder of SQLite files."""
        return self.online_store.get_secret_value() or str(self.feast)

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def journal(self) -> Path:
        """The prediction log, as the endpoint server writes it."""
        return self.home / JOURNAL

    @property
    def reports(self) -> Path:
        """Report pages, one file per model."""
        return self.home / "reports"

    @property
    def report_ui(self) -> str:
        return f"http://127.0.0.1:{self.report_port}"

    @property
    def searches(self) -> Path:
        """Trials of searches whose training has not ended well yet."""
        return self.home / "searches"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry store; it may hold a password."""
        return self.mlflow.get_secret_value().rstrip("/") or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_server(self) -> str | None:
        """Address of an MLflow server that others run."""
        address = self.mlflow.get_secret_value().rstrip("/")
        return address if address.startswith("http") else None

    @property
    def mlflow_artifacts(self) -> str:
        """Where a new experiment keeps its artefacts; empty: the server decides."""
        if self.mlflow_folder or self.mlflow_server:
            return self.mlflow_folder
        return str(self.home / "mlflow" / "artifacts")

    @property
    def mlflow_ui(self) -> str:
        return self.mlflow_server or f"http://127.0.0.1:{self.mlflow_port}"


@dataclass(frozen=True)
class SageMakerPlace:
    """What SageMaker says to a container that it starts with `serve`: where the model lies, and where to listen."""

    model: Path
    port: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The place of this process.

        Raises:
            SettingsError: if the port is none.
        """
        given = os.environ if environ is None else environ
        port = given.get("SAGEMAKER_BIND_TO_PORT", "8080")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"SAGEMAKER_BIND_TO_PORT={port!r} is no port")
        return cls(Path(given.get("SM_MODEL_DIR", "/opt/ml/model")), int(port))


def _shown(error: Any) -> str:
    """The value that is wrong, unless it may hold a password: that of a secret, or of a variable that is misspelt."""
    secret = (
        error["loc"][0] in ("online_store", "mlflow_uri", "endpoint_keys", "databases", "tokens", "alerts")
        or error["type"] == "extra_forbidden"
    )
    return "(not shown)" if secret else repr(error["input"])
