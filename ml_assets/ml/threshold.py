"""From which score on a row counts as positive: what that makes of a row, and how it is chosen on validation rows."""

from dataclasses import dataclass

import numpy as np

from ml_assets.errors import TrainingError
from ml_assets.spec.training import CostObjective, F1Objective, Objective, RecallObjective


@dataclass(frozen=True)
class Chosen:
    """A threshold, and what it reaches on the rows that it was chosen on: F1, recall, or cost per row."""

    threshold: float
    value: float


def decide(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Position of the class that each row is given, shape (rows,): the second one if its score reaches the threshold;
    without a threshold the one with the highest score.

    Args:
        scores: shape (rows, classes).
    """
    return scores.argmax(axis=1) if threshold is None else (scores[:, 1] >= threshold).astype(np.intp)


def choose(truth: np.ndarray, scores: np.ndarray, objective: Objective, place: str) -> Chosen:
    """The threshold that serves the objective best on these rows, among all that tell them apart in another way.

    It lies in the middle between two scores that occur, so that a score's last bits decide nothing. Of equally good
    thresholds the highest is taken: it calls the fewest rows positive.

    Args:
        truth: shape (rows,), 1 for the positive class, else 0.
        scores: shape (rows,), of the positive class, in [0, 1].

    Raises:
        TrainingError: if the rows are all of one class, or no threshold reaches the precision that is asked for.
    """
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        raise TrainingError(
            f"{place}: of {len(truth):,} validation rows {positives:,} are positive: no threshold can be chosen on "
            "them; change split in defs.yaml, or state the threshold as a number"
        )
    values, counts = np.unique(scores, return_counts=True)
    hits = np.zeros(len(values))
    np.add.at(hits, np.searchsorted(values, scores), truth)
    # From the highest threshold, at which no row is positive, to the lowest, at which all are.
    true = np.concatenate([[0.0], np.cumsum(hits[::-1])])
    called = np.concatenate([[0.0], np.cumsum(counts[::-1])])
    reached = _reached(true, called, positives, objective)
    best = int(np.argmax(reached))
    if reached[best] == -np.inf:
        assert isinstance(objective, RecallObjective)
        raise TrainingError(
            f"{place}: no threshold reaches precision {objective.precision:g} on the {len(truth):,} validation rows; "
            f"the most is {np.max(true[1:] / called[1:]):.4f}. Ask for less in threshold, or for another objective"
        )
    value = -reached[best] / len(truth) if isinstance(objective, CostObjective) else reached[best]
    return Chosen(_between(values[::-1], best), float(value))


def _reached(true: np.ndarray, called: np.ndarray, positives: int, objective: Objective) -> np.ndarray:
    """How well each candidate serves the objective, more is better; -inf: not at all.

    Args:
        true: true positives of each candidate.
        called: rows that each candidate calls positive.
    """
    if isinstance(objective, F1Objective):
        return np.asarray(2 * true / (called + positives))
    if isinstance(objective, CostObjective):
        false, missed = called - true, positives - true
        return np.asarray(-(objective.false_positive * false + objective.false_negative * missed))
    precision = np.divide(true, called, out=np.zeros(len(true)), where=called > 0)
    return np.where(precision >= objective.precision, true / positives, -np.inf)


def _between(falling: np.ndarray, number: int) -> float:
    """The threshold that the highest `number` of the scores reach and no other."""
    above = falling[number - 1] if number else max(1.0, np.nextafter(falling[0], np.inf))
    below = falling[number] if number < len(falling) else 0.0
    middle = below + (above - below) / 2
    if middle > below or number == len(falling):
        return float(middle)
    return float(above)
