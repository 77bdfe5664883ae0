"""The sensor `alerts` of the code location: what holds now, told to the channels of `ML_ASSETS_ALERTS`."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from ml_assets.alerts.arrived import arrivals
from ml_assets.alerts.channels import send
from ml_assets.alerts.conditions import (
    Condition,
    FailedCheck,
    FailedRun,
    of_arrivals,
    of_checks,
    of_monitoring,
    of_probes,
    of_rollouts,
    of_runs,
    of_verdict,
)
from ml_assets.alerts.failures import failed_checks, failed_runs
from ml_assets.alerts.outbox import Outbox
from ml_assets.errors import AlertError
from ml_assets.lake import Lake
from ml_assets.ledger import decisions
from ml_assets.model import Model
from ml_assets.probes import state_of
from ml_assets.records import read_latest
from ml_assets.resources import LakeResource
from ml_assets.rollouts import LakeJournal
from ml_assets.settings import Settings


@dataclass(frozen=True)
class Seen:
    """What holds, and of which models nobody can say, with the reason."""

    conditions: list[Condition]
    unknown: dict[str, str]


def alerts_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the channels of ML_ASSETS_ALERTS what a person should know, and when it is over.",
    )
    def alerts(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SkipReason:
        settings, tables = Settings.from_environment(), lake.open()
        checks = list(context.repository_def.asset_graph.asset_check_keys) if context.repository_def else []
        outbox = Outbox(tables, settings.ui)
        seen = look(context.instance, tables, models, checks)
        with outbox.alone():
            told = outbox.update(seen.conditions, settings.channels, unknown=seen.unknown)
            to = functools.partial(send, aws_endpoint=settings.s3_endpoint_url)
            failed = outbox.deliver(settings.channels, to)
        if seen.unknown:  # after everything else was told
            raise AlertError("; ".join(f"{model}: {reason}" for model, reason in seen.unknown.items()))
        said = [each.subject for each in told] + [f"not delivered: {reason}" for reason in failed.values()]
        return dg.SkipReason("; ".join(said) or f"{len(outbox.known().open())} alert(s) are open; nothing new")

    return alerts


def look(
    instance: dg.DagsterInstance,
    lake: Lake,
    models: Sequence[Model],
    checks: Sequence[dg.AssetCheckKey],
    now: datetime | None = None,
) -> Seen:
    """What holds now, of all models. One that cannot be looked at keeps nobody from hearing of the others."""
    runs, failing = failed_runs(instance), failed_checks(instance, checks)
    conditions: list[Condition] = []
    unknown: dict[str, str] = {}
    for model in models:
        try:
            conditions += _of(model, lake, runs.get(model.name, []), failing.get(model.name, []), now)
        except Exception as error:
            unknown[model.name] = f"{type(error).__name__}: {error}"
    return Seen(conditions, unknown)


def _of(
    model: Model,
    lake: Lake,
    runs: Sequence[FailedRun],
    checks: Sequence[FailedCheck],
    now: datetime | None,
) -> list[Condition]:
    now = now or datetime.now(UTC)
    name, watched = model.name, model.spec.monitoring
    latest, states = read_latest(lake, name), LakeJournal(lake, name).states()
    serves = any(each.owner for each in states if each.phase.over)
    found = [
        *of_probes(name, state_of(lake, name), watched.probe.severity),
        *of_monitoring(name, latest, watched, now.date()),
        *of_verdict(name, latest, serves=serves),
        *of_rollouts(name, states),
        *of_checks(name, checks),
        *of_arrivals(name, arrivals(lake, name), now),
    ]
    explained = {each.run_id for each in found} | {each.run_id for each in checks if each.severity == "error"}
    if runs:
        explained |= {each.run_id for each in runs if _no_longer_wanted(model, lake, each)}
    return found + of_runs(name, runs, explained)


def _no_longer_wanted(model: Model, lake: Lake, run: FailedRun) -> bool:
    """Whether a failed run was of a training for which there is no reason any more."""
    if not set(run.what) <= {"trained_model", "metrics", "endpoint"}:
        return False
    last = [each for each in decisions(lake, model.name) if each.subject == "training"][-1:]
    return bool(last) and last[0].decision == "nothing to do" and last[0].at > run.at
