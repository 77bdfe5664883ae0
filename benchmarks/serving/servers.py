"""The servers: how each is installed and started, what it is sent, and where in its answer the scores are."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import environment_in
from benchmarks.serving.model import NAME, Exported
from ml_assets.settings import PROJECT_ROOT

HERE = Path(__file__).parent
LOCK = PROJECT_ROOT / "requirements.lock"
IMAGE = PROJECT_ROOT / "deploy" / "docker" / "endpoint.txt"  # ml-assets runs with what its image has, and no more
OURS, MLFLOW, ONNX = "ml-assets", "mlflow models serve", "FastAPI + ONNX graph"
LOG_ON, LOG_DURABLE = f"{OURS}, log on", f"{OURS}, log fsync"
# Prediction log of each of ours: ML_ASSETS_PREDICTION_LOG.
LOGS = {OURS: "off", LOG_ON: "on", LOG_DURABLE: "fsync"}
_SAME = ("scikit-learn", "pandas", "numpy", "scipy", "joblib")  # in all environments that have the Pipeline
_PACKAGES = {
    MLFLOW: ["mlflow", "skops"],
    "BentoML": ["bentoml==1.4.40"],
    "MLServer": ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop==0.21.0"],
    "Ray Serve": ["ray[serve]==2.60.0"],
    "FastAPI + pandas": ["fastapi==0.165.0", "uvicorn[standard]"],
    ONNX: ["fastapi==0.165.0", "uvicorn[standard]", "onnxruntime"],
}


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        command: what starts it; `{port}` stands for the port.
        path: where it is asked.
        request: of the numbers of some rows.
        scores: of the positive class, from its answer to them.
    """

    name: str
    command: list[str]
    path: str
    request: Callable[[list[int]], Any]
    scores: Callable[[Any], list[float]]
    environment: dict[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """All servers."""
    return [*LOGS, *_PACKAGES]


def environment_of(name: str, folder: Path) -> Path:
    """Python of a server's environment, which is made if it is not there.

    Raises:
        CalledProcessError: if it cannot be installed.
    """
    if name in LOGS:
        return environment_in(folder / "ml-assets-image", "--requirement", str(IMAGE))
    same = [line for line in LOCK.read_text().splitlines() if line.split("==")[0] in _SAME]
    # BentoML and MLServer do not go with all versions of the lock.
    others = [] if name in ("BentoML", "MLServer") else ["--constraint", str(LOCK)]
    place = folder / f"serving-{name.replace(' ', '-').lower()}"
    return environment_in(place, *others, *same, *_PACKAGES[name])


def server(name: str, python: Path, exported: Exported, home: Path) -> Server:
    """How a server is started and asked.

    Args:
        home: an empty folder of its own.
    """
    own = {"PIPELINE": str(exported.pipeline), "GRAPH": str(exported.release / "model.onnx"), "PYTHONPATH": str(HERE)}
    own["ORT_DISABLE_TELEMETRY"] = "1"
    uvicorn = [str(python), "-m", "uvicorn", "--port", "{port}", "--no-access-log"]

    def features(rows: list[int]) -> Any:
        return {"rows": [exported.features[each] for each in rows]}

    if name in LOGS:
        variables = {"ML_ASSETS_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
        variables["ML_ASSETS_PREDICTION_LOG"] = LOGS[name]
        command = [str(python), "-m", "ml_assets.serving", str(exported.releases), "{port}"]
        return Server(
            name,
            command,
            f"/models/{NAME}/predict",
            lambda rows: {"rows": [exported.rows[each] for each in rows]},
            _scores,
            variables,
        )
    if name == MLFLOW:
        columns = list(exported.features[0])
        command = [str(python.with_name("mlflow")), "models", "serve", "--model-uri", str(exported.mlflow)]
        command += ["--env-manager", "local", "--port", "{port}"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        quiet["PATH"] = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
        return Server(
            name,
            command,
            "/invocations",
            lambda rows: {
                "dataframe_split": {
                    "columns": columns,
                    "data": [list(exported.features[each].values()) for each in rows],
                }
            },
            lambda answer: [each[1] for each in answer["predictions"]],
            quiet,
        )
    if name == "BentoML":
        command = [str(python.with_name("bentoml")), "serve", "with_bentoml:Orders", "--port", "{port}"]
        command += ["--working-dir", str(HERE)]
        return Server(name, command, "/predict", features, _scores, own | {"BENTOML_DO_NOT_TRACK": "true"})
    if name == "MLServer":
        _settings_of_mlserver(home, exported.pipeline)
        return Server(
            name,
            [str(python.with_name("mlserver")), "start", str(home)],
            f"/v2/models/{NAME}/infer",
            lambda rows: _inference(exported.features, rows),
            lambda answer: answer["outputs"][0]["data"][1::2],
            {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_PARALLEL_WORKERS": "1"},
        )
    if name == "Ray Serve":
        environment = own | {"RAY_USAGE_STATS_ENABLED": "0"}
        return Server(
            name, [str(python), str(HERE / "with_ray.py"), "{port}"], "/predict", features, _scores, environment
        )
    app = "with_onnx:app" if name == ONNX else "with_fastapi:app"
    return Server(name, [*uvicorn, app], "/predict", features, _scores, own)


def _scores(answer: Any) -> list[float]:
    return [each["score"] for each in answer["predictions"]]


def _settings_of_mlserver(home: Path, pipeline: Path) -> None:
    model = {
        "name": NAME,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(pipeline), "version": "1"},
    }
    (home / "model-settings.json").write_text(json.dumps(model))


def _inference(features: list[dict[str, Any]], rows: list[int]) -> dict[str, Any]:
    """The rows column by column, as the Open Inference Protocol has them."""
    inputs = []
    for name, first in features[0].items():
        text = isinstance(first, str)
        inputs.append(
            {
                "name": name,
                "shape": [len(rows)],
                "datatype": "BYTES" if text else "FP64",
                "data": [features[each][name] for each in rows],
                **({"parameters": {"content_type": "str"}} if text else {}),
            }
        )
    return {"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": [{"name": "predict_proba"}]}
