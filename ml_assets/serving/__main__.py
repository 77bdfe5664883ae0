"""`python -m ml_assets.serving RELEASES PORT [HOST]`, or `... serve` as SageMaker starts its containers."""

import signal
import sys
from pathlib import Path

import uvicorn

from ml_assets.errors import SettingsError
from ml_assets.serving.app import create_app
from ml_assets.serving.logs import CONFIG
from ml_assets.serving.options import LOOPBACK, Options
from ml_assets.settings import SageMakerPlace, Settings

GRACE = 30  # seconds in which requests are finished after SIGTERM
SWITCH = 0.0002  # seconds


def serve(releases: Path, port: int, host: str = "127.0.0.1") -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first.

    Raises:
        SettingsError: if others than this machine could ask, and nobody is asked for a key.
    """
    settings = Settings.from_environment()
    options = Options.of(settings)
    if host not in LOOPBACK and not options.guarded:
        raise SettingsError(
            f"the endpoint server is to listen on {host}, and everybody there could ask it; set "
            "ML_ASSETS_ENDPOINT_KEYS or ML_ASSETS_ENDPOINT_KEYS_FILE, or listen on 127.0.0.1"
        )
    _run(releases, port, host, settings.online_place, options)


def serve_for_sagemaker() -> None:
    """Serve the release in SageMaker's model folder. Who may ask is decided by IAM before a request gets here.

    SageMaker captures data itself, and nobody would read what lies in its container: by default nothing is logged.
    """
    settings = Settings.from_environment()
    place = SageMakerPlace.from_environment()
    online = settings.online_store.get_secret_value() or None
    _run(place.model, place.port, "0.0.0.0", online, Options.of(settings, log="off"))


def _run(releases: Path, port: int, host: str, online: str | None, options: Options) -> None:
    # uvicorn ends by the signal that it was sent, once all is done; an orderly end is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    # Requests wait for the thread that writes the prediction log no longer than this; by default 5 ms, which is p99.
    sys.setswitchinterval(SWITCH)
    uvicorn.run(
        create_app(releases, online, options),
        host=host,
        port=port,
        access_log=False,
        log_config=CONFIG,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve_for_sagemaker()
    else:
        serve(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4])
