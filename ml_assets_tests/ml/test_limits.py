import re

import polars as pl
import pytest

from ml_assets.ml.cleaning import Judged
from ml_assets.ml.limits import exceeded
from ml_assets.spec.sources import Limits


def rows(count: int, strays: int = 0) -> pl.DataFrame:
    flags = [False] * (count - strays) + [True] * strays
    return pl.DataFrame({"_source": ["a.csv"] * count, "_stray": flags})


def judged(rejected: int, **failures: int) -> Judged:
    return Judged(rejected, failures)


@pytest.mark.parametrize(
    ("limits", "count", "rejected", "failures", "said"),
    [
        ({}, 10, 5, {"km": 5}, None),
        ({}, 10, 6, {"km": 6}, r"6 of 10 rows \(60.0%\) break the contract.* km 6"),
        ({"rejected": 0.0}, 10, 0, {}, None),
        ({"rejected": 0.0}, 10, 1, {"km": 1}, "limits.rejected is 0.0%"),
        ({"min_rows": 11}, 10, 0, {}, "10 rows, and limits.min_rows is 11"),
        ({"columns": {"km": 0.1}}, 10, 2, {"km": 2}, r"2 of 10 rows \(20.0%\) break a check of column 'km'"),
        ({"columns": {"km": 0.2}}, 10, 2, {"km": 2}, None),
        ({"min_rows": 5}, 0, 0, {}, None),
    ],
    ids=["half", "most", "none allowed", "one too many", "few", "column", "column at its limit", "removed batches"],
)
def test_a_limit_is_named_with_both_figures(
    limits: dict[str, object], count: int, rejected: int, failures: dict[str, int], said: str | None
) -> None:
    found = exceeded(Limits.model_validate(limits), rows(count), judged(rejected, **failures), {"a.csv": count})
    assert (found is None) if said is None else re.search(said, found or "nothing")


def test_rows_without_a_day_count_against_their_batch_and_not_against_the_day_they_lie_with() -> None:
    limits = Limits(rejected=0.1)
    table, outcome = rows(20, strays=10), judged(10, at=10)
    assert exceeded(limits, table, outcome, {"a.csv": 1000}) is None
    found = exceeded(limits, table, outcome, {"a.csv": 50})
    assert found is not None
    assert "10 of 50 rows of a.csv (20.0%) have no time within the calendar" in found
