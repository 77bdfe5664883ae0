"""The blog's model, once: as a release of ml-assets, and as the Pipeline that all other servers load; and its rows."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl

from benchmarks.train.__main__ import HERE as TRAIN
from benchmarks.train.__main__ import land
from ml_assets.deployment.release import as_json
from ml_assets.ml.inputs import model_inputs
from ml_assets.registry import Registry
from ml_assets.serving.bundle import read_manifest
from ml_assets.serving.pointer import Pointer, read_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets.settings import Settings

NAME = "orders"
ROWS = 1000  # that the servers are asked


@dataclass(frozen=True)
class Exported:
    """What the servers serve, and what they are asked.

    Attributes:
        releases: what ml-assets serves; `release` is the one.
        pipeline: the same model by joblib; `mlflow` as MLflow keeps it.
        rows: as a caller of ml-assets sends them: the columns of the contract.
        features: the 18 features of each row, which all other servers are sent.
        scores: of the positive class, by the Pipeline itself, shape (rows,).
    """

    releases: Path
    release: Path
    pipeline: Path
    mlflow: Path
    rows: list[dict[str, Any]]
    features: list[dict[str, Any]]
    scores: np.ndarray


def exported(folder: Path, rows: int) -> Exported:
    """Train the model on so many rows, unless the folder has it, and write it in each form."""
    home, landing = folder / "state", folder / "landing"
    variables = {"ML_ASSETS_HOME": str(home), "ML_ASSETS_MODELS": str(folder / "models")}
    variables |= {"ML_ASSETS_LANDING": str(landing), "DAGSTER_HOME": str(home / "dagster")}
    settings = Settings.from_environment(variables)
    if (read_pointers(settings.releases, NAME) or Pointer()).release is None:
        landing.mkdir(parents=True, exist_ok=True)
        land(landing / "orders.parquet", rows)
        (folder / "models" / NAME).mkdir(parents=True, exist_ok=True)
        for file in (TRAIN / NAME).glob("*.*"):
            (folder / "models" / NAME / file.name).write_bytes(file.read_bytes())
        _ml_assets("refresh", NAME, variables=variables)
        _ml_assets("stop", variables=variables)
    pointed = (read_pointers(settings.releases, NAME) or Pointer()).release
    assert pointed is not None
    release = settings.releases / NAME / pointed
    scorer = Scorer.load(release)
    version = read_manifest(release).version
    pipeline = Registry(settings.mlflow_uri).load(NAME, version)
    sent = _rows(landing / "orders.parquet", [column.name for column in scorer.manifest.inputs if column.needed])
    features = model_inputs(scorer.features.compute(scorer.read(sent)[0]))
    joblib.dump(pipeline, folder / "pipeline.joblib")
    _save_for_mlflow(pipeline, folder / "mlflow", features)
    return Exported(
        settings.releases,
        release,
        folder / "pipeline.joblib",
        folder / "mlflow",
        sent,
        features.astype(object).where(features.notna(), None).to_dict("records"),
        pipeline.predict_proba(features)[:, 1],
    )


def _ml_assets(*command: str, variables: dict[str, str]) -> None:
    program = str(Path(sys.executable).with_name("ml-assets"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ML_ASSETS_")} | variables
    subprocess.run([program, *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def _rows(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Rows that keep the contract, with missing values as they are."""
    good = (pl.col("items") >= 1) & (pl.col("distance_km").is_null() | pl.col("distance_km").is_between(0.1, 100))
    return as_json(pl.read_parquet(file).filter(good).sample(ROWS, seed=1).select(columns))


def _save_for_mlflow(pipeline: Any, folder: Path, features: Any) -> None:
    import mlflow.sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from ml_assets.ml import skops_store

    if folder.exists():
        return
    kinds = {name: "double" if kind.kind == "f" else "string" for name, kind in features.dtypes.items()}
    mlflow.sklearn.save_model(
        pipeline,
        str(folder),
        serialization_format="skops",
        skops_trusted_types=[*skops_store.TRUSTED],
        pip_requirements=["scikit-learn", "skops", "pandas", "numpy"],
        signature=ModelSignature(inputs=Schema([ColSpec(kind, name) for name, kind in kinds.items()])),
        pyfunc_predict_fn="predict_proba",
    )
