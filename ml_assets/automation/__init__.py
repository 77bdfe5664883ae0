"""What refreshes a model without anybody asking: the sensors `arrivals` and `retraining`, and a daily schedule."""

import dagster as dg

from ml_assets.automation.arrivals import arrivals_sensor
from ml_assets.automation.jobs import model_job
from ml_assets.automation.retraining import retraining_sensor
from ml_assets.automation.schedules import daily_schedule
from ml_assets.model import Model


def build_automation(model: Model) -> dg.Definitions:
    """Job, sensors and schedule of one model."""
    return dg.Definitions(
        jobs=[model_job(model)],
        sensors=[arrivals_sensor(model), retraining_sensor(model)],
        schedules=[daily_schedule(model)],
    )
