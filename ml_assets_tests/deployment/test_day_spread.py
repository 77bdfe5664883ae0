"""How much days differ: as `compare` would say of each day beside all others, and enough to hold alarms to their rate.

The rows of a day share an effect here, as the flights of an hour share its weather.
"""

import json
import math

import numpy as np
import polars as pl
import pytest

from ml_assets.deployment.day_spread import spread_of
from ml_assets.deployment.reference import distribution, reference_of
from ml_assets.ml.days import weekdays
from ml_assets.ml.drift import Drift, Spread, compare, judge, on_weekday
from ml_assets_tests.drills.drift import interval

FIRST = np.datetime64("2025-01-01")
SHARED, OWN = 4, 4  # columns with an effect of the day, and without


def dates(number: int, rows: int) -> np.ndarray:
    return np.repeat(FIRST + np.arange(number), rows)


def days_of(number: int, rows: int, random: np.random.Generator, effect: float = 0.5) -> list[pl.Series]:
    """Columns of some days."""
    day = np.repeat(random.normal(size=(SHARED, number)), rows, axis=1) * effect
    drawn = random.normal(size=(SHARED + OWN, number * rows))
    drawn[:SHARED] += day
    return [pl.Series(f"column {at}", each) for at, each in enumerate(drawn)]


def made(columns: list[pl.Series], days: np.ndarray, by: str = "none") -> tuple[list[dict], Spread]:
    week = weekdays(pl.Series(days), "UTC")
    references = [distribution(each, week) for each in columns]
    said = json.loads(json.dumps(spread_of(references, columns, days)))[by]
    usual = {each.name: number for each, number in zip(columns, said["usual"], strict=True)}
    return references, Spread(usual, said["maxima"])


def compared(references: list[dict], day: list[pl.Series]) -> list[Drift]:
    return [compare(ours, theirs) for ours, theirs in zip(references, day, strict=True)]


def alarms(drifts: list[Drift], spread: Spread | None) -> list[str]:
    found = judge(drifts, alarms_per_month=1, least=0.1, spreads=[spread] * len(drifts))
    return [each.name for each in found if each.alarm]


def without(reference: dict, day: dict) -> dict:
    """A reference less what was counted of a day."""
    left = {name: reference[name] - day[name] for name in ("rows", "nulls", "other") if name in reference}
    for name in ("counts", "at"):
        if isinstance(reference.get(name), dict):
            left[name] = {key: count - day[name][key] for key, count in reference[name].items()}
        elif name in reference:
            left[name] = [ours - theirs for ours, theirs in zip(reference[name], day[name], strict=True)]
    return {key: value for key, value in reference.items() if key != "weekdays"} | left


@pytest.mark.parametrize("kind", ["numbers", "texts", "many texts"])
@pytest.mark.parametrize("by", ["none", "weekday"])
def test_each_day_is_compared_with_all_others_as_a_later_one_will_be(kind: str, by: str) -> None:
    random, days = np.random.default_rng(4), dates(28, 80)
    effect = random.integers(0, 3, 28).repeat(80)
    if kind == "numbers":
        values = pl.Series("x", np.where(random.random(28 * 80) < 0.1, np.nan, random.poisson(2 + effect))).fill_nan(
            None
        )
    else:
        names = random.integers(0, 120 if kind == "many texts" else 6, 28 * 80) // (1 + effect)
        values = pl.Series("x", [f"name {each}" if each else None for each in names])
    week = weekdays(pl.Series(days), "UTC")
    reference = distribution(values, week)
    # A trick: counted by "weekdays" that are single days, four calls for 28 days, in the same bins or categories.
    of_days = [
        each
        for begin in range(0, 28, 7)
        for each in distribution(values, np.clip((days - FIRST).astype(int) - begin + 1, 0, 8))["weekdays"]
    ]
    psi = []
    for at, counted in enumerate(of_days):
        whole = on_weekday(reference, int(week[at * 80])) if by == "weekday" else reference
        psi.append(compare(without(whole, counted), values[at * 80 : (at + 1) * 80]).psi)
    others = [sorted(np.delete(psi, at))[math.ceil(0.97 * 27) - 1] for at in range(28)]
    _, spread = made([values], days, by)
    assert max(psi) > 0.1
    assert spread.usual["x"] == pytest.approx(max(9.5 / 80, sorted(psi)[math.ceil(0.97 * 28) - 1]), abs=1e-4)
    assert spread.maxima == pytest.approx(np.divide(psi, np.maximum(others, 9.5 / 80)), abs=1e-4)


