"""A small HTTP API for tests: real requests over a real socket, with what a test puts there."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Page:
    """What one path answers."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Api:
    """A running server.

    Attributes:
        pages: by path with query; any other is 404.
        token: what the Authorization header must bear, if anything.
        tagged: whether it tells ETags.
        head: whether it answers HEAD requests.
        asked: method and path of each request so far.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    token: str | None = None
    tagged: bool = True
    head: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def put(self, path: str, content: Any, status: int = 200, **headers: str) -> None:
        """Answer `path` with bytes as they are, or with anything else as JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.pages[path] = Page(body, status, {"Content-Type": "application/json"} | headers)

    def count(self, method: str) -> int:
        return sum(asked == method for asked, _ in self.asked)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.command, handler.path))
        page = self.pages.get(handler.path, Page(b"no such page", 404))
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            page = Page(b"", 401)
        elif handler.command == "HEAD" and not self.head:
            page = Page(b"", 405)
        handler.send_response(page.status)
        headers = {"Content-Length": str(len(page.body))} | page.headers
        if self.tagged and page.status == 200:
            headers["ETag"] = f'"{hashlib.sha256(page.body).hexdigest()[:8]}"'
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(page.body)


@contextlib.contextmanager
def api_server() -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.respond(self)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = Api(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
