"""The sensor `<model>_rollout`: looks at a rollout that is under way, and asks for a run when a step is to be taken."""

from dataclasses import dataclass

import dagster as dg

from ml_assets.assets.champion import NOTE
from ml_assets.assets.rolling import matured, plan_of
from ml_assets.automation.attempts import must_wait
from ml_assets.automation.jobs import run_request
from ml_assets.automation.under_way import busy
from ml_assets.deployment.reconcile import next_action
from ml_assets.deployment.rollout import State, Wait
from ml_assets.deployment.targets import Release
from ml_assets.digests import digest_of
from ml_assets.errors import TargetUnavailableError
from ml_assets.lake import WHOLE, Lake
from ml_assets.ledger import Decision, note
from ml_assets.model import Model
from ml_assets.records import Latest, read_latest
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.rollouts import LakeJournal


def rollout_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_rollout",
        job_name=model.name,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Carries a rollout on: the next step, the champion's place, or back.",
    )
    def rollout(context: dg.SensorEvaluationContext, lake: LakeResource, serving: ServingResource) -> dg.SensorResult:
        tables = lake.open()
        due = due_rollout(model, tables, serving)
        if due.digest and (reason := busy(context.instance, model)):
            return dg.SensorResult(skip_reason=reason)
        if due.digest and (wait := must_wait(context.instance, model, due.digest)):
            return dg.SensorResult(skip_reason=wait)
        requests = rollout_requests(model, tables, due)
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else due.reason)

    return rollout


@dataclass(frozen=True)
class DueRollout:
    """Whether a step of a rollout is to be taken, and why; or what it waits for.

    Attributes:
        digest: of the step; empty: there is none to take.
    """

    reason: str
    digest: str = ""


def due_rollout(model: Model, lake: Lake, serving: ServingResource) -> DueRollout:
    """Look at a rollout that is under way; nothing is done."""
    states = LakeJournal(lake, model.name).states()
    if not states or states[-1].phase.over:
        return DueRollout("no rollout is under way")
    latest = read_latest(lake, model.name)
    champion = latest.get(NOTE, WHOLE)
    try:
        action = next_action(
            serving.target_of(model),
            states,
            champion.details["version"] if champion else None,
            _approved(latest, states[-1]),
            plan_of(model),
            matured=matured(model, lake, lambda: states, serving.target().releases / model.name),
        )
    except TargetUnavailableError as error:
        return DueRollout(str(error))
    if isinstance(action, Wait):
        return DueRollout(action.reason)
    digest = digest_of([len(states), type(action).__name__])
    return DueRollout(f"the rollout of {states[-1].challenger.name} goes on", digest)


def rollout_requests(model: Model, lake: Lake, due: DueRollout) -> list[dg.RunRequest]:
    """One run for the steps that are to be taken, or none."""
    if not due.digest:
        return []
    note(lake, model.name, Decision("rollout", "asked for", due.reason, ["endpoint"]))
    return [run_request(model, ["endpoint"], None, due.reason, due.digest)]


def _approved(latest: Latest, state: State) -> Release | None:
    """What the records say is approved; the run that is asked for checks the verdict itself."""
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    if trained is None or judged is None:
        return None
    version = trained.details["version"]
    if judged.details["version"] == version and judged.details["approved"]:
        return Release.named(f"{version}-{judged.details['verdict_digest'][:12]}")
    return state.challenger if state.challenger.version != version else None
