"""Whether a training, its verdict or its rollout is due, by the records alone; and what holds it back.

Why a model is trained again, and why not, is said in `causes.py`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from ml_assets.assets.champion import rival_on_record
from ml_assets.assets.endpoint import endpoint_inputs
from ml_assets.assets.metrics import metrics_inputs
from ml_assets.assets.trained_model import training_inputs
from ml_assets.automation.causes import GUARDS, Situation, code, decide
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import Latest, Record, read_latest

_ALL = ("trained_model", "metrics", "endpoint")


@dataclass(frozen=True)
class DueTraining:
    """Which of `trained_model`, `metrics` and `endpoint` are to be made, and why; or why not.

    Attributes:
        digest: of what they would use; two attempts with the same digest are the same attempt.
        wanted: whether something asks for a training, or will, and is held back.
        cause: what asks for a training: one of the causes, or `first`; empty if none is due.
    """

    assets: tuple[str, ...]
    reason: str
    digest: str = ""
    wanted: bool = False
    cause: str = ""


def due_training(
    model: Model, lake: Lake, now: datetime | None = None, health: dict[str, Any] | None = None
) -> DueTraining:
    """Compare features, outcomes, code, parameters and gates with what the newest version records.

    Args:
        health: what the endpoint server says of itself, `{}` if it does not answer; None leaves that out.
    """
    return due_by(model, read_latest(lake, model.name), now or datetime.now(UTC), health)


def due_by(model: Model, latest: Latest, now: datetime, health: dict[str, Any] | None = None) -> DueTraining:
    """The same by some records, at some moment. What is held back holds up neither a verdict nor the endpoint."""
    if not any(record.rows for record in latest.of("features").values()):
        return DueTraining((), "no features yet")
    if half_done := [f"{asset} {day}" for asset in ("features", "outcomes") for day in latest.unfinished(asset)]:
        return DueTraining((), f"{', '.join(half_done[:5])} is being finished after a run was killed")
    trained = latest.get("trained_model", WHOLE)
    if trained is None:
        return _enough(model, latest, training_inputs(model, latest))
    situation = Situation(model, latest, trained, now)
    decision = decide(situation)
    if decision.cause:
        return DueTraining(_ALL, decision.reason, situation.inputs, cause=decision.cause)
    due = _judged_and_served(model, latest, trained, health)
    return DueTraining((), decision.reason, wanted=True) if decision.waits and not due.assets else due


def learns_from_new_data(model: Model, lake: Lake) -> str:
    """What a training right after data that are about to be made would be for; empty if something holds it back.

    How many rows will be new is not known yet: where `retrain.min_new_rows` asks for many, that is looked at first.
    """
    latest, retrain = read_latest(lake, model.name), model.spec.retrain
    trained = latest.get("trained_model", WHOLE)
    if trained is None:
        return "first"
    situation = Situation(model, latest, trained, datetime.now(UTC))
    if code(situation).yes:
        return "code"
    free = "data" in retrain.causes and retrain.min_new_rows == 1 and all(each(situation).yes for each in GUARDS)
    return "data" if free else ""


def _judged_and_served(model: Model, latest: Latest, trained: Record, health: dict[str, Any] | None) -> DueTraining:
    """What is due of the newest version's verdict and rollout."""
    judged = latest.get("metrics", WHOLE)
    rival = rival_on_record(latest, trained.details["version"])
    expected = metrics_inputs(model, trained, rival)
    if judged is None or judged.inputs != expected:
        same_gates = judged is not None and judged.inputs == metrics_inputs(
            model, trained, judged.details.get("champion")
        )
        missing = f"compared with the champion, version {rival}" if same_gates else "judged by these gates"
        return DueTraining(_ALL[1:], f"the newest version was not {missing}", expected)
    served = latest.get("endpoint", WHOLE)
    lost = _lost(model, served, health)
    if not judged.details["approved"]:
        reason = f"version {trained.details['version']} was refused: {'; '.join(judged.details['reasons'])}"
        return DueTraining(("endpoint",), lost, digest_of([expected, "down"])) if lost else DueTraining((), reason)
    expected = endpoint_inputs(model, judged)
    if served is None or served.inputs != expected:
        return DueTraining(
            ("endpoint",), f"version {trained.details['version']} is approved and does not serve", expected
        )
    if lost:
        return DueTraining(("endpoint",), lost, digest_of([expected, "down"]))
    if served.details["version"] == trained.details["version"]:
        return DueTraining((), f"version {trained.details['version']} is up to date and serves")
    return DueTraining((), f"version {trained.details['version']} is handed over: {served.details['waits']}")


def _lost(model: Model, served: Record | None, health: dict[str, Any] | None) -> str:
    """What the endpoint server does not serve although it is to; empty if nothing."""
    if model.spec.endpoint.target != "local":
        return ""  # the rollout's own sensor asks other targets
    release = served.details["release"] if served else None
    if health is None or not release or health.get("models", {}).get(model.name, {}).get("release") == release:
        return ""
    return f"the endpoint server does not serve {release}"


def _enough(model: Model, latest: Latest, inputs: str) -> DueTraining:
    """The first training waits until there can be enough labelled rows."""
    days = [day for day, each in latest.of("features").items() if each.rows]
    window, first = model.spec.training.window, ""
    if window and model.daily:
        first = str(date.fromisoformat(days[-1]) - parse_duration(window))
    rows = sum(each.rows for day, each in latest.of("features").items() if day >= first)
    known = min(rows, sum(each.rows for each in latest.of("outcomes").values()))
    if known < model.spec.training.min_rows:
        return DueTraining(
            (), f"{known:,} rows, and training.min_rows is {model.spec.training.min_rows:,}", wanted=True
        )
    return DueTraining(_ALL, "first training", inputs, cause="first")
