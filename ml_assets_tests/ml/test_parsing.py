from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from ml_assets.ml.parsing import Reading, parse_column, read_column


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["2", "2.0", "2.7", "x", "5e2"], pl.Int64(), [2, 2, None, None, 500]),
        ([2.0, 2.5, None], pl.Int64(), [2, None, None]),
        ([1, 0, 7], pl.Boolean(), [True, False, None]),
        ([None, None], pl.Boolean(), [None, None]),
        ([1.0, 0.0, None, 0.5, float("nan")], pl.Boolean(), [True, False, None, None, None]),  # as pandas keeps them
        (["yes", "F", "2"], pl.Boolean(), [True, False, None]),
        ([True, False], pl.Int64(), [1, 0]),
        (["1_000", "0x10", "١٢", "1 000", "1,5", "", "nan", "inf"], pl.Int64(), [None] * 8),
        (["1_000", "0x10", "١٢", "1 000", "1,5", ""], pl.Float64(), [None] * 6),
        (
            ["9007199254740993", "9007199254740993.0", "-9223372036854775808"],
            pl.Int64(),
            [2**53 + 1, 2**53 + 1, -(2**63)],
        ),
        (["9223372036854775808", "1e300", "1.0000000000000001", "25e-1"], pl.Int64(), [None] * 4),
        (["18446744073709551615", "-1"], pl.UInt64(), [2**64 - 1, None]),
        (["5.00E+05", "+.5", "1."], pl.Float64(), [500_000.0, 0.5, 1.0]),
        ([2.0**63, float("inf")], pl.Int64(), [None, None]),
        ([2**53, 2**53 + 1, 2**63 - 1, None], pl.Float64(), [2.0**53, None, None, None]),
        ([300, 3], pl.Int8(), [None, 3]),
        ([Decimal("2.5"), Decimal("2.0")], pl.Float64(), [2.5, 2.0]),
        ([Decimal("2.5"), Decimal("2.0")], pl.Int64(), [None, 2]),
        ([12.0, None, 2.5], pl.String(), ["12", None, "2.5"]),
        ([1_735_689_600], pl.Datetime("us", "UTC"), [None]),  # seconds, or microseconds?
        ([[1], [2]], pl.String(), [None, None]),
        ([b"x"], pl.Int64(), [None]),
    ],
)
def test_a_value_that_does_not_fit_its_type_without_loss_is_found(
    values: list[Any], kind: pl.DataType, expected: list[Any]
) -> None:
    assert parse_column(pl.Series("x", values), kind).to_list() == expected


def test_times_are_read_with_their_zone() -> None:
    texts = pl.Series(["2025-01-01T12:00:00Z", "2025-01-01T12:00:00+02:00", "soon"])
    hours = parse_column(texts, pl.Datetime("us", "UTC")).dt.hour().to_list()
    assert hours == [12, 10, None]


def test_a_time_is_read_like_any_other_whatever_stands_beside_it() -> None:
    texts = ["2025-01-02 10:00", "2025-01-02T10:00:00.5Z", "2025-01-02T10:00:00+02:00", "2025-01-02", "01/02/2025", "x"]
    kind = pl.Datetime("us", "UTC")
    together = parse_column(pl.Series(texts), kind).to_list()
    assert together == [parse_column(pl.Series([each]), kind)[0] for each in texts]
    assert [each is None for each in together] == [False, False, False, False, True, True]
    naive = parse_column(pl.Series(["2025-01-02T10:00:00", "2025-01-02 10:00:00"]), pl.Datetime("us"))
    assert naive.null_count() == 0


def test_blanks_at_the_ends_are_no_part_of_a_value_and_nan_is_a_missing_number() -> None:
    given, typed = read_column(pl.Series(["  12 ", "NaN", "-nan", "?", "x"]), pl.Int64(), Reading(("?",)))
    assert typed.to_list() == [12, None, None, None, None]
    assert given.to_list() == ["12", None, None, None, "x"], "only x could not be read"


def test_categories_become_text() -> None:
    kind = pl.Categorical()
    assert parse_column(pl.Series(["a", None], dtype=kind), pl.String()).to_list() == ["a", None]


NOON = datetime(2025, 1, 1, 12)


@pytest.mark.parametrize(
    ("arrived", "values", "kind", "expected"),
    [
        (pl.Datetime("ns"), [NOON], pl.Datetime("us", "UTC"), [NOON.replace(tzinfo=UTC)]),
        (pl.Datetime("ms", "UTC"), [NOON], pl.Datetime("us", "UTC"), [NOON.replace(tzinfo=UTC)]),
        (pl.Datetime("ms", "UTC"), [NOON], pl.Datetime("us"), [NOON]),
        (pl.Datetime("us", "Europe/Berlin"), [NOON], pl.Datetime("us"), [None]),  # which clock would it be?
        (pl.Datetime("us", "Europe/Berlin"), [NOON], pl.Datetime("us", "UTC"), [NOON.replace(hour=11, tzinfo=UTC)]),
        (pl.Datetime("us"), [NOON, NOON.replace(hour=0)], pl.Date(), [None, date(2025, 1, 1)]),
        (pl.Date(), [date(2025, 1, 1)], pl.Datetime("us", "UTC"), [datetime(2025, 1, 1, tzinfo=UTC)]),
    ],
)
def test_a_typed_time_keeps_its_moment_or_is_not_taken(
    arrived: pl.Datetime, values: list[Any], kind: pl.DataType, expected: list[Any]
) -> None:
    naive = pl.Series("x", values)
    zone = getattr(arrived, "time_zone", None)
    series = (naive.dt.replace_time_zone(zone) if zone else naive).cast(arrived)
    assert parse_column(series, kind).to_list() == expected


def test_a_moment_finer_than_the_contract_is_not_cut() -> None:
    assert parse_column(pl.Series([1, 2000]).cast(pl.Datetime("ns")), pl.Datetime("us")).is_null().to_list() == [
        True,
        False,
    ]


def test_a_time_without_a_zone_is_in_the_contracts_typed_or_as_text() -> None:
    kind = pl.Datetime("us", "Europe/Berlin")
    typed = parse_column(pl.Series([NOON, datetime(2025, 3, 30, 2, 30)]), kind)
    text = parse_column(pl.Series(["2025-01-01 12:00", "2025-03-30 02:30"]), kind)
    assert typed.equals(text)
    assert text.dt.convert_time_zone("UTC").dt.hour().to_list() == [11, None], "there is no such hour that day"


def test_a_marker_that_is_a_number_stands_for_a_missing_one_typed_or_not() -> None:
    reading = Reading(("", "-999"))
    for column in (pl.Series(["-999", "-999.0", "7"]), pl.Series([-999.0, -999.0, 7.0]), pl.Series([-999, -999, 7])):
        assert read_column(column, pl.Float64(), reading)[1].to_list() == [None, None, 7.0]
    assert read_column(pl.Series(["-999"]), pl.Int64(), Reading())[1].to_list() == [-999]
