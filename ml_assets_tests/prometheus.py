"""Debian's Prometheus and Alertmanager as processes, with the configuration of `deploy/monitoring`, and a webhook."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import free_port, wait_until

FOLDER = PROJECT_ROOT / "deploy" / "monitoring"
FASTER = 75  # the tests' minute has less than a second
_PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus"}
_PACKAGES |= {"prometheus-alertmanager": "prometheus-alertmanager", "amtool": "prometheus-alertmanager"}
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def program(name: str) -> str:
    """Path of a program; without it the test is skipped, or fails where it must be there."""
    if found := shutil.which(name):
        return found
    package = _PACKAGES[name]
    if os.environ.get("CI"):
        pytest.fail(f"no {name}: .ci/run installs the Debian package {package} where it may")
    pytest.skip(f"no {name}: apt-get install {package}")


def run(*command: str | Path) -> str:
    """What a program says that must succeed."""
    name, *arguments = map(str, command)
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def faster(duration: str) -> str:
    """The same in a hurry.

    >>> faster("5m")
    '4000ms'
    """
    [(number, unit)] = re.findall(r"^(\d+)(ms|s|m|h|d)$", duration)
    return f"{int(number) * _UNITS[unit] // FASTER}ms"


def hurried_rules() -> dict[str, Any]:
    """The rules as they are, but for their windows and waits."""
    rules: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text())
    for rule in (each for group in rules["groups"] for each in group["rules"]):
        rule["expr"] = re.sub(r"\[(\w+)\]", lambda window: f"[{faster(window[1])}]", rule["expr"])
        if "for" in rule:
            rule["for"] = faster(rule["for"])
    return rules


def hurried_route(webhook: str) -> dict[str, Any]:
    """Alertmanager's configuration as it is, but for its waits and the webhook's address."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {name: faster(wait) for name, wait in route.items() if name in ("group_wait", "group_interval")}
    [receiver] = config["receivers"]
    receiver["webhook_configs"][0]["url"] = webhook
    return config


def hurried_scrapes(targets: Path, alertmanager: int) -> dict[str, Any]:
    """Prometheus' configuration as it is, but for its intervals and where it finds files and Alertmanager."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    for job in config["scrape_configs"]:
        [files] = job["file_sd_configs"]
        files["files"] = [str(targets / Path(each).name) for each in files["files"]]
    return config


@dataclass
class Webhook:
    """What was told to a webhook."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def told(self, alert: str, status: str) -> dict[str, Any] | None:
        """A message with an alert of that status."""
        for message in self.messages:
            for each in message["alerts"]:
                if (each["labels"]["alertname"], each["status"]) == (alert, status):
                    return message
        return None


@dataclass
class Prometheus:
    """A running Prometheus whose Alertmanager tells a webhook."""

    url: str
    alertmanager: str
    webhook: Webhook

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def inhibited(self, **labels: str) -> bool:
        """Whether an alert, which is raised here, is kept back for another one."""
        url = f"{self.alertmanager}/api/v2/alerts"
        assert requests.post(url, json=[{"labels": labels}], timeout=10).status_code == 200
        found = requests.get(url, timeout=10).json()
        [status] = [each["status"] for each in found if each["labels"] == labels]
        return bool(status["inhibitedBy"])

    def firing(self) -> set[str]:
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}


@contextlib.contextmanager
def _webhook() -> Iterator[tuple[str, Webhook]]:
    heard = Webhook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/alerts", heard
        server.shutdown()


@contextlib.contextmanager
def _process(command: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(ready, timeout=5).status_code == 200
        return False

    try:
        wait_until(answers, 20, f"{command[0]} is ready; see {log}")
        yield
    finally:
        process.terminate()
        process.wait(15)


@contextlib.contextmanager
def prometheus(folder: Path, targets: Path) -> Iterator[Prometheus]:
    """Prometheus and Alertmanager in a hurry.

    Args:
        targets: the folder of the files that say where servers are.
    """
    programs = program("prometheus"), program("prometheus-alertmanager")
    port, manager = free_port(), free_port()
    with _webhook() as (address, heard):
        (folder / "rules.yml").write_text(yaml.safe_dump(hurried_rules()))
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(hurried_route(address)))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(hurried_scrapes(targets, manager)))
        alerting = [
            *(programs[1], f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager"),
            *(f"--web.listen-address=127.0.0.1:{manager}", "--cluster.listen-address="),
        ]
        scraping = [
            *(programs[0], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"),
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (
            _process(alerting, folder / "alertmanager.log", f"http://127.0.0.1:{manager}/-/ready"),
            _process(scraping, folder / "prometheus.log", f"http://127.0.0.1:{port}/-/ready"),
        ):
            yield Prometheus(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{manager}", heard)
