"""`trained_model`: a Pipeline fitted on labelled rows, tracked by MLflow and registered as candidate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from ml_assets.assets import searching
from ml_assets.assets.episodes import known_to
from ml_assets.assets.facts import facts_of, log_facts
from ml_assets.assets.naming import CAUSE_TAG, REASON_TAG, asset_spec, execution, key_of
from ml_assets.checks import check_results, check_specs, labels_result, labels_spec
from ml_assets.digests import digest_of, digest_of_frame, digest_of_model
from ml_assets.durations import parse_duration
from ml_assets.errors import TrainingError
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.fed_back import FedBack, Wanted, fed_back
from ml_assets.ml.schemas import training_schema
from ml_assets.ml.splits import Columns, Sides, split_rows
from ml_assets.ml.trained_on import TrainedOn
from ml_assets.ml.training import KNOWN_AT, Trained, cross_validation_metric, label, train
from ml_assets.ml.validation import count_failures
from ml_assets.ml.window import Within, within
from ml_assets.model import Model
from ml_assets.records import Latest, Record, append_records, read_latest
from ml_assets.registry import FACTS_TAG
from ml_assets.resources import ComputeResource, LakeResource, TrackingResource
from ml_assets.spec.training import Estimator

BY_HAND = "by hand"  # cause of a training that nothing but a person asked for


def training_inputs(model: Model, latest: Latest) -> str:
    """What a training depends on: content of features and outcomes, code and parameters."""
    tables = [
        [[each, record.content] for each, record in latest.of(asset).items() if record.rows]
        for asset in ("features", "outcomes")
    ]
    return digest_of([tables, model.training_digest])


def search_digest(inputs: str, data_digest: str) -> str:
    """All that decides what a trial of a search gives: rows, code, parameters, space, and the packages at work."""
    packages = {name: installed_version(name) for name in ("numpy", "scikit-learn", "optuna")}
    return digest_of([inputs, data_digest, packages])


@dataclass(frozen=True)
class TrainingRows:
    """Labelled rows as of some table versions, and their sides. `metrics` makes the same ones again.

    Attributes:
        cleaned: rows of the source; each is labelled, not yet labelled, or lies before the window.
        from_feedback: those of the labelled rows that the source does not have.
        left_out: predictions that are no rows, by reason.
        window_from: the day on which the window begins; None: there is none.
    """

    frame: pl.DataFrame
    sides: Sides
    cleaned: int
    not_yet_labelled: int
    before_window: int = 0
    from_feedback: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    window_from: str | None = None

    @property
    def learnt_from(self) -> pl.DataFrame:
        """Rows that a model or its threshold is made of."""
        return self.frame[np.concatenate([self.sides.train, self.sides.validation])]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows became what."""
        return {
            "cleaned": self.cleaned,
            "labelled": self.frame.height,
            "not_yet_labelled": self.not_yet_labelled,
            "before_window": self.before_window,
            "from_feedback": self.from_feedback,
            "trained_on": len(self.sides.train),
            "validation": len(self.sides.validation),
            "test": len(self.sides.test),
            "gap": len(self.sides.gap),
        }


def training_rows(model: Model, lake: Lake, versions: dict[str, int], cut_off: datetime | None) -> TrainingRows:
    """The labelled rows of table versions, split.

    Raises:
        TrainingError: if there are not enough of them.
    """
    contract, spec = model.contract, model.spec
    features = lake.read(model.name, "features", version=versions["features"])
    outcomes = lake.read(model.name, "outcomes", version=versions["outcomes"])
    joined: dict[str, Any] = {"key": model.outcome_key, "target": contract.target, "cut_off": cut_off}
    fed = None
    if spec.feedback.train:
        fed = _fed_back(model, lake, versions.get("predictions"), features, cut_off)
        features = fed.mark(features, model.outcome_key)
    labelled = label(features, outcomes, order=contract.key, **joined)
    frame = labelled.frame
    more = frame.clear() if fed is None else label(fed.rows, outcomes, order=contract.key, **joined).frame
    if more.height:
        frame = pl.concat([frame, more.select(frame.columns)]).sort(contract.key)
    window = Within(frame, None, 0)
    if spec.training.window:
        window = within(frame, str(contract.event_time), parse_duration(spec.training.window))
    if not frame.height and labelled.cleaned:
        raise TrainingError(
            f"{model.name}: the target {contract.target!r} is null in all {labelled.cleaned:,} cleaned rows; nothing "
            "to learn from. Look at the outcomes' source, or at the rejected rows"
        )
    if window.rows.height < spec.training.min_rows:
        raise TrainingError(
            f"{model.name}: {window.rows.height:,} labelled rows of {labelled.cleaned:,} cleaned ones"
            + (f", in a training.window of {spec.training.window}," if spec.training.window else ",")
            + f" and training.min_rows is {spec.training.min_rows:,}; wait for more data or lower it in defs.yaml"
        )
    from_feedback = window.rows.join(more, on=contract.key, how="semi").height
    return TrainingRows(
        window.rows,
        split_rows(window.rows, spec.split, split_columns(model), model.name),
        labelled.cleaned,
        labelled.not_yet_labelled,
        window.left_out - (more.height - from_feedback),
        from_feedback,
        fed.left_out if fed else {},
        window.first_day(spec.source.timezone),
    )


