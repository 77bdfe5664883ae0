"""A batch that breaks its limits stops before anything of it is written, holds up no other, and is not asked for again
until data, contract or limits change; rejected rows are replayed by one action."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from ml_assets.automation.due import due_data
from ml_assets.checks import ACCEPTANCE
from ml_assets.demo.business import FIRST_DAY, Business
from ml_assets.errors import RunFailedError
from ml_assets.materialize import replay
from ml_assets_tests.project import SMALL_MODEL, Project

TINY = Business(orders_per_day=20)
BAD = "2025-01-15"
DATA = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")
MODEL = SMALL_MODEL | {"training": {"min_rows": 100_000}}


@pytest.fixture(scope="module")
def month(make_project: Callable[..., Project]) -> Project:
    """Thirty days, of which the fifteenth has a third of its rows broken where a tenth is allowed."""
    project = make_project("month")
    limits = {"rejected": 0.2, "min_rows": 5}
    project.add_demo_model(**MODEL, source=demo_source() | {"limits": limits})
    project.land(30, business=TINY)
    spoil(orders(project, BAD))
    return project


def demo_source() -> dict[str, Any]:
    return {
        "kind": "files",
        "uri": "{{ landing }}/late_deliveries/orders/*.parquet",
        "batch": "day",
        "start": FIRST_DAY.isoformat(),
    }


def orders(project: Project, day: str) -> Path:
    return project.landing / "late_deliveries" / "orders" / f"{day}.parquet"


def spoil(path: Path) -> None:
    frame = pl.read_parquet(path).with_row_index()
    frame.with_columns(items=pl.when(pl.col("index") % 2 == 0).then(-1).otherwise("items")).drop("index").write_parquet(
        path
    )


def due_days(project: Project) -> list[str]:
    return [day for each in due_data(project.model(), project.lake).stretches() for day in each.partitions]


def in_tables(project: Project, day: str) -> set[str]:
    return {table for table in DATA if project.lake.read("late_deliveries", table, [day]).height}


def test_29_days_are_in_and_one_is_refused_before_anything_of_it_is_written(month: Project) -> None:
    said = (
        rf"{BAD}: late_deliveries/raw_data {BAD}: \d+ of \d+ rows \(5\d\.\d%\) break the contract, and limits.rejected"
    )
    with pytest.raises(RunFailedError, match=said):
        month.materialize()
    month.materialize()
    latest = month.latest()
    days = {(FIRST_DAY + timedelta(days=each)).isoformat() for each in range(30)}
    for table in ("raw_data", "cleaned_data", "rejected_rows", "features"):
        assert set(latest.of(table)) >= days - {BAD}
    assert in_tables(month, BAD) <= {"outcomes"}, "outcomes arrive in files of their own"
    assert month.materialize() == [], "nothing loops"


def test_the_refusal_is_shown_with_its_reason(month: Project) -> None:
    (problem,) = due_data(month.model(), month.lake).problems.values()
    assert "items" in problem.reason
    assert "mend the data or the contract, or set limits" in problem.reason
    assert "asked for again when its data, contract or limits change" in problem.waits_for


def test_it_is_asked_for_again_when_limits_contract_or_data_change_and_then_the_day_is_whole(month: Project) -> None:
    folder = month.settings.models / "late_deliveries"
    spec = (folder / "defs.yaml").read_text()
    assert due_days(month) == []
    loose = yaml.safe_load(spec)
    loose["attributes"]["source"]["limits"] = {"rejected": 0.6}
    (folder / "defs.yaml").write_text(yaml.safe_dump(loose))
    assert due_days(month) == [BAD], "other limits"
    (folder / "defs.yaml").write_text(spec)
    assert due_days(month) == []
    contract = (folder / "contract.py").read_text()
    (folder / "contract.py").write_text(contract.replace("items: int = pa.Field(ge=1", "items: int = pa.Field(ge=-1"))
    assert BAD in due_days(month), "another contract"
    (folder / "contract.py").write_text(contract)
    assert due_days(month) == []
    TINY.orders(date.fromisoformat(BAD)).write_parquet(orders(month, BAD))
    assert due_days(month) == [BAD], "other data"
    month.materialize()
    assert in_tables(month, BAD) >= {"raw_data", "cleaned_data", "features"}
    assert due_data(month.model(), month.lake).problems == {}


def test_rejected_rows_are_replayed_after_the_contract_was_mended_and_replay_is_idempotent(project: Project) -> None:
    folder = project.add_demo_model(**MODEL, source=demo_source() | {"limits": {"rejected": 1.0}})
    project.land(2, business=TINY)
    spoil(orders(project, "2025-01-02"))
    project.materialize()
    rejected = sum(each.rows for each in project.latest().of("rejected_rows").values())
    assert rejected >= 8
    contract = (folder / "contract.py").read_text()
    (folder / "contract.py").write_text(contract.replace("items: int = pa.Field(ge=1", "items: int = pa.Field(ge=-1"))
    with project.active():
        assert replay(project.settings, project.model(), lambda line: None)[0] == rejected
        after, versions = project.contents(), project.lake.version("late_deliveries", "cleaned_data")
        counts = replay(project.settings, project.model(), lambda line: None)
    assert counts[0] == counts[1] < rejected
    assert project.contents() == after
    assert project.lake.version("late_deliveries", "cleaned_data") == versions, "nothing was written again"
    for record in project.latest().of("cleaned_data").values():
        assert record.details["raw"] == record.rows + record.details["rejected"] + record.details["duplicates"]
    done = project.run("ml-assets", "replay", "late_deliveries")
    assert done.returncode == 0, done.stderr
    assert f"{counts[1]} rejected rows before, {counts[1]} now" in done.stdout


def test_the_check_of_raw_data_says_what_was_not_accepted(month: Project) -> None:
    job = month.definitions().resolve_job_def("late_deliveries")
    spoil(orders(month, "2025-01-20"))
    with pytest.raises(RunFailedError):
        month.materialize()
    with month.active(), dg.DagsterInstance.get() as instance:
        key = dg.AssetKey(["late_deliveries", "raw_data"])
        done = job.execute_in_process(instance=instance, asset_selection=[key], partition_key="2025-01-03")
    (check,) = [each for each in done.get_asset_check_evaluations() if each.check_name == ACCEPTANCE]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    (record,) = check.metadata["problems"].records  # type: ignore[union-attr]
    assert record.data["what"] == "raw_data 2025-01-20"
