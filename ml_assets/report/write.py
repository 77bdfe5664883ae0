"""Where reports lie, and how a browser gets to them."""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.report.history import read_history
from ml_assets.report.page import page


def write_report(lake: Lake, model: Model, file: Path, now: datetime | None = None) -> Path:
    """Write the report of a model as it is now; whoever reads the file meanwhile has the old one whole.

    Returns:
        The file.
    """
    text = page(read_history(lake, model, now))
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_text(text, "utf8")
    half.replace(file)
    return file


@contextlib.contextmanager
def served_reports(folder: Path, port: int) -> Iterator[int]:
    """Serve the folder's reports on 127.0.0.1 from a thread of this process; the port. Browsers open no file:// link
    from a page that came by http, and MLflow shows a page in a frame that a phone has no room for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Reports, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Reports(SimpleHTTPRequestHandler):
    """Only `<model>.html`, never a list of the folder or a file that is half written."""

    def send_head(self):  # type: ignore[no-untyped-def]  # as in the standard library
        name = self.path.split("?", 1)[0].removeprefix("/")
        if "/" in name or not name.endswith(".html"):
            self.send_error(404, "there is one report for each model: /<model>.html")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None: ...
