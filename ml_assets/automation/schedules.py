"""The schedules `<model>_daily` and `<model>_feedback_daily`: the safety net, which asks for everything that is due."""

import dagster as dg

from ml_assets.assets import JUDGED
from ml_assets.assets.captured import captured_of
from ml_assets.assets.naming import CAUSE_TAG, key_of
from ml_assets.automation.due import due_data
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.automation.due_training import due_training, learns_from_new_data
from ml_assets.automation.jobs import feedback_job_name
from ml_assets.automation.requests import data_requests, feedback_requests, training_requests
from ml_assets.automation.under_way import busy
from ml_assets.model import Model
from ml_assets.resources import FeatureStoreResource, LakeResource, ServingResource


def daily_schedule(model: Model) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{model.name}_daily",
        job_name=model.name,
        cron_schedule=model.spec.retrain.schedule,
        execution_timezone=model.spec.source.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Everything that is due, whatever the sensors did.",
    )
    def daily(
        context: dg.ScheduleEvaluationContext, lake: LakeResource, feature_store: FeatureStoreResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        if reason := busy(context.instance, model):
            return dg.SkipReason(reason)
        tables = lake.open()
        requests = data_requests(model, due_data(model, tables, feature_store.online(model)))
        if not requests:
            return training_requests(model, due_training(model, tables)) or dg.SkipReason("nothing is due")
        cause = learns_from_new_data(model, tables)
        if not cause:
            return requests
        # The last run goes on to the endpoint, so that this one tick is enough even where the sensors are off.
        last = requests[-1]
        more = [key_of(model, each) for each in JUDGED]
        tags = dict(last.tags) | {CAUSE_TAG: cause}
        return [*requests[:-1], last._replace(asset_selection=[*(last.asset_selection or ()), *more], tags=tags)]

    return daily


def feedback_schedule(model: Model) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{model.name}_feedback_daily",
        job_name=feedback_job_name(model),
        cron_schedule="30 0 * * *",  # a day of requests has just ended
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Predictions and feedback that are due, whatever the sensor did.",
    )
    def daily(
        context: dg.ScheduleEvaluationContext, lake: LakeResource, serving: ServingResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        if reason := busy(context.instance, model):
            return dg.SkipReason(reason)
        due = due_feedback(model, lake.open(), serving.target().journal, captured=lambda: captured_of(model, serving))
        return feedback_requests(model, due) or dg.SkipReason("nothing is due")

    return daily
