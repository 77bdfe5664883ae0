"""One HTTP request: its time-outs, its token, and which of its errors pass."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from ml_assets.errors import SourceError
from ml_assets.sources.retries import TransientError, with_retries

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0  # seconds; the second is the longest silence within an answer
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, eq=False)
class Web:
    """A session with one API.

    Attributes:
        token: name of the bearer token that goes with every request, if any.
        tokens: tokens by name.
        place: model and key in its YAML, for messages.
    """

    place: str
    token: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ask(self, method: str, url: str, expected: Collection[int] = ()) -> Any:
        """A `requests.Response` with its whole body.

        Args:
            expected: statuses beside 2xx that are an answer as well.

        Raises:
            SourceError: if it is refused, or does not come after some tries.
        """

        def once() -> Any:
            import requests

            try:
                response = self._session.request(method, url, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
            except requests.exceptions.SSLError as error:
                raise SourceError(f"{self.place}: {url}: {error}; mend its certificate, or source.url") from None
            except (
                requests.exceptions.Timeout,
                requests.exceptions.ConnectionError,
                requests.exceptions.ChunkedEncodingError,
                requests.exceptions.ContentDecodingError,
            ) as error:
                raise TransientError(f"{self.place}: {url} does not answer in full: {error}") from None
            except requests.exceptions.RequestException as error:
                raise SourceError(f"{self.place}: {url}: {error}; mend source.url") from None
            if not response.ok and response.status_code not in expected:
                raise self._refusal(response, url)
            return response

        return with_retries(once)

    def _refusal(self, response: Any, url: str) -> SourceError:
        status = response.status_code
        told = f"{self.place}: {url}: {status} {response.reason}"
        if status in _PASSING or status >= 500:
            return TransientError(told, _retry_after(response.headers.get("Retry-After", "")))
        if status in (401, 403) and self.token is None:
            return SourceError(f"{told}: set source.token, and ML_ASSETS_TOKEN_<NAME> to the token")
        if status in (401, 403):
            return SourceError(f"{told}: the token is refused; set {self._variable} to a valid one")
        return SourceError(f"{told}; mend source.url")

    @property
    def _variable(self) -> str:
        return f"ML_ASSETS_TOKEN_{(self.token or '').upper()}"

    @cached_property
    def _session(self) -> Any:
        import requests

        session = requests.Session()
        if self.token is not None:
            value = self.tokens.get(self.token, "").strip()
            if not value:
                raise SourceError(f"{self.place}: {self._variable} is not set; set it to the token")
            if not value.isascii() or not value.isprintable():
                raise SourceError(f"{self.place}: {self._variable} holds characters that no header may have; mend it")
            session.auth = _Bearer(value)
        return session


class _Bearer:
    """As `auth` of a session, because a mere header would give way to what ~/.netrc says."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _retry_after(value: str) -> float | None:
    """Seconds that the server asks for: as their number, or up to a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
