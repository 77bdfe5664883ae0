from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.assets.champion import NOTE
from ml_assets.assets.raw_data import raw_basis
from ml_assets.automation.due import contiguous, due_data
from ml_assets.automation.due_training import due_training, learns_from_new_data
from ml_assets.errors import SourceUnavailableError
from ml_assets.lake import WHOLE, Lake
from ml_assets.records import Record, append_records, held
from ml_assets.serving.online import open_online
from ml_assets.sources.feed import survey
from ml_assets.spec.judging import Gates, Metrics
from ml_assets.spec.operating import Retrain
from ml_assets.why import tell_why
from ml_assets_tests.project import Project


@pytest.fixture
def copy(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The records of a finished project in a lake of the test's own, so that it may add others."""
    import shutil

    root = tmp_path_factory.mktemp("lake")
    for table in ("batches", "surveys"):
        shutil.copytree(small.lake.path("late_deliveries", table), root / "late_deliveries" / table)
    return Lake(root)


def test_a_run_that_died_between_two_assets_leaves_its_day_due(small: Project, copy: Lake) -> None:
    model = small.model()
    assert due_data(model, copy).needs == {}
    for asset in ("features", "cleaned_data", "raw_data"):
        record = small.latest().get(asset, "2025-01-05")
        assert record is not None
        append_records(copy, model.name, [replace(record, inputs="of another time", recorded_at=datetime.now(UTC))])
        assert set(due_data(model, copy).needs) == {"2025-01-05"}


def test_each_attempt_at_what_a_source_did_not_give_is_another_one(small: Project, copy: Lake) -> None:
    """Or the count of failed runs would end what the waits of the record spread over time."""
    model, record = small.model(), small.latest().get("raw_data", "2025-01-05")
    assert record is not None
    append_records(copy, model.name, [replace(record, inputs="of another time", recorded_at=datetime.now(UTC))])
    digests, before = [], None
    for _ in range(7):
        later = datetime.now(UTC) + timedelta(minutes=15)
        (stretch,) = due_data(model, copy, now=later).stretches()
        digests.append(stretch.digest)
        fingerprint = survey(model.rows_feed, copy).fingerprint("2025-01-05")
        error = SourceUnavailableError("it does not answer")
        before = held("raw_data", "2025-01-05", raw_basis(model, fingerprint).terms, error, before, "run")
        append_records(copy, model.name, [before])
    assert len(set(digests)) == 7
    due = due_data(model, copy)
    assert due.needs == {}
    assert "It failed 7 time(s)" in str(due.problems["raw_data 2025-01-05"])


def test_the_online_store_is_left_alone_until_something_has_arrived(project: Project) -> None:
    project.add_demo_model()
    for folder in ("orders", "outcomes"):
        (project.landing / "late_deliveries" / folder).mkdir(parents=True)
    model, online = project.model(), open_online(project.settings.online_place, "late_deliveries")
    assert model.views
    assert due_data(model, project.lake, online).needs == {}
    project.land(1)
    assert "online_features" in due_data(model, project.lake, online).needs["2025-01-01"].assets


def test_changed_gates_ask_for_a_verdict_and_not_for_a_training(small: Project) -> None:
    model = small.model()
    stricter = replace(model, spec=model.spec.model_copy(update={"gates": Gates(f1=0.6)}))
    assert due_training(stricter, small.lake).assets == ("metrics", "endpoint")


def test_another_champion_asks_for_another_comparison_and_serving_itself_does_not(small: Project, copy: Lake) -> None:
    model, judged = small.model(), small.latest().get("metrics", WHOLE)
    assert judged is not None
    assert judged.details["champion"] is None

    def noted(version: str, replaced: str | None) -> tuple[tuple[str, ...], str]:
        details = {"version": version, "replaced": replaced}
        append_records(copy, model.name, [Record(NOTE, WHOLE, "", "", 0, "run", details=details)])
        found = due_training(model, copy)
        return found.assets, found.reason

    assert noted("1", None) == ((), "version 1 is up to date and serves"), (
        "it is the champion, and there was none before"
    )
    assert noted("7", "1") == (
        ("metrics", "endpoint"),
        "the newest version was not compared with the champion, version 7",
    )
    assert noted("1", "7")[0] == ("metrics", "endpoint"), "it was judged before there was a version 7"
    assert noted("1", None)[0] == ()


def test_changed_slices_ask_for_a_verdict_and_not_for_a_training(small: Project) -> None:
    model = small.model()
    sliced = replace(model, spec=model.spec.model_copy(update={"metrics": Metrics(slices=["zone"])}))
    assert due_training(sliced, small.lake).assets == ("metrics", "endpoint")


def test_changed_parameters_ask_for_a_training_at_once(small: Project) -> None:
    model = small.model()
    estimator = model.spec.estimator.model_copy(update={"params": {"n_estimators": 5}})
    retrain = Retrain(cooldown="7d", min_new_rows=10_000)
    changed = replace(model, spec=model.spec.model_copy(update={"estimator": estimator, "retrain": retrain}))
    due = due_training(changed, small.lake)
    assert due.assets == ("trained_model", "metrics", "endpoint")
    assert due.reason == "code or parameters changed"


def test_changed_data_waits_for_enough_rows_and_for_the_cooldown(small: Project, copy: Lake) -> None:
    model = small.model()
    record = small.latest().get("features", "2025-01-02")
    trained = small.latest().get("trained_model", WHOLE)
    assert record is not None
    assert trained is not None
    append_records(copy, model.name, [replace(record, content="changed", recorded_at=datetime.now(UTC))])

    def due(**retrain: object) -> tuple[tuple[str, ...], str]:
        spec = model.spec.model_copy(update={"retrain": Retrain.model_validate(retrain)})
        now = trained.recorded_at + timedelta(hours=5)  # type: ignore[union-attr]
        found = due_training(replace(model, spec=spec), copy, now)
        return found.assets, found.reason

    assert due() == (("trained_model", "metrics", "endpoint"), f"{record.rows} rows in new or changed days")
    assert due(min_new_rows=record.rows + 1)[0] == ()
    assert "min_new_rows" in due(min_new_rows=record.rows + 1)[1]
    assert due(cooldown="6h")[0] == ()
    assert "cooldown" in due(cooldown="6h")[1]
    assert due(cooldown="4h")[0] != ()


def test_new_data_wait_while_a_version_is_rolled_out_and_other_parameters_do_not(small: Project, copy: Lake) -> None:
    model, latest = small.model(), small.latest()
    features, served = latest.get("features", "2025-01-02"), latest.get("endpoint", WHOLE)
    assert features is not None
    assert served is not None
    append_records(copy, model.name, [replace(features, content="changed again", recorded_at=datetime.now(UTC))])

    def due(phase: str) -> tuple[tuple[str, ...], str]:
        details = served.details | {"phase": phase, "challenger": "2-ab12"}  # type: ignore[union-attr]
        append_records(copy, model.name, [replace(served, details=details, recorded_at=datetime.now(UTC))])
        found = due_training(model, copy)
        return found.assets, found.reason

    assert due("baking") == ((), "2-ab12 is being rolled out; new data wait until that is decided")
    estimator = model.spec.estimator.model_copy(update={"params": {"n_estimators": 5}})
    changed = replace(model, spec=model.spec.model_copy(update={"estimator": estimator}))
    assert due_training(changed, copy).reason == "code or parameters changed"
    assert due("rolled back")[0] == ("trained_model", "metrics", "endpoint")


def test_a_tick_of_the_schedule_trains_right_after_new_data_only_if_nothing_holds_that_back(
    small: Project, copy: Lake
) -> None:
    model = small.model()

    def learns(**retrain: object) -> str:
        spec = model.spec.model_copy(update={"retrain": Retrain.model_validate(retrain)})
        return learns_from_new_data(replace(model, spec=spec), copy)

    assert learns() == "data"
    assert learns(cooldown="9d", causes=["drift"], min_new_rows=2) == ""
    for held_back in ({"cooldown": "9d"}, {"causes": ["drift"]}, {"min_new_rows": 2}):
        assert learns(**held_back) == "", "what decides is not known yet, or says no"
    trained = small.latest().get("trained_model", WHOLE)
    assert trained is not None
    assert learns(budget=1) == "data", "the first training does not count"
    now = datetime.now(UTC)
    asked = trained.details | {"automatic": [now.isoformat()]}
    append_records(copy, model.name, [replace(trained, details=asked, recorded_at=now)])
    assert (learns(budget=1), learns(budget=2)) == ("", "data")
    changed = trained.details | {"code_digest": "of another time"}
    append_records(copy, model.name, [replace(trained, details=changed, recorded_at=datetime.now(UTC))])
    assert learns(cooldown="9d", budget=1) == "code"
    assert learns_from_new_data(model, Lake(copy.root / "nothing")) == "first"


def test_why_tells_what_every_cause_and_guard_says(small: Project) -> None:
    said: list[str] = []
    with small.active():
        tell_why(small.settings, small.model(), 3, said.append)
    told = {each.split()[0]: each for each in said if each.startswith("    ")}
    assert set(told) == {"code", "quality", "drift", "data", "rollout", "cooldown", "budget"}
    assert told["drift"].split(maxsplit=1)[1] == "does not ask: no drift alarm holds on"
    assert told["budget"].endswith(
        "lets pass: 0 trainings for quality, drift or data in the last seven days, and no retrain.budget"
    )


def test_days_become_stretches_without_gaps() -> None:
    days = ["2025-02-01", "2025-01-30", "2025-01-31", "2025-02-03"]
    assert contiguous(days) == [["2025-01-30", "2025-01-31", "2025-02-01"], ["2025-02-03"]]
    assert contiguous(["all"]) == [["all"]]
    assert contiguous([]) == []


def test_a_server_that_does_not_serve_what_it_should_is_brought_back(small: Project, copy: Lake) -> None:
    model = small.model()
    served = small.latest().get("endpoint", WHOLE)
    assert served is not None
    healthy = {"models": {"late_deliveries": {"release": served.details["release"]}}}
    assert due_training(model, small.lake, health=healthy).assets == ()
    for wrong in ({}, {"models": {}}, {"models": {"late_deliveries": {"release": "0-old"}}}):
        assert due_training(model, small.lake, health=wrong).assets == ("endpoint",)
    judged = small.latest().get("metrics", WHOLE)
    assert judged is not None
    refused = replace(judged, details=judged.details | {"approved": False}, recorded_at=datetime.now(UTC))
    append_records(copy, model.name, [refused])
    assert due_training(model, copy, health=healthy).assets == ()
    assert due_training(model, copy, health={}).reason.startswith("the endpoint server does not serve 1-")
