"""Materialise a model in this process, on the persistent Dagster instance, with short lines of progress."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from ml_assets.assets import data_assets, partitioned_assets
from ml_assets.assets.captured import captured_of
from ml_assets.assets.naming import REASON_TAG
from ml_assets.assets.rolling import BACK_TAG, asked_back
from ml_assets.automation.due import contiguous, due_data
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.automation.due_training import due_training
from ml_assets.automation.jobs import by_hand
from ml_assets.automation.requests import data_requests, feedback_requests, training_requests
from ml_assets.automation.rollout import due_rollout, rollout_requests
from ml_assets.component import TabularModel
from ml_assets.errors import ModelDefinitionError, RunFailedError
from ml_assets.lake import WHOLE, Lake
from ml_assets.ledger import Decision, note
from ml_assets.model import Model
from ml_assets.records import read_latest
from ml_assets.resources import ServingResource
from ml_assets.rollouts import LakeJournal
from ml_assets.serving.online import OnlineStore, open_online
from ml_assets.settings import PROJECT_ROOT, Settings


def prepare_dagster_home(settings: Settings) -> None:
    """Make the instance's folder with its dagster.yaml, and point `DAGSTER_HOME` to it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT_ROOT / "deploy" / settings.env / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)


def models_of(settings: Settings) -> dict[str, Model]:
    """Every model below the models' folder, by name."""
    from ml_assets.definitions import component_tree

    with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):
        found = component_tree(settings.models).get_all_components(of_type=TabularModel)
    return {each.model.name: each.model for each in found}


def model_of(settings: Settings, name: str) -> Model:
    """One model by its name.

    Raises:
        ModelDefinitionError: naming those that there are.
    """
    models = models_of(settings)
    if name not in models:
        raise ModelDefinitionError(f"{settings.models} holds no model {name!r}; it has {', '.join(sorted(models))}")
    return models[name]


def materialize_due(settings: Settings, model: Model, tell: Callable[[str], None]) -> list[str]:
    """Run what is due of a model: its data, then training, judgement and deployment if the data calls for them, else
    the next steps of a rollout.

    At last what became of the endpoint's answers.

    Returns:
        The ids of the runs, none if nothing was due.

    Raises:
        RunFailedError: if a run fails, with its step's message.
    """
    lake = Lake(settings.lake)
    data = due_data(model, lake, _online(settings, model))
    for problem in data.problems.values():
        tell(f"  {problem}")
    runs = _execute(model, data_requests(model, data), tell)
    training = due_training(model, lake)
    if training.assets:
        note(lake, model.name, Decision("training", "asked for", training.reason, list(training.assets)))
    runs += _execute(model, training_requests(model, training), tell)
    if not training.assets:
        runs += _execute(model, rollout_requests(model, lake, due_rollout(model, lake, serving_of(settings))), tell)
    return runs + materialize_feedback(settings, model, tell)


def materialize_feedback(settings: Settings, model: Model, tell: Callable[[str], None]) -> list[str]:
    """Take in what the endpoint logged, and hold it against the outcomes that are known.

    Returns, Raises:
        As `materialize_due`.
    """
    serving = serving_of(settings)
    due = due_feedback(model, Lake(settings.lake), settings.journal, captured=lambda: captured_of(model, serving))
    return _execute(model, feedback_requests(model, due), tell)


def roll_back(settings: Settings, model: Model, to: str, tell: Callable[[str], None]) -> None:
    """Give all traffic back to a release that served before.

    Args:
        to: its name or version, or `PREVIOUS`.

    Raises:
        EndpointError: if there is none.
        RunFailedError: if the run fails, with its step's message.
    """
    states = LakeJournal(Lake(settings.lake), model.name).states()
    release = asked_back(model, to, states)
    request = by_hand(model, ["endpoint"], [], f"{release.name} was asked for by hand")
    _execute(model, [request._replace(tags=dict(request.tags) | {BACK_TAG: release.name})], tell)
    note(Lake(settings.lake), model.name, Decision("rollout", "asked for", request.tags[REASON_TAG], ["endpoint"]))


