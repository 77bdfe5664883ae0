"""Run requests for what is due: data first, because a training is due only by what the data turns out to hold."""

import dagster as dg

from ml_assets.automation.due import DueData
from ml_assets.automation.due_training import DueTraining
from ml_assets.automation.jobs import feedback_request, run_request
from ml_assets.model import Model


def data_requests(model: Model, due: DueData) -> list[dg.RunRequest]:
    """One run per contiguous stretch of due partitions."""
    return [run_request(model, each.assets, each.partitions, each.reason, each.digest) for each in due.stretches()]


def training_requests(model: Model, due: DueTraining) -> list[dg.RunRequest]:
    """One run for what is due of training, judgement and deployment, or none."""
    return [run_request(model, due.assets, None, due.reason, due.digest, due.cause)] if due.assets else []


def feedback_requests(model: Model, due: DueData) -> list[dg.RunRequest]:
    """One run per contiguous stretch of due days of requests."""
    return [feedback_request(model, each.assets, each.partitions, each.reason, each.digest) for each in due.stretches()]
