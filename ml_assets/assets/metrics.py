"""`metrics`: the newest version judged on rows that it was not trained on. Each gate is a blocking asset check."""

import base64
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.champion import note_champion, rival_on_record
from ml_assets.assets.naming import asset_spec, execution, key_of
from ml_assets.assets.trained_model import TrainingRows, record_of, training_rows
from ml_assets.checks import check_results, check_specs
from ml_assets.deployment.timing import milliseconds_per_row
from ml_assets.digests import digest_of, digest_of_frame, digest_of_model
from ml_assets.errors import TrainingError
from ml_assets.lake import PARTITION, WHOLE
from ml_assets.ml.bootstrap import Interval, intervals
from ml_assets.ml.card import card, sections_of
from ml_assets.ml.comparison import Comparison
from ml_assets.ml.evaluation import Scored, measure
from ml_assets.ml.evidence import Champion, Evidence, Judged, Rows, gather, score
from ml_assets.ml.gates import RULES, Gate, gate_names, judge
from ml_assets.ml.importance import permutation_importances
from ml_assets.ml.inputs import model_inputs
from ml_assets.ml.plots import draw
from ml_assets.ml.schemas import METRICS
from ml_assets.ml.slices import Slice
from ml_assets.ml.validation import count_failures
from ml_assets.ml.verdict import Verdict
from ml_assets.model import Model
from ml_assets.records import Record, append_records, read_latest
from ml_assets.registry import Registry
from ml_assets.resources import LakeResource, TrackingResource

CARD = "model_card.html"
ALL = "all rows"  # in the column `slice`


def metrics_inputs(model: Model, trained: Record, rival: str | None) -> str:
    """What a verdict depends on: the model version, the gates, and the version that it is compared with."""
    return digest_of([trained.details["version"], trained.content, model.gates_digest, rival])


def gate_check(name: str) -> str:
    return f"gate_{name}"


