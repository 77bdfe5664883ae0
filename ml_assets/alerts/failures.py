"""What Dagster's instance says of runs and checks that failed, and that nothing made good since."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from ml_assets import errors
from ml_assets.alerts.conditions import FailedCheck, FailedRun
from ml_assets.spec.operating import Severity

MOST_RUNS = 100  # that are looked back on, of all models
_EVENTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
}


@dataclass(frozen=True)
class _Failure:
    """What is known of a failed run, which never changes."""

    left: tuple[dg.AssetKey, ...]
    reason: str


def failed_runs(instance: dg.DagsterInstance) -> dict[str, list[FailedRun]]:
    """The latest failed run of each set of assets that it was to make, for each model, unless they were made since, or
    a later run that was to make them succeeded.
    """
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    records = instance.get_run_records(filters, limit=MOST_RUNS, order_by="update_timestamp")
    found: dict[str, list[FailedRun]] = {}
    seen: set[tuple[dg.AssetKey, ...]] = set()
    successes: list[dg.RunRecord] | None = None
    for record in records:
        run_id, at = record.dagster_run.run_id, _ended(record)
        failure = _failure(instance, run_id)
        if not failure.left or failure.left in seen:
            continue
        seen.add(failure.left)
        if _made_since(instance, failure.left, at):
            continue
        if successes is None:
            only = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
            successes = list(instance.get_run_records(only, limit=MOST_RUNS, order_by="update_timestamp"))
        job = record.dagster_run.job_name
        if any(_ended(each) > at and _covers(each.dagster_run, job, failure.left) for each in successes):
            continue
        what = [key.path[-1] for key in failure.left]
        found.setdefault(failure.left[0].path[0], []).append(FailedRun(run_id, at, what, failure.reason))
    return found


def _ended(record: dg.RunRecord) -> datetime:
    return (
        datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp.replace(tzinfo=UTC)
    )


def _failure(instance: dg.DagsterInstance, run_id: str) -> _Failure:
    return _known_failure(_ById(instance, run_id))


@dataclass(frozen=True)
class _ById:
    """A run, by its id: of two instances no run has the same."""

    instance: dg.DagsterInstance
    run_id: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.run_id == other.run_id

    def __hash__(self) -> int:
        return hash(self.run_id)


@lru_cache(maxsize=1000)
def _known_failure(run: _ById) -> _Failure:
    steps: dict[str, set[dg.AssetKey]] = {}
    succeeded: set[str] = set()
    reason = ""
    for entry in run.instance.all_logs(run.run_id, of_type=_EVENTS):
        event = entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            succeeded.add(event.step_key)
        elif event.event_type is dg.DagsterEventType.STEP_FAILURE:
            reason = reason or _reason(event.step_failure_data.error)
        elif event.asset_key is not None:
            steps.setdefault(event.step_key, set()).add(event.asset_key)
    left = {key for step, keys in steps.items() if step not in succeeded for key in keys}
    return _Failure(tuple(sorted(left, key=lambda key: tuple(key.path))), reason)


def _reason(error: Any) -> str:
    """What a step raised: the words of our own errors, which hold no secret; of others only the kind."""
    while error is not None and error.cls_name == "DagsterExecutionStepExecutionError" and error.cause is not None:
        error = error.cause
    if error is None:
        return ""
    kind = error.cls_name or "an error"
    ours = isinstance(getattr(errors, kind, None), type) or kind == "Failure"
    words = " ".join(str(error.message).split()).removeprefix(f"ml_assets.errors.{kind}: ")
    return words[:500] if ours else kind


def _made_since(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], at: datetime) -> bool:
    entries = {each.asset_entry.asset_key: each.asset_entry for each in instance.get_asset_records(list(keys))}
    made = [entries[key].last_materialization_record for key in keys if key in entries]
    return len(made) == len(keys) and all(each is not None and each.timestamp > at.timestamp() for each in made)


def _covers(run: dg.DagsterRun, job: str, keys: Iterable[dg.AssetKey]) -> bool:
    selected = run.asset_selection
    return selected >= set(keys) if selected else run.job_name == job


def failed_checks(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Mapping[str, list[FailedCheck]]:
    """The checks whose latest evaluation failed, for each model."""
    found: dict[str, list[FailedCheck]] = {}
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys)).items():
        event = record.event.dagster_event if record.event else None
        if record.status is not Status.FAILED or event is None:
            continue
        evaluation = event.asset_check_evaluation_data
        severity: Severity = "error" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "warn"
        at = datetime.fromtimestamp(record.create_timestamp, UTC)
        name = f"{key.asset_key.path[-1]}:{key.name}"
        said = {each: _told(value) for each, value in evaluation.metadata.items()}
        check = FailedCheck(name, severity, at, record.run_id, {each: text for each, text in said.items() if text})
        found.setdefault(key.asset_key.path[0], []).append(check)
    return found


def _told(value: dg.MetadataValue[Any]) -> str:
    """Metadata in a few words; empty for what is to be looked at."""
    if isinstance(value, dg.TableMetadataValue):
        rows = [" ".join(str(each) for each in row.data.values()) for row in value.records[:3]]
        more = f" and {len(value.records) - 3} more" if len(value.records) > 3 else ""
        return " | ".join(rows)[:600] + more
    if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue | dg.TextMetadataValue | dg.BoolMetadataValue):
        return str(value.value)[:200]
    return ""
