"""`make ui` without make: both web servers answer, and nothing is left when it is stopped."""

import contextlib
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests

from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import PROGRAMS, Project, end_session, free_port, wait_until


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=3).ok
    except requests.RequestException:
        return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def descendants(pid: int) -> set[Path]:
    """Living processes below `pid`, as their folders in /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    more = {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return {Path("/proc") / str(each) for each in found}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks processes up in /proc")
def test_the_ui_starts_everything_and_stops_everything(project: Project) -> None:
    project.add_demo_model()
    done = project.run("ml-assets", "report", "late_deliveries")
    assert done.stdout.strip() == str(project.settings.reports / "late_deliveries.html")
    report = f"{project.settings.report_ui}/late_deliveries.html"
    port = free_port()
    log = project.root / "ui.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(PROGRAMS / "ml-assets"), "ui", "--port", str(port)],
            env=project.environment(),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # As a shell starts a background job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
        )
    try:
        for url in (f"http://127.0.0.1:{port}/server_info", f"{project.settings.mlflow_ui}/health", report):
            wait_until(lambda url=url: answers(url), 120, f"{url} answers; see {log}")
        started = descendants(process.pid)
        assert len(started) >= 4, "web server, daemon, code server, MLflow"
        process.terminate()
        assert process.wait(40) == 0
        wait_until(lambda: not any(each.exists() for each in started), 10, "no process is left")
        assert is_free(port)
        assert is_free(project.settings.mlflow_port)
        assert is_free(project.settings.report_port)
    finally:
        end_session(process)


def test_a_taken_port_is_one_message(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = project.run("ml-assets", "ui", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "is taken; choose another one with --port" in done.stderr
