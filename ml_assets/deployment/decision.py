"""Whether a challenger may go on, by what became of the requests so far: limits that no challenger may break, and
sequential tests that allow a look at any time.

A new model is expected to differ from the old one, or nobody would want it. So no test asks whether there is a
difference, which enough traffic always shows, but whether it is larger than a stated margin:

- *beyond*: larger beyond doubt. The challenger is rolled back.
- *within*: smaller beyond doubt.
- *open*: neither yet.

All statements of one rollout together are wrong with a probability of at most `false_alarms`: it is divided among the
tests, and within a test among its questions (Bonferroni).

- `errors`: how much larger the share of requests is that fail.
- `latency`: p99, against a limit in seconds and against `latency_factor` times the champion's and `latency_added` on
  top. "p99 is above x" means that more than 1 % of requests take longer than x; against the champion's, also that this
  is 1 % more than of its own answers in the same steps, so that a load which makes both slower is no fault.
- `scores`: the largest difference between both distribution functions, over the edges of the histograms (the
  Kolmogorov distance). 0.1: of 100 answers at most ten are on another side of some score.
- `quality`: how much larger the mean loss of predictions is whose outcomes have become known; a loss lies in [0, 1].
- `answers`: one answer that is none (NaN) or golden row that is answered otherwise suffices; no chance is in that.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ml_assets.deployment.sequential import (
    Sums,
    evidence_on_difference,
    evidence_on_share,
    interval_of_difference,
    interval_of_share,
)
from ml_assets.deployment.targets import Histogram, Observation

Outcome = Literal["beyond", "within", "open"]
SHARES = {"errors": 0.2, "latency": 0.2, "scores": 0.3, "quality": 0.3}  # of false_alarms
P99 = 0.01


@dataclass(frozen=True)
class Limits:
    """What a challenger is held against; see the module.

    Attributes:
        false_alarms: probability that a challenger without fault is rolled back, at most.
        errors: tolerated difference of the shares of failed requests.
        p99_seconds: limit of p99 by itself; None for none.
        scores: tolerated Kolmogorov distance.
        quality: tolerated difference of the mean losses.
        to_promote: what has to lie within its margin beyond doubt before the challenger is promoted.
    """

    false_alarms: float = 0.05
    errors: float = 0.01
    p99_seconds: float | None = None
    latency_factor: float = 1.5
    latency_added: float = 0.02
    scores: float = 0.1
    quality: float = 0.02
    to_promote: tuple[str, ...] = ("errors", "scores")


@dataclass(frozen=True)
class Matured:
    """Losses, in [0, 1], of the predictions of one step whose outcomes have become known: how many, and their sum."""

    champion: int = 0
    champion_loss: float = 0.0
    challenger: int = 0
    challenger_loss: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What one test says.

    Attributes:
        value: what was found; None where there is nothing to say it from.
        low, high: its confidence sequence at this look, at `level` for all questions of the test together. For several
            questions (`scores`) it is wider than what "within" is decided by.
        margin: what is tolerated of it.
        requests: of the challenger, from which it comes.
    """

    name: str
    outcome: Outcome
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    level: float | None = None
    requests: int = 0


@dataclass(frozen=True)
class Judgement:
    """All findings of one look."""

    findings: tuple[Finding, ...]
    required: tuple[str, ...] = ()

    @property
    def against(self) -> Finding | None:
        """The first finding that rolls the challenger back."""
        return next((each for each in self.findings if each.outcome == "beyond"), None)

    @property
    def unproven(self) -> tuple[Finding, ...]:
        """What has to be within its margin before the challenger is promoted, and is not yet."""
        return tuple(each for each in self.findings if each.name in self.required and each.outcome != "within")

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.findings]


@dataclass(frozen=True)
class Evidence:
    """What is known of both sides: one observation for each step, and the losses of the first of these steps, as far
    as outcomes have matured.
    """

    steps: Sequence[Observation]
    matured: Sequence[Matured] = field(default_factory=tuple)


def judge(evidence: Evidence, limits: Limits, *, intervals: bool = True) -> Judgement:
    """What the evidence says now.

    Args:
        intervals: whether findings get the ends of their intervals, which decide nothing and take most of the time.
    """
    steps = evidence.steps
    paired = np.array([each.shadow for each in steps], bool)
    findings = [
        _answers(steps),
        _errors(steps, paired, limits, intervals),
        *_latency(steps, limits, intervals),
        *_scores(steps, paired, limits, intervals),
        *_quality(evidence.matured, paired, limits, intervals),
    ]
    return Judgement(tuple(findings), limits.to_promote)


def _requests(steps: Sequence[Observation]) -> int:
    return sum(each.challenger.requests for each in steps)