def replay(settings: Settings, model: Model, tell: Callable[[str], None]) -> tuple[int, int]:
    """Clean anew what was rejected or refused: after the contract, the data or the limits were mended.

    What is due is made first, which is all of it if something did change. What still has rejected or refused rows is
    then made once more from what is there now. Doing it again changes nothing.

    Returns:
        Rejected rows before and after.

    Raises:
        RunFailedError: if a run fails, with its step's message.
    """
    lake = Lake(settings.lake)
    before = _rejected(lake, model)
    _execute(model, data_requests(model, due_data(model, lake, _online(settings, model))), tell)
    latest = read_latest(lake, model.name)
    broken = {name.partition(" ")[2] for name in latest.problems()}
    for asset in data_assets(model):
        broken |= {each for each, record in latest.of(asset).items() if record.details.get("rejected")}
    requests = [by_hand(model, _with_partition(model, days[0]), days, "replay") for days in contiguous(broken)]
    _execute(model, requests, tell)
    return before, _rejected(lake, model)


def serving_of(settings: Settings) -> ServingResource:
    """Where models serve in an environment."""
    online = settings.online_store.get_secret_value()
    return ServingResource(
        home=str(settings.home), releases=str(settings.releases), port=settings.endpoint_port, online=online
    )


def _online(settings: Settings, model: Model) -> OnlineStore:
    return open_online(settings.online_place, model.name)


def _with_partition(model: Model, partition: str) -> list[str]:
    """Data assets that have such a partition: a day, or the only one."""
    partitioned = partitioned_assets(model)
    if model.daily and partition == WHOLE:
        return [each for each in data_assets(model) if each not in partitioned]
    return partitioned


def _rejected(lake: Lake, model: Model) -> int:
    """Rejected rows of everything that arrives: rows, outcomes and side tables."""
    latest = read_latest(lake, model.name)
    return sum(
        record.details.get("rejected", 0) for asset in data_assets(model) for record in latest.of(asset).values()
    )


def _execute(model: Model, requests: list[dg.RunRequest], tell: Callable[[str], None]) -> list[str]:
    from ml_assets.definitions import definitions

    if not requests:
        return []
    runs = []
    with dg.DagsterInstance.get() as instance, _ctrl_c() as pressed:
        loggers = dg.Definitions(loggers={"console": _progress_logger(tell, pressed)})
        defs = dg.Definitions.merge(definitions(), loggers)
        for request in requests:
            job = defs.resolve_job_def(request.job_name or model.name)
            try:
                result = job.execute_in_process(
                    instance=instance,
                    asset_selection=list(request.asset_selection or []),
                    tags=dict(request.tags),
                    raise_on_error=False,
                    run_config={"loggers": {"console": {}}},
                )
            except dg.DagsterExecutionInterruptedError:
                raise KeyboardInterrupt from None
            runs.append(result.run_id)
            if not result.success:
                failed = [each for each in result.all_events if each.is_step_failure]
                if any(_was_interrupted(each.step_failure_data.error) for each in failed):
                    raise KeyboardInterrupt
                causes = "; ".join(_cause(each.step_failure_data.error) for each in failed) or "see the run in the UI"
                raise RunFailedError(f"run {result.run_id} failed: {causes}")
    return runs


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since it was last asked.

    Python swallows what a signal's handler raises when it happens to run within a weak reference's callback or a
    finaliser. The wake-up descriptor is told in any case.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)

        def pressed() -> bool:
            try:
                return signal.SIGINT in reader.recv(4096)
            except BlockingIOError:
                return False

        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield pressed
        finally:
            signal.set_wakeup_fd(before)


def _was_interrupted(error: Any) -> bool:
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _cause(error: Any) -> str:
    """What the step raised, without Dagster's wrapping."""
    if error.cls_name == "DagsterExecutionStepExecutionError" and error.cause is not None:
        error = error.cause
    return str(error.message).strip()


def _progress_logger(tell: Callable[[str], None], pressed: Callable[[], bool]) -> dg.LoggerDefinition:
    """Dagster's events as one line per finished step, and the steps' own messages.

    Args:
        pressed: whether Ctrl-C was pressed; at the next event the run ends, unless it is failing already.
    """

    class Progress(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            event = meta.get("dagster_event")
            if pressed() and record.levelno < logging.ERROR:
                raise dg.DagsterExecutionInterruptedError
            if event is None and record.levelno >= logging.INFO:
                tell(f"    {meta.get('orig_message', record.getMessage())}")
            elif event is not None and event.event_type_value == "STEP_SUCCESS":
                seconds = event.event_specific_data.duration_ms / 1000
                tell(f"  {event.step_key.split('__')[-1]} done in {seconds:.1f} s")

    def make(context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("ml_assets.progress", logging.DEBUG)
        logger.addHandler(Progress())
        return logger

    return dg.LoggerDefinition(make)
