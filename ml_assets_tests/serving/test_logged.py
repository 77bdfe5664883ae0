"""What a server logs of its requests, from HTTP to the files, and back to rows with the very features it saw."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import requests

from ml_assets.assets.predictions import _load
from ml_assets.ml.predictions import FEATURE, KEY, REQUEST, Logged, predictions_schema, rows_of_entries
from ml_assets.ml.validation import failure_cases
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.ids import MOST_COLUMNS
from ml_assets.serving.journal import Entry, segments
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.settings import JOURNAL
from ml_assets_tests.endpoint import served
from ml_assets_tests.project import Project, wait_until

MODEL = "late_deliveries"


@dataclass
class Server:
    """A server that logs: its address, and what it logged so far."""

    url: str
    folder: Path

    def ask(self, path: str = "/predict", **options: Any) -> requests.Response:
        return requests.post(f"{self.url}{path}", timeout=10, **options)

    def log(self) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/health", timeout=5).json()["prediction_log"])

    def entries(self) -> dict[str, Entry]:
        """By id, once all of them are written."""
        wait_until(lambda: self.log()["waiting"] == 0, 5, "the log is written")
        return {each.id: each for segment in segments(self.folder) for each in segment.read().entries}


@pytest.fixture(scope="module")
def server(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("logged")
    shutil.copytree(release, home / "releases" / MODEL / release.name)
    write_pointers(home / "releases", MODEL, Pointer(release.name))
    with served(home) as url:
        yield Server(url, home / JOURNAL / MODEL)


@pytest.fixture(scope="module")
def rows(release: Path) -> list[dict[str, Any]]:
    return list(msgspec.json.decode((release / GOLDEN).read_bytes())["rows"])


def table(small: Project, entries: list[Entry]) -> Logged:
    """What the asset makes of entries."""
    model = small.model()
    schema = predictions_schema(model.contract, model.outcome_key, model.features, model.spec.task)
    key = {name: model.contract.types[name] for name in model.outcome_key}
    load = lambda name: _load(small.settings.releases / MODEL / name)  # noqa: E731
    made = rows_of_entries(entries, "2026-01-01-x", load, schema, key, model.spec.task)
    assert failure_cases(schema, made.rows).is_empty()
    return made


def test_every_answer_has_the_id_of_its_request(server: Server, rows: list[dict[str, Any]]) -> None:
    given = server.ask(json={"rows": rows[:2], "ids": ["a", "b"]}, headers={"X-Request-Id": "mine-1"})
    assert (given.status_code, given.headers["x-request-id"]) == (200, "mine-1")
    made = [server.ask(json={"rows": rows[:1]}).headers["x-request-id"] for _ in range(2)]
    assert len({*made}) == 2
    refused = server.ask(json={"rows": [{}]})
    assert refused.status_code == 422
    entries = server.entries()
    assert {"mine-1", *made, refused.headers["x-request-id"]} <= entries.keys()
    assert entries["mine-1"].answer == given.content
    assert msgspec.json.decode(entries["mine-1"].body) == {"rows": rows[:2], "ids": ["a", "b"]}
    wrong = server.ask(json={"rows": rows[:1]}, headers={"X-Request-Id": "with blanks"})
    assert (wrong.status_code, "is no id" in wrong.json()["error"]) == (422, True)
    for ids in (["a", "b"], [{}], [{str(each): 1 for each in range(MOST_COLUMNS + 1)}]):
        assert server.ask(json={"rows": rows[:1], "ids": ids}).status_code == 422


def test_rows_have_the_features_of_training_and_the_ids_of_the_caller(
    server: Server, small: Project, release: Path
) -> None:
    """Orders of the lake, asked one by one, in JSON and in CSV: features equal to the last bit."""
    model = small.model()
    cleaned = small.lake.read(MODEL, "cleaned_data", ["2025-01-08"]).sort(model.contract.key).head(6)
    needed = [*model.features.inputs, "order_id"]
    asked = cleaned.select(needed).with_columns(pl.col("ordered_at").dt.strftime("%FT%T%.6fZ"))
    ids = cleaned["order_id"].to_list()
    for number, row in enumerate(asked.drop("order_id").to_dicts()[:3]):
        server.ask(json={"rows": [row], "ids": [ids[number]]}, headers={"X-Request-Id": f"row-{number}"})
    more = {"X-Request-Id": "row-3", "X-Amzn-SageMaker-Inference-Id": ids[3], "Content-Type": "text/csv"}
    in_csv = asked.drop("order_id")[3:4].write_csv().encode()
    assert server.ask("/invocations", data=in_csv, headers=more | {"Accept": "text/csv"}).status_code == 200
    body = asked[4:].write_csv().encode()  # with the key's column among the others
    server.ask("/invocations", data=body, headers={"X-Request-Id": "row-4", "Content-Type": "text/csv"})
    entries = [each for name, each in server.entries().items() if name.startswith("row-")]
    logged = table(small, entries)
    assert logged.rows["request_id"].to_list() == ["row-0", "row-1", "row-2", "row-3", "row-4", "row-4"]
    assert logged.rows[KEY + "order_id"].to_list() == ids
    offline = small.lake.read(MODEL, "features", ["2025-01-08"]).sort(model.contract.key).head(6)
    for name in model.features.names:
        assert logged.rows[FEATURE + name].equals(offline[name].alias(FEATURE + name)), name
    assert logged.rows[REQUEST + "ordered_at"].equals(cleaned["ordered_at"].alias(REQUEST + "ordered_at"))
    assert logged.counts == {"without_features": 0, "unreadable": 0, "not_reproduced": 0, "not_joinable": 0}
    assert logged.versions == {"1": [False, True]}
    altered = [
        msgspec.structs.replace(each, answer=each.answer.replace(b'"score":0', b'"score":1e-4,"_":0'))
        for each in entries
    ]
    assert table(small, altered).counts["not_reproduced"] == 5, "an answer that the release does not give is seen"
    gone = [msgspec.structs.replace(each, release="gone") for each in entries]
    without = table(small, gone)
    assert (without.counts["without_features"], without.counts["unreadable"]) == (3, 2), "CSV needs the release"
    assert without.rows["score"].to_list() == logged.rows["score"].to_list()[:3]


def test_a_refused_request_is_logged_with_its_reason_and_without_its_values(
    server: Server, small: Project, rows: list[dict[str, Any]]
) -> None:
    secret = "Mrs Miller, 7 Elm Street"
    wrong: dict[str, Any] = {
        "no-json": {"data": f'{{"rows": [{secret}'},
        "zone": {"json": {"rows": [rows[0] | {"zone": secret}]}},
        "unknown": {"json": {"rows": [rows[0] | {secret: 1}]}},
        "too-large": {"json": {"rows": [rows[0] | {"order_value": 1e300}]}},
    }
    for name, options in wrong.items():
        assert server.ask(headers={"X-Request-Id": name}, **options).status_code == 422
    entries = server.entries()
    refused = table(small, [entries[name] for name in wrong]).refused
    assert [tuple(each) for each in refused.select("request_id", "status", "reason", "column").rows()] == [
        ("no-json", 422, "InvalidRequestError", None),
        ("zone", 422, "InvalidRequestError", "zone"),
        ("unknown", 422, "InvalidRequestError", None),
        ("too-large", 422, "InvalidRequestError", "order_value"),
    ]
    assert not any(b"Elm Street" in path.read_bytes() for path in server.folder.iterdir())


def test_probes_stay_out_of_the_log_and_are_counted(server: Server, rows: list[dict[str, Any]]) -> None:
    before = len(server.entries())
    for body in ({"rows": rows[:1]}, {"rows": [{}]}):
        server.ask(json=body, headers={"X-ML-Assets-Probe": "1"})
    assert len(server.entries()) == before
    said = requests.get(f"{server.url}/metrics", timeout=5).text
    assert f'ml_assets_probes_total{{model="{MODEL}"}} 2.0' in said
    assert f'ml_assets_prediction_log_logged_total{{model="{MODEL}"}} {before}.0' in said
    assert "ml_assets_prediction_log_waiting 0.0" in said


def test_a_server_that_must_log_refuses_what_it_cannot_log_and_the_default_one_answers(
    release: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for way, status in (("fsync", 503), ("on", 200), ("off", 200)):
        home = tmp_path / way
        shutil.copytree(release, home / "releases" / MODEL / release.name)
        write_pointers(home / "releases", MODEL, Pointer(release.name))
        (home / "predictions").write_text("no folder can be made here")
        with served(home, ML_ASSETS_PREDICTION_LOG=way) as url:
            answer = requests.post(f"{url}/predict", json={"rows": rows[:1]}, timeout=10)
            assert answer.status_code == status, way
            log = requests.get(f"{url}/health", timeout=5).json()["prediction_log"]
            assert log["mode"] == way
            if way == "fsync":
                assert "prediction log cannot be written" in answer.json()["error"]
                assert answer.headers["retry-after"] == "1"
            if way == "on":
                wait_until(
                    lambda: (
                        'prediction_log_lost_total{model="late_deliveries"} 1.0'
                        in requests.get(f"{url}/metrics", timeout=5).text
                    ),
                    5,
                    "the loss is counted",
                )
