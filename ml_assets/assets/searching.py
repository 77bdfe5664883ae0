"""A search as the record, MLflow and the UI keep it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ml_assets.ml.search import Found, Trial


def summary(found: Found) -> dict[str, Any]:
    """What is recorded: how many trials were made, what ended them, and which was chosen."""
    return {
        "trials": len(found.trials),
        "failed": found.failed,
        "stopped_by": found.stopped_by,
        "best": {"trial": found.best.number, "params": found.best.params, "value": found.best.value},
    }


def metadata(found: Found) -> Mapping[str, dg.MetadataValue]:
    """What the UI shows: the numbers of `summary`, and a table of all trials."""
    names = list(found.best.params)
    columns = [
        dg.TableColumn("trial", "int"),
        dg.TableColumn("score", "string", description="Mean of the folds' scores"),
        *(dg.TableColumn(name, "string") for name in names),
        dg.TableColumn("seconds", "float"),
        dg.TableColumn("came_of_it", "string"),
    ]
    return {
        "search_trials": dg.MetadataValue.int(len(found.trials)),
        "search_failed_trials": dg.MetadataValue.int(found.failed),
        "search_stopped_by": dg.MetadataValue.text(found.stopped_by),
        "search_best_trial": dg.MetadataValue.int(found.best.number + 1),
        "search_best_parameters": dg.MetadataValue.json(found.best.params),
        "search_table": dg.MetadataValue.table(
            [_row(trial, found.best) for trial in found.trials], schema=dg.TableSchema(columns)
        ),
    }


def _row(trial: Trial, best: Trial) -> dg.TableRecord:
    if trial.value is None:
        came = f"failed: {trial.result.error}"
    else:
        came = "chosen" if trial is best else "known already" if trial.known else "finished"
    return dg.TableRecord(
        {
            "trial": trial.number + 1,
            "score": "" if trial.value is None else f"{trial.value:.6f}",
            **{name: str(value) for name, value in trial.params.items()},
            "seconds": round(trial.result.seconds, 3),
            "came_of_it": came,
        }
    )
