"""Drift: held to the stated number of false alarms, and found where it is. The long form is `drills.drift`."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import fisher_exact, ks_2samp

from ml_assets.deployment.reference import distribution
from ml_assets.errors import MonitoringError
from ml_assets.ml.drift import Drift, compare, judge, on_weekday
from ml_assets_tests.drills.drift import SHIFTS, calm, interval, power

RANDOM = np.random.default_rng(8)
NORMAL = distribution(pl.Series("x", RANDOM.normal(size=5_000)))


def texts(*counts: tuple[str, int]) -> pl.Series:
    return pl.Series("x", [name for name, count in counts for _ in range(count)], dtype=pl.String)


def found(p_value: float, psi: float = 1.0) -> Drift:
    return Drift("x", 100, psi, 0.0, p_value, "ks", False, 0.0)


def alarms(p_values: list[float], **said: float) -> list[bool]:
    judged = judge([found(each) for each in p_values], **{"alarms_per_month": 3, "least": 0.1} | said)
    return [each.alarm for each in judged]


@pytest.mark.parametrize(("rows", "batches"), [(50, 50), (1_000, 20)])
def test_days_without_drift_are_no_alarms(rows: int, batches: int) -> None:
    shown = calm("dependent", batches, seed=3, sizes=[rows], with_each=10)[rows]
    low, _ = interval(shown.alarms, batches)
    assert low <= 1 / 30, f"{shown.alarms} of {batches} days without drift are alarms, one of thirty may"


@pytest.mark.parametrize(("shift", "rows"), [(at, each.found_from) for at, each in enumerate(SHIFTS)])
def test_what_is_said_to_be_found_is_found(shift: int, rows: int | None) -> None:
    if rows is None:
        assert power(shift, 1_000, 20, seed=1) < 0.9, "it is found, and said to be too small"
    else:
        _, high = interval(round(20 * power(shift, rows, 20, seed=1)), 20)
        assert high >= 0.9


def test_kolmogorov_smirnov_is_that_of_all_values_up_to_the_width_of_a_bin() -> None:
    rows = np.random.default_rng(5).normal(size=5_000)
    day = np.random.default_rng(6).normal(0.15, size=1_000)
    drift = compare(distribution(pl.Series(rows)), pl.Series("x", day))
    exact = ks_2samp(rows, day)
    assert drift.test == "ks"
    assert exact.statistic - 1 / 20 <= drift.statistic <= exact.statistic
    assert drift.p_value >= exact.pvalue


def test_two_values_and_nulls_are_judged_by_fishers_exact_test() -> None:
    truth = pl.Series("x", [0.0] * 900 + [1.0] * 100)
    drift = compare(distribution(truth), pl.Series("x", [0.0] * 45 + [1.0] * 15))
    lower, upper = (fisher_exact([[15, 45], [100, 900]], side)[1] for side in ("less", "greater"))
    assert drift.p_value == pytest.approx(2 * min(lower, upper))
    assert drift.statistic == pytest.approx(0.15)
    nulls = compare(distribution(pl.Series("x", [1.0] * 95 + [None] * 5)), pl.Series("x", [1.0] * 40 + [None] * 20))
    lower, upper = (fisher_exact([[20, 40], [5, 95]], side)[1] for side in ("less", "greater"))
    assert (nulls.test, nulls.p_value) == ("nulls", pytest.approx(2 * min(lower, upper)))
    assert nulls.psi > 0.1


@pytest.mark.parametrize("rows", [50, 1_000, 50_000])
def test_psi_without_drift_is_about_nothing_at_any_number_of_rows(rows: int) -> None:
    number = 60 if rows < 5_000 else 5
    days = [compare(NORMAL, pl.Series("x", RANDOM.normal(size=rows))).psi for _ in range(number)]
    assert np.mean(days) < 0.03
    shifted = [compare(NORMAL, pl.Series("x", RANDOM.normal(0.5, size=rows))).psi for _ in range(number)]
    assert np.mean(shifted) == pytest.approx(0.25, abs=0.06), (
        "of a shift of d standard deviations it is about d squared"
    )


@pytest.mark.parametrize("other", [7.0, 3.0, math.nextafter(5.0, 6.0)])
def test_a_constant_that_becomes_another_is_found(other: float) -> None:
    reference = distribution(pl.Series("x", [5.0] * 1_000))
    same, moved = (compare(reference, pl.Series("x", [value] * 50)) for value in (5.0, other))
    assert (same.psi, same.p_value) == (0.0, 1.0)
    assert judge([moved], alarms_per_month=1, least=0.1)[0].alarm


def test_a_value_that_repeats_is_told_from_its_neighbours() -> None:
    spread = np.concatenate([np.zeros(3_000), RANDOM.exponential(1, 2_000)])
    reference = distribution(pl.Series("x", spread))
    beside = np.where(spread == 0, 1e-9, spread)[::5]
    assert judge([compare(reference, pl.Series("x", beside))], alarms_per_month=1, least=0.1)[0].alarm


def test_nan_and_infinity_are_missing_values() -> None:
    values = [*RANDOM.normal(size=97), math.nan, math.inf, None]
    drift, none = (
        compare(NORMAL, pl.Series("x", each, dtype=pl.Float64)) for each in (values, [*values[:97], *[None] * 3])
    )
    assert drift == none


@pytest.mark.parametrize("nothing", [[None] * 60, [math.nan] * 60])
def test_a_day_without_any_value_is_an_alarm_where_there_used_to_be_some(nothing: list[Any]) -> None:
    drift = compare(NORMAL, pl.Series("x", nothing))
    assert drift.test == "nulls"
    assert judge([drift], alarms_per_month=1, least=0.1)[0].alarm
    as_ever = compare(distribution(pl.Series("x", [None] * 500, dtype=pl.Float64)), pl.Series("x", nothing))
    assert (as_ever.psi, as_ever.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("rows", [0, 49])
def test_below_fifty_rows_nothing_is_judged_and_that_is_said(rows: int) -> None:
    drift = compare(NORMAL, pl.Series("x", [99.0] * rows))
    assert math.isnan(drift.psi)
    assert math.isnan(drift.p_value)
    assert drift.note == f"{rows} rows; drift is judged from 50 on"
    judged = judge([drift, found(0.05)], alarms_per_month=3, least=0.1)
    assert [each.alarm for each in judged] == [False, True], "it counts as none of those that are judged together"


def test_a_reference_of_few_rows_judges_nothing() -> None:
    drift = compare(distribution(pl.Series("x", [1.0] * 20)), pl.Series("x", [2.0] * 1_000))
    assert drift.note == "the reference has 20 rows; drift is judged from 50 on"


def test_categories_that_were_never_seen_are_found_and_counted() -> None:
    reference = distribution(texts(("a", 600), ("b", 380), ("c", 15), ("d", 5)))
    drift = compare(reference, texts(("a", 27), ("b", 17), ("new", 6)))
    assert drift.unseen == pytest.approx(0.12)
    assert drift.test == "rare"
    assert judge([drift], alarms_per_month=1, least=0.1)[0].alarm
    one = compare(reference, texts(("a", 30), ("b", 19), ("new", 1)))
    assert one.unseen == pytest.approx(0.02)
    assert one.p_value > 0.1, "one row in fifty may be of a rare category"


def test_as_many_categories_as_rows_are_no_drift() -> None:
    """Counted on the rows that they were chosen on, the most frequent of many would seem to become rarer each day."""
    names = [f"courier {each}" for each in range(1_000)]
    reference = distribution(pl.Series("x", RANDOM.choice(names, 5_000)))
    days = [compare(reference, pl.Series("x", RANDOM.choice(names, 1_000))) for _ in range(10)]
    assert np.median([each.p_value for each in days]) > 0.05
    assert max(each.unseen for each in days) < 0.03
    other = compare(reference, pl.Series("x", [f"rider {each}" for each in range(1_000)]))
    assert other.unseen == 1
    assert judge([other], alarms_per_month=1, least=0.1)[0].alarm


def test_of_many_rare_categories_some_are_rarer_by_chance() -> None:
    names = [f"courier {each}" for each in range(40)]
    reference = distribution(pl.Series("x", [each for each in names for _ in range(10)]))
    days = [compare(reference, pl.Series("x", RANDOM.choice(names, 50))).p_value for _ in range(100)]
    assert np.mean(np.array(days) <= 0.1) <= 0.15


def test_what_has_too_many_categories_to_be_named_does_not_say_what_is_unseen() -> None:
    reference = distribution(pl.Series("x", [str(each) for each in range(30_000)]))
    assert reference["rare"] is None
    assert math.isnan(compare(reference, pl.Series("x", ["new"] * 60)).unseen)


@pytest.mark.parametrize(
    ("reference", "values", "said"),
    [
        (NORMAL, texts(("a", 60)), r"column 'x' is a String, but .* numbers.*; compare each prediction with the rel"),
        (distribution(texts(("a", 60))), pl.Series("x", [1.0] * 60), r"column 'x' is a Float64, but .* texts"),
        (NORMAL | {"kind": "odd"}, pl.Series("x", [1.0] * 60), r"the unknown kind 'odd'"),
    ],
)
def test_a_column_of_another_type_is_refused(reference: dict[str, Any], values: pl.Series, said: str) -> None:
    with pytest.raises(MonitoringError, match=said):
        compare(reference, values)


@pytest.mark.parametrize("kind", [pl.Int64, pl.Float32, pl.Boolean])
def test_numbers_of_any_type_and_truth_values_are_numbers(kind: Any) -> None:
    values = [0, 1, 1] * 30
    reference = distribution(pl.Series("x", values, dtype=pl.Float64))
    assert compare(reference, pl.Series("x", map(bool, values) if kind == pl.Boolean else values, dtype=kind)).psi == 0


def test_the_level_is_shared_by_all_columns_and_what_is_certain_leaves_its_share_to_the_others() -> None:
    assert alarms([0.04, 1, 1, 1]) == [False] * 4  # 3 in 30 days among 4: 0.025
    assert alarms([0.02, 1, 1, 1]) == [True, False, False, False]
    assert alarms([0.02, 0.04, 1, 1]) == [True, False, False, False]
    assert alarms([0.02, 0.03, 0.049, 1]) == [True, True, True, False]
    assert alarms([0.04, 1, 1, 1], alarms_per_month=6) == [True, False, False, False]


def test_what_is_certain_and_small_is_no_alarm() -> None:
    assert not any(each.alarm for each in judge([found(0.0, psi=0.09)], alarms_per_month=30, least=0.1))
    assert judge([found(0.0, psi=0.1)], alarms_per_month=30, least=0.1)[0].alarm
    assert judge([], alarms_per_month=1, least=0.1) == []


def test_a_release_of_before_is_still_compared_with() -> None:
    """References had no counts on the edges, no names of rare categories and no weekdays."""
    numbers = {name: value for name, value in NORMAL.items() if name != "at"}
    assert compare(numbers, pl.Series("x", RANDOM.normal(1, size=100))).p_value < 1e-6
    categories = distribution(texts(("a", 600), ("b", 400)))
    del categories["rare"]
    assert compare(categories, texts(("a", 100))).p_value < 1e-6
    shortened = compare(categories | {"other": 10}, texts(("a", 100)))
    assert (shortened.p_value, shortened.test) == (1.0, "nulls")
    assert "the release is an old one" in shortened.note
    with pytest.raises(MonitoringError, match=r"no distributions by weekday.*`monitoring\.drift\.by: none`"):
        on_weekday(numbers, 1)


def test_a_day_is_held_against_its_weekday() -> None:
    weekdays = np.repeat(np.arange(1, 8), 500)
    busy = pl.Series("x", RANDOM.normal(size=len(weekdays)) + 3 * (weekdays > 5))
    zone = pl.Series("x", np.where(weekdays > 5, "harbour", "centre"))
    numbers, categories = (distribution(each, weekdays) for each in (busy, zone))
    sunday, monday = pl.Series("x", RANDOM.normal(3, size=300)), pl.Series("x", RANDOM.normal(size=300))
    assert compare(numbers, sunday).p_value < 1e-9
    assert compare(on_weekday(numbers, 7), sunday).p_value > 0.001
    assert compare(on_weekday(numbers, 7), monday).p_value < 1e-9
    assert compare(on_weekday(categories, 7), texts(("harbour", 60))).p_value == 1
    assert compare(on_weekday(categories, 1), texts(("harbour", 60))).p_value < 1e-9
