import json
from typing import Annotated, Any

import pandas as pd
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contract import Contract
from ml_assets.digests import digest_of_frame
from ml_assets.errors import BatchRefusedError
from ml_assets.lake import PARTITION
from ml_assets.ml.cleaning import Cleaned, Hook, clean, judge, read_rows

DAY = "2025-01-01"
UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Rows(pa.DataFrameModel):
    id: int = pa.Field(metadata={"role": "key"})
    km: float = pa.Field(gt=0, nullable=True, metadata={"role": "request"})
    zone: str = pa.Field(isin=["a", "b"], metadata={"role": "request"})
    minutes: float = pa.Field(nullable=True, metadata={"role": "outcome"})
    late: bool = pa.Field(nullable=True, metadata={"role": "target"})


CONTRACT = Contract.read(Rows, "test")


def raw(rows: list[dict[str, Any]], partition: str = DAY, source: str = "one") -> pl.DataFrame:
    """Rows as text, as a CSV file gives them."""
    columns = {name: [each.get(name) for each in rows] for name in Rows.to_schema().columns}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).with_columns(
        pl.lit(partition).alias(PARTITION),
        pl.lit(source).alias("_source"),
        pl.int_range(pl.len()).alias("_row"),
        pl.lit(False).alias("_stray"),
    )


GOOD = {"id": "1", "km": "2.5", "zone": "a", "minutes": "3", "late": "false"}


def one(rows: pl.DataFrame, contract: Contract = CONTRACT, hook: Hook | None = None, **options: Any) -> Cleaned:
    done = clean(
        read_rows(rows, contract, place="m/cleaned_data", **options), contract, hook=hook, place="m/cleaned_data"
    )[DAY]
    if isinstance(done, BatchRefusedError):
        raise done
    return done


def test_good_rows_are_typed_by_the_contract() -> None:
    done = one(raw([GOOD | {"km": " 5.00E+05 ", "late": "TRUE"}]))
    assert done.rows.schema == CONTRACT.types
    assert done.rows.row(0) == (1, 500_000.0, "a", 3.0, True)


def test_each_broken_row_is_kept_with_every_reason_column_check_and_value() -> None:
    done = one(raw([GOOD, GOOD | {"id": "2", "km": "-1", "zone": "z"}, GOOD | {"id": "3", "km": "far"}]))
    assert done.rows["id"].to_list() == [1]
    reasons = [json.loads(each) for each in done.rejected["reasons"]]
    assert [{each["column"] for each in row} for row in reasons] == [{"km", "zone"}, {"km"}]
    assert {"column": "km", "check": "is a Float64", "value": "far"} in reasons[1]
    assert {"column": "km", "check": "greater_than(0)", "value": "-1.0"} in reasons[0]
    assert json.loads(done.rejected["row"][1])["km"] == "far"
    assert done.failures == {"km": 2, "zone": 1}


def test_null_markers_and_nan_are_missing_and_only_allowed_where_the_contract_says() -> None:
    done = one(raw([GOOD | {"km": "?"}, GOOD | {"id": "2", "zone": " ? "}]), null_values=["", "?"])
    assert done.rows["km"].to_list() == [None]
    assert json.loads(done.rejected["reasons"][0])[0] == {"column": "zone", "check": "not_nullable", "value": None}
    typed = raw([GOOD]).with_columns(km=pl.lit(float("nan")))
    assert one(typed).rows["km"].to_list() == [None]


def test_of_two_rows_with_one_key_the_later_in_the_later_batch_wins_in_any_order() -> None:
    first = raw([GOOD | {"km": "1"}, GOOD | {"km": "2"}], source="2025-01-01")
    second = raw([GOOD | {"km": "3"}], source="2025-01-02")
    for both in (pl.concat([first, second]), pl.concat([second, first]).reverse()):
        done = one(both)
        assert done.rows["km"].to_list() == [3.0]
        assert done.duplicates == 2


def test_without_a_key_equal_rows_are_duplicates_and_others_get_a_key() -> None:
    class Keyless(pa.DataFrameModel):
        km: float = pa.Field(metadata={"role": "request"})
        late: bool = pa.Field(metadata={"role": "target"})

    contract = Contract.read(Keyless, "test")
    columns = {"km": ["1", "1", "1", "2"], "late": ["true", "true", "false", "true"]}
    rows = pl.DataFrame(columns).with_columns(
        pl.lit(DAY).alias(PARTITION),
        pl.lit("f").alias("_source"),
        pl.int_range(4).alias("_row"),
        pl.lit(False).alias("_stray"),
    )
    done = one(rows, contract)
    assert (done.rows.height, done.duplicates) == (3, 1)
    assert done.rows["_key"].n_unique() == 3


