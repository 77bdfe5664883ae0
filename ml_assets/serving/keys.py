"""Who may ask: keys from the environment or from a file, which may change while the server runs."""

import hashlib
import hmac
from collections.abc import Iterable

from ml_assets.errors import MlAssetsError
from ml_assets.serving.options import Options


class UnauthorizedError(MlAssetsError):
    """A request without a key that counts."""

    status = 401


class Keys:
    """The keys that count now."""

    def __init__(self, options: Options) -> None:
        self._asked_for = options.guarded
        self._fixed = [_digest(key) for key in options.keys]
        self._file = options.keys_file
        self._seen: tuple[int, int] | None = None
        self._read: list[bytes] = []
        self.refresh()

    @property
    def asked_for(self) -> bool:
        """Whether a key is needed at all. A file that is set and empty, or gone, lets nobody in."""
        return self._asked_for

    def refresh(self) -> None:
        """Read the file again if it changed."""
        if self._file is None:
            return
        try:
            stat = self._file.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._seen:
                self._read = [_digest(line.strip()) for line in self._file.read_text().splitlines() if line.strip()]
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except (OSError, UnicodeDecodeError):
            self._read, self._seen = [], None

    def require(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Let through a request with `Authorization: Bearer <key>` or `X-API-Key: <key>`.

        Raises:
            UnauthorizedError: if it has none, or one that does not count.
        """
        if not self.asked_for:
            return
        given = b""
        for name, value in headers:
            if name == b"x-api-key":
                given = value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
        said = hashlib.sha256(given).digest()
        # All are compared, each in constant time: how long it takes tells nothing about any of them.
        if not given or not sum(hmac.compare_digest(said, each) for each in (*self._fixed, *self._read)):
            raise UnauthorizedError("send a key that counts here: Authorization: Bearer <key>, or X-API-Key: <key>")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
