from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml_assets.errors import TrainingError
from ml_assets.ml.splits import folds, hash_of_key, split_rows
from ml_assets.spec import Split

START = datetime(2025, 1, 1, tzinfo=UTC)
FRAME = pl.DataFrame(
    {"id": range(4000), "at": [START + timedelta(hours=each) for each in range(4000)]},
    schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC")},
).sample(fraction=1, shuffle=True, seed=1)


def ids(rows: np.ndarray) -> set[int]:
    return set(FRAME["id"].gather(rows).to_list())


def test_at_random_a_row_stays_on_its_side_whatever_other_rows_come() -> None:
    split = Split(test=0.2, validation=0.1)
    every = split_rows(FRAME, split, ["id"], None, "UTC", "m")
    some = FRAME.filter(pl.col("id") % 3 == 0)
    few = split_rows(some, split, ["id"], None, "UTC", "m")
    assert set(some["id"].gather(few.test).to_list()) == {each for each in ids(every.test) if each % 3 == 0}
    assert len(every.test) == pytest.approx(800, abs=100)
    assert len(every.validation) == pytest.approx(400, abs=80)
    assert not ids(every.test) & ids(every.train)
    assert len(ids(every.train) | ids(every.validation) | ids(every.test)) == 4000


def test_the_hash_of_a_key_never_changes() -> None:
    frame = pl.DataFrame({"a": ["x", None], "b": [1, 2]})
    assert hash_of_key(frame, ["a", "b"], "salt").tolist() == pytest.approx([0.11164533, 0.79835998], abs=1e-8)


def test_by_time_the_latest_rows_are_held_out() -> None:
    sides = split_rows(FRAME, Split(by="time", test=0.2, validation=0.1), ["id"], "at", "UTC", "m")
    assert max(ids(sides.train)) < min(ids(sides.validation)) <= max(ids(sides.validation)) < min(ids(sides.test))
    assert (len(sides.validation), len(sides.test)) == (400, 800)


def test_by_date_a_day_begins_at_local_midnight() -> None:
    split = Split(by="time", validation_from=date(2025, 2, 1), test_from=date(2025, 3, 1))
    sides = split_rows(FRAME, split, ["id"], "at", "America/New_York", "m")
    first = FRAME["at"].gather(sides.test).min()
    assert first == datetime(2025, 3, 1, 5, tzinfo=UTC)


def test_a_split_that_leaves_nothing_on_a_side_is_refused() -> None:
    split = Split(by="time", test_from=date(2031, 1, 1))
    with pytest.raises(TrainingError, match=r"m: the split leaves 4000 rows to train on and 0 to test on"):
        split_rows(FRAME, split, ["id"], "at", "UTC", "m")


@pytest.mark.parametrize("by", ["time", "random"])
def test_folds_never_judge_a_row_that_they_learnt_from(by: str) -> None:
    split = Split.model_validate({"by": by})
    made = folds(FRAME, split, 5, ["id"], "at")
    assert len(made) == 5
    for learn, judge in made:
        assert not ids(learn) & ids(judge)
        if by == "time":
            assert max(ids(learn)) < min(ids(judge))
