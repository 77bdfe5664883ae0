"""`python -m ml_assets.reproduction FACTS ANSWER`: trains what the facts of a version say. It only reads.

Run by `ml-assets reproduce`, with the recorded files of the model as the only model there is.
"""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from polars.exceptions import PanicException

from ml_assets.assets.facts import parameters_of, row_sets, table_digests
from ml_assets.assets.trained_model import fit, training_rows
from ml_assets.digests import digest_of_frame, digest_of_model
from ml_assets.errors import TrainingError
from ml_assets.lake import Lake
from ml_assets.materialize import model_of
from ml_assets.provenance import environment
from ml_assets.settings import Settings
from ml_assets.spec.training import Estimator


def retrain(settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the recorded tables, files and parameters give now.

    Returns:
        The same keys as the facts, as far as it came; `problems`: what could not be read or trained.
    """
    found: dict[str, Any] = {"environment": environment(), "problems": []}
    model, lake = model_of(settings, facts["model"]), Lake(settings.lake)
    found["code_digest"] = model.code_digest
    for table, version in facts["table_versions"].items():
        if not lake.exists(model.name, table):
            found["problems"].append(f"{table} version {version}: there is no such table in {settings.lake}")
            continue
        try:
            lake.read(model.name, table, version=version)
        except (Exception, PanicException) as error:  # of delta-rs, Polars or the file system
            why = str(error).strip().splitlines()[0]
            found["problems"].append(f"{table} version {version}: it cannot be read any more: {why}")
    if found["problems"]:
        return found
    cut_off = datetime.fromisoformat(facts["cut_off"]) if facts["cut_off"] else None
    found["tables"] = table_digests(model, lake, facts["table_versions"])
    try:
        rows = training_rows(model, lake, facts["table_versions"], cut_off)
        found |= {"rows": row_sets(rows), "data_digest": digest_of_frame(rows.frame)}
        if found["data_digest"] != facts["data_digest"]:
            return found
        estimator = Estimator.model_validate({"class": facts["estimator"], "params": facts["params"]})
        trained = fit(model, rows, estimator, lambda message: None)
    except TrainingError as error:
        found["problems"].append(str(error))
        return found
    return found | {
        "parameters": parameters_of(trained.pipeline),
        "model_digest": digest_of_model(trained.pipeline, trained.threshold),
    }


if __name__ == "__main__":
    answer = retrain(Settings.from_environment(), json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(answer))
