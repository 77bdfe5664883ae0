import numpy as np
import polars as pl
import pytest

from ml_assets.ml.bootstrap import intervals
from ml_assets.ml.evaluation import Scored, metric
from ml_assets.ml.slices import judge_slices, parts


def scored(rows: int, seed: int, broken: np.ndarray | None = None) -> Scored:
    """Scores that tell something, and nothing or the opposite of the broken rows."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, rows)
    way = np.where(broken, -1, 1) if broken is not None else 1
    score = 1 / (1 + np.exp(-(way * (truth - 0.5) * 3 + random.normal(0, 1, rows))))
    return Scored(truth, np.column_stack([1 - score, score]), [0, 1], "binary")


def columns(rows: int, seed: int, number: int = 20) -> pl.DataFrame:
    """Columns that have nothing to do with how well the model does."""
    random = np.random.default_rng(seed)
    numbers = {f"n{each}": random.normal(size=rows) for each in range(number // 2)}
    texts = {f"t{each}": random.choice(["a", "b", "c"], rows) for each in range(number // 2)}
    return pl.DataFrame(numbers | texts)


def test_slices_are_the_values_of_a_column_its_quarters_and_what_is_missing() -> None:
    rows = pl.DataFrame(
        {
            "zone": ["a"] * 6 + ["b"] * 3 + [None],
            "all_one": [1.0] * 10,
            "few": [1.0, 2.0] * 5,
            "many": [None, None, *range(8)],
        },
        schema_overrides={"many": pl.Float64},
    )
    many = pl.concat([rows] * 4).with_columns(many=pl.when(pl.col("many") > 0).then(pl.int_range(40)).cast(pl.Float64))
    found = {label: len(positions) for _, label, positions in parts(many, 8)}
    assert found["zone = a"] == 24
    assert found["zone = b"] == 12
    assert "zone is missing" not in found, "four rows are too few"
    assert not any(name.startswith("all_one") for name in found), "that is no part"
    assert (found["few = 1"], found["few = 2"]) == (20, 20)
    assert found["many is missing"] == 12
    quarters = {name: count for name, count in found.items() if name.startswith("many <") or "≤ many" in name}
    assert all(count == 7 for count in quarters.values())
    by_name = {label: positions for _, label, positions in parts(many, 8)}
    assert set(by_name["zone = b"]) == {start + each for start in (0, 10, 20, 30) for each in (6, 7, 8)}


def test_values_that_differ_in_the_last_digits_are_slices_of_their_own_name() -> None:
    rows = pl.DataFrame({"few": [1.0000001, 1.0000002] * 50, "many": 1000 + np.arange(100) / 1e5})
    names = [name for _, name, _ in parts(rows, 20)]
    assert len(set(names)) == len(names) == 2 + 4
    assert "few = 1.0000001" in names


def test_the_slice_where_the_model_is_wrong_is_found_among_many() -> None:
    rows = columns(3000, 1)
    broken = ((rows["t3"] == "b") & (pl.Series(np.random.default_rng(5).random(3000)) < 0.7)).to_numpy()
    found = judge_slices(scored(3000, 2, broken), rows, ["t0"], "roc_auc", 100)
    assert found.worst is not None
    assert found.worst.name == "t3 = b"
    assert found.worst.high < 0.6
    assert {each.name for each in found.declared} == {"t0 = a", "t0 = b", "t0 = c"}
    assert found.looked_at == 10 * 4 + 10 * 3


def test_a_sound_model_has_a_worst_slice_too_and_its_interval_allows_for_the_search() -> None:
    """It is as good on all of 35 slices, and by its own interval some of them would look better or worse by chance."""
    held = missed = 0
    truth = metric(scored(100_000, 999), "roc_auc")
    for seed in range(20):
        some = scored(1500, seed)
        rows = columns(1500, seed + 100, 10)
        found = judge_slices(some, rows, [], "roc_auc", 100)
        assert found.worst is not None
        held += all(each.low <= truth <= each.high for each in found.every)
        alone = (intervals(some.take(each), ["roc_auc"], 0, 100)["roc_auc"] for _, _, each in parts(rows, 100))
        missed += not all(low <= truth <= high for low, high in alone)
    assert found.looked_at == 35
    assert held >= 17, "all intervals together hold the truth in 19 of 20 searches"
    assert missed >= 10, "each by itself, they do not in most"


def test_small_slices_and_such_of_one_class_are_left_out() -> None:
    rows = pl.DataFrame({"zone": ["a"] * 99 + ["b"] * 901})
    some = scored(1000, 3)
    assert [each.name for each in judge_slices(some, rows, [], "roc_auc", 100).every] == ["zone = b"]
    pure = pl.DataFrame({"zone": np.where(some.truth == 1, "late", "in time")})
    found = judge_slices(some, pure, [], "roc_auc", 100)
    assert (found.every, found.worst) == ((), None)


def test_where_lower_is_better_the_worst_is_the_one_whose_least_is_greatest() -> None:
    random = np.random.default_rng(2)
    truth, loud = random.normal(size=2000), np.arange(2000) % 4 == 0
    some = Scored(truth, truth + random.normal(0, np.where(loud, 3, 1)), [], "regression")
    found = judge_slices(some, pl.DataFrame({"loud": loud, "n": random.normal(size=2000)}), [], "rmse", 100)
    assert found.worst is not None
    assert found.worst.name == "loud = True"
    assert found.worst.low == pytest.approx(2.7, abs=0.25)
