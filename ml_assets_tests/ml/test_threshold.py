import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import TrainingError
from ml_assets.ml.threshold import choose, decide
from ml_assets.spec.training import CostObjective, F1Objective, Objective, RecallObjective

F1 = F1Objective(objective="f1")
RECALL = RecallObjective(objective="recall", precision=0.75)


def cost(false_positive: float, false_negative: float) -> CostObjective:
    return CostObjective(objective="cost", false_positive=false_positive, false_negative=false_negative)


def positive(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Whether evaluation and server call each row positive."""
    return decide(np.column_stack([1 - scores, scores]), threshold) == 1


def goodness(truth: np.ndarray, called: np.ndarray, objective: Objective) -> float:
    """By the textbook, from the confusion matrix; more is better."""
    hit, false, missed = (called & truth).sum(), (called & ~truth).sum(), (~called & truth).sum()
    if objective.objective == "f1":
        return float(2 * hit / (2 * hit + false + missed))
    if isinstance(objective, CostObjective):
        return float(-(objective.false_positive * false + objective.false_negative * missed) / len(truth))
    assert isinstance(objective, RecallObjective)
    return float(hit / truth.sum()) if called.any() and hit / called.sum() >= objective.precision else -1.0


SCORES = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0, np.nextafter(0.5, 1)]), st.floats(0, 1))


@given(
    rows=st.lists(st.tuples(st.booleans(), SCORES), min_size=2, max_size=30).filter(
        lambda rows: len({truth for truth, _ in rows}) == 2
    ),
    objective=st.sampled_from([F1, cost(1, 5), cost(5, 1), cost(1, 1), RECALL]),
)
def test_the_threshold_is_the_best_of_all_and_the_highest_of_the_best(
    rows: list[tuple[bool, float]], objective: Objective
) -> None:
    truth, scores = np.array([truth for truth, _ in rows]), np.array([score for _, score in rows])
    every = {threshold: positive(scores, threshold) for threshold in [*scores, np.nextafter(scores.max(), 2)]}
    best = max(goodness(truth, called, objective) for called in every.values())
    if best < 0 and objective.objective == "recall":
        with pytest.raises(TrainingError, match=r"m: no threshold reaches precision 0.75 on the"):
            choose(truth.astype(int), scores, objective, "m")
        return
    chosen = choose(truth.astype(int), scores, objective, "m")
    called = positive(scores, chosen.threshold)
    assert goodness(truth, called, objective) == pytest.approx(best)
    assert abs(chosen.value) == pytest.approx(abs(best))
    fewer = [each for each in every.values() if each.sum() < called.sum()]
    assert all(goodness(truth, each, objective) < best for each in fewer), "the fewest rows are positive"


def test_it_lies_between_two_scores_that_occur() -> None:
    truth, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert choose(truth, scores, F1, "m").threshold == pytest.approx(0.4)
    assert choose(truth, scores, RECALL, "m").threshold == pytest.approx(0.4)
    everything = choose(truth[::-1], np.array([0.3, 0.3, 0.3, 0.3]), cost(1, 50), "m")
    assert everything.threshold == pytest.approx(0.15)
    nothing = choose(truth[::-1], np.array([0.3, 0.3, 0.3, 0.4]), cost(50, 1), "m")
    assert nothing.threshold == pytest.approx(0.7)


def test_a_false_negative_that_costs_more_lowers_it() -> None:
    random = np.random.default_rng(0)
    scores = random.random(2000)
    truth = (random.random(2000) < scores).astype(int)
    thresholds = [choose(truth, scores, cost(1, each), "m").threshold for each in (1, 4, 9)]
    assert thresholds == pytest.approx([1 / 2, 1 / 5, 1 / 10], abs=0.08)


def test_rows_of_one_class_give_no_threshold() -> None:
    with pytest.raises(TrainingError, match=r"m: of 3 validation rows 0 are positive: no threshold can be chosen"):
        choose(np.zeros(3, dtype=int), np.array([0.1, 0.2, 0.3]), F1, "m")


def test_the_precision_that_can_be_reached_is_told() -> None:
    with pytest.raises(TrainingError, match=r"precision 0\.75 on the 4 validation rows; the most is 0\.5000"):
        choose(np.array([0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6]), RECALL, "m")
