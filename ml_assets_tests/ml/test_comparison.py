from dataclasses import replace

import numpy as np
import pytest

from ml_assets.ml.comparison import compare
from ml_assets_tests.drills.comparisons import KINDS, drill, pair


def quiet(_: str) -> None: ...


def test_of_equally_good_models_one_is_called_better_or_worse_as_seldom_as_stated() -> None:
    """Short form of `make drill`: six are expected each way; more than 14 come by chance less than once in 1,000."""
    found = drill(240, 5, rows=(100, 200), tell=quiet)
    assert sum(each.comparisons for each in found) == 240
    for called in (sum(each.better for each in found), sum(each.worse for each in found)):
        assert called <= 14


def test_a_model_that_is_worse_is_found_out_and_hardly_ever_called_better() -> None:
    found = drill(80, 5, rows=(1000,), worse=0.5, tell=quiet)
    assert sum(each.better for each in found) == 0
    assert sum(each.worse for each in found) >= 64


@pytest.mark.parametrize(("task", "metric"), KINDS)
def test_a_model_beside_itself_is_never_better(task: str, metric: str) -> None:
    one, _ = pair(task, 300, np.random.default_rng(1))  # type: ignore[arg-type]
    found = compare(one, one, metric, "1", 100, held_out=300)
    assert (found.outcome, found.value, found.low, found.high) == ("alike", 0, 0, 0)


@pytest.mark.parametrize(("task", "metric"), KINDS)
def test_better_and_worse_are_two_sides_of_one_thing(task: str, metric: str) -> None:
    worse, good = pair(task, 2000, np.random.default_rng(1), worse=2)  # type: ignore[arg-type]
    one = compare(worse, good, metric, "1", 100, held_out=2000)
    other = compare(good, worse, metric, "1", 100, held_out=2000)
    assert (one.outcome, other.outcome) == ("worse", "better")
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.values == other.champion_values


def test_too_few_common_rows_say_nothing() -> None:
    one, other = pair("binary", 99, np.random.default_rng(1), worse=9)
    found = compare(other, one, "roc_auc", "4", 100, held_out=800)
    assert found.outcome == "inconclusive"
    assert "99 of 800 held-out rows" in found.reason
    assert "gates.min_rows is 100" in found.reason


def test_what_cannot_be_measured_is_inconclusive() -> None:
    one, other = pair("binary", 200, np.random.default_rng(1))
    same = np.ones_like(one.truth)
    found = compare(replace(one, truth=same), replace(other, truth=same), "roc_auc", "4", 100, held_out=200)
    assert found.outcome == "inconclusive"
    assert "roc_auc cannot be measured" in found.reason
