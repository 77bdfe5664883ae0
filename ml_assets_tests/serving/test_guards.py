"""Who may ask, and how much: keys, limits, kinds of bodies, and what is counted."""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.errors import SettingsError
from ml_assets.serving.__main__ import serve
from ml_assets.serving.app import Predict
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.keys import Keys
from ml_assets.serving.measured import Measured
from ml_assets.serving.options import Options
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.room import BusyError, Room
from ml_assets.serving.served import Served
from ml_assets_tests.drills.fuzz import fuzz
from ml_assets_tests.project import wait_until

KEY = {"X-API-Key": "first"}


def rows(release: Path, count: int = 1) -> list[dict[str, Any]]:
    return list(msgspec.json.decode((release / GOLDEN).read_bytes())["rows"][:count])


def ask(url: str, release: Path, count: int = 1, **options: Any) -> requests.Response:
    return requests.post(f"{url}/predict", **({"json": {"rows": rows(release, count)}} | options), timeout=10)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "firs"}, 401),
        ({"X-API-Key": "first, second"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"Authorization": "Basic first"}, 401),
        (KEY, 200),
        ({"Authorization": "Bearer second"}, 200),
        ({"Authorization": "bearer from-file"}, 200),
    ],
)
def test_only_who_has_a_key_is_answered(
    guarded: tuple[str, Path], release: Path, headers: dict[str, str], status: int
) -> None:
    url, _ = guarded
    answer = ask(url, release, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert requests.get(f"{url}{path}", headers=headers, timeout=5).status_code == status
    for path in ("/health", "/ready", "/ping"):
        assert requests.get(f"{url}{path}", timeout=5).status_code == 200


def test_keys_in_a_file_change_while_the_server_runs(guarded: tuple[str, Path], release: Path) -> None:
    url, keys = guarded
    try:
        keys.write_text("newer\n")
        new = {"X-API-Key": "newer"}
        wait_until(lambda: ask(url, release, headers=new).status_code == 200, 5, "the new key counts")
        assert ask(url, release, headers={"X-API-Key": "from-file"}).status_code == 401
        keys.unlink()
        wait_until(lambda: ask(url, release, headers=new).status_code == 401, 5, "a file that is gone lets nobody in")
        assert ask(url, release, headers=KEY).status_code == 200
    finally:
        keys.write_text("from-file\n")
    wait_until(lambda: ask(url, release, headers={"X-API-Key": "from-file"}).status_code == 200, 5, "it is back")


def test_without_keys_only_this_machine_may_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML_ASSETS_ENDPOINT_KEYS", raising=False)
    with pytest.raises(SettingsError, match=r"listen on 0\.0\.0\.0.*set ML_ASSETS_ENDPOINT_KEYS"):
        serve(tmp_path, 0, "0.0.0.0")


def test_a_larger_request_than_allowed_is_refused(guarded: tuple[str, Path], release: Path) -> None:
    url, _ = guarded
    many = ask(url, release, 6, headers=KEY)
    assert many.status_code == 413
    assert many.json()["error"] == "6 rows; this server takes 5 at once"
    assert ask(url, release, 5, headers=KEY).status_code == 200
    body = b'{"rows": [' + b" " * 20_000 + b"]}"
    assert "20,012 bytes; this server takes 20,000" in ask(url, release, json=None, data=body, headers=KEY).text
    unknown = ask(url, release, json=None, data=iter([body[:10_000], body[10_000:]]), headers=KEY)
    assert (unknown.status_code, unknown.json()["error"][:30]) == (413, "the body has more than 20,000 ")
    deep = b'{"rows": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"
    nested = ask(url, release, json=None, data=deep, headers=KEY)
    assert (nested.status_code, "nested too deeply" in nested.text) == (413, True)


def test_who_finds_no_room_is_told_so_and_the_first_always_finds_some() -> None:
    room = Room(10)
    said = "50 rows wait already, and there is room for 10"
    with room.taken(50), pytest.raises(BusyError, match=said), room.taken(1):
        pass
    with room.taken(8), room.taken(2), pytest.raises(BusyError), room.taken(1):
        pass
    measured = Measured(Served(Path(), None, 1.0), room)
    with room.taken(10):
        assert b"ml_assets_waiting_rows 10.0" in measured.text()
    assert b"ml_assets_waiting_rows 0.0" in measured.text()


def test_who_is_turned_away_is_counted_and_what_may_be_counted_begins_with_none(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "late_deliveries" / release.name)
    write_pointers(tmp_path, "late_deliveries", Pointer(release.name))
    served, room = Served(tmp_path, None, 1.0), Room(1)
    measured = Measured(served, room)
    predict = Predict(served, Options(), Keys(Options()), measured, room, None, other_kinds=False)
    body, sent = msgspec.json.encode({"rows": rows(release)}), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    def has(line: str) -> bool:
        return line in measured.text().decode().splitlines()

    served.refresh()
    model = 'model="late_deliveries"'
    assert has("ml_assets_waiting_rows_limit 1.0")
    for name in ("shed_requests_total", "invalid_answers_total"):
        assert has(f"ml_assets_{name}{{{model}}} 0.0"), "its first increase is one"
    assert has(f'ml_assets_requests_total{{{model},status="503"}} 0.0')
    with room.taken(1):
        asyncio.run(predict({"headers": [], "path_params": {}}, receive, send))
    assert sent[0]["status"] == 503
    assert has(f"ml_assets_shed_requests_total{{{model}}} 1.0")
    assert has(f'ml_assets_requests_total{{{model},status="503"}} 1.0')


def test_a_body_that_does_not_arrive_leaves_others_alone(guarded: tuple[str, Path], release: Path) -> None:
    url, _ = guarded
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: first\r\nContent-Length: 100\r\n\r\n{")
        started = time.monotonic()
        assert ask(url, release, headers=KEY).status_code == 200
        assert time.monotonic() - started < 5


def test_what_the_server_counts_agrees_with_what_was_asked(guarded: tuple[str, Path], release: Path) -> None:
    url, _ = guarded

    def counted() -> dict[str, float]:
        text = requests.get(f"{url}/metrics", headers=KEY, timeout=5).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    model = 'model="late_deliveries"'
    before = counted()
    for _ in range(3):
        assert ask(url, release, 2, headers=KEY).status_code == 200
    assert ask(url, release, headers=KEY, json={"rows": [{}]}).status_code == 422
    after = counted()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more(f'ml_assets_requests_total{{{model},status="200"}}') == 3
    assert more(f'ml_assets_requests_total{{{model},status="422"}}') == 1
    assert more(f'ml_assets_rows_total{{{model},version="1"}}') == 6
    assert more(f"ml_assets_request_seconds_count{{{model}}}") == 3
    assert after[f'ml_assets_model_serves{{{model},release="{release.name}",version="1"}}'] == 1
    assert after["ml_assets_waiting_rows"] == 0


def test_the_log_is_json_and_holds_no_value_of_a_request(release: Path, tmp_path: Path) -> None:
    code = (
        "import logging.config; from ml_assets.serving.logs import CONFIG; logging.config.dictConfig(CONFIG)\n"
        "try: raise ValueError('Jane Doe, 4 Elm Street')\n"
        "except ValueError: logging.getLogger('ml_assets.serving').exception('a request failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = msgspec.json.decode(done.stderr)
    assert (said["level"], said["message"], said["error"]) == ("error", "a request failed", "ValueError")
    assert "Elm Street" not in done.stderr


def test_no_bytes_make_the_server_fail_end_or_grow(release: Path, tmp_path: Path) -> None:
    found = fuzz(release, tmp_path, seconds=6, seed=7)
    assert found.wrong == []
    assert {"200", "400", "413", "422"} <= found.statuses.keys()