def test_a_missing_column_refuses_the_batch_and_names_file_and_column() -> None:
    with pytest.raises(BatchRefusedError, match="'km' of the contract is missing in one; it has"):
        read_rows(raw([GOOD]).drop("km"), CONTRACT, place="m/cleaned_data")


def test_the_hook_may_drop_rows_and_set_the_target_and_dropped_rows_are_rejected_rows() -> None:
    def hook(df: pd.DataFrame) -> pd.DataFrame:
        kept = df[df["km"] < 10]
        return kept.assign(late=kept["minutes"] > 1)

    done = one(raw([GOOD, GOOD | {"id": "2", "km": "50"}]), hook=hook)
    assert done.rows["late"].to_list() == [True]
    assert json.loads(done.rejected["reasons"][0])[0]["check"] == "dropped by clean(df)"


def test_truth_values_that_a_missing_one_made_floats_in_the_hook_are_kept() -> None:
    def hook(df: pd.DataFrame) -> pd.DataFrame:
        return df.assign(late=(df["minutes"] > 1).astype(float).where(df["minutes"].notna()))

    done = one(raw([GOOD, GOOD | {"id": "2", "minutes": "1"}, GOOD | {"id": "3", "minutes": ""}]), hook=hook)
    assert done.rows["late"].to_list() == [True, False, None]


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (lambda df: df.assign(km=1.0), "changed 'km'"),
        (lambda df: df.reset_index(drop=True).set_index(df.index + 7), "index"),
        (lambda df: df.drop(columns="late"), "'late'"),
        (lambda df: df.assign(late=7), "returned 'late' as Int64 with 7, the contract says Boolean"),
        (lambda df: df.assign(minutes="soon"), "returned 'minutes' as String with 'soon'"),
        (lambda df: df["nothing"], "KeyError"),
        (lambda df: None, "data frame"),
    ],
)
def test_a_hook_that_does_what_it_may_not_refuses_the_day(hook: Hook, said: str) -> None:
    with pytest.raises(BatchRefusedError, match=said):
        one(raw([GOOD]), hook=hook)


CELLS = {
    "id": st.sampled_from(["1", "2", "3", "x", None]),
    "km": st.sampled_from(["1", "2.5", "-1", "inf", "abc", "", None]),
    "zone": st.sampled_from(["a", "b", "c", None]),
    "minutes": st.sampled_from(["1", "", "late"]),
    "late": st.sampled_from(["true", "0", "maybe", None]),
}
SOME_ROWS = st.lists(st.fixed_dictionaries(CELLS), max_size=12)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(first=SOME_ROWS, second=SOME_ROWS, drop=st.booleans())
def test_no_row_is_lost_or_doubled_and_days_cleaned_together_are_cleaned_as_alone(
    first: list[dict[str, Any]], second: list[dict[str, Any]], drop: bool
) -> None:
    hook = (lambda df: df[df["id"] > 1]) if drop else None
    days = {DAY: raw(first), "2025-01-02": raw(second, "2025-01-02")}
    together = clean(read_rows(pl.concat(days.values()), CONTRACT, place="m"), CONTRACT, hook=hook, place="m")
    for day, rows in days.items():
        alone = clean(read_rows(rows, CONTRACT, place="m"), CONTRACT, hook=hook, place="m")
        if rows.is_empty():
            assert day not in alone
            continue
        done, same = alone[day], together[day]
        assert isinstance(done, Cleaned)
        assert isinstance(same, Cleaned)
        assert done.rows.height + done.rejected.height + done.duplicates == rows.height
        assert done.rows.equals(same.rows)
        assert done.rejected.equals(same.rejected)
        assert done.failures == same.failures


def test_a_rejected_row_is_json_for_any_reader_also_with_numbers_that_json_does_not_know() -> None:
    numbers = [float("inf"), float("nan"), -1.0]
    rows = raw([GOOD | {"zone": "nowhere"}] * 3).with_columns(pl.Series("km", numbers, dtype=pl.Float64))
    km = [json.loads(each, parse_constant=pytest.fail)["km"] for each in one(rows).rejected["row"]]
    assert km == ["inf", "nan", -1.0]


def test_a_number_that_is_none_is_missing_and_an_infinite_one_is_rejected() -> None:
    done = one(raw([GOOD | {"km": "NaN"}, GOOD | {"id": "2", "km": "inf"}]))
    assert done.rows["km"].to_list() == [None]
    assert json.loads(done.rejected["reasons"][0])[0] == {"column": "km", "check": "is a Float64", "value": "inf"}


