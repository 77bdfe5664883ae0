"""`make ui`: the Dagster UI with its daemon, and MLflow's UI, as children that end with this process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import click

from ml_assets.errors import SettingsError
from ml_assets.materialize import prepare_dagster_home
from ml_assets.registry import Registry
from ml_assets.report.write import served_reports
from ml_assets.settings import PROJECT_ROOT, Settings

SECONDS_TO_STOP = 20


def run_ui(settings: Settings, port: int) -> int:
    """Run until a child ends, Ctrl-C or SIGTERM.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM.

    Raises:
        SettingsError: if a port is taken.
    """
    own = settings.mlflow_server is None  # else somebody else runs it
    ports = [(port, "--port"), (settings.report_port, "ML_ASSETS_REPORT_PORT")]
    for taken, setting in (*ports, *([(settings.mlflow_port, "ML_ASSETS_MLFLOW_PORT")] if own else [])):
        if _answers(taken):
            raise SettingsError(f"port {taken} is taken; choose another one with {setting}")
    prepare_dagster_home(settings)
    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    programs = Path(sys.executable).parent
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    # Not as an argument, which everybody on the machine may see: the address may hold a password.
    of_mlflow = environment | {"MLFLOW_BACKEND_STORE_URI": Registry(settings.mlflow_uri).address}
    if settings.s3_endpoint_url:
        of_mlflow["MLFLOW_S3_ENDPOINT_URL"] = settings.s3_endpoint_url
    dagster = [str(programs / "dagster"), "dev", "-w", str(PROJECT_ROOT / "workspace.yaml"), "-p", str(port)]
    mlflow = [
        *(str(programs / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(settings.mlflow_port)),
        *("--workers", "1", "--artifacts-destination", settings.mlflow_artifacts),
    ]
    children = []

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # A shell starts background jobs with SIGINT ignored, and children would inherit that.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    reports = contextlib.ExitStack()
    try:
        reports.enter_context(served_reports(settings.reports, settings.report_port))
        if own:
            with (settings.home / "mlflow" / "server.log").open("ab") as log:
                children.append(subprocess.Popen(mlflow, stdout=log, stderr=log, env=of_mlflow, start_new_session=True))
        children.append(subprocess.Popen(dagster, env=environment, start_new_session=True, cwd=PROJECT_ROOT))
        click.echo(
            f"Dagster: http://127.0.0.1:{port} (in some seconds)   MLflow: {settings.mlflow_ui}   "
            f"Reports: {settings.report_ui}/<model>.html   Ctrl-C stops all"
        )
        while all(child.poll() is None for child in children):
            time.sleep(0.5)
        return next(child.returncode for child in children if child.returncode is not None) or 1
    except KeyboardInterrupt:
        return 0
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        reports.close()
        _end(children)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """Ask each child to stop, then end what is left of its session: SIGKILL of `dagster dev` alone leaves children."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + SECONDS_TO_STOP
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
