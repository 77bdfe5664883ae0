"""Models that must not serve, each wrong in one way, and the judgement of each by the platform's own functions.

Every model is trained by `ml.training.train` on rows that `split_rows` splits; what is wrong is done to rows, record or
verdict as whoever makes the mistake would do it.
"""

import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.timing import milliseconds_per_row
from ml_assets.digests import digest_of_model
from ml_assets.errors import NotApprovedError
from ml_assets.ml.evidence import Champion, Evidence, Judged, Rows, gather
from ml_assets.ml.features import Features
from ml_assets.ml.gates import Gate, gate_names, judge
from ml_assets.ml.splits import Columns, Sides, split_rows
from ml_assets.ml.trained_on import TrainedOn
from ml_assets.ml.training import train
from ml_assets.ml.verdict import Asked, Verdict, require_approval
from ml_assets.spec.base import Task
from ml_assets.spec.judging import PRIMARY, Gates, Metrics
from ml_assets.spec.training import Estimator, Split, Training

NUMBERS, TEXT = ["distance", "items"], "zone"
KEY = Columns(["order"])
LOGISTIC = Estimator.model_validate({"class": "sklearn.linear_model.LogisticRegression"})
RIDGE = Estimator.model_validate({"class": "sklearn.linear_model.Ridge"})
DEEP = Estimator(params={"n_estimators": 20, "max_depth": 30})
CONSTANT = Estimator.model_validate({"class": "sklearn.dummy.DummyClassifier"})
SPLIT = Split(test=0.25)

# All gates at once, which a good model passes.
ALL = Gates(
    champion="better",
    inconclusive="refuse",
    min_rows=500,
    accuracy=0.7,
    precision=0.6,
    recall=0.5,
    f1=0.6,
    roc_auc=0.75,
    worst_slice=0.6,
    calibration_error=0.08,
    train_test_gap=0.05,
    milliseconds_per_row=10,
    leak=0.97,
)


@cache
def orders(rows: int = 4000) -> pl.DataFrame:
    """Orders that come late the farther they go, more so with many items."""
    random = np.random.default_rng(11)
    distance, items = random.gamma(3, 1.5, rows), random.integers(1, 9, rows).astype(float)
    minutes = 4 * (distance - 4.5) + 1.5 * (items - 4) + random.normal(0, 9, rows)
    return pl.DataFrame(
        {
            "order": np.arange(rows),
            "distance": distance,
            "items": items,
            "zone": random.choice(["harbour", "station", "old town", "park"], rows),
            "minutes": minutes,
            "late": minutes > 4,
        }
    )


def features_of(frame: pl.DataFrame, names: list[str]) -> Features:
    return Features(tuple(map(pl.col, names)), {name: frame.schema[name] for name in names})


def fitted(
    frame: pl.DataFrame,
    sides: Sides,
    *,
    version: str = "2",
    task: Task = "binary",
    names: list[str] | None = None,
    estimator: Estimator = LOGISTIC,
    training: Training | None = None,
) -> Judged:
    """A model trained on the training side of `frame`, with the record of it."""
    features = features_of(frame, names or [*NUMBERS, TEXT])
    target = "minutes" if task == "regression" else "late"
    trained = train(
        frame,
        sides,
        features=features,
        estimator=estimator,
        split=SPLIT,
        task=task,
        target=target,
        columns=KEY,
        training=training or Training(folds=2),
        threshold=None,
        place="orders",
    )
    definitions = dict.fromkeys(features.names, "as ever")
    record = TrainedOn.of(frame[sides.train], ["order"], target, task, trained.classes, definitions)
    return Judged(version, trained.pipeline, trained.classes, None, digest_of_model(trained.pipeline, None), record)


@cache
def split() -> Sides:
    return split_rows(orders(), SPLIT, KEY, "orders")


@cache
def good() -> Judged:
    return fitted(orders(), split())


@cache
def weaker() -> Judged:
    """A champion that knows less, to be compared with."""
    return fitted(orders(), split(), version="1", names=["items", "zone"])


@dataclass(frozen=True)
class Case:
    """A model to be judged.

    Attributes:
        gate: the gate that has to refuse it.
        said: what its reason has to say.
    """

    gate: str
    said: str
    model: Judged
    gates: Gates = field(default_factory=Gates)
    champion: Judged | None = None
    frame: pl.DataFrame = field(default_factory=orders)
    sides: Sides = field(default_factory=split)
    names: list[str] = field(default_factory=lambda: [*NUMBERS, TEXT])
    task: Task = "binary"

    def evidence(self) -> Evidence:
        rows = Rows(self.frame, self.sides, self.names, "minutes" if self.task == "regression" else "late", "orders")
        definitions = dict.fromkeys(self.names, "as ever")
        now = TrainedOn.of(self.frame[:0], ["order"], rows.target, self.task, self.model.classes, definitions)
        return gather(
            self.model,
            Champion(self.champion) if self.champion else Champion(),
            rows,
            self.task,
            PRIMARY[self.task],
            Metrics(),
            self.gates,
            now=now,
            milliseconds=lambda features: milliseconds_per_row(self.model.pipeline, self.task, features),
        )

    def judged(self) -> list[Gate]:
        return judge(self.evidence(), self.gates)


