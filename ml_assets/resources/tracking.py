"""Experiment tracking through dagster-mlflow, which is imported when a training begins: it costs seconds."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
from pydantic import Field

from ml_assets.records import Record
from ml_assets.registry import Registry
from ml_assets.trial_runs import TrialRuns

INPUTS_TAG = "ml_assets.inputs"
ATTEMPT_TAG, ATTEMPTS_TAG = "ml_assets.attempt", "ml_assets.dagster_runs"
_MOST_NAMED = 20  # Dagster runs in a tag


class TrackingResource(dg.ConfigurableResource):
    """MLflow: one experiment per model, one MLflow run per training, however many attempts that takes.

    Attributes:
        uri: tracking and registry store: a database, or an MLflow server. It may hold a password.
        artifacts: where new experiments keep their artefacts, a folder or s3://; empty: the server decides.
        ui: address of MLflow's UI, for links.
        s3_endpoint_url: S3-compatible server of artefacts; empty for AWS.
    """

    uri: str = Field(repr=False)
    artifacts: str
    ui: str
    s3_endpoint_url: str = ""

    @contextmanager
    def run(
        self,
        context: dg.AssetExecutionContext,
        experiment: str,
        inputs: str,
        recorded: Callable[[], Record | None],
    ) -> Iterator[Any]:
        """The MLflow run of a training. To be used where nobody else trains the same model.

        Attempts at the same thing that follow each other, until one succeeds, are one MLflow run: a step that is
        retried, a Dagster run that is executed again, a new Dagster run after a kill. The record in the lake decides
        how it ends: FINISHED if it names this run, else FAILED, and then no version of it is left.

        Args:
            inputs: digest of what the training depends on.
            recorded: the newest record of a finished training.

        Yields:
            `dagster_mlflow`'s resource, which has MLflow's functions, `mlflow_run_id` and `experiment`.

        Raises:
            TrackingError: if MLflow does not answer.
        """
        registry = self.registry()
        client = registry.reach()
        experiment_id = self._experiment(client, experiment, context.log)
        _close(registry, experiment, experiment_id, recorded())
        run_id, tags = _attempt(client, experiment, experiment_id, inputs, context)
        with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):
            from dagster_mlflow.resources import MlFlow

            # What MlFlow reads of the context of a Dagster resource.
            mlflow = MlFlow(
                SimpleNamespace(
                    log=context.log,
                    dagster_run=context.run,
                    run_id=context.run.run_id,
                    resource_config={
                        "experiment_name": experiment,
                        "mlflow_tracking_uri": registry.address,
                        "mlflow_run_id": run_id,
                        "env": {},
                        "extra_tags": tags,
                    },
                )
            )
        try:
            yield mlflow
        except BaseException:
            # What went wrong with the training is to be seen, not what goes wrong now.
            with _told(context.log):
                _end(mlflow, registry, experiment, experiment_id, recorded())
            raise
        _end(mlflow, registry, experiment, experiment_id, recorded())

    def finish(self, model: str, trained: Record) -> Registry:
        """The registry, where a training that has its record is finished, also if its process was killed right then.

        Raises:
            TrackingError: if MLflow does not answer.
        """
        registry = self.registry()
        client = registry.reach()
        if client.get_run(trained.details["mlflow_run_id"]).info.status != "FINISHED":
            client.set_terminated(trained.details["mlflow_run_id"], "FINISHED")
        registry.accept(model, trained.details["version"])
        return registry

    def trials(self, mlflow: Any, metric: str) -> TrialRuns:
        """Runs of a search's trials below the run that `run` yielded."""
        return TrialRuns(self.registry().client, mlflow.experiment.experiment_id, mlflow.mlflow_run_id, metric)

    def registry(self) -> Registry:
        return Registry(self.uri, self.s3_endpoint_url or None)

    def link(self, experiment_id: str, run_id: str) -> str:
        """Address of a run in MLflow's UI."""
        return f"{self.ui}/#/experiments/{experiment_id}/runs/{run_id}"

    def _experiment(self, client: Any, name: str, log: Any) -> str:
        """The id of the experiment, which is made if there is none."""
        place = f"{self.artifacts}/{name}" if self.artifacts else None
        if place and "://" not in place:
            Path(place).mkdir(parents=True, exist_ok=True)
            place = Path(place).resolve().as_uri()
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=place))
        if place and found.artifact_location.rstrip("/") != place:
            log.warning(
                f"MLflow keeps the artefacts of {name} in {found.artifact_location}, where they were when the "
                f"experiment began, and not in {place}"
            )
        return str(found.experiment_id)


def _attempt(
    client: Any, model: str, experiment_id: str, inputs: str, context: dg.AssetExecutionContext
) -> tuple[str, dict[str, str]]:
    """The MLflow run of this attempt, which is that of the last one if it was at the same thing, and its tags.

    Its tags are there from its first moment on, so that an attempt that is killed at once can be found again.
    """
    trainings = client.search_runs(
        [experiment_id], f"tags.`{INPUTS_TAG}` LIKE '%'", order_by=["attributes.start_time DESC"], max_results=1
    )
    last = trainings[0] if trainings else None
    again = last is not None and last.data.tags[INPUTS_TAG] == inputs and last.info.status != "FINISHED"
    before = last.data.tags if last is not None and again else {}
    named = [each for each in before.get(ATTEMPTS_TAG, "").split() if each != context.run.run_id]
    tags = {
        "ml_assets.model": model,
        INPUTS_TAG: inputs,
        ATTEMPT_TAG: str(int(before.get(ATTEMPT_TAG, 0)) + 1),
        ATTEMPTS_TAG: " ".join([*named, context.run.run_id][-_MOST_NAMED:]),
        "dagster_root_run_id": context.run.root_run_id or context.run.run_id,
    }
    if last is not None and again:
        context.log.info(f"attempt {tags[ATTEMPT_TAG]} at this training; it goes on in MLflow run {last.info.run_id}")
        return last.info.run_id, tags
    made = client.create_run(
        experiment_id, tags=tags | {"dagster_run_id": context.run.run_id}, run_name=context.run.job_name
    )
    return made.info.run_id, tags


def _end(mlflow: Any, registry: Registry, model: str, experiment_id: str, recorded: Record | None) -> None:
    # The package's own hook ends a run only after the last step of a job, and leaves others RUNNING.
    mine = recorded is not None and recorded.details["mlflow_run_id"] == mlflow.mlflow_run_id
    mlflow.end_run("FINISHED" if mine else "FAILED")
    _close(registry, model, experiment_id, recorded)


def _close(registry: Registry, model: str, experiment_id: str, recorded: Record | None) -> None:
    """Give what attempts left behind, killed ones too, the end that the newest record says it has."""
    client = registry.client
    finished = None if recorded is None else recorded.details["mlflow_run_id"]
    for left in client.search_runs([experiment_id], filter_string="attributes.status = 'RUNNING'"):
        client.set_terminated(left.info.run_id, "FINISHED" if left.info.run_id == finished else "FAILED")
    registry.settle(model, experiment_id, None if recorded is None else recorded.details["version"])


@contextmanager
def _told(log: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning(f"MLflow could not be told that the training failed; the next one will: {error}")
