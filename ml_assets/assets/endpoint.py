"""`endpoint`: the rollout of an approved release. It reads the verdict itself, and fails closed."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from ml_assets.assets.champion import note_champion
from ml_assets.assets.joined import with_joined
from ml_assets.assets.naming import INPUTS_TAG, asset_spec, execution
from ml_assets.assets.online_features import ASSET as ONLINE
from ml_assets.assets.parity import Parity, parity_result, parity_spec, replay
from ml_assets.assets.rolling import BACK_TAG, Aliases, asked_back, matured, plan_of
from ml_assets.assets.rollout_shown import shown
from ml_assets.assets.trained_model import training_rows
from ml_assets.checks import check_results, check_specs
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.release import build_release
from ml_assets.deployment.rollout import State
from ml_assets.deployment.targets import Described, Release
from ml_assets.digests import digest_of, digest_of_model
from ml_assets.errors import MlAssetsError, NotApprovedError, ReleaseError, TargetError
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.days import dates
from ml_assets.ml.gates import gate_names
from ml_assets.ml.schemas import answers_schema
from ml_assets.ml.validation import count_failures
from ml_assets.ml.verdict import Asked, require_approval
from ml_assets.model import Model
from ml_assets.records import Latest, Record, append_records, read_latest
from ml_assets.registry import Registry
from ml_assets.resources import LakeResource, ServingResource, TrackingResource
from ml_assets.rollouts import LakeJournal
from ml_assets.serving.bundle import GOLDEN, read_manifest


def endpoint_inputs(model: Model, metrics: Record) -> str:
    """What the endpoint depends on: the verdict and the target."""
    return digest_of([metrics.content, model.spec.endpoint.model_dump()])


@dataclass(frozen=True)
class Candidate:
    """The newest version, approved and built.

    Attributes:
        approved: asks for its verdict once more; None if there is none any more.
    """

    folder: Path
    parity: Parity
    approved: Callable[[], Release | None] = field(repr=False)


def endpoint(model: Model) -> dg.AssetsDefinition:
    schema = answers_schema(model.spec.task)
    spec = asset_spec(
        model,
        "endpoint",
        f"What serves {model.name}, and the rollout of the release that is to: an approved one, proven by its version "
        "and its golden rows.",
        deps=["metrics", *([ONLINE] if model.views else [])],
        kinds=["http"],
        schema=schema,
    )
    checks = [*check_specs(spec.key, schema, blocking=True), parity_spec(model)]

    # A rollout also goes on while there is nothing new to check.
    @dg.multi_asset(**execution(model, [spec], checks), can_subset=True)
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource, serving: ServingResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        tables = lake.open()
        latest = read_latest(tables, model.name)
        registry = tracking.registry()
        journal, target = LakeJournal(tables, model.name), serving.target_of(model)
        releases = serving.target().releases
        with tables.alone(model.name, "endpoint"):
            before = journal.states()
            back = context.run.tags.get(BACK_TAG)
            asked = asked_back(model, back, before) if back else None
            candidate: Candidate | None = None
            problem: MlAssetsError | None = None
            try:
                candidate = None if asked else _candidate(model, tables, latest, registry, releases, context.run.run_id)
                if candidate and candidate.parity.found:
                    yield parity_result(model, candidate.parity)
                    version = Release.named(candidate.folder.name).version
                    problem = ReleaseError(f"{model.name} version {version} is not served: {candidate.parity.reason}")
                    candidate = None
            except (NotApprovedError, ReleaseError) as error:
                problem = error
            refusal = problem if problem is not None and _has_to_be_said(context, latest) else None
            try:
                waits = carry_on(
                    target,
                    journal,
                    Aliases(registry, model.name),
                    candidate.approved if candidate else lambda: _still_approved(journal, latest, registry, releases),
                    plan_of(model),
                    asked=asked,
                    matured=matured(model, tables, journal.states, releases / model.name),
                )
            except TargetError as error:
                if refusal is None:
                    raise
                context.log.warning(f"what serves could not be looked after meanwhile: {error}")
                raise refusal from None
            described, states = target.describe(), journal.states()
            for each in states[len(before) :]:
                context.log.info(f"{each.challenger.name} {each.phase.value}: {each.reason}")
            context.log.info(waits.reason)
            said = _details(described, states, waits.reason) | {"address": target.address}
            judged, served = latest.get("metrics", WHOLE), latest.get("endpoint", WHOLE)
            handed_over = endpoint_inputs(model, judged) if candidate and judged else served.inputs if served else ""
            content = digest_of([described.stable, described.challenger, described.weight, described.shadow])
            record = Record("endpoint", WHOLE, handed_over, content, len(states), context.run.run_id, details=said)
            note = note_champion(registry, model.name, read_latest(tables, model.name), context.run.run_id)
            append_records(tables, model.name, [*note, record])
        if refusal is not None:
            raise refusal
        yield dg.MaterializeResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(record.content),
            metadata={
                "address": dg.MetadataValue.url(target.address),
                **shown(model.name, described, states, waits.reason),
                **(_release_shown(candidate.folder) if candidate else {}),
            },
            check_results=[
                *check_results(spec.key, schema, {WHOLE: count_failures(schema, _answers(candidate)).get(WHOLE, {})}),
                parity_result(model, candidate.parity),
            ]
            if candidate
            else [],
        )

    return step


def _candidate(model: Model, lake: Lake, latest: Latest, registry: Registry, releases: Path, run_id: str) -> Candidate:
    """The newest version as a release, if its verdict allows it to serve.

    Raises:
        NotApprovedError, ReleaseError: if it does not, or no release can be made of it.
    """
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    if trained is None:
        raise NotApprovedError(f"{model.name} has no trained version; materialise {model.name}/trained_model")
    version = trained.details["version"]
    pipeline = registry.load(model.name, version)
    threshold = trained.details.get("threshold")
    # Noted before anything is refused: a verdict against another champion makes `metrics` due.
    append_records(lake, model.name, note_champion(registry, model.name, latest, run_id))
    model_digest = digest_of_model(pipeline, threshold)

    def asked() -> Asked:
        return Asked(
            model=model.name,
            version=version,
            model_digest=model_digest,
            data_digest=trained.details["data_digest"],
            code_digest=model.code_digest,
            gates_digest=model.gates_digest,
            gate_names=gate_names(model.spec.gates),
            champion=registry.rival(model.name, version),
            recorded_digest=judged.details["verdict_digest"] if judged else None,
        )

    verdict = require_approval(registry.verdict(model.name, version), asked())
    newest = [max(each for each, record in latest.of("cleaned_data").items() if record.rows)]
    cleaned = lake.read(model.name, "cleaned_data", newest)
    sample, _ = with_joined(model, lake, cleaned, newest)
    folder = build_release(
        model,
        verdict,
        pipeline,
        trained.details["classes"],
        threshold,
        sample.sort(model.contract.key),
        releases,
        *_sides(model, lake, trained),
    )

    def approved() -> Release | None:
        try:
            require_approval(registry.verdict(model.name, version), asked())
        except NotApprovedError:
            return None
        return Release.named(folder.name)

    return Candidate(folder, replay(model, lake, latest, folder, pipeline), approved)


def _still_approved(journal: LakeJournal, latest: Latest, registry: Registry, releases: Path) -> Release | None:
    """The challenger of a rollout that is under way, if it is not the newest version and its verdict still stands."""
    states = journal.states()
    trained = latest.get("trained_model", WHOLE)
    if not states or states[-1].phase.over:
        return None
    challenger = states[-1].challenger
    if trained is None or trained.details["version"] == challenger.version:
        return None
    try:
        verdict = registry.verdict(journal.model, challenger.version)
        released = read_manifest(releases / journal.model / challenger.name).verdict
    except MlAssetsError:
        return None
    stands = verdict is not None and verdict.approved and verdict.to_json() == released
    return challenger if stands else None


def _has_to_be_said(context: dg.AssetExecutionContext, latest: Latest) -> bool:
    """Whether the run fails because the newest version may not serve. Where a tick asked only for what serves to be
    kept so, that the newest one was refused is known.
    """
    judged = latest.get("metrics", WHOLE)
    return INPUTS_TAG not in context.run.tags or judged is None or bool(judged.details["approved"])


def _details(described: Described, states: Sequence[State], waits: str) -> dict[str, Any]:
    """What the record says of what is served, and of what the rollout waits for."""
    last = states[-1] if states else None
    return {
        "release": described.stable,
        "version": Release.named(described.stable).version if described.stable else None,
        "since": (described.since or datetime.now(UTC)).isoformat(timespec="seconds"),
        "phase": last.phase.value if last else None,
        "challenger": described.challenger,
        "weight": described.weight,
        "waits": waits,
    }


def _release_shown(folder: Path) -> dict[str, dg.MetadataValue]:
    manifest = read_manifest(folder)
    return {
        "release": dg.MetadataValue.path(str(folder)),
        "scorer": dg.MetadataValue.text(f"{manifest.scorer}: {manifest.scorer_reason}"),
        "proof": dg.MetadataValue.text(f"{len(_golden(folder))} golden rows answered as recorded"),
    }


def _sides(
    model: Model, lake: Lake, trained: Record
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[np.ndarray, np.ndarray] | None]:
    """Features of the rows that the model was trained on, and of those that `metrics` judged it on; of a daily model
    the dates of both.
    """
    at = trained.details["cut_off"]
    rows = training_rows(model, lake, trained.details["table_versions"], datetime.fromisoformat(at) if at else None)
    features = rows.frame.select(model.features.names)
    sides = rows.sides.train, rows.sides.test
    if not model.daily:
        return features[sides[0]], features[sides[1]], None
    days = dates(rows.frame.get_column(str(model.contract.event_time)), model.spec.source.timezone)
    return features[sides[0]], features[sides[1]], (days[sides[0]], days[sides[1]])


def _golden(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / GOLDEN).read_bytes())["answers"])


def _answers(candidate: Candidate) -> pl.DataFrame:
    """The answers that the target proves, as a table: the label with its highest score, or the value."""
    answers = _golden(candidate.folder)
    whole = pl.lit(WHOLE).alias(PARTITION)
    if "value" in answers[0]:
        return pl.DataFrame({"value": [each["value"] for each in answers]}, schema={"value": pl.Float64}).select(
            "value", whole
        )
    scores = [max(each["scores"].values()) if "scores" in each else each["score"] for each in answers]
    labels = [str(each["label"]) for each in answers]
    return pl.DataFrame(
        {"label": labels, "score": scores}, schema={"label": pl.String, "score": pl.Float64}
    ).with_columns(whole)
