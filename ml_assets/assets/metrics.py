"""`metrics`: the newest version judged on rows that it was not trained on. Each gate is a blocking asset check."""

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.naming import asset_spec, execution, key_of
from ml_assets.assets.trained_model import training_rows
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of, digest_of_frame, digest_of_model
from ml_assets.errors import TrainingError
from ml_assets.lake import PARTITION, WHOLE
from ml_assets.ml.evaluation import Scored, measure
from ml_assets.ml.plots import draw
from ml_assets.ml.schemas import METRICS
from ml_assets.ml.training import encode, model_inputs
from ml_assets.ml.validation import count_failures
from ml_assets.ml.verdict import Gate, Verdict, gate_names, judge
from ml_assets.model import Model
from ml_assets.records import Record, append_records, read_latest
from ml_assets.resources import LakeResource, TrackingResource


def metrics_inputs(model: Model, trained: Record) -> str:
    """What a verdict depends on: the model version and the gates."""
    return digest_of([trained.details["version"], trained.content, model.gates_digest])


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
    gates = model.spec.gates
    checks = [
        *check_specs(spec.key, METRICS, blocking=True),
        *(
            dg.AssetCheckSpec(
                gate_check(name),
                asset=spec.key,
                blocking=True,
                description="Must be better than a constant answer, by its interval"
                if name == "prior"
                else f"{name} against {gates.thresholds()[name]:g}",
            )
            for name in gate_names(gates)
        ),
    ]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource
    ) -> Iterator[dg.MaterializeResult]:
        tables = lake.open()
        trained = read_latest(tables, model.name).get("trained_model", WHOLE)
        if trained is None:
            raise TrainingError(f"{model.name}: no model was trained yet; materialise {model.name}/trained_model")
        about = trained.details
        if about["code_digest"] != model.code_digest:
            raise TrainingError(
                f"{model.name}: version {about['version']} was trained with other code or parameters than there are "
                f"now; train first: materialise {model.name}/trained_model"
            )
        cut_off = datetime.fromisoformat(about["cut_off"]) if about["cut_off"] else None
        rows = training_rows(model, tables, about["table_versions"], cut_off)
        if digest_of_frame(rows.frame) != about["data_digest"]:
            raise TrainingError(
                f"{model.name}: version {about['version']} was trained on other rows than its table versions give now; "
                f"train it again: materialise {model.name}/trained_model"
            )
        registry = tracking.finish(model.name, trained)
        pipeline = registry.load(model.name, about["version"])
        model_digest = digest_of_model(pipeline, about["threshold"])  # before it is used: some count their calls

        def scored(positions: Any) -> Scored:
            some = rows.frame[positions]
            _, truth = encode(some.get_column(model.contract.target), model.spec.task, model.name, about["classes"])
            inputs = model_inputs(some.select(model.features.names))
            return Scored.by(pipeline, inputs, truth, about["classes"], model.spec.task, about["threshold"])

        test = scored(rows.sides.test)
        values, outcomes = judge(test, gates, model.spec.task)
        table = _table(about["version"], "test", values, len(rows.sides.test))
        if len(rows.sides.validation):
            held = scored(rows.sides.validation)
            table = pl.concat(
                [table, _table(about["version"], "validation", measure(held), len(rows.sides.validation))]
            )
        verdict = Verdict(
            model=model.name,
            version=about["version"],
            approved=all(each.passed for each in outcomes),
            reasons=[each.reason for each in outcomes if not each.passed],
            model_digest=model_digest,
            data_digest=about["data_digest"],
            code_digest=about["code_digest"],
            gates_digest=model.gates_digest,
        )
        registry.record_verdict(verdict)
        plots = draw(test, f"{model.name} version {about['version']}, {len(rows.sides.test):,} held-out rows")
        _log(registry.client, about["mlflow_run_id"], values, plots, verdict)
        table = table.with_columns(pl.lit(WHOLE).alias(PARTITION))
        tables.replace(model.name, "metrics", table, [WHOLE])
        details = {
            "version": about["version"],
            "approved": verdict.approved,
            "reasons": verdict.reasons,
            "verdict_digest": verdict.digest,
            "values": values,
        }
        record = Record(
            "metrics",
            WHOLE,
            metrics_inputs(model, trained),
            verdict.digest,
            table.height,
            context.run_id,
            details=details,
        )
        append_records(tables, model.name, [record])
        for each in outcomes:
            context.log.info(f"gate {each.name}: {'passed' if each.passed else 'failed'}: {each.reason}")
        yield dg.MaterializeResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(verdict.digest),
            metadata={
                "verdict": dg.MetadataValue.text("approved" if verdict.approved else "; ".join(verdict.reasons)),
                "version": dg.MetadataValue.text(about["version"]),
                **{name: dg.MetadataValue.float(value) for name, value in values.items()},
                "test_rows": dg.MetadataValue.int(len(rows.sides.test)),
                "mlflow_run": dg.MetadataValue.url(
                    tracking.link(about["mlflow_experiment_id"], about["mlflow_run_id"])
                ),
                **{name: _image(png) for name, png in plots.items()},
            },
            check_results=[
                *check_results(spec.key, METRICS, {WHOLE: count_failures(METRICS, table).get(WHOLE, {})}),
                *(_gate_result(model, each) for each in outcomes),
            ],
        )

    return step


def _table(version: str, rows: str, values: dict[str, float], count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "version": version,
            "rows": rows,
            "metric": list(values),
            "value": pl.Series(list(values.values()), dtype=pl.Float64).fill_nan(None),
            "count": pl.Series([count] * len(values), dtype=pl.Int64),
        }
    )


def _gate_result(model: Model, gate: Gate) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=gate.passed,
        asset_key=key_of(model, "metrics"),
        check_name=gate_check(gate.name),
        description=gate.reason,
        metadata={
            "value": dg.MetadataValue.float(gate.value),
            "threshold": dg.MetadataValue.float(gate.threshold),
            "interval_low": dg.MetadataValue.float(gate.low),
            "interval_high": dg.MetadataValue.float(gate.high),
        },
    )


def _image(png: bytes) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def _log(client: Any, run_id: str, values: dict[str, float], plots: dict[str, bytes], verdict: Verdict) -> None:
    """Add the evaluation to the training's MLflow run, by its id: the run itself has ended."""
    import tempfile
    from pathlib import Path

    for name, value in values.items():
        client.log_metric(run_id, f"test_{name}", value)
    client.log_dict(run_id, verdict.to_json(), "verdict.json")
    with tempfile.TemporaryDirectory() as folder:
        for name, png in plots.items():
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            client.log_artifact(run_id, str(path), "plots")