def label_shuffled() -> Case:
    shuffled = orders().with_columns(pl.col("late").shuffle(seed=1))
    return Case("prior", "is not above 0.5, what a constant answer reaches", fitted(shuffled, split()))


def constant() -> Case:
    model = fitted(orders(), split(), estimator=CONSTANT)
    return Case("prior", "is not above 0.5, what a constant answer reaches", model)


def leaky() -> Case:
    """`courier_note` is written when the order has arrived."""
    random = np.random.default_rng(2)
    frame = orders().with_columns(
        courier_note=pl.when(pl.Series(random.random(orders().height) < 0.99))
        .then(pl.col("late").cast(pl.Float64) * 3)
        .otherwise(1.0)
    )
    names = [*NUMBERS, "courier_note"]
    model = fitted(frame, split(), names=names)
    return Case("leak", "courier_note alone reaches roc_auc 0.99", model, Gates(leak=0.97), frame=frame, names=names)


def trained_on_test() -> Case:
    everything = replace(split(), train=np.arange(orders().height))
    model = fitted(orders(), everything, estimator=DEEP)
    rows = len(split().test)
    return Case("held_out", f"it was trained on {rows:,} of the {rows:,} held-out rows", model)


def unrecorded() -> Case:
    return Case("held_out", "there is no record of the rows", replace(good(), trained_on=None))


def champion_trained_on_test() -> Case:
    champion = fitted(orders(), replace(split(), train=np.arange(orders().height)), version="1", estimator=DEEP)
    return Case(
        "champion",
        "inconclusive, which does not pass .*: 0 of .* held-out rows were not among those that the champion",
        good(),
        Gates(inconclusive="refuse"),
        champion,
    )


def champion_with_other_features() -> Case:
    assert weaker().trained_on is not None
    other = replace(weaker().trained_on, features={"items": "as ever", "zone": "upside down"})  # type: ignore[type-var]
    return Case(
        "champion",
        "cannot be scored on today's rows: feature zone is made in another way than it was trained with",
        good(),
        Gates(inconclusive="refuse"),
        replace(weaker(), trained_on=other),
    )


def champion_against_itself() -> Case:
    return Case(
        "champion",
        "it is the same model as the champion, version 1; gates.champion asks for better",
        good(),
        Gates(champion="better"),
        replace(good(), version="1"),
    )


def no_better() -> Case:
    """Another seed of the same forest."""
    champion, model = (
        fitted(orders(), split(), version=version, estimator=Estimator(params={"random_state": seed, "max_depth": 6}))
        for version, seed in (("1", 1), ("2", 2))
    )
    return Case("champion", "not told apart from the champion", model, Gates(champion="better"), champion)


def worse_than_the_champion() -> Case:
    return Case(
        "champion",
        "significantly worse than the champion, version 1",
        replace(weaker(), version="2"),
        champion=replace(good(), version="1"),
    )


def slice_broken() -> Case:
    """Labels of one zone were exported upside down when it was trained."""
    broken = orders().with_columns(late=pl.col("late") ^ (pl.col("zone") == "harbour"))
    crossed = broken.with_columns(
        [(pl.col(name) * (pl.col("zone") == "harbour")).alias(f"{name}_harbour") for name in NUMBERS]
    )
    honest = crossed.with_columns(late=orders()["late"])
    names = [*NUMBERS, TEXT, *(f"{name}_harbour" for name in NUMBERS)]
    model = fitted(crossed, split(), names=names)
    return Case(
        "worst_slice", "where .*harbour.* roc_auc is 0", model, Gates(worst_slice=0.5), frame=honest, names=names
    )


def no_slice_to_judge() -> Case:
    few = replace(split(), test=split().test[:40])
    return Case("worst_slice", "no slice has enough rows", good(), Gates(worst_slice=0.5, min_rows=30), sides=few)


def overconfident() -> Case:
    model = fitted(orders(), split(), training=Training(folds=2, class_weights={"True": 6.0}))
    return Case("calibration_error", "at most 0.08 is asked for", model, Gates(calibration_error=0.08))