def metrics(model: Model) -> dg.AssetsDefinition:
    spec = asset_spec(
        model,
        "metrics",
        f"How good the newest version of {model.name} is on held-out rows, and the verdict of its gates.",
        deps=["trained_model"],
        kinds=["scikitlearn", "mlflow"],
        schema=METRICS,
        code=model.gates_digest,
    )
    gates, task = model.spec.gates, model.spec.task
    checks = [
        *check_specs(spec.key, METRICS, blocking=True),
        *(
            dg.AssetCheckSpec(gate_check(name), asset=spec.key, blocking=True, description=RULES[name].asks(gates))
            for name in gate_names(gates)
        ),
    ]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource
    ) -> Iterator[dg.MaterializeResult]:
        tables = lake.open()
        latest = read_latest(tables, model.name)
        trained = latest.get("trained_model", WHOLE)
        if trained is None:
            raise TrainingError(f"{model.name}: no model was trained yet; materialise {model.name}/trained_model")
        about = trained.details
        version = about["version"]
        if about["code_digest"] != model.code_digest:
            raise TrainingError(
                f"{model.name}: version {version} was trained with other code or parameters than there are "
                f"now; train first: materialise {model.name}/trained_model"
            )
        cut_off = datetime.fromisoformat(about["cut_off"]) if about["cut_off"] else None
        labelled = training_rows(model, tables, about["table_versions"], cut_off)
        if digest_of_frame(labelled.frame) != about["data_digest"]:
            raise TrainingError(
                f"{model.name}: version {version} was trained on other rows than its table versions give now; "
                f"train it again: materialise {model.name}/trained_model"
            )
        registry = tracking.finish(model.name, trained)
        note = note_champion(registry, model.name, latest, context.run.run_id)
        latest.add(note)
        newest = _version(registry, model.name, version, about["classes"], about["threshold"])
        rows = Rows(labelled.frame, labelled.sides, model.features.names, model.contract.target, model.name)
        evidence = gather(
            newest,
            _champion(registry, model, version),
            rows,
            task,
            model.spec.primary_metric,
            model.spec.metrics,
            gates,
            now=record_of(model, labelled.frame[:0], about["classes"]),
            milliseconds=lambda features: milliseconds_per_row(newest.pipeline, task, features),
        )
        outcomes = judge(evidence, gates)
        verdict = Verdict(
            model=model.name,
            version=version,
            approved=all(each.passed for each in outcomes),
            reasons=[each.reason for each in outcomes if not each.passed],
            model_digest=newest.digest,
            data_digest=about["data_digest"],
            code_digest=about["code_digest"],
            gates_digest=model.gates_digest,
            champion=registry.rival(model.name, version),
            gates=[each.to_json() for each in outcomes],
        )
        table = _table(version, "test", evidence.test, evidence.metrics, evidence.intervals)
        if len(labelled.sides.validation):
            held = score(newest, labelled.frame[labelled.sides.validation], rows, task)
            values = measure(held)
            table = pl.concat([table, _table(version, "validation", held, values, intervals(held, list(values)))])
        measured_on_all = table
        table = pl.concat([table, *(_line(version, evidence.primary, each) for each in _shown(evidence))])
        plots = _plots(model, newest, evidence, rows)
        page = card(
            verdict,
            about={
                "task": task,
                "description": model.spec.description,
                "owners": model.spec.owners,
                "judged_at": f"judged {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                "slice_rows": model.spec.metrics.slice_rows,
            },
            metrics=measured_on_all,
            comparison=evidence.comparison,
            slices=evidence.slices,
            plots=plots,
            sections=_sections(model, trained, labelled, verdict),
        )
        _log(registry, about["mlflow_run_id"], evidence, plots, page, verdict)
        registry.record_verdict(verdict)
        table = table.with_columns(pl.lit(WHOLE).alias(PARTITION))
        tables.replace(model.name, "metrics", table, [WHOLE])
        details = {
            "version": version,
            "approved": verdict.approved,
            "reasons": verdict.reasons,
            "verdict_digest": verdict.digest,
            "values": evidence.metrics,
            "intervals": evidence.intervals,
            "gates": verdict.gates,
            "champion": rival_on_record(latest, version),
            "comparison": evidence.comparison.to_json(),
        }
        inputs = metrics_inputs(model, trained, rival_on_record(latest, version))
        record = Record("metrics", WHOLE, inputs, verdict.digest, table.height, context.run.run_id, details=details)
        append_records(tables, model.name, [*note, record])
        for each in outcomes:
            context.log.info(f"gate {each.name}: {'passed' if each.passed else 'failed'}: {each.reason}")
        link = tracking.link(about["mlflow_experiment_id"], about["mlflow_run_id"])
        yield dg.MaterializeResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(verdict.digest),
            metadata={
                "verdict": dg.MetadataValue.text("approved" if verdict.approved else "; ".join(verdict.reasons)),
                "version": dg.MetadataValue.text(version),
                "champion": dg.MetadataValue.text(f"{evidence.comparison.outcome}: {evidence.comparison.reason}"),
                "model_card": dg.MetadataValue.url(f"{link}/artifacts/{CARD}"),
                **{name: dg.MetadataValue.float(value) for name, value in evidence.metrics.items()},
                "metrics": _shown_table(measured_on_all.drop("version", "slice").to_dicts()),
                "slices": _shown_table([_told(each) for each in _shown(evidence)]),
                "worst_slice": dg.MetadataValue.text(_worst(evidence)),
                "test_rows": dg.MetadataValue.int(len(labelled.sides.test)),
                "mlflow_run": dg.MetadataValue.url(link),
                **{name: _image(png) for name, png in plots.items()},
            },
            check_results=[
                *check_results(spec.key, METRICS, {WHOLE: count_failures(METRICS, table).get(WHOLE, {})}),
                *(_gate_result(model, each) for each in outcomes),
            ],
        )

    return step


def _version(registry: Registry, model: str, version: str, classes: list[Any], threshold: float | None) -> Judged:
    pipeline = registry.load(model, version)
    digest = digest_of_model(pipeline, threshold)  # before it is used: some count their calls
    return Judged(version, pipeline, classes, threshold, digest, registry.trained_on(model, version))


def _champion(registry: Registry, model: Model, version: str) -> Champion:
    """What to compare a version with."""
    rival = registry.rival(model.name, version)
    if rival is None:
        if registry.champion(model.name) == version:
            return Champion(None, Comparison("is the champion", "it is the champion itself, and there was none before"))
        return Champion()
    try:
        trained_on = registry.trained_on(model.name, rival)
        threshold = registry.threshold(model.name, rival)
        pipeline = registry.load(model.name, rival)
    except Exception as error:  # whatever is the matter with it, it is not the newest version's fault
        reason = f"the champion, version {rival}, cannot be loaded: {type(error).__name__}: {error}"
        return Champion(None, Comparison("inconclusive", reason, rival, model.spec.primary_metric))
    classes = trained_on.classes if trained_on else []
    return Champion(Judged(rival, pipeline, classes, threshold, digest_of_model(pipeline, threshold), trained_on))


def _plots(model: Model, newest: Judged, evidence: Evidence, rows: Rows) -> dict[str, bytes]:
    held_out = rows.frame[rows.sides.test]
    importances = permutation_importances(
        newest.pipeline,
        model_inputs(held_out.select(rows.features)),
        evidence.test.truth,
        newest.classes,
        model.spec.task,
        newest.threshold,
        evidence.primary,
    )
    title = f"{model.name} version {newest.version}, {held_out.height:,} held-out rows"
    return draw(evidence.test, title, importances, evidence.primary)


