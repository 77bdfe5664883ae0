"""The sensor `<model>_arrivals`: a landed, changed or removed batch refreshes exactly the days that it touches."""

import dagster as dg

from ml_assets.automation.attempts import busy, must_wait
from ml_assets.automation.due import due_data
from ml_assets.automation.jobs import INPUTS_TAG
from ml_assets.automation.requests import data_requests
from ml_assets.model import Model
from ml_assets.resources import LakeResource


def arrivals_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_arrivals",
        job_name=model.name,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes the days whose batches, contract or features changed.",
    )
    def arrivals(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        if reason := busy(context.instance, model):
            return dg.SensorResult(skip_reason=reason)
        due = due_data(model, lake.open())
        for problem in due.problems:
            context.log.error(problem)
        requests, waiting = [], []
        for request in data_requests(model, due):
            wait = must_wait(context.instance, model, request.tags[INPUTS_TAG])
            if wait is None:
                requests.append(request)
            else:
                waiting.append(wait)
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SensorResult(skip_reason="; ".join([*waiting, *due.problems]) or "nothing new")

    return arrivals
