"""How much may wait: a server that is asked for more than it can answer says so at once, instead of collapsing."""

import contextlib
from collections.abc import Iterator

from ml_assets.errors import MlAssetsError


class BusyError(MlAssetsError):
    """More waits than this server answers in reasonable time."""

    status = 503


class Room:
    """The rows of all requests that wait for their answer.

    Attributes:
        most: how many there may be.
        waiting: how many there are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting = 0

    @contextlib.contextmanager
    def taken(self, rows: int) -> Iterator[None]:
        """Room for some rows until they are answered. Who comes while nobody waits always finds room.

        Raises:
            BusyError: if there is none.
        """
        if self.waiting and self.waiting + rows > self.most:
            raise BusyError(f"{self.waiting:,} rows wait already, and there is room for {self.most:,}; come again")
        self.waiting += rows
        try:
            yield
        finally:
            self.waiting -= rows
