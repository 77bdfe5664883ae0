"""A reverse proxy that passes HTTP requests to a real server, and breaks those that a test's plan says."""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What becomes of one request.

    Attributes:
        kind: `answer` with a status instead of asking the server; `reset` the connection with RST; `truncate` the
            server's body to a half, under its full Content-Length; be `silent` until the client gives up.
    """

    kind: Literal["answer", "reset", "truncate", "silent"]
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


RESET, TRUNCATED, SILENT = Fault("reset"), Fault("truncate"), Fault("silent")


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Fault("answer", status, named, body)


@dataclass
class Proxy:
    """What the proxy was asked, and what it still has to break.

    Attributes:
        plan: what becomes of the next requests, in order; None passes one on, as does an empty plan.
        asked: method and path with query of each request so far.
    """

    url: str
    upstream: tuple[str, int]
    plan: list[Fault | None] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, *plan: Fault | None) -> None:
        """Forget what was asked, and break the next requests like this."""
        self.plan, self.asked = list(plan), []

    def serve(self, client: socket.socket) -> None:
        """Answer the one request of a connection."""
        with client:
            request = _message(client)
            if not request:
                return
            method, path = request.split(b" ", 2)[:2]
            with self._lock:
                self.asked.append((method.decode(), path.decode()))
                fault = self.plan.pop(0) if self.plan else None
            if fault is None or fault.kind == "truncate":
                with socket.create_connection(self.upstream, 60) as server:
                    server.sendall(_closing(request))
                    head, _, body = _until_closed(server).partition(b"\r\n\r\n")
                body = body if fault is None else body[: len(body) // 2]
                client.sendall(_closing(head + b"\r\n\r\n") + body)
            elif fault.kind == "answer":
                lines = [f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}", "Connection: close"]
                lines += [f"{name}: {value}" for name, value in fault.headers]
                lines += [f"Content-Length: {len(fault.body)}", "", ""]
                client.sendall("\r\n".join(lines).encode() + fault.body)
            elif fault.kind == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                select.select([client], [], [], 30)  # readable once the client has closed it


def _message(client: socket.socket) -> bytes:
    """One request with the body that its Content-Length announces."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := client.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < sum(map(int, lengths)):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def _closing(message: bytes) -> bytes:
    """The message with `Connection: close`, so that each connection carries one."""
    head, _, body = message.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body


def _until_closed(server: socket.socket) -> bytes:
    data = b""
    while more := server.recv(65536):
        data += more
    return data


@contextlib.contextmanager
def faulty(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at `upstream`."""
    parts = urlsplit(upstream)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", (parts.hostname, parts.port))

        def accept() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_serve, args=(proxy, client), daemon=True).start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)


def _serve(proxy: Proxy, client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):  # the client gave up
        proxy.serve(client)
