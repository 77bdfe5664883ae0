"""What holds, by what was recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets import errors
from ml_assets.alerts.arrived import arrivals
from ml_assets.alerts.conditions import (
    Condition,
    FailedCheck,
    FailedRun,
    of_arrivals,
    of_checks,
    of_monitoring,
    of_probes,
    of_rollouts,
    of_runs,
    of_verdict,
)
from ml_assets.alerts.failures import failed_checks, failed_runs
from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.targets import Release
from ml_assets.lake import WHOLE, Lake
from ml_assets.probes import State as Probed
from ml_assets.records import Latest, Record, append_records
from ml_assets.spec.operating import DriftWatch, Monitoring

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
TODAY = NOW.date()
DAY = timedelta(days=1)


def said(conditions: Sequence[Condition]) -> list[tuple[str, str, str]]:
    return [(each.key, each.severity, each.text) for each in conditions]


def test_an_endpoint_that_is_not_good_is_a_condition_of_the_severity_that_the_spec_says() -> None:
    assert of_probes("taxis", None, "error") == []
    assert of_probes("taxis", Probed("good", NOW, NOW), "error") == []
    [found] = of_probes("taxis", Probed("hanging", NOW, NOW, "no answer in 5 s"), "warn")
    assert said([found]) == [("taxis/availability", "warn", "The endpoint is hanging: no answer in 5 s")]
    assert (found.since, found.place) == (NOW, "assets/taxis/endpoint")


def monitored(days: dict[int, dict[str, list[str]]]) -> Latest:
    """Records of monitoring, by how many days ago."""
    return Latest(
        Record("monitoring", (TODAY - ago * DAY).isoformat(), "", "", 1, "run", details={"alarms": alarms})
        for ago, alarms in days.items()
    )


def test_alarms_of_the_latest_complete_day_hold_since_their_stretch_began() -> None:
    watched = Monitoring(drift=DriftWatch(severity="error"))
    latest = monitored({4: {"drift": ["a"]}, 3: {}, 2: {"drift": ["b"]}, 1: {"drift": ["a", "b"], "quality": ["f1"]}})
    found = of_monitoring("taxis", latest, watched, TODAY)
    assert said(found) == [
        ("taxis/drift/a", "error", "a has drifted on 2026-11-24"),
        ("taxis/drift/b", "error", "b has drifted on 2026-11-24"),
        ("taxis/quality/f1", "error", "f1 is worse than the release promised on 2026-11-24"),
    ]
    assert [each.since and each.since.date() for each in found] == [TODAY - 2 * DAY, TODAY - 2 * DAY, TODAY - DAY]
    assert of_monitoring("taxis", monitored({0: {"drift": ["a"]}}), watched, TODAY) == [], "today is not over"
    assert of_monitoring("taxis", monitored({2: {"drift": ["a"]}, 1: {}}), watched, TODAY) == []
    assert of_monitoring("taxis", monitored({1: {"availability": ["probe"]}}), watched, TODAY) == []


def rolled(phase: Phase, **changes: Any) -> State:
    state = State(2, phase, Release.named("2-b"), Release.named("1-a"), "too slow", NOW, NOW, NOW, cause="judged")
    return replace(state, **changes)


def test_a_rollout_that_ended_without_promotion_is_told_unless_a_person_ended_it() -> None:
    assert said(of_rollouts("taxis", [rolled(Phase.ROLLED_BACK)])) == [
        ("taxis/rollback", "error", "the rollout of 2-b was rolled back: too slow; 1-a serves on")
    ]
    [undecided] = of_rollouts("taxis", [rolled(Phase.INCONCLUSIVE, cause="undecided")])
    assert undecided.severity == "warn"
    assert of_rollouts("taxis", [rolled(Phase.ROLLED_BACK, by_hand=True)]) == []
    assert of_rollouts("taxis", [rolled(Phase.ROLLED_BACK, cause="superseded")]) == []
    assert of_rollouts("taxis", [rolled(Phase.PROMOTED)]) == []
    assert of_rollouts("taxis", [rolled(Phase.ROLLED_BACK), rolled(Phase.STAGING, number=3)]) == []
    assert of_rollouts("taxis", []) == []


def test_a_refused_version_is_a_warning_while_another_one_serves() -> None:
    details = {"version": "3", "approved": False, "reasons": ["f1 is 0.4", "it leaks"]}
    latest = Latest([Record("metrics", WHOLE, "", "", 1, "run", details=details, recorded_at=NOW)])
    [found] = of_verdict("taxis", latest, serves=True)
    assert found.text == "version 3 was refused, and what served before goes on: f1 is 0.4; it leaks"
    assert (found.severity, found.run_id) == ("warn", "run")
    assert of_verdict("taxis", latest, serves=False)[0].severity == "error"
    latest.add([Record("metrics", WHOLE, "", "", 1, "later", details={"version": "4", "approved": True})])
    assert of_verdict("taxis", latest, serves=True) == []


@pytest.mark.parametrize(
    ("days_ago", "quiet"),
    [
        ([9, 8, 7, 6, 5], True),
        ([6, 5, 4, 3, 2], False),
        ([16, 15, 14, 8, 7], False),
        ([26, 25, 24, 16, 15], False),
        ([27, 26, 25, 18, 17], True),
        ([40, 39, 38, 37], False),
        ([40], False),
        ([], False),
    ],
    ids=["five days", "two days", "has paused longer", "not twice", "twice", "too few", "one load", "nothing"],
)
def test_a_source_is_quiet_after_twice_its_longest_pause(days_ago: list[int], quiet: bool) -> None:
    found = of_arrivals("taxis", [NOW - each * DAY for each in days_ago], NOW)
    assert [each.key for each in found] == (["taxis/quiet_source"] if quiet else [])


def test_what_is_made_again_is_no_arrival(tmp_path: Path) -> None:
    lake = Lake(tmp_path)

    def record(day: int, content: str, at: datetime) -> Record:
        return Record("raw_data", f"2026-11-0{day}", "", content, 5, "run", recorded_at=at)

    append_records(lake, "taxis", [record(1, "a", NOW - 3 * DAY), record(2, "b", NOW - 3 * DAY)])
    append_records(lake, "taxis", [record(1, "a", NOW), record(2, "changed", NOW)])
    assert sorted(arrivals(lake, "taxis")) == [NOW - 3 * DAY, NOW - 3 * DAY, NOW]


def test_checks_that_failed_and_data_that_is_a_case_for_a_person_are_told() -> None:
    def check(name: str, severity: Any = "error") -> FailedCheck:
        return FailedCheck(name, severity, NOW, "run", {"problems": "2026-11-01 too few rows"})

    found = of_checks(
        "taxis",
        [
            check("cleaned_data:column_fare", "warn"),
            check("raw_data:every_batch_is_accepted"),
            check("raw_data:column_fare", "warn"),  # rows in quarantine
            check("monitoring:drift"),
            check("metrics:f1"),
        ],
    )
    assert said(found) == [
        (
            "taxis/check_failed/cleaned_data:column_fare",
            "warn",
            "check cleaned_data:column_fare failed; problems: 2026-11-01 too few rows",
        ),
        ("taxis/data_refused", "error", "data is refused or out of reach; problems: 2026-11-01 too few rows"),
    ]
    assert of_checks("taxis", [check("raw_data:every_batch_is_accepted", "warn")]) == [], "it may pass by itself"


def test_a_run_whose_failure_is_told_as_something_else_is_not_told_again() -> None:
    runs = [FailedRun("12345678-a", NOW, ["features"], "no such column"), FailedRun("9abcdef0-b", NOW, [])]
    [found] = of_runs("taxis", runs, {"9abcdef0-b"})
    assert found.text == "run 12345678 failed, features is to be made: no such column"
    assert found.place == "runs/12345678-a"


# What Dagster says, of real runs


BROKEN: set[str] = set()


@dg.asset(key=["taxis", "features"], check_specs=[dg.AssetCheckSpec("sane", asset=["taxis", "features"])])
def features() -> dg.MaterializeResult:
    if "features" in BROKEN:
        raise errors.BatchRefusedError("taxis: column fare has 3 values below 0")
    sane = "check" not in BROKEN
    found = dg.AssetCheckResult(passed=sane, severity=dg.AssetCheckSeverity.WARN, metadata={"failing_rows": 3})
    return dg.MaterializeResult(check_results=[found])


@dg.asset(key=["taxis", "trained_model"], deps=[features])
def trained_model() -> None:
    if "trained_model" in BROKEN:
        raise ValueError("postgresql://user:s3cret@host")


DEFS = dg.Definitions(
    assets=[features, trained_model],
    jobs=[dg.define_asset_job("taxis"), dg.define_asset_job("taxis_feedback")],
    executor=dg.in_process_executor,
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    BROKEN.clear()
    with dg.instance_for_test() as made:
        yield made


def run(instance: dg.DagsterInstance, broken: set[str], *only: str) -> str:
    BROKEN.clear()
    BROKEN.update(broken)
    selection = [dg.AssetKey(["taxis", each]) for each in only] or None
    job = DEFS.resolve_job_def("taxis")
    return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False).run_id


def test_a_failed_run_counts_until_what_it_was_to_make_is_made(instance: dg.DagsterInstance) -> None:
    run(instance, set())
    assert failed_runs(instance) == {}
    first = run(instance, {"features"})
    [found] = failed_runs(instance)["taxis"]
    assert (found.run_id, found.what) == (first, ["features", "trained_model"])
    assert found.reason == "taxis: column fare has 3 values below 0"
    second = run(instance, {"features"})
    assert [each.run_id for each in failed_runs(instance)["taxis"]] == [second], "of the same, the last one"
    run(instance, set(), "features")
    assert [each.run_id for each in failed_runs(instance)["taxis"]] == [second], "the training is still to be made"
    run(instance, set(), "trained_model")
    assert failed_runs(instance) == {}


def test_what_a_failed_run_made_is_made_and_foreign_errors_are_not_quoted(
    instance: dg.DagsterInstance,
) -> None:
    run(instance, {"trained_model"})
    [found] = failed_runs(instance)["taxis"]
    assert (found.what, found.reason) == (["trained_model"], "ValueError")
    run(instance, set(), "trained_model")
    assert failed_runs(instance) == {}


def test_a_run_whose_process_died_counts_as_well(instance: dg.DagsterInstance) -> None:
    job = DEFS.resolve_job_def("taxis")
    killed = instance.create_run_for_job(job)
    instance.report_run_failed(killed, "its process is gone")
    assert [each.run_id for each in failed_runs(instance).get("taxis", [])] == [killed.run_id]
    run(instance, set())
    assert failed_runs(instance) == {}


def test_a_check_counts_by_its_latest_evaluation(instance: dg.DagsterInstance) -> None:
    keys = [dg.AssetCheckKey(dg.AssetKey(["taxis", "features"]), "sane")]
    assert failed_checks(instance, keys) == {}
    run_id = run(instance, {"check"})
    [found] = failed_checks(instance, keys)["taxis"]
    assert (found.name, found.severity, found.run_id) == ("features:sane", "warn", run_id)
    assert found.said == {"failing_rows": "3"}
    run(instance, set())
    assert failed_checks(instance, keys) == {}