def _fed_back(
    model: Model, lake: Lake, version: int | None, features: pl.DataFrame, cut_off: datetime | None
) -> FedBack:
    """What the predictions give, as of a version of their table; nothing before there is one."""
    contract, weights = model.contract, model.spec.training.sample_weights
    wanted = Wanted(
        key=model.outcome_key,
        needed=[*contract.key, *model.spec.split.entities, *([weights] if weights else [])],
        carried=contract.carried_with(weights),
        features=model.features,
        request={name: contract.types[name] for name in contract.beforehand},
        time=str(contract.event_time),
        zone=model.spec.source.timezone,
    )
    predictions = lake.read(model.name, "predictions", version=version) if version is not None else pl.DataFrame()
    return fed_back(predictions, features, wanted, cut_off, model.spec.outcome_delay)


def happened(model: Model, rows: pl.DataFrame) -> dict[str, int]:
    """Number of rows by the day (UTC, or as it was read off the clock) on which they happened."""
    if model.contract.event_time is None:
        return {}
    counted = rows.group_by(pl.col(model.contract.event_time).cast(pl.Date).cast(pl.String).alias("day")).len()
    return {day: count for day, count in counted.sort("day").rows() if day is not None}


def fit(model: Model, rows: TrainingRows, estimator: Estimator, log: Callable[[str], None], **how: Any) -> Trained:
    """What is learnt from some rows; the same rows, estimator and packages give the same model again.

    Args:
        how: as `train` takes it: a search and its memory, and where fits run.
    """
    return train(
        rows.frame,
        rows.sides,
        features=model.features,
        estimator=estimator,
        split=model.spec.split,
        task=model.spec.task,
        target=model.contract.target,
        columns=split_columns(model),
        training=model.spec.training,
        threshold=model.spec.threshold,
        place=model.name,
        log=log,
        **how,
    )


def _newest(lake: Lake, model: Model) -> Record | None:
    """The record of the newest finished training."""
    return read_latest(lake, model.name).get("trained_model", WHOLE)


def record_of(model: Model, rows: pl.DataFrame, classes: list[Any]) -> TrainedOn:
    """What is kept with a version that these rows, as they are made now, were trained on."""
    contract = model.contract
    return TrainedOn.of(rows, contract.key, contract.target, model.spec.task, classes, model.feature_definitions)


def split_columns(model: Model) -> Columns:
    """The columns of the labelled rows that their split goes by."""
    return Columns(model.contract.key, model.contract.event_time, KNOWN_AT, model.spec.source.timezone)


