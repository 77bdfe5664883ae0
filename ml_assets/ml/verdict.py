"""The gates that a model version must pass, and the recorded outcome: the verdict, without which nothing serves."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ml_assets.digests import digest_of
from ml_assets.errors import NotApprovedError
from ml_assets.ml.evaluation import LEVEL, Scored, interval, measure
from ml_assets.ml.training import better
from ml_assets.spec import LOWER_IS_BETTER, Gates, Task


@dataclass(frozen=True)
class Gate:
    """One gate's outcome.

    Attributes:
        value: the metric on held-out rows; `low` and `high` its bootstrap interval.
        threshold: what it must reach: at least, or at most where lower is better.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    threshold: float
    passed: bool

    @property
    def reason(self) -> str:
        """The outcome as a sentence."""
        direction = "at most" if self.metric in LOWER_IS_BETTER else "at least"
        if self.name == "prior":
            return (
                f"{self.metric} {self.value:.4f} with its {LEVEL:.0%} interval from {self.low:.4f} "
                f"{'is' if self.passed else 'is not'} above {self.threshold:g}, what a constant answer reaches"
            )
        return f"{self.metric} {self.value:.4f}, {direction} {self.threshold:g} is asked for"


def judge(scored: Scored, gates: Gates, task: Task) -> tuple[dict[str, float], list[Gate]]:
    """Measure held-out rows and hold the result against every gate. NaN passes none.

    Returns:
        The task's metrics, and the outcome of each gate: `prior` first, then the absolute thresholds.
    """
    metrics = measure(scored)
    outcomes = []
    if gates.prior == "better":
        metric, constant = ("r2", 0.0) if task == "regression" else ("roc_auc", 0.5)
        low, high = interval(scored, metric)
        outcomes.append(Gate("prior", metric, metrics[metric], low, high, constant, low > constant))
    for metric, threshold in gates.thresholds().items():
        low, high = interval(scored, metric)
        value = metrics[metric]
        passed = not math.isnan(value) and better(metric, value, threshold)
        outcomes.append(Gate(metric, metric, value, low, high, threshold, passed))
    return metrics, outcomes


def gate_names(gates: Gates) -> list[str]:
    """Names of the gates that `judge` will report, in its order."""
    return (["prior"] if gates.prior == "better" else []) + list(gates.thresholds())


@dataclass(frozen=True)
class Verdict:
    """All gates' outcomes for one model version, bound to what was judged.

    Attributes:
        model_digest: of the fitted Pipeline and its threshold.
        data_digest: of the labelled rows.
        code_digest: of contract, features, parameters and package version.
        gates_digest: of the gate settings.
    """

    model: str
    version: str
    approved: bool
    reasons: list[str]
    model_digest: str
    data_digest: str
    code_digest: str
    gates_digest: str

    @property
    def digest(self) -> str:
        return digest_of(asdict(self))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"digest": self.digest}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Verdict":
        """What `to_json` gave.

        Raises:
            NotApprovedError: if it was changed since.
        """
        fields = {name: value for name, value in stored.items() if name != "digest"}
        try:
            verdict = cls(**fields)
        except TypeError:
            raise NotApprovedError(f"the stored verdict is none: it has {', '.join(sorted(stored))}") from None
        if verdict.digest != stored.get("digest"):
            raise NotApprovedError(
                f"the verdict of {verdict.model} version {verdict.version} was changed after it fell"
            )
        return verdict


def require_approval(
    verdict: Verdict | None,
    *,
    model: str,
    version: str,
    model_digest: str,
    data_digest: str,
    code_digest: str,
    gates_digest: str,
    recorded_digest: str | None,
) -> Verdict:
    """The verdict, if it allows this very model version to serve. It fails closed.

    Args:
        recorded_digest: digest of the verdict in the lake's records, which must agree with the registry's verdict.

    Raises:
        NotApprovedError: if the verdict is missing, negative, or about anything else than what is to be served.
    """
    judged = f"judge it: materialise {model}/metrics"
    if verdict is None:
        raise NotApprovedError(f"{model} version {version} has no verdict; {judged}")
    if verdict.digest != recorded_digest:
        raise NotApprovedError(f"{model} version {version}: the registry's verdict is not the one on record; {judged}")
    expected = {
        "model": model,
        "version": version,
        "model_digest": model_digest,
        "data_digest": data_digest,
        "code_digest": code_digest,
        "gates_digest": gates_digest,
    }
    differing = [name for name, value in expected.items() if getattr(verdict, name) != value]
    if differing:
        raise NotApprovedError(
            f"{model} version {version}: its verdict is about another {', '.join(differing).replace('_digest', '')} "
            f"than what is to be served; {judged}"
        )
    if not verdict.approved:
        raise NotApprovedError(f"{model} version {version} was refused: {'; '.join(verdict.reasons)}")
    return verdict
