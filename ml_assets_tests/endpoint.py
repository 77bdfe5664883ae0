"""An endpoint server of a test's own, as a process."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.targets import Release
from ml_assets_tests.project import free_port, wait_until


@contextlib.contextmanager
def served(
    home: Path, port: int | None = None, run: dict[str, Any] | list[str] | None = None, **environment: str
) -> Iterator[str]:
    """Address of a server over `home/releases`, or of what `run` starts; ready when it is given.

    Args:
        run: a command, or the arguments of `subprocess.Popen`.
    """
    port = port or free_port()
    log = home / "server.log"
    with log.open("wb") as out:
        if not isinstance(run, dict):
            run = {
                "args": run or [sys.executable, "-m", "ml_assets.serving", str(home / "releases"), str(port)],
                "env": os.environ | {"ML_ASSETS_HOME": str(home)} | environment,
            }
        process = subprocess.Popen(**run, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{url}/ready", timeout=5).status_code == 200
        return False

    try:
        wait_until(ready, 30, "the server is ready")
        yield url
    finally:
        process.terminate()
        process.wait(15)


def brought(target: LocalTarget, model: str, name: str) -> tuple[str, list[dict[str, Any]]]:
    """Let a release answer everything: where, and its answers to its golden rows."""
    rollout = LocalRollout(target, model)
    rollout.stage(Release.named(name))
    rollout.promote(Release.named(name))
    url = target.start()
    return f"{url}/models/{model}/predict", target.prove(url, model, target.releases / model / name)
