"""Build a release: the immutable folder from which the endpoint server serves one approved model version."""

import json
import shutil
import tempfile
from dataclasses import asdict
from datetime import date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ml_assets.deployment.archive import pack
from ml_assets.deployment.choose import Choice, choose_scorer
from ml_assets.deployment.reference import reference_of
from ml_assets.errors import ReleaseError
from ml_assets.ml.joins import Join
from ml_assets.ml.purity import Possible
from ml_assets.ml.verdict import Verdict
from ml_assets.model import Model
from ml_assets.serving.bundle import FORMAT, GOLDEN, REFERENCE, SCHEMA, Bounds, Manifest, View, write_manifest
from ml_assets.serving.frames import describe
from ml_assets.serving.schema import SCHEMA_DIALECT, row_schema
from ml_assets.serving.scorer import Scorer

GOLDEN_ROWS = 20


def build_release(
    model: Model,
    verdict: Verdict,
    pipeline: Any,
    classes: list[Any],
    threshold: float | None,
    rows: pl.DataFrame,
    releases: Path,
    learnt_from: pl.DataFrame,
    held_out: pl.DataFrame,
    days: tuple[np.ndarray, np.ndarray] | None = None,
) -> Path:
    """Write the release of a model version, or find it already written.

    Args:
        rows: cleaned rows with all columns that features read, which become golden rows: their answers are recorded
            and asked for ever after, with what was looked up for them.
        learnt_from: features of the rows that the model was trained on, whose distributions go with the release.
        held_out: features of rows that the model was not trained on, on which its graph has to answer like it too.
        days: the date of each row of both, datetime64[D]; None: they have none.

    Returns:
        The release's folder, `<version>-<digest of the verdict>`.

    Raises:
        ReleaseError: if the Pipeline holds types that the server would refuse, or a graph made of it answers
            otherwise, naming row and feature.
    """
    folder = releases / model.name / f"{verdict.version}-{verdict.digest[:12]}"
    if folder.exists():
        try:
            Scorer.load(folder)
            pack(folder)
            return folder
        except ReleaseError:
            shutil.rmtree(folder)  # damaged, or built for another version of a library
    some = rows.head(GOLDEN_ROWS)
    known = {"golden": model.features.compute(some), "held-out": held_out}
    choice = choose_scorer(pipeline, model.spec.task, threshold, known, f"{model.name} version {verdict.version}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        (draft / choice.file).write_bytes(choice.content)
        manifest = _manifest(model, verdict, classes, threshold, choice)
        golden: dict[str, Any] = {"rows": as_request(some, manifest), "looked_up": None}
        if manifest.views:
            looked_up = [column.name for view in manifest.views for column in view.columns.values()]
            golden["looked_up"] = as_json(some.select(looked_up))
        golden["answers"] = Scorer(manifest, model.features, choice.estimator, None).predict(
            golden["rows"], golden["looked_up"]
        )
        (draft / GOLDEN).write_bytes(msgspec.json.encode(golden))
        schema = {"$schema": SCHEMA_DIALECT, **row_schema(manifest.inputs, manifest.null_values)}
        (draft / SCHEMA).write_bytes(msgspec.json.format(msgspec.json.encode(schema)))
        scores = choice.estimator.scores(held_out)
        scored = scores[:, 1] if manifest.task == "binary" else scores
        reference = reference_of(learnt_from, scored, *(days or ()))
        (draft / REFERENCE).write_bytes(msgspec.json.encode(reference))
        write_manifest(draft, manifest)
        Scorer.load(draft)
        draft.chmod(0o755)  # see `bundle.READABLE`
        draft.rename(folder)
        pack(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _manifest(
    model: Model,
    verdict: Verdict,
    classes: list[Any],
    threshold: float | None,
    choice: Choice,
) -> Manifest:
    contract = model.contract
    timed = any(each.freshness is not None for each in model.views.values())
    keys = {column for view in model.views.values() for column in view.by}
    needed = {*model.features.inputs, *keys, *([contract.event_time] if timed else [])}
    inputs = [
        describe(
            name,
            contract.types[name],
            nullable=bool(contract.schema.columns[name].nullable),
            needed=name in needed,
            bounds=bounds_of(contract.possible[name]),
        )
        for name in contract.beforehand
    ]
    views = [view_of(name, join) for name, join in model.views.items()]
    return Manifest(
        format=FORMAT,
        model=model.name,
        version=verdict.version,
        task=model.spec.task,
        classes=classes,
        threshold=threshold,
        inputs=inputs,
        event_time=contract.event_time if timed else None,
        views=views,
        null_values=model.spec.source.null_values,
        features=model.features.to_json(),
        scorer=choice.scorer,
        scorer_reason=choice.reason,
        verdict=verdict.to_json(),
        built_with={name: installed_version(name) for name in ("polars", *choice.built_with)},
        files=dict.fromkeys((choice.file, GOLDEN, SCHEMA, REFERENCE), ""),
        entity=tuple(name for name in contract.having("entity") if name in contract.beforehand),
    )


def bounds_of(possible: Possible) -> Bounds | None:
    """How a release says what the contract's checks say of a column."""
    said: dict[str, Any] = {
        name: tuple(map(_plain, value)) if name == "allowed" else _plain(value)
        for name, value in asdict(possible).items()
        if value is not None
    }
    return Bounds(**said) if said else None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def view_of(name: str, join: Join) -> View:
    """How a release says what is looked up."""
    columns = {
        own: describe(beside, join.types[own], nullable=True, needed=True) for own, beside in join.columns.items()
    }
    seconds = None if join.freshness is None else int(join.freshness.total_seconds())
    return View(name, join.by, columns, seconds)


def as_request(rows: pl.DataFrame, manifest: Manifest) -> list[dict[str, Any]]:
    """Rows as a caller sends them: the columns that the model needs of a request."""
    return as_json(rows.select(column.name for column in manifest.inputs if column.needed))


def as_json(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of JSON's types."""
    return list(json.loads(json.dumps(rows.to_dicts(), default=_as_text)))


def _as_text(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
