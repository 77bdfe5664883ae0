"""Tests that stay valid however often one looks: of a share, and of the difference between two shares or means.

All take counts alone, so that any target can be asked for them, and hold for anything that lies in [0, 1]: a failed
request (0 or 1), a score that is at most x (0 or 1), the loss of a prediction.

How. Of n values in [0, 1] with the sum s and the mean p, the beta-binomial mixture

    M(p) = B(1/2 + s, 1/2 + n - s) / (B(1/2, 1/2) p^s (1 - p)^(n - s))

is a nonnegative supermartingale that starts at 1 (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), on sub-Bernoulli
processes: for values between 0 and 1 the likelihood ratio of Bernoulli trials is convex in the value, so its mean is
at most 1 as well; the prior of Jeffreys, because the shares that matter are small). By Ville's inequality it ever
reaches 1/alpha with a probability of at most alpha. Two sides whose requests are independent give the product of two
of them. A hypothesis about the difference names many pairs of means: the least product over all of them is an
*e-process* (Wasserman, Ramdas and Balakrishnan 2020, "Universal inference", PNAS 117(29); for two shares Turner and
Grünwald 2023, "Exact anytime-valid confidence intervals for contingency tables and beyond", Statistics and Probability
Letters 198). That costs one alpha for both sides, where two separate confidence sequences would need half of it each
and add up both widths.

Strata (the steps of a rollout) have weights and traffic of their own: sums over all of them would mistake a change of
the traffic for a difference between the models (Simpson's paradox). Their e-processes follow each other and are
multiplied: M(p) has a p of its own in each stratum, and its numerator is the mean of two, one of each stratum by itself
and one that begins where the stratum before ended, which is the numerator of the sums (either may turn out larger, and
a mean of supermartingales is one). In a shadow step both sides answer the same requests and are not independent; then
the square root of the product is still a supermartingale, by Cauchy and Schwarz.

The published package `confseq` of the same authors needs a C++ compiler and Boost, and calls itself unstable; it has no
comparison of two sides with a margin.

What is assumed: within a step and side the values have one mean given the past. Many requests of one entity that always
behave alike are not independent; a split by entity then decides too early.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

_HALVINGS = 20  # of an interval of length 1: to 1e-6


@dataclass(frozen=True)
class Sums:
    """How many values, and their sum, of each stratum and question: shapes (strata, 1) or (strata, questions)."""

    count: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, count: object, total: object) -> Self:
        """From scalars or sequences, one entry for each stratum, or a row of several questions for each."""
        counts, totals = np.asarray(count, float), np.asarray(total, float)
        if totals.ndim < 2:
            totals = totals.reshape(-1, 1)
        return cls(np.broadcast_to(counts.reshape(counts.size, -1), totals.shape), totals)

    @property
    def mean(self) -> np.ndarray:
        """By stratum and question; a half where there is nothing."""
        return np.asarray(np.where(self.count > 0, self.total / np.maximum(self.count, 1.0), 0.5))


def _likelihood(sums: Sums, mean: np.ndarray) -> np.ndarray:
    from scipy.special import xlog1py, xlogy  # half a second, which only a look at a rollout needs

    return np.asarray(xlogy(sums.total, mean) + xlog1py(sums.count - sums.total, -mean))


def _mixture(sums: Sums) -> np.ndarray:
    from scipy.special import betaln

    return np.asarray(betaln(0.5 + sums.total, 0.5 + sums.count - sums.total) - betaln(0.5, 0.5))


def _numerator(sides: Sequence[Sums], scale: np.ndarray) -> np.ndarray:
    """Of the e-process, in logarithms; see the module.

    Args:
        scale: shape (strata, 1), a half where both sides answered the same requests.
    """
    apart = sum(np.sum(scale * _mixture(each), axis=0) for each in sides)
    together: np.ndarray | float = 0.0
    for part in (0.5, 1.0):
        of = np.flatnonzero(scale[:, 0] == part)
        for each in sides:
            summed = Sums(each.count[of].sum(axis=0, keepdims=True), each.total[of].sum(axis=0, keepdims=True))
            together = together + part * _mixture(summed)[0]
    return np.asarray(np.logaddexp(apart, together) - np.log(2))


def evidence_on_share(sums: Sums, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the e-processes against "the mean is at most `share`" and against "it is at least `share`".

    Returns:
        Shape (questions,) each; a hypothesis is refuted at level alpha as soon as its value reaches log(1 / alpha).
    """
    best, mean = _likelihood(sums, sums.mean), sums.mean
    there = _likelihood(sums, np.full(mean.shape, float(share)))
    numerator = _numerator([sums], np.ones((len(mean), 1)))
    at_most = numerator - np.sum(np.where(mean > share, there, best), axis=0)
    at_least = numerator - np.sum(np.where(mean < share, there, best), axis=0)
    return at_most, at_least


