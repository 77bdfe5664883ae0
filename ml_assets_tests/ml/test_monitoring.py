"""Each subject of `monitoring`: what is an alarm, what is not, and what is not judged."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml_assets.deployment.reference import distribution, reference_of
from ml_assets.ml.feedback import OUTCOME
from ml_assets.ml.monitoring import (
    MONITORING,
    NOT_JUDGED,
    Finding,
    Read,
    Reference,
    alarms_of,
    findings_of,
    of_drift,
    of_latency,
    of_probes,
    of_quality,
    of_rejected,
    of_requests,
    of_stale,
    outcome,
    sentence,
    share_interval,
    table_of,
)
from ml_assets.spec.base import Task
from ml_assets.spec.operating import DriftWatch, QualityWatch, RequestsWatch, ShareWatch

WATCH, SHARE = RequestsWatch(p99_ms=100.0), ShareWatch(most=0.05)


def named(findings: Sequence[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_findings_come_back_from_the_table() -> None:
    findings = [*of_requests({"200": 90, "503": 10}, 2, WATCH), Finding("drift", "km", None, 3, "1", note="few")]
    table = table_of(findings)
    MONITORING.validate(table)
    assert findings_of(table) == findings
    MONITORING.validate(table_of([]))


def test_a_few_unlucky_requests_are_no_alarm_and_many_are() -> None:
    calm = named(of_requests({"200": 9, "500": 1}, 0, WATCH))["failed_share"]
    assert (calm.value, calm.alarm) == (0.1, False), "one of ten may be chance, although 1 % is the limit"
    dead = named(of_requests({"504": 3}, 0, WATCH))["failed_share"]
    assert dead.alarm, "three of three are not"
    many = named(of_requests({"200": 900, "422": 500, "500": 40}, 7, WATCH))
    assert {name: each.value for name, each in many.items() if name != "failed_share"} == {
        "answered": 900,
        "refused": 500,
        "failed": 40,
        "lost": 7,
    }
    assert many["failed_share"].alarm
    assert "2.8% of the requests failed, more than 1.0%" in many["failed_share"].note


def test_the_interval_of_a_share_holds_the_truth() -> None:
    """Exactly: for each count its interval is looked up, and its probability is that of the binomial law."""
    from scipy.stats import binom

    for rows, truth in ((5, 0.01), (30, 0.05), (400, 0.3)):
        covered = sum(
            binom.pmf(count, rows, truth)
            for count in range(rows + 1)
            if share_interval(count, rows)[0] <= truth <= share_interval(count, rows)[1]
        )
        assert covered >= 0.95


def test_latency_is_judged_from_a_hundred_answers_on() -> None:
    assert named(of_latency(1.0, 101.0, 100, WATCH))["p99_ms"].alarm
    few = named(of_latency(1.0, 101.0, 99, WATCH))["p99_ms"]
    assert (few.alarm, few.note.startswith(NOT_JUDGED)) == (False, True)
    assert not named(of_latency(1.0, 9e9, 1000, RequestsWatch()))["p99_ms"].alarm, "no limit was set"
    assert of_latency(None, None, 1000, WATCH) == [], "nobody measured it"


def test_availability() -> None:
    assert of_probes(0, 0, WATCH) == []
    assert not of_probes(2880, 2870, WATCH)[0].alarm
    [down] = of_probes(2880, 2800, WATCH)
    assert (down.alarm, down.limit) == (True, 0.99)


def test_refusals_are_judged_together_and_told_by_reason() -> None:
    found = named(of_rejected({"RequestError": 30, "TooManyRowsError": 40}, 1000, SHARE))
    assert (found["all"].value, found["all"].alarm) == (0.07, True)
    assert (found["RequestError"].value, found["RequestError"].alarm) == (0.03, False)
    assert of_rejected({}, 0, SHARE) == []


def test_views_without_fresh_values() -> None:
    missing = {None: 900, json.dumps({"history": "stale"}): 60, json.dumps({"history": "unknown", "gone": "later"}): 40}
    found = named(of_stale(missing, ["history", "zones"], SHARE))
    assert {name: (each.value, each.alarm) for name, each in found.items()} == {
        "history": (0.1, True),
        "gone": (0.04, False),
        "zones": (0.0, False),
    }


def asked(rows: int, seed: int, version: str, km: float = 0.0, zones: Sequence[str] = "ab") -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "version": [version] * rows,
            "feature_km": random.normal(km, 1, rows),
            "feature_zone": random.choice(list(zones), rows).tolist(),
            "score": random.random(rows),
        }
    )


def reading(frame: pl.DataFrame) -> Read:
    return frame.select


def reference(frame: pl.DataFrame) -> Reference:
    return Reference(
        {name: distribution(frame.get_column(f"feature_{name}")) for name in ("km", "zone")},
        {"score": distribution(frame.get_column("score"))},
    )


def drifted(frame: pl.DataFrame, references: dict[str, Reference], watch: DriftWatch | None = None) -> list[Finding]:
    unknown = ShareWatch(most=0.01)
    return of_drift(references, reading(frame), frame.columns, "binary", 3, watch or DriftWatch(), unknown)


def test_a_day_is_held_against_the_days_of_its_release_and_what_has_too_few_says_so() -> None:
    """Each day all distances are a little longer or shorter, as on days of one weather."""
    shifts = np.random.default_rng(5).normal(0, 0.8, 31)
    frames = [asked(200, number, "1", km=shift) for number, shift in enumerate(shifts)]
    rows = pl.concat(frames[:30]).rename(lambda name: name.removeprefix("feature_"))
    days = np.repeat(np.datetime64("2026-01-01") + np.arange(30), 200)
    scores = rows.get_column("score").to_numpy()
    made = reference_of(rows.select("km", "zone"), scores[: 12 * 200], days, days[: 12 * 200])
    knows = Reference(made["features"], {"score": made["scores"][0]}, made["days"])
    day = frames[30].with_columns(pl.col("feature_km") - shifts[30] + 1)
    for by in ("none", "weekday"):
        watch = DriftWatch(by=by)
        before = named(drifted(day, {"1": replace(knows, days=None)}, watch))
        assert (before["km"].alarm, before["km"].limit) == (True, 0.1), "as if its rows were independent"
        found = named([each for each in drifted(day, {"1": knows}, watch) if each.subject != "unknown"])
        said = made["days"]["features"][by]
        assert not found["km"].alarm
        assert found["km"].limit == pytest.approx(said["usual"][0] * max(said["maxima"])), "the largest of 30 days"
        assert (found["km"].limit or 0) > 0.3
        assert (found["zone"].limit, found["score"].limit) == (0.1, 0.1)
        assert (found["all"].subject, found["all"].value, found["all"].alarm) == ("scores", None, False)
        assert found["all"].note == "judged as if its rows were independent: the release knows 12 days, 20 are needed"
        MONITORING.validate(table_of([*found.values()]))
        far = named(drifted(day.with_columns(pl.col("feature_km") + 5), {"1": knows}, watch))
        assert far["km"].alarm
        assert not named(drifted(day, {"1": replace(knows, features={})}, watch)).keys() & {"km", "zone"}


def test_each_version_is_held_against_its_own_release() -> None:
    near, far = asked(2000, 1, "1"), asked(2000, 2, "2", km=5)
    references = {"1": reference(near), "2": reference(far)}
    day = pl.concat([asked(500, 3, "1"), asked(500, 4, "2", km=5)])
    calm = drifted(day, references)
    assert alarms_of(calm) == {}
    assert {(each.version, each.subject, each.name) for each in calm} == {
        (version, subject, name)
        for version in "12"
        for subject, name in (("drift", "km"), ("drift", "zone"), ("scores", "score"), ("unknown", "zone"))
    }
    swapped = drifted(day, {"1": references["2"], "2": references["1"]})
    assert alarms_of(swapped) == {"drift": ["km"]}
    one = drifted(day, {"1": references["1"], "2": references["1"]})
    assert [each.version for each in one if each.alarm] == ["2"]


def test_categories_that_the_training_did_not_have() -> None:
    found = drifted(asked(500, 3, "1", zones="abc"), {"1": reference(asked(2000, 1, "1"))})
    [unknown] = [each for each in found if each.subject == "unknown"]
    assert unknown.alarm
    assert unknown.value == pytest.approx(1 / 3, abs=0.1)
    assert "have a zone that its training did not" in unknown.note


def test_a_day_with_few_rows_is_not_judged_and_says_so() -> None:
    found = drifted(asked(49, 3, "1", km=9), {"1": reference(asked(2000, 1, "1"))})
    assert alarms_of(found) == {}
    drift = [each for each in found if each.subject == "drift"]
    assert all(each.value is None and each.note.startswith(f"{NOT_JUDGED}: 49 rows") for each in drift)
    assert outcome(drift).startswith(f"{NOT_JUDGED}: 49 rows")


def test_a_release_without_weekdays_cannot_be_held_against_one() -> None:
    found = drifted(asked(500, 3, "1", km=9), {"1": reference(asked(2000, 1, "1"))}, DriftWatch(by="weekday"))
    assert alarms_of(found) == {}
    assert all("no distributions by weekday" in each.note for each in found)


def answered(rows: int, right: float, task: Task) -> pl.DataFrame:
    random = np.random.default_rng(5)
    truth = random.random(rows) < 0.5
    said = np.where(random.random(rows) < right, truth, ~truth)
    if task == "regression":
        values = random.normal(size=rows)
        return pl.DataFrame({"version": "1", "value": values + (1 - right) * 10, OUTCOME + "late": values})
    scores = np.where(said, 0.8, 0.2)
    return pl.DataFrame(
        {"version": "1", "label": [str(each) for each in said], "score": scores, OUTCOME + "late": truth}
    )


def quality(frame: pl.DataFrame, task: Task, promised: dict[str, float], final: str = "yes") -> dict[str, Finding]:
    primary = "rmse" if task == "regression" else "accuracy"
    promises = {"1": promised} if promised else {}
    found = of_quality(
        frame,
        {"1": [False, True]},
        promises,
        target="late",
        task=task,
        primary=primary,
        final=final,
        watch=QualityWatch(),
    )
    return named(found)


def test_quality_is_an_alarm_beyond_what_is_tolerated_and_beyond_its_interval() -> None:
    promised = {"accuracy": 0.9}
    assert not quality(answered(1000, 0.9, "binary"), "binary", promised)["accuracy"].alarm
    assert not quality(answered(1000, 0.82, "binary"), "binary", promised)["accuracy"].alarm, (
        "a tenth less is tolerated"
    )
    bad = quality(answered(1000, 0.7, "binary"), "binary", promised)["accuracy"]
    assert (bad.alarm, bad.limit) == (True, 0.9)
    assert not quality(answered(100, 0.78, "binary"), "binary", promised)["accuracy"].alarm, "by chance perhaps"


def test_quality_is_not_judged_early_nor_on_few_rows_nor_without_a_promise() -> None:
    bad, promised = answered(1000, 0.5, "binary"), {"accuracy": 0.9}
    early = quality(bad, "binary", promised, final="from 2026-01-09 00:00 UTC on")
    assert not early["accuracy"].alarm
    assert early["outcomes"].note == "outcomes have their time until 2026-01-09 00:00 UTC"
    few = quality(bad.head(99), "binary", promised)["accuracy"]
    assert (few.alarm, few.note) == (False, f"{NOT_JUDGED}: 99 rows, 100 are needed")
    assert quality(bad, "binary", {})["accuracy"].note.startswith(NOT_JUDGED)


def test_errors_are_better_when_lower() -> None:
    assert not quality(answered(500, 1.0, "regression"), "regression", {"rmse": 0.5})["rmse"].alarm
    worse = quality(answered(500, 0.9, "regression"), "regression", {"rmse": 0.5})["rmse"]
    assert worse.alarm
    assert not quality(answered(500, 0.9, "regression"), "regression", {"rmse": 5.0})["rmse"].alarm, "better than that"


def test_more_rows_than_the_intervals_take_are_measured_whole() -> None:
    """Answers keep what was said, also when only a part of the rows is resampled."""
    found = quality(answered(25_000, 0.8, "binary"), "binary", {"accuracy": 0.8})["accuracy"]
    assert found.rows == 25_000
    assert found.lower is not None
    assert found.upper is not None
    assert found.value is not None
    assert found.lower < found.value < found.upper
    assert found.upper - found.lower < 0.03


def test_coverage_counts_what_has_no_outcome_yet() -> None:
    frame = answered(100, 0.9, "binary").with_columns(
        pl.when(pl.int_range(pl.len()) < 25).then(None).otherwise(pl.col(OUTCOME + "late")).alias(OUTCOME + "late")
    )
    assert quality(frame, "binary", {})["outcomes"].value == 0.75


def test_what_is_wrong_is_said_in_a_sentence() -> None:
    assert sentence([]) == "nothing is wrong"
    many = [Finding("drift", f"f{each}", 1.0, 100, alarm=True, note=f"f{each} drifted") for each in range(7)]
    assert sentence(many).endswith("f4 drifted; and 2 more")
