"""What `trained_model` writes down of a training, so that `ml-assets reproduce` can do it again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_assets.digests import digest_of_frame
from ml_assets.lake import Lake
from ml_assets.ml.feedback import FIRST
from ml_assets.ml.training import KNOWN_AT
from ml_assets.model import Model
from ml_assets.provenance import CODE, FACTS, FORM, code_of, environment, files_of, tags_of

if TYPE_CHECKING:
    from ml_assets.assets.trained_model import TrainingRows

SIDES = ("train", "validation", "test", "gap")


def facts_of(
    model: Model, lake: Lake, rows: "TrainingRows", pipeline: Any, details: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a model came from, JSON-like.

    Args:
        pipeline: what was fitted.
        details: what the record of the training says.
    """
    stated = model.spec.model_dump(mode="json", include={"task", "split", "threshold", "training", "feedback"})
    said = ("data_digest", "code_digest", "table_versions", "cut_off", "counts", "estimator", "params")
    return {
        "form": FORM,
        "model": model.name,
        "model_digest": details["model_digest"],
        **{name: details[name] for name in said},
        "tables": table_digests(model, lake, details["table_versions"]),
        "rows": row_sets(rows),
        "parameters": parameters_of(pipeline),
        "spec": stated,
        "features": model.features.names,
        "environment": environment(),
        "code": code_of(model.folder),
    }


def parameters_of(pipeline: Any) -> dict[str, Any]:
    """Every parameter of a Pipeline and its parts, defaults included, which may change with scikit-learn's version."""
    found = pipeline.get_params(deep=True)
    plain = bool | int | float | str | None
    return {
        name: value
        for name, value in sorted(found.items())
        if isinstance(value, plain) and not name.endswith("n_jobs")  # as many as there are cores, while it is fitted
    }


def table_digests(model: Model, lake: Lake, versions: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Rows and content of each table at its version, in the order of its key."""
    order = {
        "features": model.contract.key,
        "outcomes": [*model.outcome_key, KNOWN_AT],
        "predictions": [*FIRST, "segment"],
    }
    found = {}
    for table, version in versions.items():
        frame = lake.read(model.name, table, version=version)
        found[table] = {"rows": frame.height, "digest": digest_of_frame(frame.sort(order[table], maintain_order=True))}
    return found


def row_sets(rows: "TrainingRows") -> dict[str, dict[str, Any]]:
    """Rows and content of each side of the split."""
    sides = {name: rows.frame[getattr(rows.sides, name)] for name in SIDES}
    return {name: {"rows": frame.height, "digest": digest_of_frame(frame)} for name, frame in sides.items()}


def log_facts(mlflow: Any, lake: Lake, model: Model, facts: Mapping[str, Any]) -> None:
    """Add the facts to the active MLflow run: as an artefact, as tags to search by, and as the data that it used."""
    mlflow.log_dict(facts, FACTS)
    for name, content in files_of(model.folder).items():
        mlflow.log_text(content.decode(), f"{CODE}/{name}")
    digests = {name: facts[name] for name in ("model_digest", "data_digest", "code_digest")}
    versions = {f"table_version.{table}": version for table, version in facts["table_versions"].items()}
    mlflow.set_tags(digests | versions | tags_of(facts["environment"], facts["code"]))
    _log_inputs(mlflow, lake, model, facts)


def _log_inputs(mlflow: Any, lake: Lake, model: Model, facts: Mapping[str, Any]) -> None:
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    for table, version in facts["table_versions"].items():
        source = DeltaDatasetSource(path=str(lake.path(model.name, table)), delta_table_version=version)
        digest = facts["tables"][table]["digest"][:32]  # MLflow takes 36 characters
        mlflow.log_input(MetaDataset(source, name=f"{model.name}/{table}", digest=digest), context="training")
