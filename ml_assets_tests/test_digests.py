import subprocess
import sys
from datetime import date

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.digests import digest_of, digest_of_fitted, digest_of_frame

FRAME = pl.DataFrame(
    {"a": [1, None], "b": ["x", ""], "c": [0.5, 0.0], "d": [date(2025, 1, 1), None], "e": [True, None]}
)


def test_a_table_has_one_digest_however_its_memory_and_columns_lie() -> None:
    halves = pl.concat([FRAME.head(1), FRAME.tail(1)], rechunk=False)
    assert digest_of_frame(halves.select(reversed(FRAME.columns))) == digest_of_frame(FRAME)


def test_every_change_of_a_table_changes_its_digest() -> None:
    changed = [
        FRAME.reverse(),
        FRAME.with_columns(a=pl.Series([1, 0])),
        FRAME.with_columns(b=pl.Series(["x", None])),
        FRAME.with_columns(b=pl.Series(["", "x"])),
        FRAME.with_columns(c=pl.col("c").cast(pl.Float32)),
        FRAME.rename({"a": "z"}),
        FRAME.head(1),
        FRAME.drop("e"),
    ]
    assert len({digest_of_frame(each) for each in [FRAME, *changed]}) == len(changed) + 1


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_texts_that_differ_anywhere_differ_in_digest(one: list[str], other: list[str]) -> None:
    same = digest_of_frame(pl.DataFrame({"t": one}, schema={"t": pl.String})) == digest_of_frame(
        pl.DataFrame({"t": other}, schema={"t": pl.String})
    )
    assert same == (one == other)


def test_mappings_have_one_digest_in_any_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1}) != digest_of({"a": 1, "b": [2, 1]})


def test_a_set_has_one_digest_in_any_process() -> None:
    code = "from ml_assets.digests import digest_of; print(digest_of({'isin': {'bike', 'car', 'scooter'}}))"
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(4)
    }
    assert len(said) == 1


def test_the_number_of_threads_is_no_part_of_what_a_model_has_learnt() -> None:
    from sklearn.ensemble import RandomForestClassifier

    x, y = np.arange(40.0).reshape(-1, 1), np.arange(40) % 2
    one, two = (RandomForestClassifier(5, random_state=1, n_jobs=jobs).fit(x, y) for jobs in (1, 2))
    assert digest_of_fitted(one) == digest_of_fitted(two)
    two.estimators_[0].tree_.value[0, 0, 0] += 1e-9
    assert digest_of_fitted(one) != digest_of_fitted(two)
