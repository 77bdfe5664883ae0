"""The sensor `<model>_feedback`: what was logged becomes predictions, and beside what came true feedback."""

import dagster as dg

from ml_assets.assets import SERVED
from ml_assets.assets.captured import captured_of
from ml_assets.automation.attempts import that_may_go
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.automation.jobs import feedback_job_name
from ml_assets.automation.reports import unreported
from ml_assets.automation.requests import feedback_requests
from ml_assets.automation.under_way import busy
from ml_assets.ledger import Decision, note
from ml_assets.model import Model
from ml_assets.records import TABLE
from ml_assets.resources import LakeResource, ServingResource


def feedback_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_feedback",
        job_name=feedback_job_name(model),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in what the endpoint logged, and holds predictions against the outcomes that came.",
    )
    def feedback(context: dg.SensorEvaluationContext, lake: LakeResource, serving: ServingResource) -> dg.SensorResult:
        if reason := busy(context.instance, model):
            return dg.SensorResult(skip_reason=reason)
        tables = lake.open()
        due = due_feedback(
            model,
            tables,
            serving.target().journal,
            captured=lambda: captured_of(model, serving),
            certain=False,
        )
        requests, waiting = that_may_go(context.instance, model, feedback_requests(model, due))
        if requests:
            reason = "; ".join(sorted({need.reason for need in due.needs.values()}))
            note(tables, model.name, Decision("feedback", "asked for", reason, list(SERVED), len(due.needs)))
        # The cursor only saves work: without it Dagster is told once more of days that it does not know.
        records = str(tables.version(model.name, TABLE))
        events = unreported(context.instance, model, tables, SERVED) if context.cursor != records else []
        skip = None if requests else "; ".join([*waiting, *map(str, due.problems.values())]) or "nothing new"
        return dg.SensorResult(run_requests=requests, skip_reason=skip, cursor=records, asset_events=events)

    return feedback
