"""Which days of `predictions`, `feedback` and `monitoring` are due: what was logged and known, beside the records."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ml_assets.assets import SERVED
from ml_assets.assets.captured import days_of, not_taken_in
from ml_assets.assets.feedback import ASSET as FEEDBACK
from ml_assets.assets.feedback import feedback_bases
from ml_assets.assets.monitoring import monitoring_bases
from ml_assets.assets.predictions import ASSET as PREDICTIONS
from ml_assets.assets.predictions import predictions_basis, sizes_of_days
from ml_assets.automation.due import DueData, Need
from ml_assets.deployment.sagemaker_captured import Captured
from ml_assets.errors import SettingsError, TargetError
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.monitored import ASSET as MONITORING
from ml_assets.records import Problem, State, problem_of, read_latest


def due_feedback(
    model: Model,
    lake: Lake,
    journal: Path,
    *,
    captured: Callable[[], Captured | None] = lambda: None,
    certain: bool = True,
    now: datetime | None = None,
) -> DueData:
    """Compare journal and outcomes with the records.

    Args:
        captured: where SageMaker keeps requests and answers, if it does.
        certain: count what was logged a moment ago too; else only what a server has finished writing, so that one that
            is asked all the time is not a run at every tick.
    """
    latest, now = read_latest(lake, model.name), now or datetime.now(UTC)
    due = DueData(list(SERVED))
    logged = {
        day: predictions_basis(sizes)
        for day, sizes in sizes_of_days(model, latest, journal, certain=certain).items()
        if latest.state(PREDICTIONS, day, predictions_basis(sizes), now) is State.DUE
    }
    for day, basis in logged.items():
        due.needs[day] = Need(frozenset(SERVED), "predictions were logged")
        due.terms[day] = [basis]
    for day, objects in _captured(model, lake, captured, due, certain=certain).items():
        due.needs.setdefault(day, Need(frozenset(SERVED), "data was captured"))
        due.terms.setdefault(day, []).extend(objects)
    first = min(logged, default=None)
    for day, basis in feedback_bases(model, latest, now).items():
        state, held = latest.state(FEEDBACK, day, basis, now), latest.held(FEEDBACK, day)
        if state in (State.REFUSED, State.WAITING) and held is not None:
            due.problems[f"{FEEDBACK} {day}"] = problem_of(held)
        # An id that was predicted for on an earlier day does not count again: later days may change with it.
        later = first is not None and day > first
        if day in due.needs or not (state is State.DUE or later):
            continue
        reason = "outcomes or earlier predictions changed" if latest.get(FEEDBACK, day) else "predictions were logged"
        due.needs[day] = Need(frozenset([FEEDBACK, MONITORING]), reason)
        due.terms[day] = [basis, *([logged[first]] if later and first else [])]
    for day, basis in monitoring_bases(model, lake, latest, now).items():
        if day not in due.needs and latest.state(MONITORING, day, basis, now) is State.DUE:
            reason = (
                "it is over, or what it is judged by changed" if latest.get(MONITORING, day) else "not monitored yet"
            )
            due.needs[day] = Need(frozenset([MONITORING]), reason)
            due.terms[day] = [basis]
    return due


def _captured(
    model: Model, lake: Lake, captured: Callable[[], Captured | None], due: DueData, *, certain: bool
) -> dict[str, list[str]]:
    """By day what SageMaker captured that is not in the log yet."""
    try:
        place = captured()
        return days_of(not_taken_in(model, lake, place, certain=certain)) if place else {}
    except (TargetError, SettingsError) as error:
        due.problems["captured"] = Problem(str(error), "It is asked again at the next tick")
        return {}
