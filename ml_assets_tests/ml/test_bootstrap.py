"""Fast intervals beside the plain slow way: take the drawn rows, measure them with scikit-learn, one by one."""

from dataclasses import replace

import numpy as np
import pytest

from ml_assets.ml.bootstrap import (
    calibration_interval,
    differences,
    draws,
    intervals,
    metric_values,
    percentiles,
    spread,
)
from ml_assets.ml.evaluation import Scored, calibration_error, measure
from ml_assets.spec.base import METRICS


def scored(task: str, rows: int = 120, decimals: int = 1, seed: int = 3) -> Scored:
    """Answers with many equal scores, three classes of which one is rare, a threshold that is not in the middle."""
    random = np.random.default_rng(seed)
    if task == "regression":
        truth = random.normal(1000, 2, rows)
        return Scored(truth, truth + random.normal(0, 1, rows), [], "regression")
    classes = 2 if task == "binary" else 3
    truth = random.choice(classes, rows, p=[0.7, 0.3] if classes == 2 else [0.55, 0.35, 0.1])
    scores = np.round(random.random((rows, classes)) + 0.3 * np.eye(classes)[truth], decimals) + 0.01
    scores /= scores.sum(axis=1, keepdims=True)
    return Scored(truth, scores, list(range(classes)), task, 0.4 if classes == 2 else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", METRICS)
def test_metrics_of_resamples_are_those_of_scikit_learn_on_the_drawn_rows(task: str) -> None:
    some = scored(task)
    values = metric_values(some, METRICS[task])
    for counts in draws(120, 30, np.random.default_rng(5)):
        fast = values(counts)
        for each, drawn in enumerate(counts):
            slow = measure(some.take(np.repeat(np.arange(120), drawn.astype(int))))
            assert {name: fast[name][each] for name in slow} == pytest.approx(slow, rel=1e-9, nan_ok=True)


def test_each_resample_draws_as_many_rows_as_there_are_and_each_row_equally_often() -> None:
    counts = np.concatenate(list(draws(50, 4000, np.random.default_rng(1))))
    assert counts.shape == (4000, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.03), "binomial, as with replacement"


@pytest.mark.parametrize("task", METRICS)
def test_the_interval_holds_the_value_and_narrows_with_more_rows(task: str) -> None:
    widths = []
    for rows in (200, 5000):
        some = scored(task, rows, decimals=3)
        values = measure(some)
        found = intervals(some, METRICS[task])
        assert all(low < values[name] < high for name, (low, high) in found.items())
        widths.append([high - low for low, high in found.values()])
    assert all(late < early / 2 for early, late in zip(*widths, strict=True))


def test_the_interval_is_that_of_the_plain_way() -> None:
    some = scored("binary", 300, decimals=3)
    random = np.random.default_rng(9)
    slow = [measure(some.take(random.integers(0, 300, 300)))["f1"] for _ in range(600)]
    fast = intervals(some, ["f1"])["f1"]
    assert fast == pytest.approx(percentiles(np.array(slow), 300), abs=0.012)
    low, high = fast
    assert spread(some, "f1", resamples=1000) == pytest.approx((high - low) / (2 * 1.97), rel=0.1)


def test_a_paired_difference_is_of_the_same_rows_and_better_is_positive() -> None:
    some = scored("regression", 400)
    worse = replace(some, scores=some.scores + np.where(np.arange(400) % 2, 0.3, -0.3))
    apart = differences(some, worse, "rmse")
    assert (differences(some, some, "rmse") == 0).all()
    assert np.mean(apart > 0) > 0.99, "a lower error is better"
    alone = np.std(
        np.concatenate([metric_values(some, ["rmse"])(c)["rmse"] for c in draws(400, 500, np.random.default_rng(2))])
    )
    assert apart.std() < alone, "what makes a row hard for both does not count"


def test_what_cannot_be_measured_has_no_interval() -> None:
    one_class = Scored(np.zeros(50, dtype=int), np.full((50, 2), 0.5), [False, True], "binary")
    assert np.isnan(intervals(one_class, ["roc_auc"])["roc_auc"]).all()


def test_many_rows_are_measured_on_a_part_and_few_get_wider_intervals() -> None:
    low, high = intervals(scored("binary", 60_000, decimals=3), ["roc_auc"], resamples=100)["roc_auc"]
    assert 0 < high - low < 0.02
    values = np.linspace(0, 1, 1001)
    few, many = percentiles(values, 10), percentiles(values, 10_000)
    assert few[0] < many[0] < many[1] < few[1]
    assert many == pytest.approx((0.025, 0.975), abs=0.001)


def test_the_calibration_error_is_small_where_scores_are_probabilities() -> None:
    random = np.random.default_rng(4)
    score = random.random(20_000)
    truth = (random.random(20_000) < score).astype(int)
    honest = Scored(truth, np.column_stack([1 - score, score]), [0, 1], "binary")
    bold = np.clip(score * 2 - 0.5, 0, 1)
    boastful = replace(honest, scores=np.column_stack([1 - bold, bold]))
    assert calibration_error(honest) < 0.015 < 0.1 < calibration_error(boastful)
    low, high = calibration_interval(boastful)
    assert low < calibration_error(boastful) < high < low + 0.03
    assert calibration_interval(honest)[0] == pytest.approx(0, abs=0.005)
    constant = replace(honest, scores=np.full((20_000, 2), [1 - truth.mean(), truth.mean()]))
    assert calibration_error(constant) < 1e-9, "equal scores are one bin"