def _answers(steps: Sequence[Observation]) -> Finding:
    invalid = sum(each.challenger.invalid for each in steps)
    golden = sum(each.challenger.golden for each in steps)
    said = f"{invalid:,} answers of the challenger are none (NaN, infinite, unknown), {golden:,} golden rows are "
    outcome: Outcome = "beyond" if invalid or golden else "within"
    reason = said + "answered otherwise than recorded"
    return Finding("answers", outcome, reason, float(invalid + golden), margin=0.0, requests=_requests(steps))


def _errors(steps: Sequence[Observation], paired: np.ndarray, limits: Limits, intervals: bool) -> Finding:
    one = Sums.of([each.challenger.requests for each in steps], [each.challenger.errors for each in steps])
    other = Sums.of([each.champion.requests for each in steps], [each.champion.errors for each in steps])
    said = "{ours:.2%} of the challenger's requests fail, {theirs:.2%} of the champion's"
    return _difference("errors", one, other, paired, limits.errors, limits, said, intervals, both_ways=False)


def _quality(matured: Sequence[Matured], paired: np.ndarray, limits: Limits, intervals: bool) -> list[Finding]:
    if not matured:
        return []
    one = Sums.of([each.challenger for each in matured], [each.challenger_loss for each in matured])
    other = Sums.of([each.champion for each in matured], [each.champion_loss for each in matured])
    # Of the same predictions of a shadow step both losses are known, so they pair as the answers do.
    pairs = np.zeros(len(matured), bool)
    pairs[: len(paired)] = paired[: len(matured)]
    said = "mean loss {ours:.4f} of the challenger, {theirs:.4f} of the champion, where outcomes are known"
    return [_difference("quality", one, other, pairs, limits.quality, limits, said, intervals, both_ways=False)]


def _difference(
    name: str,
    one: Sums,
    other: Sums,
    paired: np.ndarray,
    margin: float,
    limits: Limits,
    said: str,
    intervals: bool,
    *,
    both_ways: bool,
) -> Finding:
    """The finding on one or more questions about differences, of which the worst decides.

    Args:
        both_ways: whether a smaller mean of the challenger is as bad as a larger one.
    """
    questions = one.total.shape[1]
    level = limits.false_alarms * SHARES[name]
    alpha = level / questions
    # Beyond is said if one question says so, so they share the level. Within is said if all do, so each has all of it:
    # where one difference is larger, its own test has to be wrong (an intersection-union test, Berger 1982).
    need, to_be_within = -math.log(alpha), -math.log(level)
    at_most, at_least = evidence_on_difference(one, other, margin, paired)
    beyond, within = at_most >= need, at_least >= to_be_within
    if both_ways:
        below_at_most, below_at_least = evidence_on_difference(one, other, -margin, paired)
        beyond, within = beyond | (below_at_least >= need), within & (below_at_most >= to_be_within)
    counts = one.count.sum(axis=0), other.count.sum(axis=0)
    means = [
        float(total) / max(float(count), 1.0)
        for total, count in (
            (one.total.sum(axis=0)[0], counts[0][0]),
            (other.total.sum(axis=0)[0], counts[1][0]),
        )
    ]
    # Weighted by the challenger's requests, so that a change of the traffic between steps is no difference.
    found = ((one.mean - other.mean) * one.count * (other.count > 0)).sum(axis=0) / np.maximum(counts[0], 1)
    size = np.abs(found) if both_ways else found
    worst = int(np.argmax(np.where(beyond, size + 2, size)))
    outcome: Outcome = "beyond" if beyond.any() else "within" if within.all() else "open"
    enough = bool(counts[0][worst] and counts[1][worst])
    low = high = None
    if intervals:
        column = [worst]
        ours, theirs = (Sums(each.count[:, column], each.total[:, column]) for each in (one, other))
        (low,), (high,) = (each.tolist() for each in interval_of_difference(ours, theirs, alpha, paired))
        if both_ways and (low + high) < 0:
            low, high = -high, -low
    reason = f"{said.format(ours=means[0], theirs=means[1])}; {_said(outcome)} the tolerated {margin:g}"
    value = float(size[worst]) if enough else None
    requests = int(counts[0][worst])
    return Finding(name, outcome, reason, value, low, high, margin, level, requests)


def _said(outcome: Outcome) -> str:
    return {"beyond": "the difference is beyond", "within": "the difference is within", "open": "not yet told from"}[
        outcome
    ]


