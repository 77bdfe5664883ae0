import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from joblib import cpu_count
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from ml_assets.digests import digest_of_fitted
from ml_assets.errors import TrainingError
from ml_assets.ml.compute import Local
from ml_assets.ml.search import Found, Memory, Params, Trial, find
from ml_assets.ml.splits import Sides
from ml_assets.spec.training import Estimator, Search, Training
from ml_assets_tests.ml.test_training import LOGISTIC, fit, rows

SPACE = {
    "max_depth": {"int": [1, 9]},
    "max_features": {"float": [0.1, 1.0]},
    "criterion": {"choice": ["gini", "entropy"]},
}


def searching(**changes: Any) -> Search:
    return Search.model_validate({"trials": 25, "space": SPACE} | changes)


class Judge:
    """Gives scores that depend on the parameters alone; breaks off in the middle of a trial if asked to."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.judged: list[Params] = []
        self.broken_at = broken_at

    def __call__(self, tried: Sequence[Params]) -> Iterator[list[float] | TrainingError]:
        for params in tried:
            if len(self.judged) == self.broken_at:
                raise KeyboardInterrupt
            self.judged.append(params)
            if params["max_depth"] == 2:
                yield TrainingError("two is refused")
            else:
                score = -abs(params["max_depth"] - 6) - params["max_features"] + (params["criterion"] == "gini")
                yield [score, score + 0.25]


def trials_of(found: Found) -> list[tuple[Any, ...]]:
    return [(each.number, each.params, each.value, each.result.error) for each in found.trials]


def test_the_search_comes_closer_to_what_is_best_and_is_the_same_each_time() -> None:
    one, other = (find(searching(), Judge(), metric="f1", place="m") for _ in range(2))
    assert trials_of(one) == trials_of(other)
    values = [each.value for each in one.trials if each.value is not None]
    assert one.best.value == max(values)
    assert np.mean(values[-8:]) > np.mean(values[:8])
    lowest = find(searching(), Judge(), metric="rmse", place="m")
    assert lowest.best.value == min(each.value for each in lowest.trials if each.value is not None)
    assert lowest.best.number == min(each.number for each in lowest.trials if each.value == lowest.best.value)


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("broken_at", [0, 1, 3, 12, 20])
def test_a_search_that_was_killed_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path: Path, parallel: int, broken_at: int
) -> None:
    search = searching(parallel=parallel)
    whole = Judge()
    undisturbed = find(search, whole, metric="f1", place="m")
    killed, resumed = Judge(broken_at), Judge()
    file = tmp_path / "trials.jsonl"
    with pytest.raises(KeyboardInterrupt):
        find(search, killed, metric="f1", place="m", memory=Memory(file))
    if file.exists():
        with file.open("a") as half:
            half.write('\n{"key": "0", "resu')
    found = find(search, resumed, metric="f1", place="m", memory=Memory(file))
    assert trials_of(found) == trials_of(undisturbed)
    assert found.best.params == undisturbed.best.params
    assert killed.judged + resumed.judged == whole.judged, "no trial is made twice"
    Memory(file).forget()
    assert not file.exists()


def test_parameters_that_come_again_are_judged_once() -> None:
    judge = Judge()
    search = searching(
        trials=12, parallel=3, space={**SPACE, "max_depth": {"choice": [4, 5]}, "max_features": {"choice": [1, 2]}}
    )
    found = find(search, judge, metric="f1", place="m")
    assert len(found.trials) == 12
    assert len(judge.judged) == len({str(each) for each in judge.judged}) <= 8
    assert sum(not each.known for each in found.trials) == len(judge.judged)
    assert all(each.result.seconds == 0 for each in found.trials if each.known)


def test_no_trial_begins_after_the_timeout_and_time_before_a_kill_counts(tmp_path: Path) -> None:
    log: list[str] = []
    found = find(searching(timeout="0s"), Judge(), metric="f1", place="m", log=log.append)
    assert (len(found.trials), found.stopped_by) == (1, "timeout")
    assert log[-1] == "search: 0s are over after 1 of 25 trials"
    memory = Memory(tmp_path / "trials.jsonl")
    with pytest.raises(KeyboardInterrupt):
        find(searching(timeout="1h"), Judge(3), metric="f1", place="m", memory=memory)
    file = tmp_path / "trials.jsonl"
    file.write_text(re.sub(r'"seconds": [\w.-]+', '"seconds": 1234.5', file.read_text()))
    again = Judge()
    found = find(searching(timeout="1h"), again, metric="f1", place="m", memory=Memory(file))
    assert (len(found.trials), found.stopped_by, again.judged) == (3, "timeout", [])


def test_a_trial_that_cannot_be_fitted_is_told_of_and_passed_over() -> None:
    log: list[str] = []
    space = {"solver": {"choice": ["lbfgs", "liblinear"]}, "l1_ratio": {"choice": [0.0, 0.5]}}
    search = Search.model_validate({"trials": 8, "space": space})
    found = fit(rows(), estimator=LOGISTIC, search=search, log=log.append).found
    assert found is not None
    assert 0 < found.failed < 8
    assert found.best.params["l1_ratio"] == 0.0
    failed = next(each for each in found.trials if each.value is None)
    assert failed.result.error is not None
    assert "scikit-learn refuses to fit" in failed.result.error
    assert log[failed.number].startswith(f"trial {failed.number + 1} of 8: failed: m: scikit-learn refuses to fit")
    whole = Search.model_validate({"trials": 2, "space": {"l1_ratio": {"choice": [0.4, 0.5]}}})
    with pytest.raises(
        TrainingError, match=r"m: none of 2 trials .*change search.space in defs.yaml. The first: m: sci"
    ):
        fit(rows(), estimator=LOGISTIC, search=whole)


def test_a_score_that_is_no_number_makes_a_trial_fail() -> None:
    found = find(
        searching(trials=3),
        lambda tried: iter([[math.nan if each["max_depth"] > 4 else 0.5] for each in tried]),
        metric="f1",
        place="m",
    )
    assert {each.params["max_depth"] > 4: each.value for each in found.trials} == {True: None, False: 0.5}


SMALL = Search.model_validate(
    {"trials": 5, "space": {"max_depth": {"int": [1, 6]}, "n_estimators": {"choice": [3, 6]}}}
)


def test_each_trial_is_cross_validated_like_a_training_and_the_best_is_fitted_on_all_training_rows() -> None:
    training = Training(folds=3, class_weights="balanced", calibration="sigmoid")
    estimator = Estimator(params={"min_samples_leaf": 3})
    log: list[str] = []
    trained = fit(rows(), estimator=estimator, search=SMALL, training=training, log=log.append)
    assert trained.found is not None
    for trial in trained.found.trials:
        alone = fit(rows(), estimator=estimator.with_(trial.params), training=training)
        assert trial.result.scores == alone.fold_scores
        if trial is trained.found.best:
            assert digest_of_fitted(trained.pipeline) == digest_of_fitted(alone.pipeline)
            assert trained.params == alone.params
    assert trained.params == {"max_depth": 10, "random_state": 42, "min_samples_leaf": 3} | trained.found.best.params
    assert trained.fold_scores == trained.found.best.result.scores
    assert log[4].startswith("trial 5 of 5: f1 0.")
    assert f"best so far {trained.found.best.value:.4f}, trial {trained.found.best.number + 1}" in log[4]


def test_a_search_looks_at_training_rows_only() -> None:
    frame = rows(900)
    sides = Sides(np.arange(500), np.arange(500, 700), np.arange(700, 900))
    other = frame.with_columns(
        late=pl.when(pl.col("id") >= 500).then(~pl.col("late")).otherwise("late"),
        x=pl.when(pl.col("id") >= 500).then(-9.0).otherwise("x"),
    )
    one, two = (fit(each, sides=sides, search=SMALL) for each in (frame, other))
    assert one.found is not None
    assert two.found is not None
    assert trials_of(one.found) == trials_of(two.found)
    assert digest_of_fitted(one.pipeline) == digest_of_fitted(two.pipeline)


class Told:
    """Writes down what a watch is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, number: int, params: Params) -> None:
        self.told.append(("begin", number))

    def end(self, trial: Trial) -> None:
        self.told.append(("end", trial.number))

    def give_up(self) -> None:
        self.told.append("give up")


