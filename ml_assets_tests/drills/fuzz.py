"""Bytes at every route of the endpoint server: it answers, refuses or hangs up, and never fails, ends or grows.

.venv/bin/python -W ignore -m ml_assets_tests.drills.fuzz --seconds 600 --seed 1

A server over a release of the demo's model, with narrow limits. Requests over raw sockets, some valid but for a few
bytes, some no HTTP at all: mutated JSON and CSV, odd numbers, texts and kinds of bodies, deep nesting, wrong lengths,
broken chunks, huge headers, bodies that do not arrive. Between them valid requests, which have to be answered as
recorded. Fails with the request that led to a 500, to a wrong answer, to another process, or to more memory.
"""

import argparse
import contextlib
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import requests

from ml_assets.serving.bundle import GOLDEN
from ml_assets_tests.drills.small import NAME, release_of, small_project
from ml_assets_tests.endpoint import served

PATHS = (
    *("/predict", f"/models/{NAME}/predict", "/invocations", "/models/none/predict", "/models//predict"),
    *(
        "/health",
        "/ready",
        "/ping",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/",
        "/%00",
        "/models/%ff/predict",
        "/../etc",
    ),
)
METHODS = ("POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW", "")
KINDS = (
    *("application/json", "text/csv", "text/csv; header=present", "application/x-npy", "", "*/*", ",", ";;;"),
    *("application/json; charset=utf-16", "multipart/form-data; boundary=x", "\u00ff" * 50, "text/csv," * 500),
)
# In the place of a value, as JSON text: some are no JSON.
VALUES = (
    *("null", "true", "false", "0", "-0", "-0.0", "1e400", "-1e400", "1e308", "1e-400", "NaN", "Infinity", "-Infinity"),
    *("9" * 400, "9223372036854775807", "9223372036854775808", "-9223372036854775809", "0.1e", "01", '""', '"\\u0000"'),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\uD83D\\uDE00"', '"' + "x" * 5000 + '"', "[]", "{}", "[[[[]]]]", '{"a": {}}'),
    *('"2025-02-30T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"', '"0000-01-01T00:00:00Z"', '"2025-01-01"', '"now"'),
    *(
        '"-262144-01-01T00:00:00Z"',
        '"2025-01-01T00:00:00+99:99"',
        '"2025-01-01T24:00:00Z"',
        '"\\t\\n"',
        '"1"',
        "undefined",
    ),
)
GROWTH = 20  # MiB more than after the warm-up, at most
WARM_UP = 0.25  # of the time
LIMITS = {"ML_ASSETS_ENDPOINT_MAX_BYTES": "200000", "ML_ASSETS_ENDPOINT_MAX_ROWS": "100"}


