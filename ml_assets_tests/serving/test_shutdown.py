"""The first and the last moments of a server: it is ready when all serves, and ends when all is answered."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.serving.bundle import GOLDEN, GRAPH
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.served import Served
from ml_assets_tests.project import free_port, wait_until

MODEL = "late_deliveries"


@dataclass
class Running:
    """A server of a test's own, which the test ends."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def messages(self) -> list[str]:
        return [msgspec.json.decode(line)["message"] for line in self.log.read_bytes().splitlines()]


@pytest.fixture
def server(release: Path, tmp_path: Path) -> Iterator[Running]:
    shutil.copytree(release, tmp_path / "releases" / MODEL / release.name)
    write_pointers(tmp_path / "releases", MODEL, Pointer(release.name))
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_assets.serving", str(tmp_path / "releases"), str(port)],
            env=os.environ | {"ML_ASSETS_HOME": str(tmp_path)},
            stdout=out,
            stderr=out,
        )

    def ready() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200
        return False

    try:
        wait_until(ready, 30, "the server is ready")
        yield Running(process, port, log)
    finally:
        process.kill()
        process.wait(10)


@dataclass
class Load:
    """What came of asking until nothing answered: whole answers, and what was cut or wrong."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)


def ask_until_it_ends(port: int, body: bytes, expected: Any, load: Load) -> None:
    """Ask over one connection after another. That none is to be had any more, or that it is closed before an answer
    began, is the end; half an answer, or another one, is wrong.
    """
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            while True:
                connection.request("POST", "/predict", body)
                response = connection.getresponse()
                said = msgspec.json.decode(response.read())
                if response.status != 200 or said["predictions"] != expected:
                    load.wrong.append(f"{response.status}: {said}")
                load.answered += 1
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                continue
            return
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            load.wrong.append(repr(error))
            return
        finally:
            connection.close()


def test_a_server_that_is_told_to_end_answers_all_that_it_has_begun_and_takes_no_more(
    server: Running, release: Path
) -> None:
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())
    body = msgspec.json.encode({"rows": golden["rows"]})
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    load = Load()
    askers = [
        threading.Thread(target=ask_until_it_ends, args=(server.port, body, golden["answers"], load)) for _ in range(8)
    ]
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(8)]
        for each in begun:
            each.sendall(head + body[:100])
        for asker in askers:
            asker.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        for asker in askers:
            asker.join(20)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{server.port}/ready", timeout=5)
        assert server.process.poll() is None, "it waits for what it has begun"
        for each in begun:
            each.sendall(body[100:])
        for each in begun:
            response = http.client.HTTPResponse(each)
            response.begin()
            assert response.status == 200
            assert msgspec.json.decode(response.read())["predictions"] == golden["answers"]
    assert server.process.wait(10) == 0
    assert load.wrong == []
    assert load.answered > 8
    assert "the server ends: every request that came is answered" in server.messages()


def test_nothing_is_ready_before_all_that_is_pointed_to_serves(release: Path, tmp_path: Path) -> None:
    for model in (MODEL, "other"):
        shutil.copytree(release, tmp_path / model / release.name)
        write_pointers(tmp_path, model, Pointer(release.name))
    served = Served(tmp_path, None)
    assert not served.ready, "nobody has looked yet"
    served.refresh()
    assert served.models.keys() == {MODEL}
    assert "it is a release of late_deliveries" in served.refused["other"]["reason"]
    assert not served.ready
    write_pointers(tmp_path, "other", Pointer(None))
    served.refresh()
    assert served.ready
    shutil.copytree(release, tmp_path / MODEL / "2-bad")
    (tmp_path / MODEL / "2-bad" / GRAPH).unlink()
    write_pointers(tmp_path, MODEL, Pointer("2-bad"))
    served.refresh()
    assert served.refused.keys() == {MODEL}
    assert served.ready, "the older release goes on"
