"""The sequential tests: valid at every look together, and no weaker than they have to be."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from ml_assets.deployment.sequential import (
    Sums,
    evidence_on_difference,
    evidence_on_share,
    interval_of_difference,
    interval_of_share,
)

counts = st.integers(0, 400)


@st.composite
def some_sums(draw: st.DrawFn) -> Sums:
    count = draw(counts)
    return Sums.of(count, draw(st.floats(0, 1)) * count if draw(st.booleans()) else draw(st.integers(0, count)))


@given(some_sums(), some_sums(), st.floats(-0.99, 0.99))
@settings(max_examples=150, deadline=None)
def test_the_hypothesis_is_judged_by_its_likeliest_pair_of_means(one: Sums, other: Sums, difference: float) -> None:
    """No pair that the hypothesis names may be likelier than the one it is judged by, or false alarms would be more."""
    at_most, at_least = (float(each[0]) for each in evidence_on_difference(one, other, difference))
    grid = np.linspace(max(0, -difference), min(1, 1 - difference), 501)
    least = float(np.min(_product(one, np.clip(grid + difference, 0, 1)) + _product(other, grid)))
    assert max(at_most, at_least) <= least + 1e-6


def _product(sums: Sums, mean: np.ndarray) -> np.ndarray:
    """Logarithm of the supermartingale of a side by its definition, by other functions."""
    count, total = float(sums.count[0, 0]), float(sums.total[0, 0])
    mixture = math.lgamma(0.5 + total) + math.lgamma(0.5 + count - total) - math.lgamma(1 + count) - math.log(math.pi)
    with np.errstate(divide="ignore"):
        ones = total * np.log(mean) if total else 0.0
        zeros = (count - total) * np.log(1 - mean) if count > total else 0.0
    return np.asarray(mixture - ones - zeros)


@given(some_sums(), some_sums(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_intervals_hold_what_was_found_and_swap_with_the_sides(one: Sums, other: Sums, strata: int) -> None:
    ones, others = (Sums(np.repeat(each.count, strata, 0), np.repeat(each.total, strata, 0)) for each in (one, other))
    (low,), (high,) = interval_of_difference(ones, others, 0.05)
    assert low <= high
    if one.count[0, 0] and other.count[0, 0]:
        found = float((one.mean - other.mean)[0, 0])
        assert low - 1e-6 <= found <= high + 1e-6
    elif not one.count[0, 0] + other.count[0, 0]:
        assert (low, high) == pytest.approx((-1, 1), abs=1e-6)
    (back_low,), (back_high,) = interval_of_difference(others, ones, 0.05)
    assert (back_low, back_high) == pytest.approx((-high, -low), abs=1e-6)


@pytest.mark.parametrize(("mean", "values"), [(0.01, "shares"), (0.3, "shares"), (0.5, "bounded")])
def test_looking_after_each_value_is_wrong_no_more_often_than_stated(mean: float, values: str) -> None:
    """2,000 sequences of 1,000 values, a look after each: at most 5 % ever leave their interval."""
    random = np.random.default_rng(7)
    shape = (1000, 2000)
    drawn = random.random(shape) < mean if values == "shares" else random.beta(0.3, 0.3, shape)
    totals, number = np.cumsum(drawn, axis=0, dtype=float), np.arange(1, 1001).reshape(-1, 1)
    ever = np.zeros(shape[1], bool)
    for look in range(1000):
        sums = Sums.of(number[look], totals[look].reshape(1, -1))
        low, high = evidence_on_share(sums, mean)
        ever |= np.maximum(low, high) >= np.log(20)
    assert ever.sum() <= 100, ever.sum()
    # The same looks by the usual 95 % interval, which is made for one look: this is what the test is there for.
    if values == "shares":
        usual = np.abs(totals / number - mean) > 1.96 * np.sqrt(mean * (1 - mean) / number)
        assert usual[30:].any(axis=0).mean() > 0.2


@pytest.mark.parametrize("paired", [False, True])
def test_two_equal_sides_are_told_apart_no_more_often_than_stated(paired: bool) -> None:
    """A look every 20 requests a side, no margin; in a shadow step both sides give the very same answers."""
    random = np.random.default_rng(3)
    rollouts, looks, step = 2000, 50, 20
    ours = random.binomial(step, 0.4, (looks, rollouts)).cumsum(axis=0)
    # Of the same requests the other side fails at just those where the first does not: as dependent as can be.
    number = step * np.arange(1, looks + 1)
    theirs = number.reshape(-1, 1) - ours if paired else random.binomial(step, 0.4, (looks, rollouts)).cumsum(axis=0)
    truth = -0.2 if paired else 0.0
    ever = np.zeros(rollouts, bool)
    for look in range(looks):
        one, other = (Sums.of(number[look], each[look].reshape(1, -1)) for each in (ours, theirs))
        ever |= np.maximum(*evidence_on_difference(one, other, truth, np.array([paired]))) >= np.log(20)
    assert ever.sum() <= 100, ever.sum()


@pytest.mark.parametrize("requests", [1, 20, 200])
@pytest.mark.parametrize("alike", [True, False])
def test_in_a_shadow_step_the_mean_evidence_against_the_truth_is_at_most_one(requests: int, alike: bool) -> None:
    """Summed over all that can happen; both sides fail at the same requests, or one just where the other does not."""
    failed, mean = np.arange(requests + 1.0), 0.4
    chances = binom(requests, mean).pmf(failed)
    one, other = (Sums.of(requests, each.reshape(1, -1)) for each in (failed, failed if alike else requests - failed))
    truth = 0.0 if alike else 2 * mean - 1
    for evidence in evidence_on_difference(one, other, truth, np.array([True])):
        assert chances @ np.exp(evidence) <= 1
    if not alike and requests > 1:  # taken as independent they would be evidence of anything
        assert chances @ np.exp(evidence_on_difference(one, other, truth)[0]) > 1


def test_of_independent_sides_in_two_strata_the_mean_evidence_against_the_truth_is_at_most_one() -> None:
    """Two requests a side in the first stratum, and three in the second, whose mean is another one."""
    sides = [(2, 0.3), (2, 0.3), (3, 0.7), (3, 0.7)]
    happened = list(itertools.product(*(range(count + 1) for count, _ in sides)))
    chances = np.array(
        [
            math.prod(binom(count, mean).pmf(k) for (count, mean), k in zip(sides, each, strict=True))
            for each in happened
        ]
    )
    totals = np.array(happened, float).T
    one, other = (Sums(np.array([[2.0], [3.0]]) * np.ones(len(happened)), totals[[of, of + 2]]) for of in (0, 1))
    for evidence in evidence_on_difference(one, other, 0.0):
        assert chances @ np.exp(evidence) <= 1 + 1e-9


def test_changing_traffic_between_steps_is_no_difference() -> None:
    """First 5 % of the requests at a rate of 0.2, then half of them at 0.6: in sum the sides look different."""
    challenger, champion = Sums.of([100, 3000], [20, 1800]), Sums.of([1900, 3000], [380, 1800])
    assert np.max(evidence_on_difference(challenger, champion, 0.0)) < 0
    summed = Sums.of(3100, 1820), Sums.of(4900, 2180)
    assert np.max(evidence_on_difference(*summed, 0.0)) > np.log(1000)


def test_a_few_values_say_little_and_many_say_much() -> None:
    assert interval_of_share(Sums.of(3, 1), 0.05)[0] < 0.02
    low, high = interval_of_share(Sums.of(10_000, 500), 0.05)
    assert 0.04 < low < 0.05 < high < 0.06
    (low,), (high,) = interval_of_difference(Sums.of(1000, 50), Sums.of(19_000, 190), 0.01)
    assert 0.01 < low < 0.04 < high < 0.09
