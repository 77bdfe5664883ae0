"""What `make run` does after installation, as a user runs it: a process of its own, from an empty state folder."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import polars as pl
import pytest
import requests

from ml_assets.assets import SERVED
from ml_assets.demo.business import FIRST_DAY, Business
from ml_assets.lake import WHOLE
from ml_assets_tests.project import PROGRAMS, SMALL_MODEL, Project, status, wait_until
from ml_assets_tests.steps import refresh, refresh_feedback


@pytest.fixture(scope="module")
def demo(make_project: Callable[..., Project]) -> tuple[Project, str]:
    """The demo on five days, with its first summary."""
    project = make_project("demo")
    del project.variables["ML_ASSETS_MODELS"]
    done = project.run("ml-assets", "demo", "--days", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    return project, done.stdout


def test_the_summary_is_true(demo: tuple[Project, str]) -> None:
    project, summary = demo
    latest = project.latest()
    cleaned = latest.of("cleaned_data").values()
    raw = sum(each.details["raw"] for each in cleaned)
    assert raw == project.lake.read("late_deliveries", "raw_data").height
    kept = project.lake.read("late_deliveries", "cleaned_data").height
    rejected = project.lake.read("late_deliveries", "rejected_rows").height
    duplicates = sum(each.details["duplicates"] for each in cleaned)
    assert raw == kept + rejected + duplicates
    assert f"{raw:,} in = {kept:,} cleaned + {rejected:,} rejected + {duplicates:,} duplicates" in summary
    assert "verdict approved" in summary
    judged = latest.get("metrics", WHOLE)
    assert judged is not None
    assert f"f1 {judged.details['values']['f1']:.3f}" in summary
    assert judged.details["values"]["f1"] >= 0.8
    found = re.search(r"(http://\S+)/models/late_deliveries/predict: three orders asked, version 1 says", summary)
    assert found is not None
    assert requests.get(f"{found[1]}/health", timeout=5).json()["models"]["late_deliveries"]["version"] == "1"


def test_a_second_run_computes_nothing_again_and_says_so(demo: tuple[Project, str]) -> None:
    project, _ = demo
    before = project.materializations()
    assert before >= 5 * 5 + 3
    done = project.run("ml-assets", "demo", "--days", "5")
    assert done.returncode == 0, done.stderr
    assert "Nothing was due: nothing was computed again." in done.stdout
    assert "answered 20 golden rows as recorded" in done.stdout
    assert project.materializations() == before


def test_refresh_makes_what_is_due_of_any_model_and_says_in_one_line_what_failed(
    demo: tuple[Project, str], project: Project
) -> None:
    made, _ = demo
    before = made.materializations()
    done = made.run("ml-assets", "refresh", "late_deliveries")
    assert (done.returncode, done.stdout) == (0, "late_deliveries: nothing was due.\n")
    assert made.materializations() == before
    project.add_demo_model(**(SMALL_MODEL | {"gates": {"f1": 0.9999}}))
    project.land(8)
    refused = project.run("ml-assets", "refresh", "late_deliveries")
    assert refused.returncode == 1
    assert "gate_f1" in refused.stderr
    assert "Traceback" not in refused.stderr
    unknown = project.run("ml-assets", "refresh", "nothing")
    assert (unknown.returncode, "holds no model 'nothing'; it has late_deliveries" in unknown.stderr) == (1, True)


def test_a_run_after_the_server_was_stopped_brings_it_back(demo: tuple[Project, str]) -> None:
    project, _ = demo
    assert project.run("ml-assets", "stop").stdout.startswith("The endpoint server was stopped")
    assert status(project)["models"]["late_deliveries"]["serves"] is None
    assert project.run("ml-assets", "demo").returncode == 0
    assert status(project)["models"]["late_deliveries"]["serves"]["version"] == "1"


def test_status_says_the_same_to_people_and_programs(demo: tuple[Project, str]) -> None:
    project, _ = demo
    about = status(project)["models"]["late_deliveries"]
    told = project.run("ml-assets", "status").stdout
    assert f"{about['rows']['raw']:,} in" in told
    assert "verdict approved" in told
    assert "Prediction log on: 0 requests logged, 0 lost" in told, (
        "the golden rows were asked by a server of its own life"
    )
    assert json.loads(project.run("ml-assets", "status", "--json").stdout)["endpoint"] in told


def test_a_failing_demo_exits_with_the_reason(make_project: Callable[..., Project]) -> None:
    project = make_project("refused")
    project.add_demo_model(**(SMALL_MODEL | {"gates": {"f1": 0.999}}))
    done = project.run("ml-assets", "demo", "--days", "2")
    assert done.returncode == 1
    assert "gate_f1" in done.stderr
    assert project.target.url() is None


def test_further_days_of_the_demo_land_one_after_another(project: Project) -> None:
    landed = [project.run("ml-assets", "land", *more).stdout.split() for more in ((), ("--days", "2"))]
    folder = project.landing / "late_deliveries"
    assert landed[0] == [str(folder / each / "2025-01-01.parquet") for each in ("orders", "outcomes")]
    assert [each.rsplit("/", 1)[1] for each in landed[1][::2]] == ["2025-01-02.parquet", "2025-01-03.parquet"]


def test_wrong_settings_are_one_message(project: Project) -> None:
    right = project.variables["ML_ASSETS_ENDPOINT_PORT"]
    project.variables["ML_ASSETS_ENDPOINT_PORT"] = "eighty"
    done = project.run("ml-assets", "status")
    project.variables["ML_ASSETS_ENDPOINT_PORT"] = right
    assert done.returncode == 1
    assert "ML_ASSETS_ENDPOINT_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_demo_that_is_stopped_with_ctrl_c_says_so_and_is_finished_by_the_next_one(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    project.land(3)
    process = subprocess.Popen(
        [str(PROGRAMS / "ml-assets"), "demo"], env=project.environment(), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: project.latest().of("cleaned_data"), 60, "the first tables are written")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Stopped." in said
    assert "Traceback" not in said
    assert project.latest().get("endpoint", WHOLE) is None
    assert project.run("ml-assets", "demo").returncode == 0
    assert status(project)["models"]["late_deliveries"]["serves"]["version"]


def test_what_the_demo_asked_for_is_logged_and_held_against_what_came_true(demo: tuple[Project, str]) -> None:
    """Last of all, because it lands another day."""
    project, summary = demo
    predictions = project.lake.read("late_deliveries", "predictions").sort("row")
    assert predictions.height == 3, "no golden row is among them, however often the demo was run"
    said = [
        f"{'late' if label == 'True' else 'in time'} ({score:.2f})"
        for label, score in predictions.select("label", "score").rows()
    ]
    assert f"version 1 says: {', '.join(said)}." in summary
    [day] = project.latest().of("predictions").values()
    counts = {name: day.details[name] for name in ("requests", "lost", "not_reproduced", "not_joinable", "unreadable")}
    assert counts == {"requests": 1, "lost": 0, "not_reproduced": 0, "not_joinable": 0, "unreadable": 0}
    looked_up = [name for name in predictions.columns if name.startswith("feature_restaurant_history")]
    assert looked_up, "what was looked up is in no request"
    assert predictions.select(looked_up).null_count().sum_horizontal().item() == 0
    assert project.lake.read("late_deliveries", "feedback")["outcome_late"].to_list() == [None] * 3
    graph = project.definitions().resolve_asset_graph()
    keys = [key for key in graph.asset_check_keys if key.asset_key.path[-1] in SERVED]
    with project.active(), dg.DagsterInstance.get() as instance:
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    evaluations = {key: each.event.dagster_event.asset_check_evaluation_data for key, each in records.items()}  # type: ignore[union-attr]
    assert set(evaluations) == set(keys)
    assert all(each.passed for each in evaluations.values())
    project.land(4, first=FIRST_DAY + timedelta(days=5), business=Business())
    model = project.model()
    refresh(model, project.lake, {"outcomes"})
    assert list(refresh_feedback(model, project.lake, project.settings.home).values()) == [["feedback", "monitoring"]]
    true = project.lake.read("late_deliveries", "outcomes").filter(
        pl.col("order_id").is_in(predictions["key_order_id"].to_list())
    )
    feedback = project.lake.read("late_deliveries", "feedback")
    assert feedback.height == 3
    assert dict(feedback.drop_nulls("outcome_late").select("key_order_id", "outcome_late").rows()) == dict(
        true.select("order_id", "late").rows()
    )
    assert true.height >= 2, "hardly any outcome is never reported"