def evidence_on_difference(
    one: Sums, other: Sums, difference: float, paired: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the e-processes against "mean of one - mean of other is at most `difference`", and "at least".

    Args:
        paired: shape (strata,), whether both sides answered the same requests there.

    Returns:
        Shape (questions,) each; a hypothesis is refuted at level alpha as soon as its value reaches log(1 / alpha).
    """
    best = _likelihood(one, one.mean) + _likelihood(other, other.mean)
    there = _most_likely(one, other, difference)
    scale = np.where(np.zeros(len(best), bool) if paired is None else paired, 0.5, 1.0).reshape(-1, 1)
    numerator = _numerator([one, other], scale)
    found = one.mean - other.mean
    at_most = numerator - np.sum(scale * np.where(found > difference, there, best), axis=0)
    at_least = numerator - np.sum(scale * np.where(found < difference, there, best), axis=0)
    return at_most, at_least


def _most_likely(one: Sums, other: Sums, difference: float) -> np.ndarray:
    """The largest log likelihood of two means that differ by exactly `difference`.

    It is concave along this line: so it lies below the tangent where the search ends, and that is what is returned, as
    an error here may not turn into evidence.
    """
    low = np.full(one.total.shape, max(0.0, -difference))
    high = np.full(one.total.shape, min(1.0, 1.0 - difference))
    misses, other_misses = one.count - one.total, other.count - other.total

    def slope(at: np.ndarray) -> np.ndarray:
        there = at + difference
        return np.asarray(one.total / there - misses / (1 - there) + other.total / at - other_misses / (1 - at))

    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            rises = slope(middle) > 0
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        middle = (low + high) / 2
        above = np.nan_to_num(np.abs(slope(middle)) * (high - low) / 2, nan=0.0)
    return np.asarray(_likelihood(one, np.clip(middle + difference, 0, 1)) + _likelihood(other, middle) + above)


def interval_of_difference(
    one: Sums, other: Sums, alpha: float, paired: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the confidence sequence of the difference, at this look: all differences that are not
    refuted. All looks' intervals hold the true difference together, with a probability of at least 1 - alpha.

    Returns:
        Shape (questions,) each.
    """
    questions = one.total.shape[1]
    lows, highs = np.full(questions, -1.0), np.full(questions, 1.0)
    for question in range(questions):
        ours = Sums(one.count[:, [question]], one.total[:, [question]])
        theirs = Sums(other.count[:, [question]], other.total[:, [question]])

        def against(difference: float, at_most: bool, ours: Sums = ours, theirs: Sums = theirs) -> bool:
            values = evidence_on_difference(ours, theirs, difference, paired)
            return bool(values[0 if at_most else 1][0] >= -np.log(alpha))

        lows[question] = _last(lambda value: against(value, True), -1.0, 1.0)
        highs[question] = -_last(lambda value: against(-value, False), -1.0, 1.0)
    return lows, highs


def interval_of_share(sums: Sums, alpha: float) -> tuple[float, float]:
    """As `interval_of_difference`, of the mean of one side, for one question."""
    need = -np.log(alpha)
    low = _last(lambda value: bool(evidence_on_share(sums, value)[0][0] >= need), 0.0, 1.0)
    high = 1 - _last(lambda value: bool(evidence_on_share(sums, 1 - value)[1][0] >= need), 0.0, 1.0)
    return low, high


def _last(refuted: Callable[[float], bool], low: float, high: float) -> float:
    """The end of the values that are refuted, which are all those below it; `low` if none is."""
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
