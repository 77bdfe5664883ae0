"""The endpoint server as a process on this machine: start it, bring it to a release, ask it for proof."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from ml_assets.errors import EndpointError, ReleaseError
from ml_assets.serving.bundle import GOLDEN, read_manifest, write_atomically
from ml_assets.serving.ids import PROBE
from ml_assets.serving.options import Options
from ml_assets.serving.scorer import require_equal
from ml_assets.settings import JOURNAL, Settings

START_SECONDS = 60.0
PORTS_TO_TRY = 50


@dataclass(frozen=True)
class LocalTarget:
    """The one endpoint server of a state folder.

    Attributes:
        home: where the server's address (`endpoint.json`) and log (`endpoint.log`) lie.
        releases: what it serves.
        port: the port to try first; the next free one is taken otherwise.
        guard: whom the server answers, so that it is asked with a key that counts.
        online: address of a Redis server as online store; empty: SQLite below `home`. It may hold a password.
    """

    home: Path
    releases: Path
    port: int
    online: str = field(default="", repr=False)
    guard: Options = field(default=Options(), repr=False)

    @classmethod
    def of(cls, settings: Settings, port: int | None = None) -> Self:
        """The server of an environment."""
        online = settings.online_store.get_secret_value()
        return cls(settings.home, settings.releases, port or settings.endpoint_port, online, Options.of(settings))

    @property
    def _address(self) -> Path:
        return self.home / "endpoint.json"

    @property
    def journal(self) -> Path:
        return self.home / JOURNAL

    @property
    def log(self) -> Path:
        return self.home / "endpoint.log"

    def known(self) -> dict[str, Any] | None:
        """Process number and port of the server that `start` started and `stop` did not end; it may be dead."""
        try:
            known = json.loads(self._address.read_bytes())
            return {"pid": int(known["pid"]), "port": int(known["port"])}
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def headers(self) -> dict[str, str]:
        """What the server wants to see of a caller."""
        return self._key()

    def url(self) -> str | None:
        """Address of the running server; None if none answers."""
        import requests  # a tenth of a second, which a process that finds nothing due need not spend

        try:
            known = json.loads(self._address.read_bytes())
            url = f"http://127.0.0.1:{known['port']}"
            answer = requests.get(f"{url}/health", timeout=5).json()
        except (FileNotFoundError, ValueError, KeyError, requests.RequestException):
            return None
        # Another program may have taken the port since.
        return url if answer.get("pid") == known["pid"] else None

    def get(self, path: str) -> Any:
        """The running server's response to a GET; None if none runs.

        Raises:
            EndpointError: if one runs and does not answer in time.
        """
        import requests

        try:
            known = json.loads(self._address.read_bytes())
            url = f"http://127.0.0.1:{known['port']}"
            # Another program may have taken the port since.
            if requests.get(f"{url}/health", timeout=10).json().get("pid") != known["pid"]:
                return None
            return requests.get(f"{url}{path}", headers=self._key(), timeout=10)
        except (FileNotFoundError, ValueError, KeyError, requests.ConnectionError):
            return None
        except requests.RequestException as error:
            raise EndpointError(f"the endpoint server does not answer: {error}") from error

    def health(self) -> dict[str, Any] | None:
        """What the running server says of itself; None if none answers."""
        import requests

        url = self.url()
        return dict(requests.get(f"{url}/health", timeout=5).json()) if url else None

    def start(self) -> str:
        """Address of the server, which is started if it does not run. It outlives this process."""
        with self._only_one():
            if url := self.url():
                return url
            port = _free_port(self.port)
            self.releases.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ml_assets.serving", str(self.releases), str(port)],
                    env=os.environ | {"ML_ASSETS_HOME": str(self.home), "ML_ASSETS_ONLINE_STORE": self.online},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    close_fds=True,
                )
            write_atomically(self._address, json.dumps({"pid": process.pid, "port": port}).encode())
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                if url := self.url():
                    return url
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise EndpointError(
                f"the endpoint server did not start on port {port}; see {self.log}: {self._last_line()}"
            )

    def stop(self) -> bool:
        """End the server that `start` started; whether there was one."""
        with self._only_one():
            if self.url() is None:
                return False
            pid = int(json.loads(self._address.read_bytes())["pid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and self.url() is not None:
                time.sleep(0.05)
            self._address.unlink(missing_ok=True)
            return True

    def prove(self, url: str, model: str, folder: Path) -> list[dict[str, Any]]:
        """Ask the server for the release's version and golden rows, and return its answers to them.

        Raises:
            EndpointError: if the version or an answer is another one.
        """
        manifest = read_manifest(folder)
        golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
        answer = self.ask(model, golden["rows"], url, golden["looked_up"], probe=folder.name)
        if answer["version"] != manifest.version:
            raise EndpointError(f"{model}: version {answer['version']} answers, not {manifest.version}")
        try:
            require_equal(golden["answers"], answer["predictions"], f"{model} at {url}")
        except ReleaseError as error:
            raise EndpointError(str(error)) from None
        return list(answer["predictions"])

    def ask(
        self,
        model: str,
        rows: list[dict[str, Any]],
        url: str | None = None,
        looked_up: Any = None,
        *,
        ids: list[Any] | None = None,
        probe: bool | str = False,
    ) -> dict[str, Any]:
        """The server's answer to some rows, asked as by `respond`."""
        response = self.respond(model, rows, url, looked_up, ids=ids, probe=probe)
        if response.status_code != 200:
            raise EndpointError(f"{model} at {response.url} answered {response.status_code}: {response.text[:500]}")
        return dict(response.json())

    def respond(
        self,
        model: str,
        rows: list[dict[str, Any]],
        url: str | None = None,
        looked_up: Any = None,
        *,
        ids: list[Any] | None = None,
        probe: bool | str = False,
    ) -> Any:
        """The server's response to some rows.

        Args:
            looked_up: what was looked up for them before; None: the server looks it up itself.
            ids: what outcomes of the rows will be found by.
            probe: it is no prediction, and is not logged as one; or the name of the loaded release that is to answer.
        """
        import requests

        url = url or self.url()
        if url is None:
            raise EndpointError(f"the endpoint server does not run; start it with `ml-assets serve` (log: {self.log})")
        beside = {"looked_up": looked_up, "ids": ids}
        body = {"rows": rows} | {name: value for name, value in beside.items() if value is not None}
        headers = {PROBE.decode(): probe if isinstance(probe, str) else "1"} if probe else {}
        headers |= self._key()
        response = requests.post(f"{url}/models/{model}/predict", json=body, headers=headers, timeout=30)
        if response.status_code == 401:
            raise EndpointError(
                f"the endpoint server at {url} was started with other keys than are set now; `ml-assets stop` ends it, "
                "and the next start takes these"
            )
        return response

    def _key(self) -> dict[str, str]:
        key = self.guard.a_key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def wait_for(self, url: str, model: str, release: str) -> None:
        """Wait until the server serves a release.

        Raises:
            EndpointError: if it refuses the release, or takes longer than `START_SECONDS`.
        """
        import requests

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            health = requests.get(f"{url}/health", timeout=5).json()
            if health["models"].get(model, {}).get("release") == release:
                return
            refused = health["refused"].get(model)
            if refused and refused["release"] == release:
                raise EndpointError(f"the endpoint server refuses {model} release {release}: {refused['reason']}")
            time.sleep(0.05)
        raise EndpointError(f"the endpoint server did not take up {model} release {release} in {START_SECONDS:.0f} s")

    def wait_until_logged(self, url: str) -> None:
        """Wait until what was answered lies in the prediction log's files, or was counted as lost.

        Raises:
            EndpointError: if that takes longer than `START_SECONDS`.
        """
        import requests

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not requests.get(f"{url}/health", timeout=5).json()["prediction_log"].get("waiting"):
                return
            time.sleep(0.02)
        raise EndpointError(f"the endpoint server did not write its prediction log in {START_SECONDS:.0f} s")

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "endpoint.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(nothing)"


def _free_port(first: int) -> int:
    for port in range(first, min(first + PORTS_TO_TRY, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EndpointError(f"no port from {first} to {first + PORTS_TO_TRY - 1} is free; set ML_ASSETS_ENDPOINT_PORT")
