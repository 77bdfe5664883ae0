"""Which runs of a model are under way. A run whose process is gone is failed, so that it holds up nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psutil
from dagster._core.launcher import DefaultRunLauncher

from ml_assets.model import Model

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
LAUNCH_TIME = timedelta(seconds=60)  # within which a launched run must have said which process it is


def busy(instance: dg.DagsterInstance, model: Model) -> str | None:
    """A run of the model that is queued or running, whoever started it; None if there is none.

    Dagster's own launcher on one machine does not notice that a run's process was killed together with the code
    server, or that the machine went down: the run would be under way for ever, and one that is queued behind it too.
    So every run is looked at, and not the newest alone.
    """
    found: str | None = None
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=_UNDER_WAY)):
        run = record.dagster_run
        selected = run.asset_selection or ()
        if run.job_name != model.name and not any(key.path[0] == model.name for key in selected):
            continue
        if run.status is not dg.DagsterRunStatus.QUEUED and (gone := _gone(instance, record)):
            instance.report_run_failed(run, f"ml-assets: {gone}; what it had finished is kept, the rest is due again")
            continue
        found = found or f"run {run.run_id[:8]} is under way"
    return found


def _gone(instance: dg.DagsterInstance, record: dg.RunRecord) -> str | None:
    """What became of the process of a run on this machine; None if it lives, or may be about to."""
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return None  # other launchers look after their runs themselves
    started = _process(instance, record.dagster_run.run_id)
    if started is None:
        since = datetime.now(UTC) - record.update_timestamp.replace(tzinfo=UTC)
        return f"it was to start {since.seconds} s ago and no process took it up" if since > LAUNCH_TIME else None
    pid, at = started
    try:
        # A process that is younger than the event has only inherited the number.
        alive = psutil.Process(pid).create_time() <= at + 1 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        alive = False
    return None if alive else f"its process {pid} is gone"


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Process number that a run last said to be, and when (seconds since 1970)."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        metadata: Any = event.engine_event_data.metadata if event else {}
        if "pid" in metadata:
            return int(metadata["pid"].value), entry.timestamp
    return None
