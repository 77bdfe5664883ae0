"""The pointer file of a model: which release serves, and which one is tried beside it.

{"release": "3-ab12"}                                                             one release serves
{"release": "3-ab12", "challenger": {"release": "4-cd34", "weight": 5, "salt": "..", "shadow": false, "by": "entity"}}

Without `release` nothing serves yet, and the challenger waits to be promoted.
"""

from pathlib import Path
from typing import Literal

import msgspec

from ml_assets.serving.bundle import POINTER, write_atomically

By = Literal["entity", "request"]


class Beside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release that is loaded beside the one that serves.

    Attributes:
        weight: its share of the requests in percent.
        salt: draws which keys it answers.
        shadow: whether it is asked in the background about what the other one has answered.
        by: what sticks to a side: an entity, or a request. See `sides.key_of`.
    """

    release: str
    weight: int = 0
    salt: str = ""
    shadow: bool = False
    by: By = "entity"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 100:
            raise ValueError(f"a weight of {self.weight}; it is a share in percent, 0 to 100")
        if self.shadow and self.weight:
            raise ValueError(f"a shadow with a weight of {self.weight}; it answers nobody, so its weight is 0")


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a pointer file says."""

    release: str | None = None
    challenger: Beside | None = None


def read_pointers(releases: Path, model: str) -> Pointer | None:
    """What is pointed to; None if nothing is.

    Raises:
        ValueError: if the file says something else.
    """
    try:
        return msgspec.json.decode((releases / model / POINTER).read_bytes(), type=Pointer)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def write_pointers(releases: Path, model: str, pointer: Pointer | None) -> None:
    """Point to releases, or to none, atomically: a reader sees all of the old ones or all of the new ones."""
    path = releases / model / POINTER
    if pointer is None or pointer == Pointer():
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {name: value for name, value in msgspec.to_builtins(pointer).items() if value is not None}
    write_atomically(path, msgspec.json.encode(said))
