"""Predictions beside outcomes: the same numbers, in whatever order, how often and how late outcomes came."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings

from ml_assets.ml.evaluation import Scored, measure
from ml_assets.ml.feedback import KNOWN, OUTCOME, counted, joined, latest_known, quality
from ml_assets.ml.predictions import TIME
from ml_assets.ml.training import KNOWN_AT

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = pa.DataFrameSchema(
    {
        "request_id": pa.Column(pl.String),
        "row": pa.Column(pl.Int64),
        "received_at": pa.Column(TIME),
        "version": pa.Column(pl.String),
        "key_order": pa.Column(pl.Int64),
        "label": pa.Column(pl.String),
        "score": pa.Column(pl.Float64),
        f"{OUTCOME}late": pa.Column(pl.Boolean, nullable=True),
        KNOWN: pa.Column(TIME, nullable=True),
    }
)
PREDICTED = {
    name: column.dtype.type for name, column in SCHEMA.columns.items() if name not in (f"{OUTCOME}late", KNOWN)
}
KNOWN_LATER = {"order": pl.Int64, KNOWN_AT: TIME, "late": pl.Boolean}


def predicted(orders: list[tuple[int | None, str]]) -> pl.DataFrame:
    rows = [
        ("r", number, START + timedelta(minutes=number), version, order, "True", 0.5 + number / 1000)
        for number, (order, version) in enumerate(orders)
    ]
    return pl.DataFrame(rows, schema=PREDICTED, orient="row")


def outcomes_of(said: list[tuple[int, int, bool | None]]) -> pl.DataFrame:
    rows = [(order, START + timedelta(hours=hour), late) for order, hour, late in said]
    return pl.DataFrame(rows, schema=KNOWN_LATER, orient="row")


ORDERS = st.lists(st.tuples(st.none() | st.integers(1, 6), st.sampled_from(["1", "2"])), max_size=12)
OUTCOMES = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3), st.none() | st.booleans()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(ORDERS, OUTCOMES, st.integers(0, 10**6))
def test_order_repetition_and_lateness_change_nothing_in_the_end(
    orders: list[tuple[int | None, str]], said: list[tuple[int, int, bool | None]], seed: int
) -> None:
    predictions = counted(predicted(orders), pl.DataFrame(), ["order"])
    at_once = joined(predictions, latest_known(outcomes_of(said), ["order"]), SCHEMA, ["order"])
    dice = random.Random(seed)
    again = said + [dice.choice(said) for _ in range(5 if said else 0)]
    dice.shuffle(again)
    arrived: list[tuple[int, int, bool | None]] = []
    late = at_once
    while again:
        batch = dice.randint(1, len(again))
        arrived, again = arrived + again[:batch], again[batch:]
        shuffled = predicted(orders).sample(fraction=1, shuffle=True, seed=dice.randint(0, 99))
        some = counted(shuffled, pl.DataFrame(), ["order"])
        late = joined(some, latest_known(outcomes_of(arrived), ["order"]), SCHEMA, ["order"])
    assert late.equals(at_once)
    last: dict[int, tuple[int, bool | None]] = {}
    for order, hour, value in said:
        last[order] = max(
            last.get(order, (-1, None)), (hour, value), key=lambda each: (each[0], each[1] is not None, bool(each[1]))
        )
    for order, value in at_once.select("key_order", f"{OUTCOME}late").rows():
        assert value == last.get(order, (0, None))[1]


def test_the_first_prediction_of_an_id_and_version_counts() -> None:
    predictions = predicted([(1, "1"), (1, "1"), (1, "2"), (None, "1"), (2, "1"), (3, "1")])
    some = counted(predictions, pl.DataFrame(), ["order"])
    assert some.select("key_order", "version", "row").rows() == [(1, "1", 0), (1, "2", 2), (2, "1", 4), (3, "1", 5)]
    yesterday = predicted([(1, "2"), (2, "2"), (3, "1")])
    some = counted(predictions, yesterday, ["order"])
    assert some.select("key_order", "version").rows() == [(1, "1"), (2, "1")]


def test_quality_is_by_version_of_rows_with_an_outcome_and_of_the_labels_that_were_given() -> None:
    rows = joined(
        counted(predicted([(1, "1"), (2, "1"), (3, "1"), (4, "1"), (5, "2")]), pl.DataFrame(), ["order"]),
        outcomes_of([(1, 1, True), (2, 1, False), (3, 1, True), (5, 1, True)]),
        SCHEMA,
        ["order"],
    ).with_columns(label=pl.when(pl.col("key_order") == 3).then(pl.lit("False")).otherwise("label"))
    found = quality(rows, "late", "binary", {"1": [False, True]})
    assert found["1"]["rows"] == 3
    assert (found["1"]["accuracy"], found["1"]["recall"], found["1"]["roc_auc"]) == (1 / 3, 0.5, 0.5)
    assert found["2"] == {"rows": 1}, "nobody knows the classes of version 2"


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_quality_of_other_tasks_is_that_of_metrics(task: Any) -> None:
    dice = random.Random(3)
    classes = ["a", "b", "c"]
    truth = [dice.choice(classes) for _ in range(40)]
    scores = [[dice.random() for _ in classes] for _ in truth]
    if task == "regression":
        values = [each[0] for each in scores]
        wanted = measure(
            Scored(pl.Series([each[1] for each in scores]).to_numpy(), pl.Series(values).to_numpy(), [], task)
        )
        said = pl.DataFrame({"version": "1", "value": values, f"{OUTCOME}y": [each[1] for each in scores]})
    else:
        scores = [[each / sum(row) for each in row] for row in scores]
        position = pl.Series([classes.index(each) for each in truth]).to_numpy()
        wanted = measure(Scored(position, pl.DataFrame(scores, orient="row").to_numpy(), classes, task))
        labels = [classes[row.index(max(row))] for row in scores]
        texts = [str(dict(zip(classes, row, strict=True))).replace("'", '"') for row in scores]
        said = pl.DataFrame({"version": "1", "label": labels, "score": 0.5, "scores": texts, f"{OUTCOME}y": truth})
    assert quality(said, "y", task, {"1": classes})["1"] == {"rows": 40} | wanted
