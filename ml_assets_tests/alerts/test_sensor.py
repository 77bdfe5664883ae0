"""The sensor `alerts` on a real model's lake and instance, and what the commands show of it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.alerts.failures import failed_checks
from ml_assets.automation.alerts import alerts_sensor
from ml_assets.deployment.rollout import Phase
from ml_assets.lake import Lake
from ml_assets.probes import Probe, Watch, append_row
from ml_assets.records import Record, append_records
from ml_assets.resources import LakeResource
from ml_assets.rollouts import LakeJournal
from ml_assets_tests.alerts.receivers import Hooks
from ml_assets_tests.project import Project, free_port

NAME = "late_deliveries"
NOW = datetime.now(UTC)
YESTERDAY = (NOW - timedelta(days=1)).date().isoformat()


@dataclass
class Watched:
    """The small project's lake and models, and a channel."""

    project: Project
    hooks: Hooks
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return self.project.lake

    def tick(self) -> str:
        sensor = alerts_sensor([self.project.model()])
        repository = self.project.definitions().get_repository_def()
        resources = {"lake": LakeResource(root=str(self.lake.root))}
        with (
            self.project.active(),
            dg.build_sensor_context(self.instance, resources=resources, repository_def=repository) as context,
        ):
            return str(sensor.evaluate_tick(context).skip_message)

    def subjects(self) -> list[str]:
        return [f"{each['event']} {each['kind']}" for each in self.hooks.bodies()]

    def probed(self, found: str, number: int) -> None:
        watch = Watch("dead" if found == "good" else "good", NOW)
        for each in range(2):
            reason = "" if found == "good" else "it does not answer"
            at = NOW + timedelta(minutes=number, seconds=each)
            watch, row = watch.after(Probe(found, reason=reason, at=at))  # type: ignore[arg-type]
        assert row is not None
        append_row(self.lake, NAME, row)


@pytest.fixture
def watched(small: Project, tmp_path: Path) -> Iterator[Watched]:
    with Hooks(free_port()).running() as hooks, dg.instance_for_test() as instance:
        project = Project.create(tmp_path, models=small.settings.models)
        project.variables |= {"ML_ASSETS_ALERTS": hooks.url(), "ML_ASSETS_UI": "https://dagster.example"}
        shutil.copytree(small.settings.lake, project.settings.lake)
        yield Watched(project, hooks, instance)


def test_a_sound_model_is_no_case_for_anybody(watched: Watched, small: Project) -> None:
    """By the instance on which it was made: its runs succeeded, and some of its raw rows lie in quarantine."""
    with small.active(), dg.DagsterInstance.get() as instance:
        assert failed_checks(instance, list(small.definitions().resolve_asset_graph().asset_check_keys))
        watched.instance = instance
        assert watched.tick() == "0 alert(s) are open; nothing new"
    assert watched.hooks.got == []


def test_everything_that_holds_is_told_once_and_shown_and_its_recovery_too(watched: Watched) -> None:
    names = [f"feature_{number}" for number in range(40)]
    drifted = Record("monitoring", YESTERDAY, "", "1", 9, "run", details={"alarms": {"drift": names}})
    append_records(watched.lake, NAME, [drifted])
    journal = LakeJournal(watched.lake, NAME)
    [*_, serves] = journal.states()
    back = replace(serves, number=9, phase=Phase.ROLLED_BACK, reason="too many errors", cause="judged")
    journal.append(back)
    watched.probed("dead", 0)
    watched.tick()
    watched.tick()
    assert sorted(watched.subjects()) == ["opened availability", "opened drift", "opened rollback"]
    told = {each["kind"]: each for each in watched.hooks.bodies()}
    assert told["drift"]["title"] == (
        f"{NAME}: 40 features have drifted (feature_0, feature_1, feature_10 and 37 more)"
    )
    assert told["drift"]["url"] == f"https://dagster.example/assets/{NAME}/monitoring"
    assert told["availability"]["severity"] == "error"
    shown = watched.project.run("ml-assets", "alerts")
    assert shown.returncode == 0, shown.stderr
    assert f"error since {NOW:%Y-%m-%d}" in shown.stdout
    assert "40 features have drifted" in shown.stdout
    assert "(from warn on): all is delivered" in shown.stdout
    shown = watched.project.run("ml-assets", "status")
    assert "  probed  dead since" in shown.stdout
    assert f"  alert   error since {NOW:%Y-%m-%d}" in shown.stdout

    append_records(watched.lake, NAME, [replace(drifted, details={"alarms": {}}, recorded_at=datetime.now(UTC))])
    watched.probed("good", 1)
    journal.append(replace(serves, number=10))
    watched.tick()
    assert sorted(watched.subjects()[3:]) == ["recovered availability", "recovered drift", "recovered rollback"]
    assert watched.tick() == "0 alert(s) are open; nothing new"


def test_a_failed_run_is_told_with_the_link_to_it(watched: Watched) -> None:
    job = watched.project.definitions().resolve_job_def(NAME)
    run = watched.instance.create_run_for_job(job, asset_selection=frozenset({dg.AssetKey([NAME, "features"])}))
    watched.instance.report_run_failed(run, "its process is gone")
    watched.tick()
    [said] = watched.hooks.bodies()
    assert (said["kind"], said["url"]) == ("run_failed", f"https://dagster.example/runs/{run.run_id}")
    assert said["title"] == f"{NAME}: run {run.run_id[:8]} failed, features is to be made"


def test_a_model_that_cannot_be_looked_at_keeps_nobody_from_hearing_of_others(watched: Watched) -> None:
    watched.probed("dead", 0)
    watched.tick()
    shutil.rmtree(watched.lake.path(NAME, "probes") / "_delta_log")
    (watched.lake.path(NAME, "probes") / "_delta_log").mkdir()
    (watched.lake.path(NAME, "probes") / "_delta_log" / f"{0:020}.json").write_text("damaged")
    with pytest.raises(Exception, match=NAME):
        watched.tick()
    assert watched.subjects() == ["opened availability"], "nobody knows whether it is over"


def test_the_channels_can_be_tried(watched: Watched) -> None:
    tried = watched.project.run("ml-assets", "alerts", "--test")
    assert tried.returncode == 0, tried.stderr
    assert ": sent" in tried.stdout
    [said] = watched.hooks.bodies()
    assert said["title"] == "a test of this channel by `ml-assets alerts --test`"
    watched.hooks.status = 403
    tried = watched.project.run("ml-assets", "alerts", "--test")
    assert tried.returncode == 1
    assert "answered 403" in tried.stdout
