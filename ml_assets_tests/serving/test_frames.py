from typing import Any

import polars as pl
import pytest

from ml_assets.errors import InvalidRequestError
from ml_assets.serving.frames import describe, frame_of

TYPES: dict[str, pl.DataType] = {
    "items": pl.Int64(),
    "km": pl.Float64(),
    "zone": pl.String(),
    "new": pl.Boolean(),
    "at": pl.Datetime("us", "UTC"),
    "on": pl.Date(),
}
INPUTS = [
    *(describe(name, kind, nullable=name in ("km", "zone"), needed=True) for name, kind in TYPES.items()),
    describe("order_id", pl.String(), nullable=False, needed=False),
]
ROW = {"items": 2, "km": 1.5, "zone": "a", "new": True, "at": "2025-01-31T12:00:00Z", "on": "2025-01-31"}


def test_a_row_has_the_contracts_types_whatever_its_values_look_like() -> None:
    odd = ROW | {"items": 3.0, "km": 2, "at": "2025-01-31T14:00:00+02:00", "order_id": "ignored"}
    sparse = ROW | {"km": None, "zone": None}
    frame = frame_of([ROW, odd, sparse], INPUTS)
    assert frame.schema == TYPES
    assert frame["items"].to_list() == [2, 3, 2]
    assert frame["km"].to_list() == [1.5, 2.0, None]
    assert frame["at"][0] == frame["at"][1]
    for number, row in enumerate([ROW, odd, sparse]):
        assert frame_of([row], INPUTS).equals(frame[number])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": 2.7}, r"row 1: column 'items' is 2.7, not a Int64"),
        ({"items": "2"}, r"row 1: column 'items' is '2', not a Int64"),
        ({"items": True}, r"row 1: column 'items' is True"),
        ({"items": 2**70}, r"row 1: column 'items'"),
        ({"items": None}, r"row 1: column 'items' is null; it is needed"),
        ({"km": "far"}, r"row 1: column 'km' is 'far'"),
        ({"km": {"a": 1}}, r"row 1: column 'km'"),
        ({"new": 1}, r"row 1: column 'new' is 1, not a Boolean"),
        ({"zone": 7}, r"row 1: column 'zone' is 7"),
        ({"at": "2025-01-31T12:00:00"}, r"row 1: column 'at' .* without a time zone"),
        ({"at": "soonZ"}, r"row 1: column 'at' is 'soonZ'"),
        ({"at": 5}, r"row 1: column 'at' is 5"),
        ({"on": "31.1.2025"}, r"row 1: column 'on' is '31.1.2025'"),
        ({"onn": 1}, r"row 1: column 'onn' is not in the contract"),
    ],
)
def test_what_does_not_fit_is_refused_with_row_column_and_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        frame_of([ROW, ROW | change], INPUTS)


def test_a_needed_column_may_not_be_left_out_and_a_nullable_one_may() -> None:
    without = {name: value for name, value in ROW.items() if name != "km"}
    assert frame_of([without], INPUTS)["km"].to_list() == [None]
    without.pop("items")
    with pytest.raises(InvalidRequestError, match="row 0: column 'items' is missing"):
        frame_of([without], INPUTS)


@pytest.mark.parametrize("rows", [[], {}, "rows", [1], None])
def test_anything_but_a_list_of_objects_is_refused(rows: Any) -> None:
    with pytest.raises(InvalidRequestError):
        frame_of(rows, INPUTS)


def test_texts_are_read_as_in_cleaning() -> None:
    rows = [ROW | {"zone": zone} for zone in (" a ", "?", "", "a")]
    assert frame_of(rows, INPUTS, ["", "?"])["zone"].to_list() == ["a", None, None, "a"]
