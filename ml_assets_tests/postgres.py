"""A real PostgreSQL server on a free port that checks passwords: of Debian's binaries, or of the package pgserver."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from ml_assets_tests.project import free_port

USER, PASSWORD = "tests", "Sesame/open:42"


@dataclass
class Postgres:
    """A server that can be stopped and started again on the same port."""

    binaries: Path
    folder: Path
    owner: str | None
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        from sqlalchemy.engine import URL

        made = URL.create("postgresql", USER, password, "127.0.0.1", port or self.port, database)
        return made.render_as_string(hide_password=False)

    def connect(self, database: str = "postgres") -> Any:
        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, connect_timeout=5
        )

    def execute(self, database: str, *statements: str) -> None:
        """Each statement in a transaction of its own."""
        with contextlib.closing(self.connect(database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for each in statements:
                    cursor.execute(each)

    def start(self) -> None:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 20,
        }
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command + [f"--{name}={value}" for name, value in options.items()],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **_as(self.owner),
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
                return
            except psycopg2.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{error}: {(self.folder / 'log').read_text()[-2000:]}") from error
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown, which ends all sessions; SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


@contextlib.contextmanager
def postgres_server(binaries: Path) -> Iterator[Postgres]:
    """A new server; its files are removed at the end."""
    owner = _owner()
    folder = Path(tempfile.mkdtemp(prefix="ml-assets-postgres-"))  # pytest's folders are closed to other users
    try:
        if owner:
            shutil.chown(folder, owner)
            binaries = _reachable(binaries, folder, owner)
        server = Postgres(binaries, folder, owner)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [str(binaries / "initdb"), "-D", str(folder / "data"), f"--username={USER}", f"--pwfile={password}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, **_as(owner))
        assert done.returncode == 0, done.stdout + done.stderr
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def system_binaries() -> Path | None:
    """Of the newest server that the system has."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = installed[-1] if installed else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def packaged_binaries() -> Path | None:
    """Of the package pgserver; its own code, which allows no password, is not used."""
    spec = importlib.util.find_spec("pgserver")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _owner() -> str | None:
    """Who the server runs as where the tests are root's, which PostgreSQL refuses."""
    if os.getuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if name in {each.pw_name for each in pwd.getpwall()})


def _as(owner: str | None) -> dict[str, Any]:
    if owner is None:
        return {}
    entry = pwd.getpwnam(owner)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _reachable(binaries: Path, folder: Path, owner: str) -> Path:
    """The binaries where `owner` may run them: a virtual environment in root's home is closed to others."""
    try:
        subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, check=True, **_as(owner))
    except (PermissionError, subprocess.CalledProcessError):
        package = binaries.parent.parent
        libraries = package.with_name(f"{package.name}.libs")  # which its programs look for beside the package
        if not libraries.is_dir():
            shutil.copytree(binaries.parent, folder / "install", symlinks=True)
            return folder / "install" / binaries.name
        for each in (package, libraries):
            shutil.copytree(each, folder / "install" / each.name, symlinks=True)
        return folder / "install" / package.name / binaries.parent.name / binaries.name
    return binaries
