"""One probe of what serves a model: is it there, and does it answer a known prediction as the release says, in time?

The known predictions are the release's golden rows. They are asked for with the header `X-ML-Assets-Probe`, outside the
prediction log, and with what was looked up for them, so that the answer is known to the last digit.
"""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from ml_assets.deployment.local import LocalTarget
from ml_assets.errors import ReleaseError, SettingsError
from ml_assets.probes import Probe
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.ids import PROBE
from ml_assets.serving.scorer import require_equal

MOST_BYTES = 2**20  # of an answer


@dataclass(frozen=True)
class Patience:
    """How long a probe waits, in seconds: at most, and until it calls an answer slow."""

    timeout: float = 5.0
    slow: float = 1.0


class HangingError(Exception):
    """There was no whole answer in time."""


def probe_local(server: LocalTarget, model: str, may_serve: Collection[str], patience: Patience) -> Probe | None:
    """Ask the endpoint server of a state folder, where it is said to listen.

    Args:
        may_serve: names of the releases of which one is to answer.

    Returns:
        None if no server is said to run: it was never started, or `ml-assets stop` ended it.
    """
    if (known := server.known()) is None:
        return None
    at = datetime.now(UTC)
    for last in (False, True):
        found, reason, seconds, swapped = _asked(server, known, model, may_serve, patience)
        if last or not swapped:
            break
    milliseconds = None if seconds is None else round(seconds * 1000, 3)
    return Probe(found, milliseconds, reason, at)  # type: ignore[arg-type]


def _asked(
    server: LocalTarget, known: dict[str, Any], model: str, may_serve: Collection[str], patience: Patience
) -> tuple[str, str, float | None, bool]:
    """What was found, why, in how many seconds, and whether another release took over meanwhile, so that it says
    nothing.
    """
    import requests

    url = f"http://127.0.0.1:{known['port']}"
    try:
        begun = time.monotonic()
        status, health = fetch("GET", f"{url}/health", patience.timeout)
        took = time.monotonic() - begun
        if status != 200 or health.get("pid") != known["pid"]:
            said = f"{url}/health answers {status}" if status != 200 else f"another program listens at {url}"
            return "dead", f"{said}; the server's log is {server.log}", None, False
        serves = health["models"].get(model, {}).get("release")
        if serves is None:
            refused = health["refused"].get(model, {}).get("reason", "")
            return "dead", f"the server at {url} serves no release of {model}{refused and f': {refused}'}", None, False
        if serves not in may_serve:
            return "wrong", f"{serves} serves, and {' or '.join(sorted(may_serve))} is to", None, False
        golden = msgspec.json.decode((server.releases / model / serves / GOLDEN).read_bytes())
        body = {"rows": golden["rows"]}
        if golden["looked_up"] is not None:
            body["looked_up"] = golden["looked_up"]
        begun = time.monotonic()
        status, answer = fetch("POST", f"{url}/models/{model}/predict", patience.timeout, body, server.headers())
        seconds = time.monotonic() - begun
    except HangingError:
        return "hanging", f"{url} gave no answer in {patience.timeout:g} s", None, False
    except (requests.RequestException, OSError) as error:
        return "dead", f"{url} does not answer ({_cause(error)}); the server's log is {server.log}", None, False
    except (KeyError, TypeError, AttributeError, ValueError, SettingsError) as error:
        return "wrong", f"{url}: {_short(error)}", None, False
    if status in (408, 504):
        return "hanging", f"{url} answers {status}: {_short(answer.get('error'))}", seconds, False
    if status != 200:
        return "wrong", f"{url} answers a known prediction with {status}: {_short(answer.get('error'))}", seconds, False
    if answer.get("version") != serves.partition("-")[0]:
        return "wrong", f"version {answer.get('version')} answers, and {serves} is to", seconds, True
    try:
        require_equal(golden["answers"], answer["predictions"], f"{model} {serves}")
    except (ReleaseError, KeyError, TypeError) as error:
        return "wrong", _short(error), seconds, False
    slowest = max(took, seconds)
    if slowest > patience.slow:
        return "slow", f"{url} takes {slowest * 1000:.0f} ms, more than {patience.slow * 1000:.0f} ms", seconds, False
    return "good", "", seconds, False


def fetch(
    method: str, url: str, timeout: float, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer, all of which has to be there in time.

    Raises:
        HangingError: if it is not.
        requests.RequestException: if there is no server, or it hangs up.
        ValueError: if the answer is too long or no JSON object.
    """
    import requests

    deadline = time.monotonic() + timeout
    content = bytearray()
    try:
        with requests.request(
            method,
            url,
            json=body,
            headers=(headers or {}) | ({PROBE.decode(): "1"} if method == "POST" else {}),
            timeout=timeout,
            stream=True,
        ) as response:
            while part := response.raw.read1(2**16, decode_content=True):
                content += part
                if time.monotonic() > deadline:  # a byte now and then would keep the socket's own clock from ringing
                    raise HangingError
                if len(content) > MOST_BYTES:
                    raise ValueError(f"an answer of more than {MOST_BYTES} bytes")
    except requests.Timeout:
        raise HangingError from None
    except requests.ConnectionError as error:
        if "timed out" in str(error):  # while the body was read
            raise HangingError from None
        raise
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object but {bytes(content[:100])!r}")
    return response.status_code, found


def _cause(error: BaseException) -> str:
    """What the system said, without the layers around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


def _short(said: Any) -> str:
    return str(said)[:300]
