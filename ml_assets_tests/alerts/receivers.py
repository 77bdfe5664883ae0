"""Receivers of alerts, over HTTP and SMTP, which can be down, slow or refuse."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as Mail
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from ml_assets_tests.project import free_port


@dataclass
class Hooks:
    """A web server that takes what is posted.

    Attributes:
        status: that it answers with; what it then refuses is not among those `got`.
        delay: seconds before it answers.
        got: path, headers and body of each.
    """

    port: int
    status: int = 200
    delay: float = 0.0
    got: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    tries: int = 0

    def bodies(self, path: str = "/hook") -> list[dict[str, Any]]:
        return [body for where, _, body in self.got if where == path]

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Hooks"]:
        said = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said.tries += 1
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                time.sleep(said.delay)
                if 200 <= said.status < 300:
                    said.got.append((self.path, dict(self.headers), body))
                with contextlib.suppress(OSError):
                    self.send_response(said.status)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class Mailbox:
    """A mail server that takes what is sent to some receivers.

    Attributes:
        refused: receivers that it does not know.
        password: of `user`, who has to log in; empty: nobody has to.
    """

    refused: tuple[str, ...] = ()
    password: str = ""
    mails: list[Mail] = field(default_factory=list)
    to: list[list[str]] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.to.append(list(envelope.rcpt_tos))
        return "250 taken"

    def _login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = (data.login, data.password) == (b"user", self.password.encode())
        return AuthResult(success=good, handled=False)

    @contextlib.contextmanager
    def running(self) -> Iterator["Mailbox"]:
        self.port = free_port()
        login = {"authenticator": self._login, "auth_require_tls": False, "auth_required": True}
        controller = Controller(self, "127.0.0.1", self.port, **(login if self.password else {}))
        controller.start()
        try:
            yield self
        finally:
            controller.stop()