@dataclass
class Found:
    """What came of it.

    Attributes:
        statuses: of all answers; "closed" where the server hung up, "silent" where it waited for more.
        wrong: what should not have been.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


class Sender:
    """Makes requests of one seed."""

    def __init__(self, golden: dict[str, Any], seed: int) -> None:
        self.random = random.Random(seed)
        self.golden = golden
        self.ways: list[Callable[[], bytes]] = [
            self.rows_with_odd_values,
            self.rows_with_odd_values,
            self.changed_json,
            self.changed_json,
            self.csv,
            self.nested,
            self.odd_shape,
            self.odd_headers,
            self.wrong_length,
            self.chunked,
            self.no_http,
            self.large,
        ]

    def one(self) -> bytes:
        return self.random.choice(self.ways)()

    def request(self, body: bytes, kind: str = "application/json", more: bytes = b"", path: str | None = None) -> bytes:
        path = path or self.random.choice(PATHS[:3])
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        return head.encode("latin-1") + more + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def rows_with_odd_values(self) -> bytes:
        rows = []
        for _ in range(self.random.choice([1, 1, 2, 40])):
            row = {name: msgspec.json.encode(each).decode() for name, each in self._row().items()}
            for name in self.random.sample(sorted(row), self.random.randint(1, 3)):
                row[name] = self.random.choice(VALUES)
            if self.random.random() < 0.1:
                row[self.random.choice(["", "\\u0000", "order_id", "late", "__proto__", "x" * 3000])] = "1"
            rows.append("{" + ",".join(f'"{name}":{value}' for name, value in row.items()) + "}")
        return self.request(f'{{"rows":[{",".join(rows)}]}}'.encode())

    def changed_json(self) -> bytes:
        body = bytearray(msgspec.json.encode({"rows": [self._row()]}))
        return self.request(self._changed(body))

    def csv(self) -> bytes:
        row = self._row()
        lines = [list(row), *([str(each) for each in self._row().values()] for _ in range(self.random.randint(0, 3)))]
        text = "\n".join(",".join(each) for each in lines[self.random.randint(0, 1) :]).encode()
        if self.random.random() < 0.8:
            text = self._changed(bytearray(text or b"x"))
        accept = self.random.choice(["text/csv", "application/json", "image/png", "", "a/b;q=x,,"])
        return self.request(text, "text/csv", b"Accept: " + accept.encode() + b"\r\n", path="/invocations")

    def nested(self) -> bytes:
        deep = self.random.choice([10, 1000, 40_000])
        left, right = self.random.choice([(b"[", b"]"), (b'{"rows":', b"}"), (b'{"rows":[', b"]}")])
        return self.request(left * deep + right * self.random.choice([deep, deep - 1, 0]))

    def odd_shape(self) -> bytes:
        value = self.random.choice(VALUES)
        shape = self.random.choice(
            [
                "{}",
                '{{"rows":{}}}',
                '{{"rows":[{}]}}',
                '{{"rows":[{{}},{}]}}',
                '{{"rows":[{{}}],"looked_up":{}}}',
                "[{}]",
            ]
        )
        return self.request(shape.format(value).encode())

    def odd_headers(self) -> bytes:
        body = msgspec.json.encode({"rows": [self._row()]})
        more = self.random.choice(
            [
                b"X: " + b"y" * self.random.choice([100, 9000, 70_000]) + b"\r\n",
                b"".join(b"X-%d: y\r\n" % number for number in range(self.random.choice([50, 2000]))),
                b"Authorization: Bearer \xff\x00\r\n",
                b"X-API-Key:\r\n",
                b"Expect: 100-continue\r\n",
                b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
                b"Accept: " + self._bytes(40).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
                b"X-Amzn-SageMaker-Inference-Id: " + self._bytes(90).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
                b": no name\r\n",
                b" folded\r\n",
            ]
        )
        return self.request(body, self.random.choice(KINDS), more, self.random.choice(PATHS))

    def wrong_length(self) -> bytes:
        body = msgspec.json.encode({"rows": [self._row()]})
        length = self.random.choice([b"0", b"5", b"%d" % (len(body) + 9), b"-1", b"9" * 30, b"x", b"", b"1, 2", b"+3"])
        path = self.random.choice(PATHS[:3]).encode()
        return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n" + body

    def chunked(self) -> bytes:
        body = msgspec.json.encode({"rows": [self._row()]})
        cut = self.random.randint(1, len(body) - 1)
        chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:cut], body[cut:])]
        end = self.random.choice([b"0\r\n\r\n", b"0\r\n\r\n", b"", b"zz\r\n", b"ffffffffffffffffff\r\n", b"-1\r\n\r\n"])
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        return head + b"".join(chunks) + end

    def no_http(self) -> bytes:
        method, path = self.random.choice(METHODS), self.random.choice(PATHS)
        version = self.random.choice(["HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/9.9", "", "http"])
        line = f"{method} {path} {version}\r\n".encode("latin-1")
        rest = b"Connection: close\r\n\r\n"
        return self.random.choice(
            [
                line + rest,
                line + b"Host: x\r\n" + rest,
                self._bytes(300) + b"\r\n\r\n",
                b"\r\n" * 50,
                b"\x16\x03\x01" + line,
            ]
        )

    def large(self) -> bytes:
        row = msgspec.json.encode(self._row())
        many = self.random.choice([99, 101, 500])
        return self.request(b'{"rows":[' + b",".join([row] * many) + b"]}")

    def _row(self) -> dict[str, Any]:
        return dict(self.random.choice(self.golden["rows"]))

    def _bytes(self, most: int) -> bytes:
        return self.random.randbytes(self.random.randint(1, most))

    def _changed(self, body: bytearray) -> bytes:
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(body))
            how = self.random.randrange(4)
            if how == 0:
                body[at] = self.random.randrange(256)
            elif how == 1:
                body[at:at] = self._bytes(5)
            elif how == 2 and len(body) > 9:
                del body[at : at + self.random.randint(1, 8)]
            else:
                body[at:at] = body[at : at + 30]
        return bytes(body)


def send(port: int, content: bytes, seconds: float) -> str:
    """The status of the answer; "closed" if the server hangs up without one, "silent" if it waits for more."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read to the end
                line.sendall(content)
            line.settimeout(seconds)
            answer = line.recv(4096)
    except TimeoutError:
        return "silent"
    except ConnectionResetError:
        return "closed"
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/") else "closed"


