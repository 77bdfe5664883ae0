"""Ids of requests and of their rows. By a row's id its outcome is found later."""

import itertools
import re
import secrets
from typing import Any

from ml_assets.errors import InvalidRequestError

REQUEST_ID, INFERENCE_ID, PROBE = b"x-request-id", b"x-amzn-sagemaker-inference-id", b"x-ml-assets-probe"
PROBE_ID = "ml-assets-probe"  # the inference id of a probe, where its header does not get through: it is no prediction
MOST_LETTERS, MOST_COLUMNS = 200, 16
PATTERN = r"^[!-~]{1,128}$"  # of a request's id: what can stand in a header, without blanks
_ID = re.compile(PATTERN)
_OWN, _NUMBERS = secrets.token_hex(6), itertools.count(1)


def new_id() -> str:
    """An id that no other request has, here or in another process."""
    return f"{_OWN}-{next(_NUMBERS):x}"


def id_in(headers: dict[bytes, bytes], name: bytes) -> str | None:
    """The caller's id in a header, if it has one.

    Raises:
        InvalidRequestError: if it is too long or has letters that no log should hold.
    """
    given = headers.get(name)
    if given is None:
        return None
    text = given.decode("latin-1")
    if not _ID.fullmatch(text):
        raise InvalidRequestError(
            f"{name.decode()} {text!r:.80} is no id: 1 to 128 visible ASCII letters, without blanks"
        )
    return text


def require_ids(ids: Any, rows: int) -> list[Any]:
    """Ids of rows, as a body carries them: one for each row, or null.

    An id is the value of the key by which the outcome will come: a text or whole number, or for a key of several
    columns an object of them, `{"order_id": "a1", "line": 2}`.

    Raises:
        InvalidRequestError: naming the row whose id is none.
    """
    if not isinstance(ids, list) or len(ids) != rows:
        given = f"{len(ids)} ids" if isinstance(ids, list) else "no list"
        raise InvalidRequestError(f"`ids` is {given} for {rows} rows; send one for each row, or null")
    for number, each in enumerate(ids):
        if each is None or _is_plain(each):
            continue
        fits = isinstance(each, dict) and 0 < len(each) <= MOST_COLUMNS and all(map(_is_plain, each.values()))
        if not fits or max(map(len, each)) > MOST_LETTERS:
            raise InvalidRequestError(
                f"row {number}: the id {each!r:.80} is none: send a text of 1 to {MOST_LETTERS} letters, a whole "
                'number, or an object of them such as {"order_id": "a1"}'
            )
    return ids


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= MOST_LETTERS
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
