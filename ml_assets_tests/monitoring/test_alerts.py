"""Debian's Prometheus and Alertmanager beside a real server and exporter: what goes wrong reaches a webhook."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.lake import WHOLE
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets_tests.drills.swaps import variant
from ml_assets_tests.endpoint import served
from ml_assets_tests.monitoring.test_rules import alerts, dashboard
from ml_assets_tests.project import PROGRAMS, Project, free_port, wait_until
from ml_assets_tests.prometheus import Prometheus, program, prometheus
from ml_assets_tests.promql import names_in, names_told

MODEL = "late_deliveries"
CALLERS = 4
HAS_DATA = {"Serves", "Servers answer", "Requests by status", "Latency", "Share that failed", "Rows", "Waiting rows"}
HAS_DATA |= {"Turned away, invalid, not logged", "Scores", "Memory of the server", "CPU of the server"}
HAS_DATA |= {"Newest version approved", "Age of each asset", "Rejected share of the newest day", "Held-out metrics"}
HAS_DATA |= {"Rows of the newest day"}


@dataclass
class Watched:
    """An endpoint server that is asked all the time, its exporter, and who watches both."""

    by: Prometheus
    home: Path
    release: str
    pid: int
    endpoint: str
    exporter: str

    def serve(self, release: str) -> None:
        write_pointers(self.home / "releases", MODEL, Pointer(release))


def _ask(url: str, row: dict[str, Any], until: threading.Event) -> None:
    with requests.Session() as session:
        while not until.wait(0.02):
            with suppress(requests.RequestException):
                session.post(f"{url}/models/{MODEL}/predict", json={"rows": [row]}, timeout=30)


@pytest.fixture(scope="module")
def watched(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A copy of the small project; its version 2 is slow, as soon as it is brought to serve."""
    for each in ("prometheus", "prometheus-alertmanager"):
        program(each)
    record = small.latest().get("endpoint", WHOLE)
    assert record is not None
    first, root = str(record.details["release"]), tmp_path_factory.mktemp("watched")
    home = root / "state"
    for part in ("lake", "dagster", "releases"):
        shutil.copytree(small.settings.home / part, home / part)
    releases = home / "releases" / MODEL
    variant(releases / first, releases / "2-slower", "2")
    write_pointers(home / "releases", MODEL, Pointer(first))
    row = msgspec.json.decode((releases / first / GOLDEN).read_bytes())["rows"][0]
    port, asked_at = free_port(), free_port()
    faulty = [sys.executable, "-m", "ml_assets_tests.faulty_server", str(home / "releases"), str(port)]
    environment = small.environment() | {"ML_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    with (root / "exporter.log").open("wb") as log:
        exporter = subprocess.Popen(
            [str(PROGRAMS / "ml-assets"), "exporter", "--port", str(asked_at)], env=environment, stdout=log, stderr=log
        )
    until = threading.Event()
    try:
        with served(home, port, [*faulty, json.dumps({"2": "slower"})]) as url:
            pid = requests.get(f"{url}/health", timeout=5).json()["pid"]
            (home / "endpoint.json").write_text(json.dumps({"pid": pid, "port": port}))
            callers = [threading.Thread(target=_ask, args=(url, row, until)) for _ in range(CALLERS)]
            targets = home / "monitoring"
            wait_until((targets / "exporter.json").exists, 60, f"the exporter runs; see {root}/exporter.log")
            for each in callers:
                each.start()
            with prometheus(root, targets) as by:
                yield Watched(by, home, first, pid, url, f"http://127.0.0.1:{asked_at}")
            until.set()
            for each in callers:
                each.join()
    finally:
        until.set()
        exporter.terminate()
        exporter.wait(15)


def test_prometheus_finds_both_servers_where_the_exporter_says_and_nothing_is_wrong(watched: Watched) -> None:
    def both() -> bool:
        found = watched.by.query("up")
        return {each["metric"]["job"]: each["value"][1] for each in found} == {"endpoint": "1", "exporter": "1"}

    wait_until(both, 15, "both are scraped")
    latency = 'histogram_quantile(0.99, rate(ml_assets_request_seconds_bucket{job="endpoint"}[4s])) > 0'
    wait_until(lambda: watched.by.query(latency), 15, "requests are counted")
    wait_until(lambda: not watched.by.firing(), 15, "no alert fires")
    assert watched.by.webhook.told("LatencyHigh", "firing") is None


def test_the_dashboard_asks_only_for_what_there_is(watched: Watched) -> None:
    told = {"up", "ALERTS"}
    for url in (watched.endpoint, watched.exporter):
        told |= names_told(requests.get(f"{url}/metrics", timeout=5).text)
    empty = set()
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            asked = target["expr"].replace("$model", ".+").replace("$__rate_interval", "4s").replace("[5m]", "[4s]")
            assert names_in(asked), panel["title"]
            assert names_in(asked) <= told, panel["title"]
            if not watched.by.query(asked):
                empty.add(panel["title"])
    assert empty & HAS_DATA == set()
    for rule in alerts():
        assert names_in(rule["expr"]) <= told, rule["alert"]


def test_latency_of_a_new_version_reaches_the_webhook_and_so_does_its_end(watched: Watched) -> None:
    began = time.monotonic()
    watched.serve("2-slower")
    message = wait_until(lambda: watched.by.webhook.told("LatencyHigh", "firing"), 30, "the alert reaches the webhook")
    print(f"told {time.monotonic() - began:.1f} s after the version came to serve")
    assert message["groupLabels"] == {"model": MODEL}
    [alert] = message["alerts"]
    assert alert["labels"] == {"alertname": "LatencyHigh", "model": MODEL, "part": "endpoint", "severity": "error"}
    assert alert["annotations"]["summary"].startswith(f"{MODEL}: 1 of 100 requests takes more than ")
    assert "LatencyHigh" in watched.by.firing()
    watched.serve(watched.release)
    wait_until(lambda: watched.by.webhook.told("LatencyHigh", "resolved"), 30, "its end reaches the webhook")


def test_a_server_that_hangs_is_told_of_as_down_and_nothing_else_is_of_it(watched: Watched) -> None:
    others = [{"alertname": "RequestsFail", "model": MODEL, "part": each} for each in ("endpoint", "pipeline")]
    assert [watched.by.inhibited(**each) for each in others] == [False, False]
    os.kill(watched.pid, signal.SIGSTOP)
    try:
        message = wait_until(lambda: watched.by.webhook.told("EndpointDown", "firing"), 20, "the webhook is told")
        assert [watched.by.inhibited(**each) for each in others] == [True, False]
    finally:
        os.kill(watched.pid, signal.SIGCONT)
    assert "does not answer" in message["alerts"][0]["annotations"]["summary"]
