"""CSV as rows of the contract's types, and answers as CSV."""

from typing import Any

import polars as pl
import pytest

from ml_assets.errors import InvalidRequestError
from ml_assets.serving.bodies import TooLargeError, csv_of, rows_of_csv, rows_of_json
from ml_assets.serving.frames import describe
from ml_assets.serving.options import Options

INPUTS = [
    describe("order", pl.String(), nullable=False, needed=False),
    describe("zone", pl.String(), nullable=True, needed=True),
    describe("items", pl.Int64(), nullable=False, needed=True),
    describe("km", pl.Float64(), nullable=True, needed=True),
    describe("new", pl.Boolean(), nullable=False, needed=True),
]


@pytest.mark.parametrize(
    "body",
    [
        "centre,3,2.5,true\n,1,,0\n",
        "zone,items,km,new\r\ncentre,3,2.5,TRUE\r\n,1,,false\r\n",
        "new,km,order,items,zone\n1,2.5,x,3,centre\n0,,y, 1 ,\n",
    ],
    ids=["in the contract's order", "with a header", "in another order, with more"],
)
def test_csv_becomes_rows_of_the_contracts_types(body: str) -> None:
    rows = rows_of_csv(body.encode(), INPUTS, Options())
    first, second = ({name: value for name, value in row.items() if name != "order"} for row in rows)
    assert first == {"zone": "centre", "items": 3, "km": 2.5, "new": True}
    assert second == {"zone": "", "items": 1, "km": None, "new": False}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"centre,three,2.5,true", "row 0: column 'items' is 'three', not a Int64"),
        (b"centre,3,2.5,true\ncentre,3,2.5,perhaps", "row 1: column 'new' is 'perhaps', not a Boolean"),
        (b"centre,3,2.5", "row 0: 3 fields for 4 columns; send zone, items, km, new in this order, or a header"),
        (b"zone,items,km,new\n", "the CSV has no row"),
        (b"", "the CSV has no row"),
        (b'a,"b', "the body is no CSV"),
        (b"\xff\xfe", "the body is no CSV"),
    ],
)
def test_what_is_no_such_csv_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said.replace("(", r"\(")):
        rows_of_csv(body, INPUTS, Options())


def test_more_rows_than_allowed_are_refused_in_either_kind() -> None:
    few = Options(max_rows=1)
    with pytest.raises(TooLargeError, match="2 rows; this server takes 1 at once"):
        rows_of_csv(b"a,1,1,1\nb,1,1,1\n", INPUTS, few)
    with pytest.raises(TooLargeError, match="2 rows"):
        rows_of_json(b'{"rows": [{}, {}]}', few)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"rows": 1}', b'{"rows": [], "x": 1}', b"\xff", b"NaN"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        rows_of_json(body, Options())


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([{"label": True, "score": 0.1, "missing": {"x": "stale"}}], "label,score\nTrue,0.1\n"),
        ([{"label": "a", "scores": {"a": 0.75, "b": 0.25}}], "label,score_a,score_b\na,0.75,0.25\n"),
        ([{"value": 1.5}, {"value": -2.0}], "value\n1.5\n-2.0\n"),
    ],
)
def test_answers_become_csv(answers: list[dict[str, Any]], text: str) -> None:
    assert csv_of(answers).decode() == text
