"""`python -m ml_assets.serving RELEASES PORT`: the endpoint server as a process."""

import sys
from pathlib import Path

import uvicorn

from ml_assets.serving.app import create_app
from ml_assets.settings import Settings


def serve(releases: Path, port: int, host: str = "127.0.0.1") -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first."""
    app = create_app(releases, Settings.from_environment().online_place)
    uvicorn.run(app, host=host, port=port, log_level="info", access_log=False)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
