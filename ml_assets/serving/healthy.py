"""`python -m ml_assets.serving.healthy`: ends with 0 if the server in this container is ready; its health check."""

import sys
import urllib.error
import urllib.request

from ml_assets.settings import SageMakerPlace

SECONDS = 2.0


def main() -> None:
    """Ask `/ready`."""
    port = SageMakerPlace.from_environment().port
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=SECONDS).close()
    except (urllib.error.URLError, OSError) as error:
        sys.exit(f"the endpoint server is not ready: {error}")


if __name__ == "__main__":
    main()
