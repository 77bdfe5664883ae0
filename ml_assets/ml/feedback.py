"""Predictions beside what came true. The same predictions and outcomes give the same rows, however they arrived."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pandera.polars as pa
import polars as pl

from ml_assets.contract import Contract
from ml_assets.lake import PARTITION
from ml_assets.ml.evaluation import Scored, measure
from ml_assets.ml.predictions import ASKED, KEY, TIME, answer_types
from ml_assets.ml.training import KNOWN_AT
from ml_assets.spec.base import Task

OUTCOME = "outcome_"  # before the columns of an outcome
KNOWN = "known_at"
FIRST = ["received_at", "request_id", "row"]
_CARRIED = ("request_id", "row", "received_at", "version", "release")


def feedback_schema(contract: Contract, key: Sequence[str], task: Task) -> pa.DataFrameSchema:
    """What a row of the table holds."""
    columns = {name: pa.Column(ASKED[name]) for name in _CARRIED}
    columns |= {KEY + name: pa.Column(contract.types.get(name, pl.String())) for name in key}
    columns |= {name: pa.Column(kind) for name, kind in answer_types(task).items()}
    for name in contract.having("outcome", "target"):
        # What an outcome may be was checked when it arrived; there is none yet where it is null.
        columns[OUTCOME + name] = pa.Column(contract.types[name], nullable=True)
    columns[KNOWN] = pa.Column(TIME, nullable=True, description="When the outcome became known, as far as that is said")
    return pa.DataFrameSchema(
        columns,
        unique=[*(KEY + name for name in key), "version"],
        description="The first prediction of each id and version, beside the outcome that is known of it by now.",
    )


def counted(predictions: pl.DataFrame, before: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The predictions of a day that count: with a whole key, and the first of this key and version.

    The first, because a later one may have been asked for when more was known, perhaps the outcome itself.

    Args:
        before: key and version of the predictions of all days before.
    """
    ids = [*(KEY + name for name in key), "version"]
    there = predictions.drop_nulls(ids).sort(FIRST).unique(ids, keep="first", maintain_order=True)
    return there if before.is_empty() else there.join(before.select(ids), on=ids, how="anti", maintain_order="left")


def latest_known(outcomes: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Of each key the outcome that became known last; of two at one time always the same one."""
    values = sorted(name for name in outcomes.columns if name not in (*key, KNOWN_AT, PARTITION))
    ordered = outcomes.select(*key, KNOWN_AT, *values).unique().sort([KNOWN_AT, *values], nulls_last=False)
    return ordered.unique(key, keep="last", maintain_order=True)


def joined(counted_rows: pl.DataFrame, outcomes: pl.DataFrame, schema: pa.DataFrameSchema, key: Sequence[str]) -> Any:
    """Predictions beside their outcomes, null where there is none yet; in the order in which they were asked for.

    Args:
        outcomes: the latest known of each key; shape (n, key + outcome columns + `_known_at`).
    """
    said = {name: OUTCOME + name for name in outcomes.columns} | {KNOWN_AT: KNOWN}
    named = outcomes.rename(said | {name: KEY + name for name in key})
    on = [KEY + name for name in key]
    found = counted_rows.join(named, on=on, how="left", maintain_order="left")
    lacking = [
        pl.lit(None, column.dtype.type).alias(name)
        for name, column in schema.columns.items()
        if name not in found.columns
    ]
    return found.with_columns(lacking).select(list(schema.columns))


@dataclass(frozen=True)
class Answered(Scored):
    """Answers as they were given, whatever threshold they were given by.

    Attributes:
        said: class positions, shape (rows,).
    """

    said: np.ndarray | None = None

    @property
    def answers(self) -> np.ndarray:
        return super().answers if self.said is None else self.said

    def take(self, rows: np.ndarray) -> "Answered":
        said = None if self.said is None else self.said[rows]
        return replace(self, truth=self.truth[rows], scores=self.scores[rows], said=said)


def quality(rows: pl.DataFrame, target: str, task: Task, versions: Mapping[str, list[Any]]) -> dict[str, Any]:
    """For each version its number of rows with an outcome, and the task's metrics over these.

    Args:
        rows: of the table `feedback`.
        versions: the classes of each version, in the order of its scores.
    """
    known = rows.drop_nulls(OUTCOME + target)
    measured: dict[str, Any] = {}
    for (version,), some in sorted(known.partition_by("version", as_dict=True).items()):
        classes = versions.get(str(version), [])
        known_scores = scored(some, some.get_column(OUTCOME + target), task, classes)
        measured[str(version)] = {"rows": some.height} | (
            {name: value for name, value in measure(known_scores).items() if np.isfinite(value)} if known_scores else {}
        )
    return measured


def scored(rows: pl.DataFrame, truth: pl.Series, task: Task, classes: list[Any]) -> Scored | None:
    """The rows as `measure` takes them; None if the classes of the version are not known, or an outcome is of none."""
    if task == "regression":
        return Scored(truth.cast(pl.Float64).to_numpy(), rows.get_column("value").to_numpy(), [], task)
    position = {str(each): number for number, each in enumerate(classes)}
    said = [position.get(each) for each in rows.get_column("label").to_list()]
    came = [position.get(str(each)) for each in truth.to_list()]
    if None in said or None in came:
        return None
    if task == "binary":
        positive = rows.get_column("score").to_numpy()
        scores = np.column_stack([1 - positive, positive])
    else:
        by_class = [msgspec.json.decode(each) for each in rows.get_column("scores").to_list()]
        scores = np.array([[each[str(name)] for name in classes] for each in by_class], dtype=np.float64)
    return Answered(np.array(came), scores, classes, task, said=np.array(said))
