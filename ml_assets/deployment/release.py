"""Build a release: the immutable folder from which the endpoint server serves one approved model version."""

import json
import shutil
import tempfile
from datetime import date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ml_assets.errors import ReleaseError
from ml_assets.ml import skops_store
from ml_assets.ml.verdict import Verdict
from ml_assets.model import Model
from ml_assets.serving.bundle import FORMAT, GOLDEN, MANIFEST, PIPELINE, Manifest, sha256
from ml_assets.serving.frames import describe
from ml_assets.serving.scorer import Scorer

GOLDEN_ROWS = 20


def build_release(
    model: Model, verdict: Verdict, pipeline: Any, classes: list[Any], rows: pl.DataFrame, releases: Path
) -> Path:
    """Write the release of a model version, or find it already written.

    Args:
        rows: cleaned rows, which become golden rows: their answers are recorded and asked for ever after.

    Returns:
        The release's folder, `<version>-<digest of the verdict>`.

    Raises:
        ReleaseError: if the Pipeline holds types that the server would refuse.
    """
    folder = releases / model.name / f"{verdict.version}-{verdict.digest[:12]}"
    if folder.exists():
        try:
            Scorer.load(folder)
            return folder
        except ReleaseError:
            shutil.rmtree(folder)  # damaged, or built for another version of a library
    content = skops_store.dump(pipeline)
    if refused := skops_store.untrusted_types(content):
        raise ReleaseError(
            f"{model.name} version {verdict.version} cannot be served: it holds {', '.join(refused)}, which is not on "
            "the allow-list; choose another estimator"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        (draft / PIPELINE).write_bytes(content)
        manifest = _manifest(model, verdict, classes, {PIPELINE: sha256(content)})
        golden = rows.select(model.features.inputs).head(GOLDEN_ROWS).to_dicts()
        asked = json.loads(json.dumps(golden, default=_as_text))
        answers = Scorer(manifest, model.features, pipeline).predict(asked)
        (draft / GOLDEN).write_bytes(msgspec.json.encode({"rows": asked, "answers": answers}))
        files = {name: sha256((draft / name).read_bytes()) for name in (PIPELINE, GOLDEN)}
        manifest = _manifest(model, verdict, classes, files)
        (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        Scorer.load(draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _manifest(model: Model, verdict: Verdict, classes: list[Any], files: dict[str, str]) -> Manifest:
    contract = model.contract
    inputs = [
        describe(
            name,
            kind,
            nullable=name not in contract.types or bool(contract.schema.columns[name].nullable),
            needed=name in model.features.inputs,
        )
        for name, kind in model.inputs.items()
    ]
    return Manifest(
        format=FORMAT,
        model=model.name,
        version=verdict.version,
        task=model.spec.task,
        classes=classes,
        inputs=inputs,
        null_values=model.spec.source.null_values,
        features=model.features.to_json(),
        verdict=verdict.to_json(),
        built_with={name: installed_version(name) for name in ("polars", "scikit-learn", "skops")},
        files=files,
    )


def _as_text(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