def _table(
    version: str, rows: str, scored: Scored, values: Mapping[str, float], around: Mapping[str, Interval]
) -> pl.DataFrame:
    """One line per metric."""
    return pl.concat(
        [_row(version, rows, ALL, name, value, around[name], len(scored.truth)) for name, value in values.items()]
    )


def _line(version: str, metric: str, each: Slice) -> pl.DataFrame:
    return _row(version, "test", each.name, metric, each.value, (each.low, each.high), each.rows)


def _row(version: str, rows: str, part: str, metric: str, value: float, around: Interval, count: int) -> pl.DataFrame:
    texts = {"version": version, "rows": rows, "slice": part, "metric": metric}
    numbers = {"value": value, "low": around[0], "high": around[1]}
    return pl.DataFrame(
        {**texts, **numbers, "count": count}, schema_overrides=dict.fromkeys(numbers, pl.Float64)
    ).with_columns(pl.col(*numbers).fill_nan(None))


def _shown(evidence: Evidence) -> list[Slice]:
    """Declared slices, and the worst of all."""
    shown, worst = evidence.slices.declared, evidence.slices.worst
    return shown if worst is None or worst in shown else [*shown, worst]


def _told(each: Slice) -> dict[str, Any]:
    return {"slice": each.name, "rows": each.rows, "value": each.value, "low": each.low, "high": each.high}


def _worst(evidence: Evidence) -> str:
    worst, looked_at = evidence.slices.worst, evidence.slices.looked_at
    if worst is None:
        return "no slice has enough rows to be judged"
    return (
        f"{worst.name} ({worst.rows:,} rows, worst of {looked_at}): {evidence.primary} {worst.value:.4f}, "
        f"joint interval {worst.low:.4f} to {worst.high:.4f}"
    )


def _shown_table(lines: list[dict[str, Any]]) -> dg.MetadataValue:
    if not lines:
        return dg.MetadataValue.text("none")
    rounded = [
        {name: round(each, 4) if isinstance(each, float) else each for name, each in line.items()} for line in lines
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _plain(each) for name, each in line.items()}) for line in rounded]
    )


def _plain(value: Any) -> Any:
    return "" if value is None else value


def _gate_result(model: Model, gate: Gate) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=gate.passed,
        asset_key=key_of(model, "metrics"),
        check_name=gate_check(gate.name),
        description=gate.reason,
        metadata={
            name: dg.MetadataValue.float(float(value))
            for name, value in (
                ("value", gate.value),
                ("threshold", gate.threshold),
                ("interval_low", gate.low),
                ("interval_high", gate.high),
            )
        },
    )


def _image(png: bytes) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _sections(model: Model, trained: Record, rows: TrainingRows, verdict: Verdict) -> dict[str, dict[str, Any]]:
    """What the card says of the training."""
    about = trained.details
    dotted, params = model.spec.estimator.resolve(model.spec.task)
    training = {
        "estimator": dotted,
        "parameters": params,
        "split": model.spec.split.model_dump(mode="json", exclude_none=True),
        "threshold": "the class with the higher score" if about["threshold"] is None else about["threshold"],
        "trained at": f"{trained.recorded_at:%Y-%m-%d %H:%M} UTC",
        "outcomes known until": about["cut_off"] or "nobody says",
        "versions of the tables": ", ".join(f"{name} {number}" for name, number in about["table_versions"].items()),
        "MLflow run": about["mlflow_run_id"],
    }
    digests = {name: getattr(verdict, f"{name}_digest") for name in ("model", "data", "code", "gates")}
    return sections_of(model.features.lineage, training, about["counts"], digests | {"verdict": verdict.digest})


def _log(
    registry: Registry, run_id: str, evidence: Evidence, plots: Mapping[str, bytes], page: str, verdict: Verdict
) -> None:
    """Add the evaluation to the training's MLflow run, by its id: the run itself has ended."""
    from mlflow.entities import Metric

    now = int(datetime.now(UTC).timestamp() * 1000)
    values = {f"test_{name}": value for name, value in evidence.metrics.items()}
    for name, (low, high) in evidence.intervals.items():
        values |= {f"test_{name}_low": low, f"test_{name}_high": high}
    logged = [Metric(name, value, now, 0) for name, value in values.items() if not math.isnan(value)]
    registry.client.log_batch(run_id, metrics=logged)
    registry.client.log_dict(run_id, verdict.to_json(), "verdict.json")
    images = {f"plots/{name}.png": png for name, png in plots.items()}
    registry.log_files(run_id, images | {CARD: page.encode()})
