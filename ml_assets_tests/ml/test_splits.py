from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.errors import TrainingError
from ml_assets.ml.days import end_of_day
from ml_assets.ml.splits import Columns, folds, hash_of_key, split_rows
from ml_assets.spec.training import Split

KEY = Columns(["id"])
BY_TIME = Columns(["id"], "at")
START = datetime(2025, 1, 1, tzinfo=UTC)
FRAME = pl.DataFrame(
    {"id": range(4000), "at": [START + timedelta(hours=each) for each in range(4000)]},
    schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC")},
).sample(fraction=1, shuffle=True, seed=1)


def ids(rows: np.ndarray) -> set[int]:
    return set(FRAME["id"].gather(rows).to_list())


def test_at_random_a_row_stays_on_its_side_whatever_other_rows_come() -> None:
    split = Split(test=0.2, validation=0.1)
    every = split_rows(FRAME, split, KEY, "m")
    some = FRAME.filter(pl.col("id") % 3 == 0)
    few = split_rows(some, split, KEY, "m")
    assert set(some["id"].gather(few.test).to_list()) == {each for each in ids(every.test) if each % 3 == 0}
    assert len(every.test) == pytest.approx(800, abs=100)
    assert len(every.validation) == pytest.approx(400, abs=80)
    assert not ids(every.test) & ids(every.train)
    assert len(ids(every.train) | ids(every.validation) | ids(every.test)) == 4000


def test_the_hash_of_a_key_never_changes() -> None:
    frame = pl.DataFrame({"a": ["x", None], "b": [1, 2]})
    assert hash_of_key(frame, ["a", "b"], "salt").tolist() == pytest.approx([0.11164533, 0.79835998], abs=1e-8)


def test_by_time_the_latest_rows_are_held_out() -> None:
    sides = split_rows(FRAME, Split(by="time", test=0.2, validation=0.1), BY_TIME, "m")
    assert max(ids(sides.train)) < min(ids(sides.validation)) <= max(ids(sides.validation)) < min(ids(sides.test))
    assert (len(sides.validation), len(sides.test)) == (400, 800)


def test_by_date_a_day_begins_at_local_midnight() -> None:
    split = Split(by="time", validation_from=date(2025, 2, 1), test_from=date(2025, 3, 1))
    sides = split_rows(FRAME, split, replace(BY_TIME, zone="America/New_York"), "m")
    first = FRAME["at"].gather(sides.test).min()
    assert first == datetime(2025, 3, 1, 5, tzinfo=UTC)


def test_a_split_that_leaves_nothing_on_a_side_is_refused() -> None:
    split = Split(by="time", test_from=date(2031, 1, 1))
    with pytest.raises(TrainingError, match=r"m: the split leaves 4000 rows to train on and 0 to test on"):
        split_rows(FRAME, split, BY_TIME, "m")


def with_outcomes(frame: pl.DataFrame, *hours: int) -> pl.DataFrame:
    """Rows whose outcomes become known so many hours after them, in turn."""
    delay = pl.col("id") % len(hours)
    known = [pl.when(delay == each).then(pl.duration(hours=after)) for each, after in enumerate(hours)]
    return frame.with_columns(known_at=pl.col("at") + pl.coalesce(known))


KNOWN = replace(BY_TIME, known="known_at")


def test_a_row_whose_outcome_was_not_known_when_the_next_side_began_is_on_no_side() -> None:
    frame = with_outcomes(FRAME, 0, 90, 2)
    sides = split_rows(frame, Split(by="time", test=0.2, validation=0.1), KNOWN, "m")
    for start, side in ((2800, sides.train), (3200, sides.validation)):
        assert frame["known_at"].gather(side).max() <= START + timedelta(hours=start)  # type: ignore[operator]
    gap = ids(sides.gap)
    assert gap == {
        each
        for begins in (2800, 3200)
        for each in range(begins - 90, begins)
        if each + {0: 0, 1: 90, 2: 2}[each % 3] > begins
    }
    assert ids(sides.test) == set(range(3200, 4000)), "nothing comes after the test rows"
    assert len(gap) + sum(len(each) for each in (sides.train, sides.validation, sides.test)) == 4000


