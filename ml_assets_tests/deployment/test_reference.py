"""The distributions that go with a release."""

import json
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_assets.deployment.reference import distribution
from ml_assets.lake import WHOLE
from ml_assets.ml.days import dates, weekdays
from ml_assets.serving.bundle import REFERENCE
from ml_assets_tests.project import Project

NAME = "late_deliveries"


@pytest.fixture(scope="module")
def reference(small: Project) -> dict[str, Any]:
    record = small.latest().get("endpoint", WHOLE)
    assert record is not None
    folder = small.settings.releases / NAME / str(record.details["release"])
    return dict(json.loads((folder / REFERENCE).read_bytes()))


def test_a_release_has_the_models_inputs_by_weekday_and_nobodys_name(small: Project, reference: dict[str, Any]) -> None:
    model = small.model()
    assert list(reference["features"]) == model.features.names
    assert not {"order_id", *model.contract.having("entity")} & set(reference["features"])
    [scores] = reference["scores"]
    assert set(reference["days"]) == {"features", "scores"}
    assert 0 < reference["days"]["features"]["none"]["days"] < 20, "those of the small project's training rows"
    weekday = reference["features"]["weekday"]
    for each in (weekday, scores):
        assert sum(one["rows"] for one in each["weekdays"]) == each["rows"] > 0
    there = [at for at, one in enumerate(weekday["weekdays"], 1) if one["rows"]]
    assert len(there) > 4
    for day in there:  # the feature says which day it is, and so does the reference
        counted = dict(zip(weekday["edges"], weekday["weekdays"][day - 1]["at"], strict=True))
        assert {edge: count for edge, count in counted.items() if count} in (
            {day: weekday["weekdays"][day - 1]["rows"]},
            {},  # a day with less than a twentieth of the rows may have no edge of its own
        )


def test_the_parts_of_weekdays_are_the_whole() -> None:
    random = np.random.default_rng(1)
    days = random.integers(1, 8, 1_000)
    numbers = pl.Series(np.where(random.random(1_000) < 0.1, np.nan, random.poisson(3, 1_000))).fill_nan(None)
    for values in (numbers, pl.Series(random.choice([*"abcdef"], 1_000)), pl.Series(map(str, range(1_000)))):
        said = distribution(values, days)
        for name in said["weekdays"][0]:
            parts = [_numbers(each[name]) for each in said["weekdays"]]
            assert np.sum(parts, axis=0).tolist() == _numbers(said[name]), name


def test_a_weekday_that_begins_with_missing_texts_is_counted() -> None:
    said = distribution(pl.Series([None, None, "a", "b"] * 25), np.tile([1, 1, 1, 2], 25))
    assert (said["weekdays"][0]["counts"], said["weekdays"][0]["nulls"]) == ({"a": 25, "b": 0}, 50)
    nothing = distribution(pl.Series([None, None, "a"]), np.array([1, 1, 2]))
    assert nothing["weekdays"][0] == {"rows": 2, "nulls": 2, "counts": {"a": 0}, "other": 0}


def _numbers(said: Any) -> list[int]:
    return list(said.values()) if isinstance(said, dict) else said if isinstance(said, list) else [said]


def test_numbers_are_counted_in_bins_of_equally_many_and_on_their_edges() -> None:
    spread = distribution(pl.Series(np.arange(1_000.0)))
    assert len(spread["counts"]) == 20
    assert set(spread["counts"]) <= {49, 50, 51}
    assert spread["at"] == [1] * 19
    few = distribution(pl.Series([0.0] * 60 + [1.0] * 30 + [None] * 10))
    assert (few["edges"], few["counts"], few["at"], few["nulls"]) == ([0.0, 1.0], [0, 60, 30], [60, 30], 10)
    nothing = distribution(pl.Series([None] * 5, dtype=pl.Float64))
    assert (nothing["edges"], nothing["counts"], nothing["at"]) == ([], [0], [])


def test_frequent_categories_are_counted_on_other_rows_than_they_were_chosen_on() -> None:
    names = [f"name {each}" for each in range(500)]
    said = distribution(pl.Series(np.random.default_rng(2).choice(names, 10_000)))
    assert said["rows"] == 5_000
    assert len(said["counts"]) == 50
    share = sum(said["counts"].values()) / said["rows"]
    assert share == pytest.approx(0.1, abs=0.015), "each is a five-hundredth"
    assert sorted([*said["counts"], *said["rare"]]) == sorted(names)


def test_a_weekday_is_that_of_the_time_zone() -> None:
    late_on_sunday = pl.Series([datetime(2025, 3, 10, 2)]).dt.replace_time_zone("UTC")
    assert str(dates(late_on_sunday, "America/New_York")[0]) == "2025-03-09"
    assert dates(pl.Series([date(2025, 3, 10)]), "America/New_York").dtype == np.dtype("datetime64[D]")
    assert weekdays(late_on_sunday, "UTC").tolist() == [1]
    assert weekdays(late_on_sunday, "America/New_York").tolist() == [7]
    assert weekdays(pl.Series([datetime(2025, 3, 10, 2)]), "America/New_York").tolist() == [1]
    assert weekdays(pl.Series([date(2025, 3, 10)]), "America/New_York").tolist() == [1]
