"""What refreshes and watches a model without anybody asking: sensors, and schedules as a safety net."""

import dagster as dg

from ml_assets.automation.arrivals import arrivals_sensor
from ml_assets.automation.feedback import feedback_sensor
from ml_assets.automation.jobs import feedback_job, model_job
from ml_assets.automation.probe import probe_sensor
from ml_assets.automation.retraining import retraining_sensor
from ml_assets.automation.rollout import rollout_sensor
from ml_assets.automation.schedules import daily_schedule, feedback_schedule
from ml_assets.model import Model


def build_automation(model: Model) -> dg.Definitions:
    """Jobs, sensors and schedules of one model."""
    return dg.Definitions(
        jobs=[model_job(model), feedback_job(model)],
        sensors=[
            arrivals_sensor(model),
            retraining_sensor(model),
            rollout_sensor(model),
            feedback_sensor(model),
            probe_sensor(model),
        ],
        schedules=[daily_schedule(model), feedback_schedule(model)],
    )
