"""A few ordinary rows are scored without a table, with the very same answers, and unusual ones by way of tables."""

import math
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.deployment.release import as_json
from ml_assets.ml.features import Features
from ml_assets.ml.purity import in_company
from ml_assets.serving.bundle import GOLDEN, read_manifest
from ml_assets.serving.quick import MOST
from ml_assets.serving.scalars import UnusualError, scalars_of
from ml_assets.serving.scorer import Scorer
from ml_assets_tests.project import Project

TYPES: dict[str, pl.DataType] = {
    "km": pl.Float64(),
    "minutes": pl.Float64(),
    "items": pl.Int64(),
    "few": pl.Int8(),
    "zone": pl.String(),
    "new": pl.Boolean(),
    "at": pl.Datetime("us", "UTC"),
}
AT, KM, ITEMS = pl.col("at"), pl.col("km"), pl.col("items")
BY_HAND = {
    "plain": KM,
    "whole": ITEMS,
    "truth": pl.col("new"),
    "text": pl.col("zone"),
    "ratio": KM / pl.col("minutes"),
    "per_item": KM / ITEMS,
    "hour": AT.dt.hour() + AT.dt.minute() / 60,
    "from_peak": (AT.dt.hour() + AT.dt.minute() / 60 - 19).abs(),
    "third": KM / 3,
    "weekday": AT.dt.weekday().cast(pl.String),
    "fast": KM * 2 - pl.col("minutes") > 0.5,
    "there": pl.col("zone").is_null(),
    "same": pl.col("zone") == "a",
    "sum": ITEMS + ITEMS * 3,
    "literal_of_whole": ITEMS / 7,
}
LEFT = {"logarithm": KM.log(), "small": pl.col("few") + pl.col("few"), "upper": pl.col("zone").str.to_uppercase()}


def typed(expressions: dict[str, pl.Expr]) -> dict[str, pl.Expr]:
    schema = pl.DataFrame(schema=TYPES).select(**expressions).schema
    return {
        name: each.cast(pl.String if schema[name] == pl.String else pl.Float64) for name, each in expressions.items()
    }


@pytest.fixture(scope="module")
def scalars() -> dict[str, Callable[[Any], Any]]:
    return scalars_of(typed(BY_HAND | LEFT), TYPES)


def test_what_is_on_the_short_list_is_had_without_polars_and_nothing_else(scalars: dict[str, Any]) -> None:
    assert scalars.keys() == BY_HAND.keys()


NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 0.1, 3.0]))
ROWS = st.fixed_dictionaries(
    {
        "km": NUMBERS,
        "minutes": NUMBERS,
        "items": st.one_of(st.none(), st.integers(-(2**53), 2**53)),
        "few": st.integers(-128, 127),
        "zone": st.sampled_from([None, "a", "b", ""]),
        "new": st.sampled_from([None, True, False]),
        "at": st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))),
    }
)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_a_feature_has_the_bits_that_polars_gives_it(row: dict[str, Any]) -> None:
    frame = in_company(pl.DataFrame([row], TYPES)).select(**typed(BY_HAND))
    for name, function in _SCALARS.items():
        try:
            value = function(row)
        except UnusualError:
            continue
        wanted = frame.get_column(name)[0]
        if isinstance(wanted, float) and not math.isfinite(wanted):
            wanted = None
        assert repr(value) == repr(wanted), (name, row)


_SCALARS = scalars_of(typed(BY_HAND), TYPES)


@pytest.fixture(scope="module")
def scorer(release: Path) -> Scorer:
    return Scorer.load(release)


def test_the_demos_model_takes_no_table_for_a_row_and_answers_as_approved(release: Path, scorer: Scorer) -> None:
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())
    quick = scorer._quick
    assert quick is not None
    assert quick.others == ()
    for row, answer in zip(golden["rows"], golden["answers"], strict=True):
        scores = quick.scores([row])
        assert scores is not None
        assert scorer._answers(scores) == [answer]


def test_rows_get_the_scores_that_they_get_by_way_of_tables(small: Project, scorer: Scorer) -> None:
    columns = [column.name for column in scorer.manifest.inputs if column.needed]
    rows = as_json(small.lake.read("late_deliveries", "cleaned_data").select(columns))
    quick = scorer._quick
    assert quick is not None
    features = scorer.features.compute(scorer.read(rows)[0])
    wanted = scorer.estimator.scores(features)
    for count in (1, 7, MOST):
        for start in range(0, 320, count):
            some = rows[start : start + count]
            found = quick.scores(some)
            assert found is not None
            assert np.array_equal(found, wanted[start : start + len(some)])


CHANGES: list[dict[str, Any]] = [
    {"distance_km": "far"},
    {"distance_km": True},
    {"distance_km": -1.0},
    {"order_value": 1e300},
    {"order_value": None},
    {"order_value": 2**70},
    {"items": 2.5},
    {"items": True},
    {"items": 0},
    {"ordered_at": "2025-02-01T18:40:00"},
    {"ordered_at": "2025-02-31T18:40:00Z"},
    {"ordered_at": 5},
    {"new_customer": 1},
    {"zone": "   "},
    {"zone": 7},
    {"other": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_is_refused_is_refused_as_by_way_of_tables(release: Path, scorer: Scorer, change: dict[str, Any]) -> None:
    row = msgspec.json.decode((release / GOLDEN).read_bytes())["rows"][0] | change
    quick = scorer._quick
    assert quick is not None
    assert quick.scores([row]) is None
    assert quick.scores([]) is quick.scores([row] * (MOST + 1)) is quick.scores([None]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"items": 3.0},
        {"order_value": 41},
        {"distance_km": None},
        {"ordered_at": "2025-02-01T18:40:00Z"},
        {"ordered_at": "2025-02-01T18:40:00.25+00:00"},
        {"ordered_at": "2025-02-01T20:40:00+02:00"},
        {"ordered_at": "2025-02-01 18:40:00Z"},
        {"zone": " harbour "},
    ],
    ids=str,
)
def test_odd_values_that_are_taken_get_the_same_answer(release: Path, scorer: Scorer, change: dict[str, Any]) -> None:
    row = msgspec.json.decode((release / GOLDEN).read_bytes())["rows"][0] | change
    by_table = scorer._answers(scorer.estimator.scores(scorer.features.compute(scorer.read([row])[0])))
    assert scorer.predict([row]) == by_table


def test_a_release_that_looks_up_or_has_no_graph_is_left_to_tables(release: Path) -> None:
    from ml_assets.serving.quick import Quick

    manifest = read_manifest(release)
    features = Features.from_json(manifest.features)
    assert Quick.of(manifest, features, object()) is None