def trained_model(model: Model) -> dg.AssetsDefinition:
    weights, fed = model.spec.training.sample_weights, model.spec.feedback.train
    schema = training_schema(model.contract, model.features, weights, fed_back=fed)
    dotted, _ = model.spec.estimator.resolve(model.spec.task)
    spec = asset_spec(
        model,
        "trained_model",
        f"{dotted.rpartition('.')[2]} that predicts `{model.contract.target}`, with imputation, scaling and one-hot "
        "encoding fitted on the training rows alone. Registered in MLflow as candidate.",
        deps=["features", "outcomes"],
        kinds=["scikitlearn", "mlflow"],
        schema=schema,
        code=model.training_digest,
    )
    checks = [*check_specs(spec.key, schema, blocking=True), labels_spec(spec.key)]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(
        context: dg.AssetExecutionContext, lake: LakeResource, tracking: TrackingResource, compute: ComputeResource
    ) -> dg.MaterializeResult:
        tables = lake.open()
        latest = read_latest(tables, model.name)
        cause = context.run.tags.get(CAUSE_TAG, BY_HAND)
        reason = context.run.tags.get(REASON_TAG, "somebody asked for it")
        inputs = training_inputs(model, latest)
        known = _versions(model, tables)
        moments = tables.read(model.name, "outcomes", version=known["outcomes"], columns=[KNOWN_AT])
        cut_off: datetime | None = moments.get_column(KNOWN_AT).max()  # type: ignore[assignment]
        rows = training_rows(model, tables, known, cut_off)
        _refuse_unfinished(model, latest)
        failures = count_failures(schema, rows.frame.with_columns(pl.lit(WHOLE).alias(PARTITION)))
        if failures:
            raise TrainingError(f"{model.name}: the labelled rows break their schema, in {failures[WHOLE]}")
        counts = rows.counts
        labels = labels_result(spec.key, counts)
        if not labels.passed:
            raise TrainingError(
                f"{model.name}: {counts['cleaned']:,} cleaned rows became {counts['labelled']:,} labelled and "
                f"{counts['not_yet_labelled']:,} others, {counts['before_window']:,} lie before the window and "
                f"{counts['from_feedback']:,} come from feedback; and the labelled ones became "
                f"{counts['trained_on']:,} to train on, {counts['validation']:,} to validate on, {counts['test']:,} to "
                f"test on and {counts['gap']:,} in the gap: is {', '.join(model.outcome_key)} unique in cleaned_data?"
            )
        data_digest = digest_of_frame(rows.frame)
        search = model.spec.search
        memory = compute.memory(model.name, search_digest(inputs, data_digest)) if search else None
        metric = cross_validation_metric(model.spec.task)
        with (
            tables.alone(model.name, "trained_model"),
            tracking.run(context, model.name, inputs, lambda: _newest(tables, model)) as mlflow,
            compute.open(model.spec.compute, context, model.name) as where,
        ):
            watch = tracking.trials(mlflow, f"cv_{metric}") if search else None
            trained = fit(
                model,
                rows,
                model.spec.estimator,
                context.log.info,
                search=search,
                compute=where,
                memory=memory,
                watch=watch,
            )
            model_digest = digest_of_model(trained.pipeline, trained.threshold)
            scores = _scores(trained, metric)
            _log(mlflow, model, trained, counts, scores, {"cause": cause, "reason": reason})
            details: dict[str, Any] = {
                "mlflow_run_id": mlflow.mlflow_run_id,
                "mlflow_experiment_id": mlflow.experiment.experiment_id,
                "model_digest": model_digest,
                "data_digest": data_digest,
                "code_digest": model.code_digest,
                "table_versions": known,
                "cut_off": cut_off.isoformat() if cut_off else None,
                "classes": trained.classes,
                "threshold": trained.threshold,
                "counts": counts,
                "estimator": dotted,
                "params": trained.params,
                "search": searching.summary(trained.found) if trained.found else None,
            }
            facts = facts_of(model, tables, rows, trained.pipeline, details)
            log_facts(mlflow, tables, model, facts)
            version = tracking.registry().register(
                model.name,
                mlflow.mlflow_run_id,
                trained.pipeline,
                model.features,
                model.spec.task,
                trained.threshold,
                {FACTS_TAG: digest_of(facts), "model_digest": model_digest},
            )
            tracking.registry().keep_trained_on(
                model.name, version, mlflow.mlflow_run_id, record_of(model, rows.learnt_from, trained.classes)
            )
            now = datetime.now(UTC)
            details |= {
                "version": version,
                "reason": reason,
                "window_from": rows.window_from,
                "left_out": rows.left_out,
                **known_to(model, latest, _newest(tables, model), cause, now, happened(model, rows.frame)),
                "facts_digest": digest_of(facts),
                "contents": {
                    asset: {each: [record.content, record.rows] for each, record in latest.of(asset).items()}
                    for asset in ("features", "outcomes")
                },
            }
            record = Record(
                "trained_model",
                WHOLE,
                inputs,
                model_digest,
                rows.frame.height,
                context.run.run_id,
                details=details,
                recorded_at=now,
            )
            append_records(tables, model.name, [record])
        link = tracking.link(mlflow.experiment.experiment_id, mlflow.mlflow_run_id)
        if memory:
            memory.forget()
        return dg.MaterializeResult(
            asset_key=key_of(model, "trained_model"),
            data_version=dg.DataVersion(model_digest),
            metadata={
                "version": dg.MetadataValue.text(version),
                "cause": dg.MetadataValue.text(cause),
                "reason": dg.MetadataValue.text(reason),
                "mlflow_run": dg.MetadataValue.url(link),
                "estimator": dg.MetadataValue.text(dotted),
                "parameters": dg.MetadataValue.json(trained.params),
                **(searching.metadata(trained.found) if trained.found else {}),
                **{name: dg.MetadataValue.int(count) for name, count in counts.items()},
                **{f"feedback_{name}": dg.MetadataValue.int(count) for name, count in rows.left_out.items()},
                **{name: dg.MetadataValue.float(score) for name, score in scores.items()},
                "model_digest": dg.MetadataValue.text(model_digest),
                "data_digest": dg.MetadataValue.text(data_digest),
            },
            check_results=[*check_results(spec.key, schema, {WHOLE: {}}), labels],
        )

    return step