def overfitted() -> Case:
    model = fitted(orders(), split(), estimator=DEEP)
    return Case("train_test_gap", "roc_auc is 0.999", model, Gates(train_test_gap=0.05))


def slow() -> Case:
    from sklearn.pipeline import Pipeline

    class Slow(Pipeline):  # type: ignore[misc]
        def predict_proba(self, X: Any, **params: Any) -> Any:
            time.sleep(0.015)
            return super().predict_proba(X, **params)

    model = replace(good(), pipeline=Slow(good().pipeline.steps))
    return Case("milliseconds_per_row", "ms to be scored, at most 10", model, Gates(milliseconds_per_row=10))


def too_few_rows() -> Case:
    few = replace(split(), test=split().test[:99])
    return Case("min_rows", "99 held-out rows, at least 100 are asked for", good(), sides=few)


def too_weak(metric: str) -> Case:
    if metric in ("rmse", "mae", "r2"):
        wanted = {"rmse": 5.0, "mae": 4.0, "r2": 0.95}[metric]
        model = fitted(orders(), split(), task="regression", estimator=RIDGE)
        return Case(metric, f"{wanted:g} is asked for", model, Gates(**{metric: wanted}), task="regression")
    return Case(metric, "at least 0.99 is asked for", good(), Gates(**{metric: 0.99}))


CASES = {
    each.__name__: each
    for each in (
        *(label_shuffled, constant, leaky, trained_on_test, unrecorded, champion_trained_on_test),
        *(champion_with_other_features, champion_against_itself, no_better, worse_than_the_champion, slice_broken),
        *(no_slice_to_judge, overconfident, overfitted, slow, too_few_rows),
    )
} | {
    f"too_weak_{metric}": lambda metric=metric: too_weak(metric)
    for metric in ("accuracy", "precision", "recall", "f1", "roc_auc", "rmse", "mae", "r2")
}


@dataclass(frozen=True)
class Deployment:
    """A verdict, and what is to be served by it.

    Attributes:
        check: the check of `require_approval` that has to refuse it.
    """

    check: str
    said: str
    verdict: Verdict
    asked: Asked

    @property
    def approved(self) -> bool:
        try:
            require_approval(self.verdict, self.asked)
        except NotApprovedError:
            return False
        return True


def approved_verdict() -> tuple[Verdict, Asked]:
    """Of the good model, judged for real, and the request to serve it."""
    gates = Gates()
    outcomes = Case("", "", good(), gates, weaker()).judged()
    assert all(each.passed for each in outcomes)
    digests = {"model_digest": good().digest, "data_digest": "data", "code_digest": "code", "gates_digest": "gates"}
    verdict = Verdict("orders", "2", True, [], **digests, champion="1", gates=[each.to_json() for each in outcomes])
    asked = Asked("orders", "2", **digests, gate_names=gate_names(gates), champion="1", recorded_digest=verdict.digest)
    return verdict, asked


def deployments() -> dict[str, Deployment]:
    verdict, asked = approved_verdict()

    def about(check: str, said: str, changed: Verdict, **asking: Any) -> Deployment:
        return Deployment(check, said, changed, replace(asked, **{"recorded_digest": changed.digest} | asking))

    refused = replace(verdict, approved=False, reasons=["f1 0.5000, at least 0.8 is asked for"])
    ungated = replace(verdict, gates=[each for each in verdict.gates if each["name"] != "prior"])
    return {
        "ignored_verdict": about("passed", "was refused: f1 0.5000", refused),
        "verdict_without_a_gate": about("passed", "no passed gate prior", ungated),
        "swapped_model_byte": about("model_digest", "about another model", verdict, model_digest=_swapped_byte()),
        "edited_verdict": Deployment(
            "recorded", "not the one on record", replace(verdict, reasons=["edited, digest and all"]), asked
        ),
        "older_data": about("data_digest", "about another data", verdict, data_digest="data of today"),
        "other_code": about("code_digest", "about another code", verdict, code_digest="code of today"),
        "lowered_gates": about("gates_digest", "about another gates", verdict, gates_digest="lower ones"),
        "verdict_of_another_version": about("version", "about another version", verdict, version="3"),
        "verdict_of_another_model": about("model", "about another model", verdict, model="rides"),
        "older_champion": about("champion", r"compared with another champion \(version 1\)", verdict, champion="7"),
    }


def _swapped_byte() -> str:
    """Digest of the good model with the last byte of one coefficient changed."""
    from copy import deepcopy

    pipeline = deepcopy(good().pipeline)
    raw = pipeline[-1].coef_.view(np.uint8)
    raw[0, 0] ^= 1
    return digest_of_model(pipeline, None)