def test_a_stated_gap_counts_instead_and_where_nobody_says_when_there_is_none() -> None:
    frame = with_outcomes(FRAME, 500)
    split = Split(by="time", test=0.2, gap="3h")
    assert ids(split_rows(frame, split, KNOWN, "m").gap) == {3198, 3199}, "3197 happened exactly the gap before"
    assert not len(split_rows(frame, Split(by="time", test=0.2, gap="0s"), KNOWN, "m").gap)
    unknown = frame.with_columns(known_at=pl.lit(None, pl.Datetime("us", "UTC")))
    assert not len(split_rows(unknown, Split(by="time", test=0.2), KNOWN, "m").gap)
    assert not len(split_rows(FRAME, Split(by="time", test=0.2), BY_TIME, "m").gap)


def test_an_outcome_that_is_known_at_midnight_was_known_when_the_next_day_began() -> None:
    """Outcomes in the same rows are known from the end of their local day."""
    ends = end_of_day(pl.col("at").dt.convert_time_zone("America/New_York").dt.date(), "America/New_York")
    frame = FRAME.with_columns(known_at=ends)
    in_new_york = replace(KNOWN, zone="America/New_York")
    assert not len(split_rows(frame, Split(by="time", test_from=date(2025, 3, 1)), in_new_york, "m").gap)
    assert len(split_rows(frame, Split(by="time", test=0.2), in_new_york, "m").gap), "a side that begins in a day"


def test_a_date_has_happened_when_it_is_over() -> None:
    days = pl.DataFrame({"id": range(10), "at": [date(2025, 1, 1) + timedelta(each) for each in range(10)]})
    for gap, left_out in (("0s", []), ("1h", [7]), ("1d", [7]), ("25h", [6, 7])):
        sides = split_rows(days, Split(by="time", test_from=date(2025, 1, 9), gap=gap), BY_TIME, "m")
        assert days["id"].gather(sides.gap).to_list() == left_out


def test_a_time_without_a_zone_was_read_off_a_local_clock() -> None:
    frame = FRAME.with_columns(at=pl.col("at").dt.replace_time_zone(None), known_at=pl.col("at"))
    split = Split(by="time", test_from=date(2025, 3, 1))
    sides = split_rows(frame, split, replace(KNOWN, zone="America/New_York"), "m")
    assert frame["at"].gather(sides.test).min() == datetime(2025, 3, 1)
    assert not len(sides.gap), "midnight in New York is 05:00 UTC"
    late = split_rows(frame, split, replace(KNOWN, zone="Asia/Tokyo"), "m")
    assert len(late.gap) == 8, "midnight in Tokyo is 15:00 UTC the day before"


def test_a_gap_that_leaves_nothing_is_named() -> None:
    with pytest.raises(TrainingError, match=r"m: the split leaves 0 rows to train .* 3200 others are in the gap"):
        split_rows(FRAME, Split(by="time", test=0.2, gap="400d"), BY_TIME, "m")


@pytest.mark.parametrize("gap", ["100h", None])
def test_folds_by_time_have_the_same_gap(gap: str | None) -> None:
    frame = with_outcomes(FRAME, 100)
    made = folds(frame, Split(by="time", gap=gap), 4, KNOWN, "m")
    for number, (learn, judge) in enumerate(made, start=1):
        assert ids(judge) == set(range(800 * number, 800 * number + 800))
        assert ids(learn) == set(range(800 * number - 99)), "the last was known when the judging began"


def test_rows_of_one_moment_are_in_one_fold() -> None:
    frame = FRAME.with_columns(at=pl.col("at").dt.truncate("7d"))
    for learn, judge in folds(frame, Split(by="time"), 5, BY_TIME, "m"):
        assert frame["at"].gather(learn).max() < frame["at"].gather(judge).min()  # type: ignore[operator]
    days = FRAME.with_columns(at=pl.lit(START, pl.Datetime("us", "UTC")))
    with pytest.raises(TrainingError, match=r"m: fold 1 .* 0 rows to learn from .* set training\.folds lower or split"):
        folds(days, Split(by="time"), 5, BY_TIME, "m")