def fuzz(release: Path, home: Path, seconds: float, seed: int) -> Found:
    """Ask a server of its own for so long."""
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())
    found, sender = Found(), Sender(golden, seed)
    (home / "releases").mkdir(parents=True, exist_ok=True)
    (home / "releases" / NAME).symlink_to(release.parent)
    with served(home, **LIMITS) as url:
        pid = requests.get(f"{url}/health", timeout=10).json()["pid"]
        server, port = psutil.Process(pid), int(url.rpartition(":")[2])
        begun = time.monotonic()
        ends, warm, number = begun + seconds, begun + WARM_UP * seconds, 0
        while time.monotonic() < ends and not found.wrong:
            content, number = sender.one(), number + 1
            status = send(port, content, 0.3)
            found.statuses[status] += 1
            if status.startswith("5"):
                found.wrong.append(f"request {number} was answered with {status}: {content[:2000]!r}")
            if number % 50 == 0:
                _look(url, pid, golden, found, number)
                if time.monotonic() > warm:
                    found.memory.append(server.memory_info().rss / 2**20)
        _look(url, pid, golden, found, number)
        found.memory.append(server.memory_info().rss / 2**20)
    first = sum(found.memory[:5]) / len(found.memory[:5])
    last = sum(found.memory[-5:]) / len(found.memory[-5:])
    if last - first > GROWTH:
        found.wrong.append(f"the server grew from {first:.0f} to {last:.0f} MiB")
    return found


def _look(url: str, pid: int, golden: dict[str, Any], found: Found, number: int) -> None:
    """The server is the one that it was, says that it is well, and answers as recorded."""
    try:
        health = requests.get(f"{url}/health", timeout=10).json()
        answer = requests.post(f"{url}/predict", json={"rows": golden["rows"]}, timeout=10).json()
    except (requests.RequestException, ValueError) as error:
        found.wrong.append(f"after request {number}: {error!r}")
        return
    if health["pid"] != pid or health["status"] != "ok" or NAME not in health["models"]:
        found.wrong.append(f"after request {number}: {health}")
    if answer.get("predictions") != golden["answers"]:
        found.wrong.append(f"after request {number}: {str(answer)[:500]}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with small_project() as (project, folder):
        found = fuzz(release_of(project), folder / "server", given.seconds, given.seed)
    print(f"{sum(found.statuses.values()):,} requests in {given.seconds:.0f} s, seed {given.seed}")
    print("answers: " + ", ".join(f"{status} {count:,}" for status, count in sorted(found.statuses.items())))
    print(f"memory: {found.memory[0]:.0f} MiB after the warm-up, {found.memory[-1]:.0f} MiB at the end")
    if found.wrong:
        sys.exit("\n".join(found.wrong))


if __name__ == "__main__":
    main()
