"""The recorded outcome of all gates for one model version, without which nothing serves."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_assets.digests import digest_of
from ml_assets.errors import NotApprovedError


@dataclass(frozen=True)
class Verdict:
    """All gates' outcomes for one model version, bound to what was judged.

    Attributes:
        model_digest: of the fitted Pipeline and its threshold.
        data_digest: of the labelled rows.
        code_digest: of contract, features, parameters and package version.
        gates_digest: of the gate settings.
        champion: the version that it was compared with; None where there was none.
        gates: the outcomes, as `Gate.to_json` gives them.
    """

    model: str
    version: str
    approved: bool
    reasons: list[str]
    model_digest: str
    data_digest: str
    code_digest: str
    gates_digest: str
    champion: str | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)

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


@dataclass(frozen=True)
class Asked:
    """What is to be served, as whoever serves it finds it.

    Attributes:
        gate_names: gates that the spec asks for.
        champion: the version that it has to have been compared with; None: there is none.
        recorded_digest: digest of the verdict in the lake's records, which must agree with the registry's verdict.
    """

    model: str
    version: str
    model_digest: str
    data_digest: str
    code_digest: str
    gates_digest: str
    gate_names: list[str]
    champion: str | None
    recorded_digest: str | None


def require_approval(verdict: Verdict | None, asked: Asked) -> Verdict:
    """The verdict, if it allows this very model version to serve. It fails closed.

    Raises:
        NotApprovedError: with the first reason why the verdict does not: it is missing, negative, or about anything
            else than what is to be served.
    """
    place = f"{asked.model} version {asked.version}"
    if verdict is None:
        raise NotApprovedError(f"{place} has no verdict; {_again(asked)}")
    for check in CHECKS.values():
        if reason := check(verdict, asked):
            raise NotApprovedError(f"{place}{reason}")
    return verdict


def _again(asked: Asked) -> str:
    return f"judge it: materialise {asked.model}/metrics"


def _recorded(verdict: Verdict, asked: Asked) -> str | None:
    if verdict.digest == asked.recorded_digest:
        return None
    return f": the registry's verdict is not the one on record; {_again(asked)}"


def _about(name: str) -> Callable[[Verdict, Asked], str | None]:
    """That the verdict is about the same as what is to be served."""

    def check(verdict: Verdict, asked: Asked) -> str | None:
        if getattr(verdict, name) == getattr(asked, name):
            return None
        what = name.removesuffix("_digest")
        return f": its verdict is about another {what} than what is to be served; {_again(asked)}"

    return check


def _against_the_champion(verdict: Verdict, asked: Asked) -> str | None:
    if verdict.champion == asked.champion:
        return None
    then, now = (f"version {each}" if each else "none" for each in (verdict.champion, asked.champion))
    return f": it was compared with another champion ({then}) than there is now ({now}); {_again(asked)}"


def _passed(verdict: Verdict, asked: Asked) -> str | None:
    """Approved, and every gate that is asked for is among its outcomes and was passed."""
    if not verdict.approved:
        return f" was refused: {'; '.join(verdict.reasons)}"
    passed = {each["name"] for each in verdict.gates if each["passed"]}
    lacking = sorted({*asked.gate_names, *(each["name"] for each in verdict.gates)} - passed)
    return f": its verdict has no passed gate {', '.join(lacking)}; {_again(asked)}" if lacking else None


_BOUND_TO = ("model", "version", "model_digest", "data_digest", "code_digest", "gates_digest")
CHECKS: dict[str, Callable[[Verdict, Asked], str | None]] = {
    "recorded": _recorded,
    **{name: _about(name) for name in _BOUND_TO},
    "champion": _against_the_champion,
    "passed": _passed,
}
