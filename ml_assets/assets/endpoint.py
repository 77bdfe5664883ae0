"""`endpoint`: what serves. It brings the server to the newest version, if and only if its verdict allows that."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from ml_assets.assets.champion import note_champion
from ml_assets.assets.joined import with_joined
from ml_assets.assets.naming import asset_spec, execution
from ml_assets.assets.online_features import ASSET as ONLINE
from ml_assets.assets.parity import parity_result, parity_spec, replay
from ml_assets.assets.trained_model import training_rows
from ml_assets.checks import check_results, check_specs
from ml_assets.deployment.release import build_release
from ml_assets.digests import digest_of, digest_of_model
from ml_assets.errors import NotApprovedError, ReleaseError
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.gates import gate_names
from ml_assets.ml.schemas import answers_schema
from ml_assets.ml.validation import count_failures
from ml_assets.ml.verdict import Asked, require_approval
from ml_assets.model import Model
from ml_assets.records import Record, append_records, read_latest
from ml_assets.resources import LakeResource, ServingResource, TrackingResource
from ml_assets.serving.bundle import read_manifest


def endpoint_inputs(model: Model, metrics: Record) -> str:
    """What the endpoint depends on: the verdict and the target."""
    return digest_of([metrics.content, model.spec.endpoint.model_dump()])


def endpoint(model: Model) -> dg.AssetsDefinition:
    schema = answers_schema(model.spec.task)
    spec = asset_spec(
        model,
        "endpoint",
        f"What serves {model.name}: an approved release, proven by its version and its golden rows over HTTP.",
        deps=["metrics", *([ONLINE] if model.views else [])],
        kinds=["http"],
        schema=schema,
    )
    checks = [*check_specs(spec.key, schema, blocking=True), parity_spec(model)]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource, serving: ServingResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        tables = lake.open()
        latest = read_latest(tables, model.name)
        trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
        if trained is None:
            raise NotApprovedError(f"{model.name} has no trained version; materialise {model.name}/trained_model")
        registry = tracking.registry()
        version = trained.details["version"]
        pipeline = registry.load(model.name, version)
        threshold = trained.details.get("threshold")
        # Noted before anything is refused: a verdict against another champion makes `metrics` due.
        append_records(tables, model.name, note_champion(registry, model.name, latest, context.run.run_id))
        asked = Asked(
            model=model.name,
            version=version,
            model_digest=digest_of_model(pipeline, threshold),
            data_digest=trained.details["data_digest"],
            code_digest=model.code_digest,
            gates_digest=model.gates_digest,
            gate_names=gate_names(model.spec.gates),
            champion=registry.rival(model.name, version),
            recorded_digest=judged.details["verdict_digest"] if judged else None,
        )
        verdict = require_approval(registry.verdict(model.name, version), asked)
        assert judged is not None
        newest = [max(each for each, record in latest.of("cleaned_data").items() if record.rows)]
        cleaned = tables.read(model.name, "cleaned_data", newest)
        sample, _ = with_joined(model, tables, cleaned, newest)
        target = serving.target()
        release = build_release(
            model,
            verdict,
            pipeline,
            trained.details["classes"],
            threshold,
            sample.sort(model.contract.key),
            target.releases,
            *_sides(model, tables, trained),
        )
        parity = replay(model, tables, latest, release, pipeline)
        if parity.found:
            yield parity_result(model, parity)
            raise ReleaseError(f"{model.name} version {version} is not served: {parity.reason}")
        address, proof = target.bring(model.name, release)
        registry.set_champion(model.name, version)
        answers = _table(proof)
        inputs = endpoint_inputs(model, judged)
        manifest = read_manifest(release)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        details = {"version": version, "release": release.name, "address": address, "since": since}
        record = Record("endpoint", WHOLE, inputs, release.name, answers.height, context.run.run_id, details=details)
        note = note_champion(registry, model.name, read_latest(tables, model.name), context.run.run_id)
        append_records(tables, model.name, [*note, record])
        yield dg.MaterializeResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(release.name),
            metadata={
                "serves": dg.MetadataValue.text(f"{model.name} version {version}"),
                "address": dg.MetadataValue.url(address),
                "health": dg.MetadataValue.url(address.split("/models/")[0] + "/health"),
                "since": dg.MetadataValue.text(since),
                "release": dg.MetadataValue.path(str(release)),
                "scorer": dg.MetadataValue.text(f"{manifest.scorer}: {manifest.scorer_reason}"),
                "proof": dg.MetadataValue.text(f"{answers.height} golden rows answered as recorded"),
            },
            check_results=[
                *check_results(spec.key, schema, {WHOLE: count_failures(schema, answers).get(WHOLE, {})}),
                parity_result(model, parity),
            ],
        )

    return step


def _sides(model: Model, lake: Lake, trained: Record) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features of the rows that the model was trained on, and of those that `metrics` judged it on."""
    at = trained.details["cut_off"]
    rows = training_rows(model, lake, trained.details["table_versions"], datetime.fromisoformat(at) if at else None)
    features = rows.frame.select(model.features.names)
    return features[rows.sides.train], features[rows.sides.test]


def _table(answers: list[dict[str, object]]) -> pl.DataFrame:
    """Answers as a table: the label with its highest score, or the value."""
    whole = pl.lit(WHOLE).alias(PARTITION)
    if "value" in answers[0]:
        return pl.DataFrame({"value": [each["value"] for each in answers]}, schema={"value": pl.Float64}).select(
            "value", whole
        )
    scores = [max(each["scores"].values()) if "scores" in each else each["score"] for each in answers]  # type: ignore[attr-defined]
    labels = [str(each["label"]) for each in answers]
    return pl.DataFrame(
        {"label": labels, "score": scores}, schema={"label": pl.String, "score": pl.Float64}
    ).with_columns(whole)