def test_a_watch_is_told_of_each_trial_and_of_the_end_of_a_search_that_breaks_off() -> None:
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        find(searching(), Judge(1), metric="f1", place="m", watch=told)
    assert told.told == [("begin", 0), ("end", 0), ("begin", 1), "give up"]


ESTIMATORS = {
    "forest": Estimator(params={"n_estimators": 10}),
    "boosting": Estimator(class_="sklearn.ensemble.HistGradientBoostingRegressor", params={"max_iter": 20}),
    "ridge": Estimator(class_="sklearn.linear_model.Ridge"),
}


@pytest.mark.skipif(cpu_count() < 2, reason="one core")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_number_of_cores_changes_no_bit_of_a_model_or_score(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On scikit-learn's own threads boosting adds up gradients in another order, and differs."""
    frame = rows(10_000).with_columns(minutes=(6 * pl.col("x")).exp())
    found = []
    for cores in ("2", "1"):  # scikit-learn counts them once, at first
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
        with threadpool_limits(int(cores)):
            trained = fit(frame, "regression", "minutes", estimator=ESTIMATORS[name])
        found.append((trained.fold_scores, digest_of_fitted(trained.pipeline)))
    assert found[0] == found[1]


def boosted(threads: int, frame: pl.DataFrame) -> str:
    estimator = HistGradientBoostingRegressor(max_iter=20, random_state=0)
    return digest_of_fitted(estimator.fit(frame.select("x").to_numpy(), (6 * frame["x"]).exp().to_numpy()))


@pytest.mark.skipif(cpu_count() < 2, reason="one core")
def test_fits_side_by_side_are_the_same_as_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = [(rows(10_000, seed),) for seed in range(3)], []
    for cores in ("2", "1"):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
        found.append(list(Local().map(boosted, calls)))
    assert found[0] == found[1]
    assert len(set(found[0])) == 3
