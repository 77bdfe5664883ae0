"""The gates that a model version must pass: each a function from what was measured to value, threshold and outcome."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ml_assets.ml.bootstrap import LEVEL, UNKNOWN
from ml_assets.ml.evidence import Evidence, gap
from ml_assets.ml.training import better
from ml_assets.spec.base import LOWER_IS_BETTER, METRICS
from ml_assets.spec.judging import Gates


@dataclass(frozen=True)
class Gate:
    """One gate's outcome.

    Attributes:
        value: what was measured; `low` and `high` its interval.
        threshold: what it must reach, or may reach at most.
        reason: the outcome as a sentence.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    threshold: float
    passed: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON has no NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


Judge = Callable[[Evidence, Gates], Gate]


@dataclass(frozen=True)
class Rule:
    """A gate: what it asks for in words, None if the spec does not ask for it, and how it judges."""

    asks: Callable[[Gates], str | None]
    judge: Judge


def judge(evidence: Evidence, gates: Gates) -> list[Gate]:
    """Every gate that the spec asks for, all of them, whatever the others say. What cannot be measured passes none."""
    return [rule.judge(evidence, gates) for rule in RULES.values() if rule.asks(gates) is not None]


def gate_names(gates: Gates) -> list[str]:
    """Names of the gates that `judge` will report, in its order."""
    return [name for name, rule in RULES.items() if rule.asks(gates) is not None]


def _prior(evidence: Evidence, gates: Gates) -> Gate:
    metric, constant = ("r2", 0.0) if evidence.test.task == "regression" else ("roc_auc", 0.5)
    value, (low, high) = evidence.metrics[metric], evidence.intervals[metric]
    passed = low > constant
    reason = (
        f"{metric} {value:.4f} with its {LEVEL:.0%} interval from {low:.4f} "
        f"{'is' if passed else 'is not'} above {constant:g}, what a constant answer reaches"
    )
    return Gate("prior", metric, value, low, high, constant, passed, reason)


def _champion(evidence: Evidence, gates: Gates) -> Gate:
    found = evidence.comparison
    passed = {
        "no champion": True,
        "is the champion": True,
        "same model": gates.champion == "not_worse",
        "better": True,
        "alike": gates.champion == "not_worse",
        "worse": False,
        "inconclusive": gates.inconclusive == "pass",
    }[found.outcome]
    reason = found.reason
    if found.outcome == "inconclusive":
        passes = "passes" if passed else "does not pass"
        reason = f"inconclusive, which {passes} (gates.inconclusive: {gates.inconclusive}): {reason}"
    elif not passed and found.outcome in ("alike", "same model"):
        reason = f"{reason}; gates.champion asks for better"
    return Gate("champion", found.metric, found.value, found.low, found.high, 0.0, passed, reason)


def _min_rows(evidence: Evidence, gates: Gates) -> Gate:
    rows = len(evidence.test.truth)
    reason = f"{rows:,} held-out rows, at least {gates.min_rows:,} are asked for"
    return Gate("min_rows", "rows", rows, rows, rows, gates.min_rows, rows >= gates.min_rows, reason)


def _held_out(evidence: Evidence, gates: Gates) -> Gate:
    rows, seen = len(evidence.test.truth), evidence.seen
    if seen is None:
        reason = "there is no record of the rows that it was trained on, kept with the version; train it again"
        return Gate("held_out", "rows", math.nan, *UNKNOWN, 0, False, reason)
    reason = f"it was trained on {f'{seen:,}' if seen else 'none'} of the {rows:,} held-out rows"
    return Gate("held_out", "rows", seen, seen, seen, 0, seen == 0, reason)


def _threshold(metric: str) -> Rule:
    direction = "at most" if metric in LOWER_IS_BETTER else "at least"

    def asks(gates: Gates) -> str | None:
        wanted = gates.thresholds().get(metric)
        return None if wanted is None else f"{metric} {direction} {wanted:g}"

    def judge(evidence: Evidence, gates: Gates) -> Gate:
        wanted = gates.thresholds()[metric]
        value, interval = evidence.metrics[metric], evidence.intervals[metric]
        reason = f"{metric} {value:.4f}, {direction} {wanted:g} is asked for"
        return Gate(metric, metric, value, *interval, wanted, better(metric, value, wanted), reason)

    return Rule(asks, judge)


