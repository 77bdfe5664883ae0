"""Landed, changed, removed and broken files: exactly what they touch is made again, and nothing good is lost."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ml_assets.automation.due import due_data
from ml_assets.automation.due_training import due_training
from ml_assets.demo.business import FIRST_DAY
from ml_assets.errors import RunFailedError, TrainingError
from ml_assets.lake import WHOLE
from ml_assets.records import Record
from ml_assets_tests.project import SMALL, SMALL_MODEL, Project

DAILY = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")


@pytest.fixture(scope="module")
def made(make_project: Callable[..., Project]) -> Project:
    """Five days, materialised; each test begins and ends with nothing due but the endpoint of what it changed."""
    project = make_project("refresh")
    project.add_demo_model(**SMALL_MODEL)
    project.land(5)
    project.materialize()
    return project


def orders(project: Project, day: int) -> Path:
    return project.landing / "late_deliveries" / "orders" / f"{FIRST_DAY + timedelta(days=day - 1)}.parquet"


def due_days(project: Project) -> list[list[str]]:
    return [each.partitions for each in due_data(project.model(), project.lake).stretches()]


def records(project: Project) -> dict[tuple[str, str], Record]:
    latest = project.latest()
    return {(asset, day): record for asset in DAILY for day, record in latest.of(asset).items()}


def touched(before: dict[tuple[str, str], Record], after: dict[tuple[str, str], Record]) -> set[str]:
    """Days that any data asset was made again for."""
    return {day for (asset, day), record in after.items() if before.get((asset, day)) != record}


def version(project: Project) -> str:
    trained, served = (project.latest().get(asset, WHOLE) for asset in ("trained_model", "endpoint"))
    assert trained is not None
    assert served is not None
    assert trained.details["version"] == served.details["version"]
    return str(served.details["version"])


def test_nothing_changed_nothing_due(made: Project) -> None:
    model = made.model()
    assert due_days(made) == []
    assert due_training(model, made.lake).assets == ()
    assert made.materialize() == []


def test_a_changed_file_refreshes_its_day_alone_and_a_better_informed_model_serves(made: Project) -> None:
    before, old = records(made), version(made)
    frame = pl.read_parquet(orders(made, 3))
    frame.with_columns(pl.col("order_value") + 1).write_parquet(orders(made, 3))
    assert len(made.materialize()) == 2, "one for the day, one for the model"
    assert touched(before, records(made)) == {"2025-01-03"}
    assert version(made) != old


def test_a_rewritten_file_with_the_same_content_changes_no_content_and_trains_nothing(made: Project) -> None:
    before, old = records(made), version(made)
    pl.read_parquet(orders(made, 2)).write_parquet(orders(made, 2), compression="gzip")
    assert made.materialize()
    after = records(made)
    assert touched(before, after) == {"2025-01-02"}
    assert {key: record.content for key, record in after.items()} == {
        key: record.content for key, record in before.items()
    }
    assert version(made) == old


def test_a_table_is_not_believed_to_hold_what_its_records_say_after_a_write_without_a_record(made: Project) -> None:
    """A run that was killed between the two, and a file that was put back before the next one."""
    there = made.lake.read("late_deliveries", "raw_data", ["2025-01-04"])
    made.lake.replace("late_deliveries", "raw_data", there.head(3), ["2025-01-04"], exact=False)
    made.by_hand("raw_data", "2025-01-04")
    after = made.lake.read("late_deliveries", "raw_data", ["2025-01-04"])
    assert after.drop("_ingested_at").equals(there.drop("_ingested_at"))


def test_days_that_arrive_with_a_gap_are_made_in_contiguous_runs(made: Project) -> None:
    made.land(1, date(2025, 1, 6))
    made.land(2, date(2025, 1, 8))
    assert due_days(made) == [["2025-01-06"], ["2025-01-08", "2025-01-09"]]
    before = records(made)
    assert len(made.materialize()) == 3, "one for each stretch, one for the model"
    assert touched(before, records(made)) == {"2025-01-06", "2025-01-08", "2025-01-09"}
    assert made.materialize() == []


def test_a_removed_file_empties_its_day(made: Project) -> None:
    kept = orders(made, 9).read_bytes()
    orders(made, 9).unlink()
    made.materialize()
    assert made.lake.read("late_deliveries", "features", ["2025-01-09"]).is_empty()
    orders(made, 9).write_bytes(kept)
    made.materialize()
    assert not made.lake.read("late_deliveries", "features", ["2025-01-09"]).is_empty()


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"PAR1 garbage", "cannot be read as parquet")], ids=["empty", "garbage"]
)
def test_a_file_that_became_unreadable_leaves_its_day_as_it_was(made: Project, content: bytes, said: str) -> None:
    kept, before = orders(made, 1).read_bytes(), records(made)
    orders(made, 1).write_bytes(content)
    assert due_days(made) == []
    (problem,) = due_data(made.model(), made.lake).problems.values()
    assert said in problem.reason
    assert str(orders(made, 1)) in problem.reason
    with pytest.raises(dg.Failure, match=f"2025-01-01: late_deliveries: source: .*{said}"):
        made.by_hand("raw_data", "2025-01-01")
    assert records(made) == before
    orders(made, 1).write_bytes(kept)
    made.materialize()


def test_a_file_without_a_column_is_refused_by_name_and_the_other_days_are_finished(made: Project) -> None:
    kept = orders(made, 1).read_bytes()
    pl.read_parquet(orders(made, 1)).drop("items").write_parquet(orders(made, 1))
    frame = pl.read_parquet(orders(made, 2))
    frame.with_columns(pl.col("order_value") + 2).write_parquet(orders(made, 2))
    before = records(made)
    with pytest.raises(
        RunFailedError, match=r"1 partition\(s\) were refused .* 2025-01-01: .* lacks the column 'items'"
    ):
        made.materialize()
    after = records(made)
    assert after["raw_data", "2025-01-01"] == before["raw_data", "2025-01-01"]
    assert after["raw_data", "2025-01-02"] != before["raw_data", "2025-01-02"]
    assert due_days(made) == [["2025-01-02"]], "the bad day waits for another file, the good one for nothing"
    made.materialize()
    assert records(made)["features", "2025-01-02"].content != before["features", "2025-01-02"].content
    assert due_days(made) == []
    (problem,) = due_data(made.model(), made.lake).problems.values()
    assert "asked for again when its data, contract or limits change" in str(problem)
    orders(made, 1).write_bytes(kept)
    made.materialize()
    assert due_days(made) == []


def test_a_changed_feature_makes_all_features_again_and_no_raw_data(made: Project) -> None:
    before = records(made)
    features = made.settings.models / "late_deliveries" / "features.py"
    features.write_text(features.read_text().replace('pl.col("new_customer"),', 'pl.col("new_customer").not_(),'))
    due = due_data(made.model(), made.lake)
    assert {each.reason for each in due.needs.values()} == {
        "features were not made from this cleaned_data and these expressions"
    }
    old = version(made)
    made.materialize()
    changed = {asset for (asset, day), each in records(made).items() if each.content != before[asset, day].content}
    assert changed == {"features"}
    assert version(made) != old


def test_a_source_whose_folder_is_missing_is_one_message(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    done = project.run("ml-assets", "status")
    assert done.returncode == 0
    with (
        project.active(),
        pytest.raises(Exception, match=r"late_deliveries: source: the folder .*/orders does not exist"),
    ):
        project.materialize()
    assert not project.latest().of("raw_data")


def test_a_target_that_is_null_in_all_rows_is_one_message(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    for path in project.land(3):
        if path.parent.name == "outcomes":
            pl.read_parquet(path).with_columns(late=pl.lit(None, pl.Boolean)).write_parquet(path)
    with pytest.raises(RunFailedError, match=r"late_deliveries: the target 'late' is null in all [\d,]+ cleaned rows"):
        project.materialize()
    assert project.latest().get("trained_model", WHOLE) is None
    assert len(project.latest().of("features")) == 3


def test_too_few_labelled_rows_are_one_message_and_no_training_is_asked_for(project: Project) -> None:
    project.add_demo_model(**(SMALL_MODEL | {"training": {"min_rows": 5000}}))
    project.land(2)
    project.materialize()
    assert project.latest().get("trained_model", WHOLE) is None
    with pytest.raises(TrainingError, match=r"labelled rows of .* training.min_rows is 5,000"):
        project.by_hand("trained_model")
    due = due_training(project.model(), project.lake)
    assert due.assets == ()
    assert "5,000" in due.reason


def test_outcomes_known_later_are_joined_when_they_arrive(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL)
    project.land(4)
    late = project.landing / "late_deliveries" / "outcomes" / "2025-01-04.parquet"
    kept = late.read_bytes()
    late.unlink()
    project.materialize()
    before = project.latest().get("trained_model", WHOLE)
    late.write_bytes(kept)
    project.materialize()
    after = project.latest().get("trained_model", WHOLE)
    assert before is not None
    assert after is not None
    assert after.details["counts"]["cleaned"] == before.details["counts"]["cleaned"]
    reported = SMALL.outcomes(date(2025, 1, 4)).height
    gained = after.details["counts"]["labelled"] - before.details["counts"]["labelled"]
    assert reported * 0.9 < gained <= reported