def _versions(model: Model, lake: Lake) -> dict[str, int]:
    """Versions of the tables that are trained on, as they are now."""
    found = {each: lake.version(model.name, each) for each in ("features", "outcomes")}
    if None in found.values():
        raise TrainingError(f"{model.name}: there are no features and outcomes yet; materialise them first")
    if model.spec.feedback.train:
        found["predictions"] = lake.version(model.name, "predictions")
    return {each: version for each, version in found.items() if version is not None}


def _refuse_unfinished(model: Model, latest: Latest) -> None:
    """Raises TrainingError while a table is half written, or a day of one does not keep its checks."""
    tables = ("features", "outcomes", *(["predictions"] if model.spec.feedback.train else []))
    if half_done := [f"{each} {day}" for each in tables for day in latest.unfinished(each)]:
        raise TrainingError(
            f"{model.name}: a run was killed while it wrote {', '.join(half_done[:5])}; training waits until the "
            "next refresh has finished that"
        )
    broken = [
        f"{asset} {partition}"
        for asset in ("cleaned_data", *model.joined, "features", "outcomes")
        for partition, record in latest.of(asset).items()
        if record.details.get("failures")
    ]
    if broken:
        raise TrainingError(f"{model.name}: the checks of {', '.join(broken[:5])} failed; mend that before training")


def _log(
    mlflow: Any,
    model: Model,
    trained: Trained,
    counts: Mapping[str, int],
    scores: Mapping[str, float],
    asked: Mapping[str, str],
) -> None:
    """Tell the active MLflow run what was trained, of how many rows, how good it is, and what asked for it."""
    stated = model.spec.training.model_dump(
        include={"window", "class_weights", "sample_weights", "calibration"}, exclude_none=True
    )
    dotted, _ = model.spec.estimator.resolve(model.spec.task)
    mlflow.set_tags({f"ml_assets.{name}": text for name, text in asked.items()})
    mlflow.log_params({"estimator": dotted, **trained.params, "split": model.spec.split.by})
    mlflow.log_params(stated)
    mlflow.log_params({f"rows_{name}": count for name, count in counts.items()})
    mlflow.log_metrics(scores)
    mlflow.log_dict(model.features.lineage, "features.json")
    if trained.found:
        mlflow.log_dict(searching.summary(trained.found), "search.json")


def _scores(trained: Trained, metric: str) -> dict[str, float]:
    """What MLflow and the metadata say of a training: mean and folds of the cross-validation, and the threshold."""
    folds = trained.fold_scores
    scores = {f"cv_{metric}": sum(folds) / len(folds)}
    scores |= {f"cv_{metric}_fold_{number}": score for number, score in enumerate(folds, start=1)}
    if trained.threshold is not None:
        scores["threshold"] = trained.threshold
    return scores | {f"threshold_{name}": value for name, value in trained.chosen_for.items()}
