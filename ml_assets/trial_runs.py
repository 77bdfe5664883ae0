"""What MLflow keeps of a search: a run for each trial, below the run of the training."""

from typing import Any

from ml_assets.ml.search import Params, Trial

PARENT, NUMBER = "mlflow.parentRunId", "ml_assets.trial"


class TrialRuns:
    """Trials as nested runs. One that breaks off, or cannot be fitted, ends as FAILED.

    Args:
        client: an MlflowClient.
        parent: run of the training.
        metric: name of the score, as in the run of the training.
    """

    def __init__(self, client: Any, experiment: str, parent: str, metric: str) -> None:
        self._client, self._experiment, self._parent, self._metric = client, experiment, parent, metric
        self._running: dict[int, str] = {}
        self._there: set[int] = set()
        for run in client.search_runs([experiment], filter_string=f"tags.`{PARENT}` = '{parent}'", max_results=5000):
            if run.info.status == "RUNNING":  # of an attempt of this training that was killed
                client.set_terminated(run.info.run_id, "FAILED")
            elif run.info.status == "FINISHED":
                self._there.add(int(run.data.tags[NUMBER]))

    def begin(self, number: int, params: Params) -> None:
        if number in self._there:
            return
        tags = {PARENT: self._parent, NUMBER: str(number)}
        run = self._client.create_run(self._experiment, run_name=f"trial {number + 1}", tags=tags)
        self._running[number] = run.info.run_id
        for name, value in params.items():
            self._client.log_param(run.info.run_id, name, value)

    def end(self, trial: Trial) -> None:
        run = self._running.pop(trial.number, None)
        if run is None:
            return
        for fold, score in enumerate(trial.result.scores, start=1):
            self._client.log_metric(run, f"{self._metric}_fold_{fold}", score)
        if trial.value is not None:
            self._client.log_metric(run, self._metric, trial.value)
        self._client.set_tag(run, "ml_assets.known", str(trial.known).lower())
        if trial.result.error:
            self._client.set_tag(run, "ml_assets.error", trial.result.error[:5000])
        self._client.set_terminated(run, "FINISHED" if trial.value is not None else "FAILED")

    def give_up(self) -> None:
        for run in self._running.values():
            self._client.set_terminated(run, "FAILED")
        self._running.clear()
