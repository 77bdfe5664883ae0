"""Which runs of a model are under way, and how often the same attempt failed."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_assets.automation.jobs import INPUTS_TAG, MODEL_TAG
from ml_assets.model import Model

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
MOST_ATTEMPTS = 5
FIRST_WAIT = timedelta(seconds=30)  # doubled after each failed attempt


def busy(instance: dg.DagsterInstance, model: Model) -> str | None:
    """A run of the model that is queued or running, whoever started it; None if there is none."""
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNDER_WAY)):
        selected = run.asset_selection or ()
        if run.job_name == model.name or any(key.path[0] == model.name for key in selected):
            return f"run {run.run_id[:8]} is under way"
    return None


def must_wait(instance: dg.DagsterInstance, model: Model, digest: str, now: datetime | None = None) -> str | None:
    """Why an attempt at the same thing is not to be made again now; None if it may be.

    A failed attempt is repeated with growing waits, at most `MOST_ATTEMPTS` times in all; then only a change of data,
    code or settings, or a person, brings the next one.
    """
    tags = {MODEL_TAG: model.name, INPUTS_TAG: digest[:40]}
    records = instance.get_run_records(
        filters=dg.RunsFilter(tags=tags, statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]),
        limit=MOST_ATTEMPTS,
    )
    if not records:
        return None
    last = f"run {records[0].dagster_run.run_id[:8]}"
    if len(records) >= MOST_ATTEMPTS:
        return (
            f"{len(records)} attempts at this failed, the last of them {last}; mend its cause, or materialise by hand"
        )
    ready = records[0].update_timestamp.replace(tzinfo=UTC) + FIRST_WAIT * 2 ** (len(records) - 1)
    if (now or datetime.now(UTC)) < ready:
        return f"{last} failed; the next attempt is at {ready:%H:%M:%S} UTC"
    return None