def test_a_check_that_cannot_be_made_refuses_every_day_and_not_the_first_alone() -> None:
    class Odd(pa.DataFrameModel):
        id: int = pa.Field(metadata={"role": "key"})
        km: float = pa.Field(ge="5", metadata={"role": "request"})
        late: bool = pa.Field(metadata={"role": "target"})

    days = pl.concat([raw([GOOD]), raw([GOOD], "2025-01-02")])
    odd = Contract.read(Odd, "test")
    done = clean(read_rows(days, odd, place="m"), odd, place="m")
    assert all(isinstance(each, BatchRefusedError) for each in done.values())
    assert set(done) == {DAY, "2025-01-02"}


def test_numbers_in_text_are_read_with_the_declared_mark_and_the_row_stays_as_it_arrived() -> None:
    done = one(raw([GOOD | {"km": "2,5"}, GOOD | {"id": "2", "km": "1.500"}]), decimal=",")
    assert done.rows["km"].to_list() == [2.5]
    assert json.loads(done.rejected["reasons"][0]) == [{"column": "km", "check": "is a Float64", "value": "1.500"}]
    assert one(raw([GOOD | {"km": "2,5"}])).rejected.height == 1, "a point is the mark unless another is declared"


@pytest.mark.parametrize("zone", ["a\ufffd", "\x00"])
def test_a_damaged_text_rejects_its_row(zone: str) -> None:
    class Free(Rows):
        zone: str = pa.Field(metadata={"role": "request"})

    done = one(raw([GOOD, GOOD | {"id": "2", "zone": zone}]), Contract.read(Free, "test"))
    assert done.rows["id"].to_list() == [1]
    assert json.loads(done.rejected["reasons"][0])[0]["check"] == "has no damaged characters"
    assert done.failures == {"zone": 1}


TYPED = {
    "id": pl.Int64,
    "km": pl.Float64,
    "zone": pl.String,
    "minutes": pl.Float64,
    "late": pl.Boolean,
}
TYPED_CELLS = {
    "id": st.sampled_from([1, 2, 3, None]),
    "km": st.sampled_from([1.0, -1.0, float("nan"), float("inf"), None]),
    "zone": st.sampled_from(["a", "c", "\ufffd", None]),
    "minutes": st.sampled_from([1.0, None]),
    "late": st.sampled_from([True, False, None]),
}
BATCH = st.tuples(
    st.lists(st.fixed_dictionaries(CELLS), max_size=6), st.lists(st.fixed_dictionaries(TYPED_CELLS), max_size=6)
)


@settings(max_examples=50, deadline=None)
@given(batches=st.lists(BATCH, min_size=1, max_size=3), cut=st.integers(0, 3), random=st.randoms())
def test_any_rows_in_any_order_and_chunks_are_conserved_and_cleaned_the_same_each_time(
    batches: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]], cut: int, random: Any
) -> None:
    days = [f"2025-01-0{number}" for number in range(1, 5)]
    for kind in (0, 1):  # text, typed
        frames = [
            raw(rows[kind], source=f"b{number}") if kind == 0 else raw_typed(rows[kind], f"b{number}")
            for number, rows in enumerate(batches)
        ]
        whole = pl.concat(frames).with_columns(
            (pl.lit("2025-01-0") + (pl.col("_row") % 4 + 1).cast(pl.String)).alias(PARTITION)
        )
        order = list(range(whole.height))
        random.shuffle(order)
        at_once = cleaned(whole)
        chunked = [cleaned(whole[order].filter(pl.col(PARTITION).is_in(part))) for part in (days[:cut], days[cut:])]
        again = chunked[0] | chunked[1]
        assert judge(read_rows(whole, CONTRACT, place="m")) == {day: done.judged for day, done in at_once.items()}
        assert set(at_once) == set(again) == set(whole[PARTITION])
        for day, done in at_once.items():
            rows = whole.filter(pl.col(PARTITION) == day).height
            assert done.rows.height + done.rejected.height + done.duplicates == rows
            for one, other in ((done.rows, again[day].rows), (done.rejected, again[day].rejected)):
                assert one.equals(other)
                assert digest_of_frame(one) == digest_of_frame(other)
            assert (done.duplicates, done.failures) == (again[day].duplicates, again[day].failures)


def raw_typed(rows: list[dict[str, Any]], source: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPED).with_columns(
        pl.lit(DAY).alias(PARTITION),
        pl.lit(source).alias("_source"),
        pl.int_range(pl.len()).alias("_row"),
        pl.lit(False).alias("_stray"),
    )


def cleaned(rows: pl.DataFrame) -> dict[str, Cleaned]:
    done = clean(read_rows(rows, CONTRACT, place="m"), CONTRACT, place="m") if rows.height else {}
    assert all(isinstance(each, Cleaned) for each in done.values())
    return {day: each for day, each in done.items() if isinstance(each, Cleaned)}