SHOPS = FRAME.with_columns(shop=pl.format("s{}", pl.col("id") % 400), town=pl.col("id") % 7)


def sides_of(frame: pl.DataFrame, split: Split) -> pl.DataFrame:
    """The rows with the side that each is on."""
    sides = split_rows(frame, split, KEY, "m")
    side = np.full(frame.height, "", dtype=object)
    for name in ("train", "validation", "test"):
        side[getattr(sides, name)] = name
    return frame.with_columns(side=pl.Series(side.tolist(), dtype=pl.String))


@pytest.mark.parametrize("entity", ["shop", ["shop", "town"]])
def test_by_entity_all_its_rows_are_on_one_side_and_stay_there(entity: str | list[str]) -> None:
    split = Split(by="entity", entity=entity, test=0.2, validation=0.1)
    every = sides_of(SHOPS, split)
    of_each = every.group_by(split.entities).agg(pl.col("side").unique())
    assert of_each["side"].list.len().max() == 1
    shares = of_each["side"].list.first().value_counts(normalize=True).rows()
    assert dict(shares) == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.05)
    some = SHOPS.filter(pl.col("id") % 3 == 0)
    assert sides_of(some, split).equals(every.filter(pl.col("id") % 3 == 0))
    other = sides_of(SHOPS, split.model_copy(update={"salt": "another"}))
    assert not other["side"].equals(every["side"])


def test_a_row_without_an_entity_stands_alone() -> None:
    """Together they would be one entity, and one side would get all of them."""
    split = Split(by="entity", entity=["shop", "town"], test=0.2)
    unknown = SHOPS.with_columns(shop=pl.when(pl.col("id") % 2 == 0).then("shop"))
    rows = sides_of(unknown, split).filter(pl.col("shop").is_null())
    assert (rows["side"] == "test").mean() == pytest.approx(0.2, abs=0.03)
    some = unknown.filter(pl.col("id") % 3 == 0)
    assert sides_of(some, split).equals(sides_of(unknown, split).filter(pl.col("id") % 3 == 0))


@settings(max_examples=20, deadline=None)
@given(salt=st.text(max_size=5), common=st.sampled_from([0.5, 0.9, 0.97]))
def test_at_random_the_shares_within_each_class_are_met_up_to_chance(salt: str, common: float) -> None:
    """A hash of the key alone knows no class, so each row's side is an independent draw."""
    frame = FRAME.with_columns(late=np.random.default_rng(1).random(FRAME.height) > common)
    split = Split(test=0.2, validation=0.1, salt=salt)
    rows = sides_of(frame, split)
    for side, share in (("test", 0.2), ("validation", 0.1)):
        for (_,), part in rows.group_by("late"):
            spread = (share * (1 - share) / part.height) ** 0.5
            assert abs((part["side"] == side).mean() - share) < 5 * spread  # type: ignore[operator]
    swapped = sides_of(frame.with_columns(~pl.col("late")), split)
    assert swapped["side"].equals(rows["side"]), "a corrected label leaves its row where it is"


@pytest.mark.parametrize("by", ["time", "random", "entity"])
def test_folds_never_judge_a_row_that_they_learnt_from(by: str) -> None:
    split = Split.model_validate({"by": by} | ({"entity": "shop"} if by == "entity" else {}))
    made = folds(SHOPS, split, 5, BY_TIME, "m")
    assert len(made) == 5
    for learn, judge in made:
        assert not ids(learn) & ids(judge)
        if by == "time":
            assert max(ids(learn)) < min(ids(judge))
        if by == "entity":
            assert not set(SHOPS["shop"].gather(learn)) & set(SHOPS["shop"].gather(judge))
    if by != "time":
        assert sorted(each for _, judge in made for each in ids(judge)) == list(range(4000))


def test_a_fold_without_an_entity_is_named() -> None:
    two = SHOPS.with_columns(shop=pl.col("shop").str.slice(0, 1))
    with pytest.raises(TrainingError, match=r"m: fold \d of the cross-validation has .* set training\.folds lower$"):
        folds(two, Split(by="entity", entity="shop"), 5, KEY, "m")
