"""How often the same attempt failed, and whether it may be made again."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from ml_assets.assets.naming import INPUTS_TAG
from ml_assets.automation.jobs import MODEL_TAG
from ml_assets.model import Model
from ml_assets.waits import MOST_ATTEMPTS, wait_after


def that_may_go(
    instance: dg.DagsterInstance, model: Model, requests: Iterable[dg.RunRequest]
) -> tuple[list[dg.RunRequest], list[str]]:
    """Of some run requests those that may be made now, and why the others may not."""
    ready, waiting = [], []
    for request in requests:
        wait = must_wait(instance, model, request.tags[INPUTS_TAG])
        if wait is None:
            ready.append(request)
        else:
            waiting.append(wait)
    return ready, waiting


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
    ready = records[0].update_timestamp.replace(tzinfo=UTC) + wait_after(len(records))
    if (now or datetime.now(UTC)) < ready:
        return f"{last} failed; the next attempt is at {ready:%H:%M:%S} UTC"
    return None
