"""The blog's pipeline in pandas, scikit-learn and MLflow, step by step. The plain script and every peer call these.

It runs in environments without ml-assets. Cleaning, features, model, cross-validation, metrics, plots and what is
logged are those of ml-assets' run, so that what is compared is what each tool adds.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EXPERIMENT = "orders"
TARGET = "late"
TEXTS = ["zone", "vehicle", "weather", "kitchen", "payment", "weekday"]
NUMBERS = [
    *("distance_km", "items", "order_value", "preparation_minutes", "promised_minutes", "temperature", "rain_mm"),
    *("courier_load", "restaurant_load", "value_per_item", "minutes_per_km", "hour"),
]
FEATURES = [*NUMBERS, *TEXTS]
FOREST = {"n_estimators": 100, "max_depth": 10, "random_state": 42}
FOLDS = 5


def fingerprint(path: str) -> str:
    """Of a file's content. Where a tool keeps results by a step's arguments, it is one: else new data would go
    unnoticed.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load(path: str, content: str = "") -> pd.DataFrame:
    return pd.read_parquet(path)


def clean(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.drop_duplicates(subset=["order_id"], keep="last")
    good = (rows["distance_km"].between(0, 100, inclusive="right") | rows["distance_km"].isna()) & (rows["items"] >= 1)
    return rows[good & (rows["order_value"] > 0)].reset_index(drop=True)


def featurise(rows: pd.DataFrame) -> pd.DataFrame:
    at = rows["ordered_at"].dt
    return rows.assign(
        value_per_item=rows["order_value"] / rows["items"],
        minutes_per_km=rows["promised_minutes"] / rows["distance_km"],
        hour=at.hour.astype(float),
        weekday=at.weekday.astype(str),
        **{name: rows[name].fillna("missing") for name in TEXTS if name in rows},
    )[[*FEATURES, TARGET]]


def split(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(rows, test_size=0.2, stratify=rows[TARGET], random_state=42)
    return train, test


def build() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    number = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    text = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepare = ColumnTransformer([("number", number, NUMBERS), ("text", text, TEXTS)])
    return Pipeline([("prepare", prepare), ("estimator", RandomForestClassifier(n_jobs=-1, **FOREST))])


def train(rows: pd.DataFrame) -> tuple[Any, list[float]]:
    """The fitted Pipeline, and F1 per fold."""
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedKFold

    inputs, answer = rows[FEATURES], rows[TARGET].to_numpy()
    scores = []
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=42).split(inputs, answer):
        fitted = build().fit(inputs.iloc[learn], answer[learn])
        scores.append(float(f1_score(answer[judge], fitted.predict(inputs.iloc[judge]))))
    return build().fit(inputs, answer), scores


def evaluate(pipeline: Any, rows: pd.DataFrame) -> tuple[dict[str, float], np.ndarray]:
    """Metrics on held-out rows, and the scores."""
    from sklearn import metrics

    truth, scores = rows[TARGET].to_numpy(), pipeline.predict_proba(rows[FEATURES])[:, 1]
    answers = scores > 0.5
    values = {
        "accuracy": metrics.accuracy_score(truth, answers),
        "precision": metrics.precision_score(truth, answers),
        "recall": metrics.recall_score(truth, answers),
        "f1": metrics.f1_score(truth, answers),
        "roc_auc": metrics.roc_auc_score(truth, scores),
    }
    return {name: float(value) for name, value in values.items()}, scores


def log(
    pipeline: Any, folds: list[float], values: dict[str, float], scores: np.ndarray, test: pd.DataFrame, uri: str
) -> str:
    """Log parameters, metrics, plots and the model to MLflow, and register it: the new version."""
    import mlflow
    import mlflow.sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    signature = ModelSignature(
        inputs=Schema([ColSpec("double" if name in NUMBERS else "string", name) for name in FEATURES]),
        outputs=Schema([ColSpec("long")]),
    )
    with mlflow.start_run():
        mlflow.log_params({"estimator": "sklearn.ensemble.RandomForestClassifier", **FOREST})
        mlflow.log_metrics({f"cv_f1_fold_{number}": score for number, score in enumerate(folds, start=1)})
        mlflow.log_metrics({"cv_f1": sum(folds) / len(folds)} | {f"test_{name}": each for name, each in values.items()})
        with tempfile.TemporaryDirectory() as folder:
            draw(test[TARGET].to_numpy(), scores, Path(folder))
            mlflow.log_artifacts(folder, "plots")
        info = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format="skops",
            skops_trusted_types=["numpy.dtype", "sklearn.tree._tree.Tree"],
            pip_requirements=["scikit-learn", "skops", "pandas", "numpy"],
            signature=signature,
            registered_model_name=EXPERIMENT,
        )
    version = str(info.registered_model_version)
    mlflow.MlflowClient(uri).set_registered_model_alias(EXPERIMENT, "candidate", version)
    return version


def draw(truth: np.ndarray, scores: np.ndarray, folder: Path) -> None:
    """Confusion matrix, ROC curve and calibration as PNG files."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from sklearn.calibration import CalibrationDisplay
    from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

    ConfusionMatrixDisplay.from_predictions(truth, scores > 0.5)
    pyplot.savefig(folder / "confusion_matrix.png")
    RocCurveDisplay.from_predictions(truth, scores)
    pyplot.savefig(folder / "roc_curve.png")
    CalibrationDisplay.from_predictions(truth, scores, n_bins=10, strategy="quantile")
    pyplot.savefig(folder / "calibration.png")
    pyplot.close("all")
