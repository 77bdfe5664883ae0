"""The schedule `<model>_daily`: the safety net. It asks for everything that is due, in one run from data to endpoint."""

import dagster as dg

from ml_assets.assets import DATA, JUDGED
from ml_assets.automation.attempts import busy
from ml_assets.automation.due import due_data, due_training
from ml_assets.automation.jobs import run_request
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.resources import LakeResource


def daily_schedule(model: Model) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{model.name}_daily",
        job_name=model.name,
        cron_schedule=model.spec.retrain.schedule,
        execution_timezone=model.spec.source.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Everything that is due, whatever the sensors did.",
    )
    def daily(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> list[dg.RunRequest] | dg.SkipReason:
        if reason := busy(context.instance, model):
            return dg.SkipReason(reason)
        requests = due_requests(model, lake.open())
        return requests or dg.SkipReason("nothing is due")

    return daily


def due_requests(model: Model, lake: Lake) -> list[dg.RunRequest]:
    """Runs that bring a model up to date: its due stretches of days, the last of them on to the endpoint."""
    data, training = due_data(model, lake), due_training(model, lake)
    stretches = data.stretches()
    if not stretches:
        return [run_request(model, training.assets, None, training.reason, training.digest)] if training.assets else []
    requests = []
    for stretch in stretches:
        assets = [*DATA, *JUDGED] if stretch is stretches[-1] else DATA
        reasons = sorted({data.reasons[each] for each in stretch})
        requests.append(run_request(model, assets, stretch, "; ".join(reasons), data.digest(stretch)))
    return requests
