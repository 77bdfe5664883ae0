"""A proxy before an endpoint server, which delays or changes what comes back."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ml_assets.serving.ids import PROBE


@dataclass
class Proxy:
    """What it does to answers of predictions.

    Attributes:
        delay: seconds before the answer.
        replaced: bytes that become others.
        trickle: seconds between two bytes.
        status: that is given instead; 0: the server's.
        probes: how many predictions were asked as probes.
    """

    port: int = 0
    delay: float = 0.0
    replaced: tuple[bytes, bytes] = (b"", b"")
    trickle: float = 0.0
    status: int = 0
    probes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def proxy_before(port: int) -> Iterator[Proxy]:
    """A proxy before a server of this machine."""
    said = Proxy()

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if (probe := self.headers.get(PROBE.decode())) is not None:
                said.probes.append(probe)
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            server.request(self.command, self.path, body or None, dict(self.headers))
            answer = server.getresponse()
            content, status = answer.read(), answer.status
            server.close()
            if self.command == "POST":
                time.sleep(said.delay)
                content, status = content.replace(*said.replaced), said.status or status
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command == "POST" and said.trickle:
                    for each in content:
                        self.wfile.write(bytes([each]))
                        time.sleep(said.trickle)
                else:
                    self.wfile.write(content)

        do_GET = do_POST = _pass_on

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    said.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield said
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
