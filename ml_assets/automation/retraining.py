"""The sensor `<model>_retraining`: trains, judges and deploys when data, code, parameters or gates changed."""

import contextlib

import dagster as dg

from ml_assets.automation.attempts import must_wait
from ml_assets.automation.due import due_data
from ml_assets.automation.due_training import due_training
from ml_assets.automation.requests import training_requests
from ml_assets.automation.under_way import busy
from ml_assets.errors import SourceError
from ml_assets.ledger import Decision, note
from ml_assets.model import Model
from ml_assets.resources import FeatureStoreResource, LakeResource, ServingResource


def retraining_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_retraining",
        job_name=model.name,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains, judges and deploys when the newest version was made from something else than there is.",
    )
    def retraining(
        context: dg.SensorEvaluationContext,
        lake: LakeResource,
        feature_store: FeatureStoreResource,
        serving: ServingResource,
    ) -> dg.SensorResult:
        if reason := busy(context.instance, model):
            return dg.SensorResult(skip_reason=reason)
        tables = lake.open()
        due = due_training(model, tables, health=serving.target().health() or {})
        if not due.assets:
            note(tables, model.name, Decision("training", "waits" if due.wanted else "nothing to do", due.reason))
            return dg.SensorResult(skip_reason=due.reason)
        if wait := must_wait(context.instance, model, due.digest):
            note(tables, model.name, Decision("training", "waits", f"{due.reason}; {wait}"))
            return dg.SensorResult(skip_reason=wait)
        with contextlib.suppress(SourceError):  # what is there is good enough to learn from
            data = due_data(model, tables, feature_store.online(model), certain=False)
            if any(not must_wait(context.instance, model, each.digest) for each in data.stretches()):
                return dg.SensorResult(skip_reason="data is to be refreshed first")
        note(tables, model.name, Decision("training", "asked for", due.reason, list(due.assets)))
        return dg.SensorResult(run_requests=training_requests(model, due))

    return retraining
