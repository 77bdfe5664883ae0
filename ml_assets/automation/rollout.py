"""The sensor `<model>_rollout`: looks at a rollout that is under way, and asks for a run when a step is to be taken."""

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
from ml_assets.lake import WHOLE
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
        states = LakeJournal(tables, model.name).states()
        if not states or states[-1].phase.over:
            return dg.SensorResult(skip_reason="no rollout is under way")
        if reason := busy(context.instance, model):
            return dg.SensorResult(skip_reason=reason)
        latest = read_latest(tables, model.name)
        champion = latest.get(NOTE, WHOLE)
        try:
            action = next_action(
                serving.target_of(model),
                states,
                champion.details["version"] if champion else None,
                _approved(latest, states[-1]),
                plan_of(model),
                matured=matured(model, tables, lambda: states, serving.target().releases / model.name),
            )
        except TargetUnavailableError as error:
            return dg.SensorResult(skip_reason=str(error))
        if isinstance(action, Wait):
            return dg.SensorResult(skip_reason=action.reason)
        digest = digest_of([len(states), type(action).__name__])
        if wait := must_wait(context.instance, model, digest):
            return dg.SensorResult(skip_reason=wait)
        reason = f"the rollout of {states[-1].challenger.name} goes on"
        note(tables, model.name, Decision("rollout", "asked for", reason, ["endpoint"]))
        return dg.SensorResult(run_requests=[run_request(model, ["endpoint"], None, reason, digest)])

    return rollout


def _approved(latest: Latest, state: State) -> Release | None:
    """What the records say is approved; the run that is asked for checks the verdict itself."""
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    if trained is None or judged is None:
        return None
    version = trained.details["version"]
    if judged.details["version"] == version and judged.details["approved"]:
        return Release.named(f"{version}-{judged.details['verdict_digest'][:12]}")
    return state.challenger if state.challenger.version != version else None
