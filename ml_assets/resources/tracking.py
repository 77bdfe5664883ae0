"""Experiment tracking through dagster-mlflow, which is imported when a training begins: it costs seconds."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from ml_assets.registry import Registry
from ml_assets.trial_runs import TrialRuns


class TrackingResource(dg.ConfigurableResource):
    """MLflow: one experiment per model, one MLflow run per training materialisation.

    Attributes:
        uri: tracking and registry store.
        artifacts: folder of the artefacts.
        ui: address of MLflow's UI, for links.
    """

    uri: str
    artifacts: str
    ui: str

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, experiment: str) -> Iterator[Any]:
        """An MLflow run that belongs to the Dagster run; it ends FINISHED, or FAILED if the block raises.

        Yields:
            `dagster_mlflow`'s resource, which has MLflow's functions, `mlflow_run_id` and `experiment`.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        Path(self.artifacts).mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):
            from dagster_mlflow.resources import MlFlow

        client = self.registry().client
        found = client.get_experiment_by_name(experiment)
        if found is None:
            client.create_experiment(experiment, artifact_location=(Path(self.artifacts) / experiment).as_uri())
        else:
            self._fail_abandoned(found.experiment_id)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # What MlFlow reads of the context of a Dagster resource.
        initial = SimpleNamespace(
            log=context.log,
            dagster_run=context.run,
            run_id=context.run_id,
            resource_config={
                "experiment_name": experiment,
                "mlflow_tracking_uri": self.uri,
                "env": {},
                "extra_tags": {"ml_assets.model": experiment},
            },
        )
        with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):
            mlflow = MlFlow(initial)
        if mlflow.mlflow_run_id is None:
            mlflow.mlflow_run_id = mlflow.active_run().info.run_id
        status = "FAILED"
        try:
            yield mlflow
            status = "FINISHED"
        finally:
            # The package's own hook ends a run only after the last step of a job, and leaves others RUNNING.
            mlflow.end_run(status)

    def trials(self, mlflow: Any, metric: str) -> TrialRuns:
        """Runs of a search's trials below the run that `run` yielded."""
        return TrialRuns(self.registry().client, mlflow.experiment.experiment_id, mlflow.mlflow_run_id, metric)

    def registry(self) -> Registry:
        return Registry(self.uri)

    def link(self, experiment_id: str, run_id: str) -> str:
        """Address of a run in MLflow's UI."""
        return f"{self.ui}/#/experiments/{experiment_id}/runs/{run_id}"

    def _fail_abandoned(self, experiment_id: str) -> None:
        """Runs that a killed process left RUNNING did fail. A model is trained by one run at a time."""
        client = self.registry().client
        for abandoned in client.search_runs([experiment_id], filter_string="attributes.status = 'RUNNING'"):
            client.set_terminated(abandoned.info.run_id, "FAILED")
