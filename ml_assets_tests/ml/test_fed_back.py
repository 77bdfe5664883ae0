"""Predictions as training rows: which, with which features, and never with what was predicted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_assets.ml.features import Features
from ml_assets.ml.fed_back import SCORED_BY, FedBack, Wanted, fed_back
from ml_assets.ml.predictions import FEATURE, FEATURES_DIGEST, KEY, REQUEST

TIME = pl.Datetime("us", "UTC")
REQUESTED: dict[str, pl.DataType] = {"at": TIME, "km": pl.Float64(), "score": pl.Float64(), "town": pl.String()}
# Named as what the endpoint says, so that a mix-up would show.
EXPRESSIONS = [pl.col("score"), pl.col("km").alias("label"), (pl.col("km") * 2).alias("version")]
FEATURES = Features.check(EXPRESSIONS, REQUESTED, ["late"], "test")
WANTED = Wanted(
    key=["ride"],
    needed=["ride", "at"],
    carried={"ride": pl.String(), "at": TIME, "town": pl.String()},
    features=FEATURES,
    request=REQUESTED,
    time="at",
    zone="UTC",
)
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
CUT_OFF = NOON + timedelta(days=10)


def asked(*rows: dict[str, Any], digest: str | None = FEATURES.digest) -> pl.DataFrame:
    """Rows of the table `predictions`."""
    made = []
    for number, row in enumerate(rows):
        given = {"ride": "a", "at": NOON, "km": 1.0, "score": 3.0, "town": "here", "version": "1"} | row
        made.append(
            {
                "request_id": f"r{number}",
                "row": 0,
                "received_at": NOON + timedelta(minutes=number),
                "version": given["version"],
                "label": "True",
                "score": 0.75,
                FEATURES_DIGEST: digest,
                KEY + "ride": given["ride"],
                **{REQUEST + name: given[name] for name in REQUESTED},
                FEATURE + "score": given["score"],
                FEATURE + "label": given["km"],
                FEATURE + "version": 2 * given["km"] if given["km"] is not None else None,
            }
        )
    kinds: dict[str, Any] = {REQUEST + name: kind for name, kind in REQUESTED.items()} | {FEATURES_DIGEST: pl.String}
    return pl.DataFrame(made, schema_overrides=kinds | {KEY + "ride": pl.String})


def source(*rides: str) -> pl.DataFrame:
    return pl.DataFrame({"ride": list(rides)}, schema={"ride": pl.String})


def given_back(predictions: pl.DataFrame, *rides: str, wanted: Wanted = WANTED, delay: int = 0) -> FedBack:
    return fed_back(predictions, source(*rides), wanted, CUT_OFF, timedelta(days=delay))


def test_a_prediction_that_the_source_has_no_row_of_is_one_with_what_the_model_saw() -> None:
    made = given_back(asked({}, {"ride": "b"}, {"ride": None}), "b")
    assert made.rows.to_dicts() == [
        {"ride": "a", "at": NOON, "town": "here", "score": 3.0, "label": 1.0, "version": 2.0, SCORED_BY: "1"}
    ], "the score 0.75, the label True and the version are nowhere among the features"
    marked = made.mark(source("b", "c"), ["ride"])
    assert marked.rows() == [("b", "1"), ("c", None)]


def test_the_first_prediction_of_a_key_counts_whichever_version_made_it() -> None:
    predictions = asked({"km": 5.0, "version": "2"}, {"km": 6.0, "version": "1"}, {"ride": "b", "km": None})
    for each in (predictions, predictions.reverse()):
        made = given_back(each)
        assert made.rows.select("ride", "label", SCORED_BY).rows() == [("a", 5.0, "2"), ("b", None, "1")]


def test_features_of_another_list_are_made_of_the_request_or_the_row_is_left_out() -> None:
    old = asked({}, {"ride": "b", "km": None}, digest="of another list")
    old = old.with_columns(pl.lit(99.0).alias(FEATURE + "version"))
    made = given_back(pl.concat([old, asked({"ride": "c"})]))
    assert made.rows.select("ride", "version").rows() == [("a", 2.0), ("c", 2.0)], "and not 99"
    assert made.left_out == {"without_place": 0, "not_remade": 1, "not_matured": 0}
    looked_up = Features.check([pl.col("km"), pl.col("people")], REQUESTED | {"people": pl.Int64()}, [], "test")
    made = given_back(old, wanted=replace(WANTED, features=looked_up))
    assert (made.rows.height, made.left_out["not_remade"]) == (0, 2), "what was looked up is not to be had any more"
    assert made.rows.columns == ["ride", "at", "town", "km", "people", SCORED_BY]
    before = asked({}).drop(FEATURES_DIGEST)
    assert given_back(before).rows["version"].to_list() == [2.0], "logged before it was written down"


def test_what_cannot_be_placed_or_is_too_young_is_left_out_and_counted() -> None:
    young = CUT_OFF - timedelta(days=3)
    predictions = asked({"at": None}, {"ride": "b", "at": young}, {"ride": "c", "town": None})
    assert given_back(predictions, delay=4).left_out == {"without_place": 1, "not_remade": 0, "not_matured": 1}
    assert given_back(predictions, delay=3).rows["ride"].to_list() == ["b", "c"]
    by_town = replace(WANTED, needed=["ride", "at", "town"])
    assert given_back(predictions, wanted=by_town, delay=4).left_out["without_place"] == 2
    assert given_back(predictions, wanted=by_town, delay=3).rows["ride"].to_list() == ["b"]


@pytest.mark.parametrize("predictions", [pl.DataFrame(), asked({}).clear()])
def test_no_predictions_give_no_rows(predictions: pl.DataFrame) -> None:
    made = given_back(predictions)
    assert made.rows.schema == WANTED.columns | {SCORED_BY: pl.String()}
    assert made.mark(source("a"), ["ride"]).rows() == [("a", None)]
