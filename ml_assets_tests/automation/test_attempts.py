import uuid
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_assets.assets.naming import INPUTS_TAG
from ml_assets.automation.attempts import must_wait
from ml_assets.automation.jobs import MODEL_TAG
from ml_assets.automation.under_way import busy
from ml_assets.waits import MOST_ATTEMPTS
from ml_assets_tests.project import Project

KEY = dg.AssetKey(["late_deliveries", "raw_data"])


def add_run(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *,
    job: str = "other",
    tagged: bool = False,
    selection: set[dg.AssetKey] | None = None,
) -> None:
    tags = {MODEL_TAG: "late_deliveries", INPUTS_TAG: "d1"} if tagged else {}
    selected = frozenset(selection) if selection else None
    run = dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), status=status, tags=tags, asset_selection=selected)
    instance.add_run(run)


def test_a_run_under_way_makes_the_model_busy_whoever_started_it(small: Project) -> None:
    model = small.model()
    with dg.instance_for_test() as instance:
        add_run(instance, dg.DagsterRunStatus.SUCCESS, selection={KEY})
        add_run(instance, dg.DagsterRunStatus.STARTED, selection={dg.AssetKey(["other", "raw_data"])})
        assert busy(instance, model) is None
        add_run(instance, dg.DagsterRunStatus.STARTING, selection={KEY})
        assert "under way" in str(busy(instance, model))
    with dg.instance_for_test() as instance:
        add_run(instance, dg.DagsterRunStatus.STARTED, job="late_deliveries")
        assert busy(instance, model) is not None


def test_a_failed_attempt_is_repeated_with_growing_waits_and_not_for_ever(small: Project) -> None:
    model = small.model()
    now = datetime.now(UTC)
    waits = []
    with dg.instance_for_test() as instance:
        assert must_wait(instance, model, "d1") is None
        for _ in range(MOST_ATTEMPTS - 1):
            add_run(instance, dg.DagsterRunStatus.FAILURE, tagged=True)
            seconds = next(
                each
                for each in range(0, 4000, 5)
                if not must_wait(instance, model, "d1", now + timedelta(seconds=each))
            )
            waits.append(seconds)
        assert waits == sorted(set(waits)), "each wait is longer than the one before"
        assert must_wait(instance, model, "d2") is None, "another attempt is not held back"
        add_run(instance, dg.DagsterRunStatus.FAILURE, tagged=True)
        forever = must_wait(instance, model, "d1", now + timedelta(days=365))
        assert forever is not None
        assert "materialise by hand" in forever