def _scores(steps: Sequence[Observation], paired: np.ndarray, limits: Limits, intervals: bool) -> list[Finding]:
    """One finding on the distribution functions at all edges of all histograms."""
    names = sorted({name for each in steps for side in (each.champion, each.challenger) for name in side.scores})
    edges = {name: _edges([side for each in steps for side in _both(each, name)], name) for name in names}
    asked = [name for name in names if edges[name]]
    if not asked:
        reason = "the target has told no scores"
        return [Finding("scores", "open", reason, margin=limits.scores, requests=_requests(steps))]
    sides: list[Sums] = []
    for of in (0, 1):
        count = [[float(sum(h.counts)) for name in asked for h in [_both(each, name)[of]] for _ in edges[name]]
                 for each in steps]  # fmt: skip
        below = [[float(value) for name in asked for value in _below(_both(each, name)[of], edges[name])]
                 for each in steps]  # fmt: skip
        sides.append(Sums(np.array(count), np.array(below)))
    said = f"largest distance of the distributions of {', '.join(asked)}"
    return [_difference("scores", sides[0], sides[1], paired, limits.scores, limits, said, intervals, both_ways=True)]


def _both(step: Observation, name: str) -> tuple[Histogram, Histogram]:
    return step.challenger.scores.get(name, Histogram()), step.champion.scores.get(name, Histogram())


def _edges(histograms: Sequence[Histogram], name: str) -> tuple[float, ...]:
    """The edges that all histograms with values share."""
    found = {each.edges for each in histograms if sum(each.counts)}
    if len(found) > 1:
        raise ValueError(f"histograms of {name} have other edges at one side or step than at another: {sorted(found)}")
    return next(iter(found), ())


def _below(histogram: Histogram, edges: tuple[float, ...]) -> list[int]:
    """How many values are at most each edge."""
    return np.cumsum(histogram.counts)[:-1].tolist() if histogram.edges == edges else [0] * len(edges)


def _latency(steps: Sequence[Observation], limits: Limits, intervals: bool) -> list[Finding]:
    """p99 against a limit in seconds, and against the champion's; a half of the level each for what is said of the
    champion and of the challenger. The hypotheses of all edges hold together.
    """
    edges = _edges([each for step in steps for each in (step.champion.latency, step.challenger.latency)], "latency")
    if not edges:
        return []
    need = -math.log(limits.false_alarms * SHARES["latency"] / 2 / len(edges))
    slower, champions = (
        Sums(
            np.array([[float(sum(each.counts))] * len(edges) for each in histograms]),
            np.array([[float(sum(each.counts) - below) for below in _below(each, edges)] for each in histograms]),
        )
        for histograms in ([step.challenger.latency for step in steps], [step.champion.latency for step in steps])
    )
    # The champion's p99 lies at or below the first edge beyond which certainly less than 1 % of its answers lie.
    sure = np.flatnonzero(evidence_on_share(champions, P99)[1] >= need)
    limit, why = math.inf, "nothing to hold it against yet"
    if len(sure):
        limit = edges[sure[0]] * limits.latency_factor + limits.latency_added
        why = (
            f"{limits.latency_factor:g} times the champion's, which is at most {edges[sure[0]]:g} s, and "
            f"{limits.latency_added:g} s"
        )
    if limits.p99_seconds is not None and limits.p99_seconds < limit:
        limit, why = limits.p99_seconds, "the limit"
    at = int(np.searchsorted(edges, limit))  # the first edge at or beyond the limit: a slower answer is slower than it
    count = int(slower.count[:, 0].sum())
    if at == len(edges):
        reason = f"p99 is not told from {limit:g} s: {why}" if len(sure) or limits.p99_seconds else why
        return [Finding("latency", "open", reason, margin=P99, requests=count)]
    column = Sums(slower.count[:, [at]], slower.total[:, [at]])
    at_most, at_least = (float(each[0]) for each in evidence_on_share(column, P99))
    beyond = at_most >= need
    share = float(column.total.sum()) / max(count, 1)
    said = ""
    if limits.p99_seconds is None or limit < limits.p99_seconds:
        # The champion's p99 may be from calmer times. Where load makes both slower, neither is to blame: of the answers
        # in the same steps, one percent more than of the champion's has to be too slow.
        theirs = Sums(champions.count[:, [at]], champions.total[:, [at]])
        paired = np.array([each.shadow for each in steps], bool)
        beyond = beyond and float(evidence_on_difference(column, theirs, P99, paired)[0][0]) >= need
        said = f", and {float(theirs.total.sum()) / max(float(theirs.count.sum()), 1.0):.1%} of the champion's"
    outcome: Outcome = "beyond" if beyond else "within" if at_least >= need else "open"
    reason = f"{share:.1%} of the challenger's answers{said} take longer than {edges[at]:g} s ({why}); 1 % may"
    low, high = interval_of_share(column, math.exp(-need)) if intervals else (None, None)
    level = limits.false_alarms * SHARES["latency"]
    return [Finding("latency", outcome, reason, share if count else None, low, high, P99, level, count)]
