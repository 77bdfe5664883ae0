"""What SageMaker captured of requests to the small project's release becomes `predictions`: S3 is moto's, over HTTP."""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_assets.automation.due_feedback import due_feedback
from ml_assets.deployment.release import as_request
from ml_assets.deployment.sagemaker_captured import GOLDEN_ID
from ml_assets.errors import TargetUnavailableError
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import read_latest
from ml_assets.serving.scorer import Scorer
from ml_assets.settings import JOURNAL
from ml_assets.sources import retries
from ml_assets.spec.endpoint import Endpoint, SageMaker
from ml_assets_tests.project import Project
from ml_assets_tests.s3 import S3, s3_server
from ml_assets_tests.sagemaker import IMAGE, ROLE
from ml_assets_tests.steps import refresh_feedback

MODEL, BUCKET = "late_deliveries", "captured"
AT = datetime.now(UTC).replace(hour=23, minute=59, second=0, microsecond=0) - timedelta(days=20)
DAY, NEXT = (str((AT + timedelta(days=each)).date()) for each in (0, 1))
FOLDER = f"ml/{MODEL}/captured/ml-assets-late-deliveries"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.create_bucket(BUCKET)
        yield server


class OnSageMaker:
    """A model on SageMaker: its lake, its release, and lines as SageMaker captures them."""

    def __init__(self, small: Project, root: Path) -> None:
        self.root, self.lake = root, Lake(root / "lake")
        shutil.copytree(small.settings.lake, self.lake.root)
        shutil.copytree(small.settings.releases, root / "releases")
        served = small.latest().get("endpoint", WHOLE)
        assert served is not None
        self.release = str(served.details["release"])
        self.scorer = Scorer.load(root / "releases" / MODEL / self.release)
        on_sagemaker = Endpoint(target="sagemaker", sagemaker=SageMaker(capture=50))
        model = small.model()
        self.model: Model = replace(model, spec=model.spec.model_copy(update={"endpoint": on_sagemaker}))
        self.orders = self.lake.read(MODEL, "cleaned_data").drop_nulls("distance_km").sort("order_id").head(8)
        self.rows = as_request(self.orders, self.scorer.manifest)
        self.ids = self.orders.get_column("order_id").to_list()

    def line(self, number: int, at: datetime, *, form: str = "JSON", **about: Any) -> str:
        """An order that was asked about, and what the release answered."""
        row = self.rows[number]
        answer = {"model": MODEL, "version": "1", "predictions": self.scorer.predict([row], None)}
        body = json.dumps({"rows": [row], "ids": [self.ids[number]]})
        if form == "CSV":
            said = {name: "" if value is None else value for name, value in row.items()}
            body = pl.DataFrame([said]).write_csv()
        kind = "text/csv" if form == "CSV" else "application/json"
        data = base64.b64encode(body.encode()).decode() if form == "BASE64" else body
        asked = {"observedContentType": kind, "mode": "INPUT", "data": data, "encoding": form}
        output = {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON"}
        captured = {"endpointInput": asked, "endpointOutput": output | {"data": json.dumps(answer)}}
        return _line(captured, at, f"event-{number}", **about)

    def catch_up(self) -> dict[str, list[str]]:
        return refresh_feedback(self.model, self.lake, self.root)

    def predictions(self) -> pl.DataFrame:
        return self.lake.read(MODEL, "predictions").sort("received_at", "request_id")

    def details(self, day: str) -> dict[str, Any]:
        return read_latest(self.lake, MODEL).of("predictions")[day].details


def _line(captured: dict[str, Any], at: datetime, event: str, **about: Any) -> str:
    told = {"eventId": event, "inferenceTime": at.isoformat().replace("+00:00", "Z")} | about
    return json.dumps({"captureData": captured, "eventMetadata": told, "eventVersion": "0"})


@pytest.fixture
def endpoint(small: Project, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnSageMaker]:
    settings = {
        "ML_ASSETS_SAGEMAKER_ROLE": ROLE,
        "ML_ASSETS_SAGEMAKER_IMAGE": IMAGE,
        "ML_ASSETS_SAGEMAKER_STORE": f"s3://{BUCKET}/ml",
        "ML_ASSETS_S3_ENDPOINT_URL": s3.url,
    }
    for name, value in (s3.variables() | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    yield OnSageMaker(small, tmp_path)
    for key in s3.keys(BUCKET):
        s3.delete(BUCKET, key)


def put(s3: S3, variant: str, name: str, *lines: str, at: datetime = AT) -> None:
    s3.put(BUCKET, f"{FOLDER}/{variant}/{at:%Y/%m/%d/%H}/{name}.jsonl", "\n".join(lines).encode())


def test_captured_requests_become_predictions_once_each(endpoint: OnSageMaker, s3: S3) -> None:
    second = timedelta(seconds=1)
    error = {"endpointInput": {"data": "{}", "encoding": "JSON"}, "endpointOutput": {"data": '{"error": "no rows"}'}}
    put(
        s3,
        "stable",
        "a",
        endpoint.line(0, AT),
        endpoint.line(1, AT + second, form="BASE64"),
        endpoint.line(2, AT + 2 * second, form="CSV", inferenceId=endpoint.ids[2]),
        endpoint.line(3, AT + 3 * second, inferenceId=GOLDEN_ID),
        _line(error, AT + 4 * second, "refused"),
        '{"captureData": {"endpointInput"',
        endpoint.line(4, AT + 90 * second),  # after midnight
    )
    put(s3, "challenger", "b", endpoint.line(5, AT))
    assert endpoint.catch_up()[DAY] == ["feedback", "monitoring", "predictions"]
    endpoint.catch_up()  # what was of the day after
    rows = endpoint.predictions()
    assert rows["key_order_id"].to_list() == [endpoint.ids[each] for each in (0, 5, 1, 2, 4)]
    assert rows["_partition"].to_list() == [DAY] * 4 + [NEXT]
    assert rows["release"].unique().to_list() == [endpoint.release]
    assert rows["seconds"].null_count() == 5, "nobody measured them"
    expected = endpoint.scorer.predict([endpoint.rows[each] for each in (0, 5, 1, 2, 4)], None)
    assert rows["score"].to_list() == [each["score"] for each in expected]
    assert rows["feature_distance_km"].to_list() == [endpoint.rows[each]["distance_km"] for each in (0, 5, 1, 2, 4)]
    said = endpoint.details(DAY)
    assert (said["requests"], said["refused"], said["not_reproduced"], said["p99_ms"]) == (5, 1, 0, "")
    assert endpoint.details(NEXT)["lost"] == 1, "a line that cannot be read"
    refused = endpoint.lake.read(MODEL, "rejected_predictions")
    assert refused.select("request_id", "status", "seconds").rows() == [("refused", 424, None)]
    watched = endpoint.lake.read(MODEL, "monitoring", [DAY])
    assert "latency" not in watched["subject"].to_list()
    assert endpoint.catch_up() == {}, "everything was taken in"

    put(s3, "stable", "c", endpoint.line(6, AT))
    put(s3, "challenger", "b", endpoint.line(5, AT), endpoint.line(7, AT))  # with another content
    assert set(endpoint.catch_up()) == {DAY}
    assert endpoint.catch_up() == {NEXT: ["feedback", "monitoring"]}, "which counts only ids that are new"
    asked = endpoint.predictions().filter(pl.col("_partition") == DAY)["key_order_id"].to_list()
    assert sorted(asked) == sorted(endpoint.ids[each] for each in (0, 1, 2, 5, 6, 7))
    assert endpoint.catch_up() == {}


def test_s3_that_does_not_answer_is_a_problem_and_stops_nothing_else(
    endpoint: OnSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> Any:
        raise TargetUnavailableError("S3 does not answer")

    due = due_feedback(endpoint.model, endpoint.lake, endpoint.root / JOURNAL, captured=down)
    assert due.needs == {}
    assert "S3 does not answer" in str(due.problems["captured"])
