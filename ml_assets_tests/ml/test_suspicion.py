import numpy as np
import polars as pl
import pytest

from ml_assets.ml.suspicion import most_telling

RANDOM = np.random.default_rng(7)
HALF = 1500
TRUTH = RANDOM.integers(0, 2, 2 * HALF)
HONEST = TRUTH + RANDOM.normal(0, 1.5, 2 * HALF)


def said(truth: np.ndarray = TRUTH, task: str = "binary", classes: int = 2, **columns: object) -> tuple[str, float]:
    frame = pl.DataFrame({"honest": HONEST, **columns})
    one = most_telling(frame[:HALF], truth[:HALF], frame[HALF:], truth[HALF:], task, classes)  # type: ignore[arg-type]
    assert one.interval[0] <= one.value <= one.interval[1]
    return one.feature, one.value


def test_an_honest_feature_is_judged_for_what_it_is() -> None:
    name, value = said()
    assert name == "honest"
    assert value == pytest.approx(0.68, abs=0.04)


LEAKS = {
    "copy": TRUTH.astype(float),
    "upside_down": 5.0 - TRUTH,
    "far_from_the_middle": np.where(TRUTH, RANDOM.choice([-1, 1], 2 * HALF), 0) + RANDOM.normal(0, 0.05, 2 * HALF),
    "text": np.where(TRUTH, "returned", RANDOM.choice(["shipped", "packed"], 2 * HALF)),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_holds_the_answer_is_named_whatever_it_looks_like(name: str) -> None:
    feature, value = said(**{name: LEAKS[name]})
    assert feature == name
    assert value > 0.98


def test_being_there_or_not_can_be_the_answer() -> None:
    feature, value = said(delivered_at=pl.Series(RANDOM.random(2 * HALF)).set(pl.Series(TRUTH == 0), None))
    assert feature == "delivered_at"
    assert value > 0.99


def test_a_name_that_tells_all_rows_apart_is_not_suspected() -> None:
    name = [f"order {each}" for each in range(2 * HALF)]
    assert said(name=name, number=np.arange(2 * HALF).astype(float))[0] == "honest"


def test_of_several_classes_one_is_enough_and_values_are_judged_by_r2() -> None:
    truth = RANDOM.integers(0, 3, 2 * HALF)
    assert said(truth, "multiclass", 3, third=(truth == 2).astype(float)) == ("third", 1.0)
    price = RANDOM.gamma(2, 50, 2 * HALF)
    feature, value = said(price, "regression", 0, with_tax=price * 1.2)
    assert feature == "with_tax"
    assert value > 0.98
