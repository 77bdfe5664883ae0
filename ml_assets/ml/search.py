"""Search for an estimator's parameters with Optuna: which sets are tried, what came of each, and which one is best.

What a trial gave is kept in a file until the model is trained. A training that was killed asks for the same sets in the
same order, finds the finished ones there, and so ends as an undisturbed one.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.errors import TrainingError
from ml_assets.spec.base import LOWER_IS_BETTER
from ml_assets.spec.training import Dimension, Search

SEED = 42

Params = dict[str, Any]
# For each set of parameters the scores of its folds, in order, or why it cannot be fitted.
Judge = Callable[[Sequence[Params]], Iterator[list[float] | TrainingError]]


@dataclass(frozen=True)
class Result:
    """What a set of parameters gave.

    Attributes:
        scores: one per fold; none if it could not be fitted.
        error: why not.
        seconds: how long the search waited for it.
    """

    scores: list[float]
    error: str | None
    seconds: float

    @property
    def value(self) -> float | None:
        """Mean of the folds' scores; none if the trial failed."""
        return sum(self.scores) / len(self.scores) if self.error is None else None


@dataclass(frozen=True)
class Trial:
    """One set of parameters of a search, numbered from 0.

    Attributes:
        known: its result was there already: it was tried before in this search, or before the training was killed.
    """

    number: int
    params: Params
    result: Result
    known: bool

    @property
    def value(self) -> float | None:
        return self.result.value


@dataclass(frozen=True)
class Found:
    """A finished search.

    Attributes:
        best: of equally good trials the first.
        stopped_by: what ended it. After a timeout another machine may make more trials, or fewer.
    """

    trials: list[Trial]
    best: Trial
    stopped_by: str

    @property
    def failed(self) -> int:
        return sum(trial.value is None for trial in self.trials)


class Watch(Protocol):
    """Who is told of trials while they are made."""

    def begin(self, number: int, params: Params) -> None: ...

    def end(self, trial: Trial) -> None: ...

    def give_up(self) -> None:
        """The search breaks off: trials that have begun do not end."""


class Memory:
    """Results by parameters, in a file with a line for each; without a path they are forgotten with this object."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Result] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                try:
                    read = json.loads(line)
                    self._known[read["key"]] = Result(**read["result"])
                except (ValueError, KeyError, TypeError):
                    continue  # its writer was killed, and the trial is made again

    def get(self, params: Params) -> Result | None:
        return self._known.get(digest_of(params))

    def add(self, params: Params, result: Result) -> None:
        self._known[digest_of(params)] = result
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:  # a line of a killed writer may have no end
                file.write(f"\n{json.dumps({'key': digest_of(params), 'params': params, 'result': asdict(result)})}\n")

    def forget(self) -> None:
        """Remove the file: the model that came of it is recorded."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def find(
    search: Search,
    judge: Judge,
    *,
    metric: str,
    place: str,
    memory: Memory | None = None,
    watch: Watch | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Found:
    """Try sets of parameters until the budget is spent.

    Args:
        metric: what the scores are, which says what is better.

    Raises:
        TrainingError: if no trial could be fitted.
    """
    import optuna

    memory = memory or Memory()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lower = metric in LOWER_IS_BETTER
    study = optuna.create_study(
        direction="minimize" if lower else "maximize", sampler=optuna.samplers.TPESampler(seed=SEED)
    )
    space = {name: _distribution(each) for name, each in search.space.items()}
    seconds = parse_duration(search.timeout).total_seconds() if search.timeout else math.inf
    tried: set[str] = set()
    trials: list[Trial] = []
    best: Trial | None = None
    stopped_by = "trials"
    try:
        while len(trials) < search.trials:
            if trials and sum(each.result.seconds for each in trials) >= seconds:
                stopped_by = "timeout"
                log(f"search: {search.timeout} are over after {len(trials)} of {search.trials} trials")
                break
            asked = [study.ask(space) for _ in range(min(search.parallel, search.trials - len(trials)))]
            if watch:
                for each in asked:
                    watch.begin(each.number, each.params)
            for each, (result, known) in zip(
                asked, _results([each.params for each in asked], judge, memory, tried), strict=True
            ):
                trial = Trial(each.number, each.params, result, known)
                trials.append(trial)
                if trial.value is None:
                    study.tell(each, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(each, trial.value)
                    if best is None or (trial.value < _value(best) if lower else trial.value > _value(best)):
                        best = trial
                if watch:
                    watch.end(trial)
                log(_line(trial, best, metric, search))
    except BaseException:
        if watch:
            watch.give_up()
        raise
    if best is None:
        raise TrainingError(
            f"{place}: none of {len(trials)} trials of the search could be fitted; change search.space in defs.yaml. "
            f"The first: {trials[0].result.error}"
        )
    return Found(trials, best, stopped_by)


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choice is not None:
        return CategoricalDistribution(dimension.choice)
    if dimension.int_ is not None:
        return IntDistribution(*dimension.int_, log=dimension.log)
    assert dimension.float_ is not None
    return FloatDistribution(*dimension.float_, log=dimension.log)


def _results(asked: Sequence[Params], judge: Judge, memory: Memory, tried: set[str]) -> Iterator[tuple[Result, bool]]:
    """Each set's result, and whether it was known; what is not known is judged, each set once."""
    unknown: dict[str, Params] = {}
    for params in asked:
        if memory.get(params) is None:
            unknown.setdefault(digest_of(params), params)
    judged = judge(list(unknown.values())) if unknown else iter(())
    for params in asked:
        key, result = digest_of(params), memory.get(params)
        known = result is not None
        if result is None:
            started = time.monotonic()
            outcome = next(judged)
            result = _result(outcome, time.monotonic() - started)
            memory.add(params, result)
        # A repetition takes no time. What a killed training found counts as if it had been found by this one.
        yield (replace(result, seconds=0.0) if key in tried else result), known
        tried.add(key)


def _result(outcome: list[float] | TrainingError, seconds: float) -> Result:
    if isinstance(outcome, TrainingError):
        return Result([], str(outcome), seconds)
    if not all(map(math.isfinite, outcome)):
        return Result([], f"a fold's score is no number: {outcome}", seconds)
    return Result(outcome, None, seconds)


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _line(trial: Trial, best: Trial | None, metric: str, search: Search) -> str:
    """What the log says of a trial."""
    came = f"failed: {trial.result.error}" if trial.value is None else f"{metric} {trial.value:.4f}"
    told = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    so_far = f"; best so far {_value(best):.4f}, trial {best.number + 1}" if best else ""
    known = ", known already" if trial.known else ""
    return f"trial {trial.number + 1} of {search.trials}: {came} with {told}{known}{so_far}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