def test_days_that_share_values_keep_to_the_stated_rate_and_drift_is_found_among_them() -> None:
    random = np.random.default_rng(6)
    by_rows, by_days, tried = 0, 0, 0
    found = dict.fromkeys((1, SHARED + 1), 0)
    for _ in range(10):  # each with a reference of its own: the rate holds in the mean over references
        references, spread = made(days_of(60, 100, random), dates(60, 100))
        for _ in range(12):
            day = days_of(1, 100, random)
            drifts = compared(references, day)
            by_rows += bool(alarms(drifts, None))
            by_days += bool(alarms(drifts, spread))
            tried += 1
            for at, shift in ((1, 3.0), (SHARED + 1, 1.0)):
                planted = [*drifts[:at], compare(references[at], day[at] + shift), *drifts[at + 1 :]]
                found[at] += f"column {at}" in alarms(planted, spread)
    low, _ = interval(by_days, tried)
    assert low <= 1 / 30, f"{by_days} of {tried} days without drift are alarms, one of thirty may"
    assert by_rows > 0.5 * tried, "without knowing of days most are"
    assert all(each > 0.9 * tried for each in found.values()), found


def test_days_of_few_rows_are_left_out_and_of_few_days_nothing_is_said() -> None:
    random = np.random.default_rng(7)
    few = np.concatenate([dates(25, 60), np.repeat(FIRST + 30 + np.arange(10), 49)])
    columns = [pl.Series("x", random.normal(size=len(few))), pl.Series("constant", [1.0] * len(few))]
    references = [distribution(each, weekdays(pl.Series(few), "UTC")) for each in columns]
    said = spread_of(references, columns, few)
    assert said["none"]["days"] == len(said["none"]["maxima"]) == 25
    assert said["none"]["usual"][1] == pytest.approx(9.5 / 60, abs=1e-4), (
        "a constant differs by nothing, and one that changes is found"
    )
    some = few < FIRST + 19
    short = [each.filter(pl.Series(some)) for each in columns]
    references = [distribution(each, weekdays(pl.Series(few[some]), "UTC")) for each in short]
    assert spread_of(references, short, few[some]) == {"none": {"days": 19}, "weekday": {"days": 19}}
    assert spread_of([], [], few[:0]) == {"none": {"days": 0}, "weekday": {"days": 0}}


def test_a_weekday_needs_another_one_to_be_held_against() -> None:
    days = dates(21, 60)[: 20 * 60 + 60]
    once = np.where(days == FIRST, FIRST + 400, days)  # its weekday is still there
    lone = np.concatenate([days[weekdays(pl.Series(days), "UTC") != 7], np.repeat(np.datetime64("2025-03-02"), 60)])
    random = np.random.default_rng(8)
    for some, number in ((once, 21), (lone, 0)):
        column = pl.Series("x", random.normal(size=len(some)))
        said = spread_of([distribution(column, weekdays(pl.Series(some), "UTC"))], [column], some)
        assert said["weekday"].get("days") == number or (number == 0 and said["weekday"]["days"] < 20)


def test_the_last_four_hundred_days_are_enough() -> None:
    days = dates(410, 50)
    column = pl.Series("x", np.random.default_rng(9).normal(size=len(days)))
    said = spread_of([distribution(column, weekdays(pl.Series(days), "UTC"))], [column], days)
    assert said["none"]["days"] == 400


def test_a_reference_without_days_says_nothing_of_them() -> None:
    random = np.random.default_rng(10)
    features, scores, days = pl.DataFrame({"x": random.normal(size=2_000)}), random.random(1_500), dates(25, 80)
    assert "days" not in reference_of(features, scores)
    said = reference_of(features, scores, days, days[:1_500])["days"]
    assert len(said["features"]["none"]["maxima"]) == 25
    assert said["scores"] == {"none": {"days": 19}, "weekday": {"days": 19}}


@pytest.mark.parametrize(
    ("number", "level", "at"), [(29, 1 / 30, 29), (59, 1 / 30, 58), (243, 1 / 30, 236), (20, 1 / 30, 20), (30, 1, 1)]
)
def test_the_quantile_is_that_which_the_next_of_exchangeable_days_exceeds_so_often(
    number: int, level: float, at: int
) -> None:
    maxima = list(np.random.default_rng(number).permutation(number) + 1.0)
    assert Spread({}, maxima).quantile(level) == at


def test_an_alarm_is_more_than_days_differ_anyway_and_several_spreads_share_the_level() -> None:
    spread, other = (Spread({"x": 0.2, "y": 0.05}, [each / 10 for each in range(1, 60)]) for _ in range(2))
    drifts = [Drift(name, 900, psi, 0.5, 0.0, "ks", False, 0.0) for name, psi in (("x", 1.17), ("x", 1.15), ("y", 0.3))]
    said = {"alarms_per_month": 1, "least": 0.1}
    one = judge(drifts, spreads=[spread] * 3, **said)
    assert [each.alarm for each in one] == [True, False, True]
    assert [each.limit for each in one] == pytest.approx([1.16, 1.16, 0.29])
    two = judge(drifts, spreads=[spread, spread, other], **said)
    assert [each.limit for each in two] == pytest.approx([1.18, 1.18, 0.295])
    assert [each.alarm for each in two] == [False, False, True]
    unknown = judge([*drifts, Drift("z", 900, 0.11, 0.5, 0.0, "ks", False, 0.0)], spreads=[None, *[spread] * 3], **said)
    assert [(each.alarm, each.limit) for each in unknown][0::3] == [(True, 0.1)] * 2, "nothing is known of their days"
