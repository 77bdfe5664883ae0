"""Ids of requests and rows: what is one, and which outcome it finds."""

from typing import Any

import pytest

from ml_assets.errors import InvalidRequestError
from ml_assets.ml.predictions import key_of
from ml_assets.serving.ids import MOST_LETTERS, REQUEST_ID, id_in, new_id, require_ids


def test_made_ids_are_all_different() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"\xe9", b"a\x00"])
def test_a_header_that_no_log_should_hold_is_refused(given: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"x-request-id .* is no id"):
        id_in({REQUEST_ID: given}, REQUEST_ID)
    assert id_in({REQUEST_ID: b"x" * 128}, REQUEST_ID) == "x" * 128
    assert id_in({}, REQUEST_ID) is None


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([None, "a", 7, {"order": "a", "line": 2}], None),
        ("abcd", "`ids` is no list for 4 rows"),
        (["a"], "`ids` is 1 ids for 4 rows"),
        (["a", "", 1, 2], "row 1: the id '' is none"),
        (["a", "b", "c" * (MOST_LETTERS + 1), 2], "row 2: the id"),
        (["a", True, 1, 2], "row 1: the id True is none"),
        (["a", 1.5, 1, 2], "row 1: the id 1.5 is none"),
        (["a", 2**63, 1, 2], "row 1"),
        (["a", {}, 1, 2], "row 1: the id {} is none"),
        (["a", {"order": None}, 1, 2], "row 1"),
        (["a", {"o" * 201: 1}, 1, 2], "row 1"),
        (["a", {str(each): 1 for each in range(17)}, 1, 2], "row 1"),
    ],
)
def test_ids_of_rows_are_texts_whole_numbers_or_objects_of_them(ids: Any, said: str | None) -> None:
    if said is None:
        assert require_ids(ids, 4) == ids
    else:
        with pytest.raises(InvalidRequestError, match=said):
            require_ids(ids, 4)


@pytest.mark.parametrize(
    ("given", "row", "key", "found"),
    [
        ("a", {}, ["order"], {"order": "a"}),
        (7, {"order": "b"}, ["order"], {"order": "7"}),
        (None, {"order": "b"}, ["order"], {"order": "b"}),
        (None, {}, ["order"], {}),
        ("a", {"at": "2025-01-01"}, ["order", "at"], {"order": "a", "at": "2025-01-01"}),
        ("a", {}, ["order", "line"], {}),
        ({"line": 2, "other": 3}, {"order": "b"}, ["order", "line"], {"order": "b", "line": "2"}),
        ({"order": "a"}, {"order": "b", "line": True}, ["order", "line"], {"order": "a", "line": "true"}),
    ],
)
def test_the_key_is_the_id_and_else_the_rows_own(given: Any, row: Any, key: list[str], found: dict[str, str]) -> None:
    assert key_of(given, row, key) == found
