"""What a server allows: whom, how much and for how long."""

from dataclasses import dataclass, field
from pathlib import Path

from ml_assets.errors import SettingsError
from ml_assets.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Options:
    """How the endpoint server guards itself.

    Attributes:
        keys: what a caller may prove itself with; `keys_file` holds more, one a line, and is read again when it
            changes. Without any, nobody is asked.
        max_bytes: of a request's body.
        max_rows: of one request.
        max_waiting: rows of all requests that are not answered yet; who comes then is told to come again.
        seconds: after which a request is given up.
        journal: folder of the prediction log; None: nothing is logged.
        durable: whether an answer waits until its entry is on the disk.
    """

    keys: frozenset[str] = field(default=frozenset(), repr=False)
    keys_file: Path | None = None
    max_bytes: int = 10 * 2**20
    max_rows: int = 10_000
    max_waiting: int = 20_000
    seconds: float = 30.0
    journal: Path | None = None
    durable: bool = False

    @property
    def guarded(self) -> bool:
        """Whether a caller is asked for a key."""
        return bool(self.keys) or self.keys_file is not None

    def a_key(self) -> str | None:
        """A key to ask this server with; None where nobody is asked for one.

        Raises:
            SettingsError: if there is no key in the file that is set, so that nobody is let in.
        """
        if self.keys or not self.guarded:
            return min(self.keys, default=None)
        assert self.keys_file is not None
        try:
            return next(line.strip() for line in self.keys_file.read_text().splitlines() if line.strip())
        except (OSError, UnicodeDecodeError, StopIteration):
            raise SettingsError(
                f"ML_ASSETS_ENDPOINT_KEYS_FILE={str(self.keys_file)!r} holds no key, so that nobody can ask the "
                "endpoint server; write one into it, one a line"
            ) from None

    @classmethod
    def of(cls, settings: Settings, log: str = "on") -> "Options":
        """The options of an environment.

        Args:
            log: what holds where `ML_ASSETS_PREDICTION_LOG` says nothing.
        """
        log = settings.prediction_log or log
        keys = settings.endpoint_keys.get_secret_value()
        return cls(
            keys=frozenset(filter(None, (each.strip() for each in keys.split(",")))),
            keys_file=settings.endpoint_keys_file,
            max_bytes=settings.endpoint_max_bytes,
            max_rows=settings.endpoint_max_rows,
            journal=None if log == "off" else settings.journal,
            durable=log == "fsync",
        )