def _worst_slice(evidence: Evidence, gates: Gates) -> Gate:
    wanted, slices, metric = gates.worst_slice, evidence.slices, evidence.primary
    assert wanted is not None
    worst = slices.worst
    if worst is None:
        reason = "no slice has enough rows to be judged; lower metrics.slice_rows"
        return Gate("worst_slice", metric, math.nan, *UNKNOWN, wanted, False, reason)
    # The end of the interval that speaks for the model: refused only if the slice is too bad beyond doubt.
    at_best = worst.low if metric in LOWER_IS_BETTER else worst.high
    direction = "at most" if metric in LOWER_IS_BETTER else "at least"
    reason = (
        f"where {worst.name} ({worst.rows:,} rows, worst of {slices.looked_at} slices) {metric} is {worst.value:.4f}, "
        f"{at_best:.4f} at best; {direction} {wanted:g} is asked for"
    )
    passed = better(metric, at_best, wanted)
    return Gate("worst_slice", metric, worst.value, worst.low, worst.high, wanted, passed, reason)


def _calibration(evidence: Evidence, gates: Gates) -> Gate:
    wanted, measured = gates.calibration_error, evidence.calibration
    assert wanted is not None
    assert measured is not None
    reason = f"calibration error {measured.value:.4f}, at most {wanted:g} is asked for"
    passed = measured.value <= wanted
    return Gate("calibration_error", "calibration_error", measured.value, *measured.interval, wanted, passed, reason)


def _gap(evidence: Evidence, gates: Gates) -> Gate:
    wanted, found = gates.train_test_gap, gap(evidence)
    assert wanted is not None
    assert evidence.training is not None
    reason = (
        f"{evidence.primary} is {evidence.training.value:.4f} on training rows and "
        f"{evidence.metrics[evidence.primary]:.4f} on held-out ones, {found.value:.4f} apart; at most {wanted:g} is "
        "asked for"
    )
    passed = found.value <= wanted
    return Gate("train_test_gap", evidence.primary, found.value, *found.interval, wanted, passed, reason)


def _milliseconds(evidence: Evidence, gates: Gates) -> Gate:
    wanted, measured = gates.milliseconds_per_row, evidence.milliseconds
    assert wanted is not None
    value, interval = (measured.value, measured.interval) if measured else (math.nan, UNKNOWN)
    reason = f"a row takes {value:.3f} ms to be scored, at most {wanted:g} is asked for"
    return Gate("milliseconds_per_row", "milliseconds", value, *interval, wanted, value <= wanted, reason)


def _leak(evidence: Evidence, gates: Gates) -> Gate:
    wanted, suspect = gates.leak, evidence.suspect
    assert wanted is not None
    assert suspect is not None
    passed = suspect.value <= wanted
    reason = f"{suspect.feature} alone reaches {suspect.metric} {suspect.value:.4f}; " + (
        f"at most {wanted:g} is allowed"
        if passed
        else f"above {wanted:g} it is suspected to hold the answer. Look where it comes from, or raise gates.leak"
    )
    return Gate("leak", suspect.metric, suspect.value, *suspect.interval, wanted, passed, reason)


def _stated(name: str, told: str) -> Callable[[Gates], str | None]:
    """What a gate asks for, if its key is set."""
    return lambda gates: None if getattr(gates, name) is None else told.format(getattr(gates, name))


def _of_champion(gates: Gates) -> str | None:
    wanted = {
        "not_worse": "Must not be significantly worse than the champion",
        "better": "Must be significantly better than the champion",
    }
    return wanted.get(gates.champion)


_ALL_METRICS = dict.fromkeys(metric for metrics in METRICS.values() for metric in metrics)

RULES: dict[str, Rule] = {
    "prior": Rule(
        lambda gates: "Must be better than a constant answer, by its interval" if gates.prior == "better" else None,
        _prior,
    ),
    "champion": Rule(_of_champion, _champion),
    "min_rows": Rule(_stated("min_rows", "At least {:,} held-out rows"), _min_rows),
    "held_out": Rule(lambda gates: "Must not have been trained on a held-out row", _held_out),
    **{metric: _threshold(metric) for metric in _ALL_METRICS},
    "worst_slice": Rule(_stated("worst_slice", "The primary metric of the worst slice against {:g}"), _worst_slice),
    "calibration_error": Rule(_stated("calibration_error", "At most {:g}"), _calibration),
    "train_test_gap": Rule(_stated("train_test_gap", "At most {:g} better on training rows"), _gap),
    "milliseconds_per_row": Rule(_stated("milliseconds_per_row", "At most {:g} ms to score a row"), _milliseconds),
    "leak": Rule(_stated("leak", "No single feature above {:g} by itself"), _leak),
}
