"""Whether a training, its verdict or its rollout is due, by the records alone; and what holds it back."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_assets.assets.champion import rival_on_record
from ml_assets.assets.endpoint import endpoint_inputs
from ml_assets.assets.metrics import metrics_inputs
from ml_assets.assets.trained_model import training_inputs
from ml_assets.deployment.rollout import Phase
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
        wanted: whether something did change and a guard holds it back.
    """

    assets: tuple[str, ...]
    reason: str
    digest: str = ""
    wanted: bool = False


def due_training(
    model: Model, lake: Lake, now: datetime | None = None, health: dict[str, Any] | None = None
) -> DueTraining:
    """Compare features, outcomes, code, parameters and gates with what the newest version records.

    Args:
        health: what the endpoint server says of itself, `{}` if it does not answer; None leaves that out.
    """
    latest = read_latest(lake, model.name)
    if not any(record.rows for record in latest.of("features").values()):
        return DueTraining((), "no features yet")
    if half_done := [f"{asset} {day}" for asset in ("features", "outcomes") for day in latest.unfinished(asset)]:
        return DueTraining((), f"{', '.join(half_done[:5])} is being finished after a run was killed")
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    inputs = training_inputs(model, latest)
    if trained is None:
        return _enough(model, latest, inputs)
    if trained.inputs != inputs or trained.details["code_digest"] != model.code_digest:
        return _worth_it(model, latest, trained, inputs, now or datetime.now(UTC))
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
    known = min(sum(each.rows for each in latest.of(asset).values()) for asset in ("features", "outcomes"))
    if known < model.spec.training.min_rows:
        return DueTraining(
            (), f"{known:,} rows, and training.min_rows is {model.spec.training.min_rows:,}", wanted=True
        )
    return DueTraining(_ALL, "first training", inputs)


def _worth_it(model: Model, latest: Latest, trained: Record, inputs: str, now: datetime) -> DueTraining:
    """Changed code or parameters always train; changed data only if it is enough, and not too soon."""
    if trained.details["code_digest"] != model.code_digest:
        return DueTraining(_ALL, "code or parameters changed", inputs)
    rows = 0
    for asset in ("features", "outcomes"):
        before = trained.details["contents"][asset]
        changed = 0
        for day, each in latest.of(asset).items():
            content, count = before.get(day, (None, 0))
            changed += max(each.rows, count) if each.content != content else 0
        rows = max(rows, changed)
    retrain = model.spec.retrain
    if rows < retrain.min_new_rows:
        return DueTraining(
            (),
            f"{rows:,} rows in new or changed days; retrain.min_new_rows is {retrain.min_new_rows:,}",
            wanted=rows > 0,
        )
    if under_way := _rolled_out(latest):
        return DueTraining((), under_way, wanted=True)
    ready = trained.recorded_at + parse_duration(retrain.cooldown)
    if now < ready:
        return DueTraining(
            (),
            f"the last training was at {trained.recorded_at:%Y-%m-%d %H:%M} UTC; "
            f"retrain.cooldown is {retrain.cooldown}",
            wanted=True,
        )
    return DueTraining(_ALL, f"{rows:,} rows in new or changed days", inputs)


def _rolled_out(latest: Latest) -> str:
    """What is being rolled out; empty if nothing is. New data wait for it, or versions that supersede each other day by
    day would never take the champion's place. It takes `endpoint.limit` at most.
    """
    served = latest.get("endpoint", WHOLE)
    if served is None or served.details["phase"] is None or Phase(served.details["phase"]).over:
        return ""
    return f"{served.details['challenger'] or 'a release'} is being rolled out; new data wait until that is decided"
