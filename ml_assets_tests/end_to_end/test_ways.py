"""The ways of use do the same: `dagster asset materialize`, a tick of the schedule, the sensors, and a click in the UI.

Each way ends in the same tables and the same model, to the digest, as runs in this process on the same landed files.
The last three happen one after another under one running daemon and web server.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

from ml_assets.demo.business import FIRST_DAY
from ml_assets_tests.project import SMALL, SMALL_MODEL, Project, free_port, wait_until

MODEL = "late_deliveries"
DAYS = 4
BUSINESS = replace(SMALL, orders_per_day=200)
SECOND_DAY = FIRST_DAY + timedelta(days=1)
SCREENSHOTS = os.environ.get("ML_ASSETS_TEST_SCREENSHOTS")  # folder in which to keep what the browser showed


def add_model(project: Project) -> None:
    project.add_demo_model(**SMALL_MODEL, retrain={"schedule": "* * * * *"})
    for folder in ("orders", "outcomes"):
        (project.landing / MODEL / folder).mkdir(parents=True)


def land_again(project: Project, day: date, seed: int) -> None:
    """A file of one day is replaced by another one."""
    project.land(1, day, business=replace(BUSINESS, seed=seed))


@pytest.fixture(scope="module")
def materialized(make_project: Callable[..., Project]) -> tuple[Project, list[dict[str, Any]]]:
    """A project, and what its tables and model held after the landing and after each of two replaced files."""
    project = make_project("reference")
    add_model(project)
    project.land(DAYS, business=BUSINESS)
    stages = []
    for change in (None, (FIRST_DAY, 99), (SECOND_DAY, 77)):
        if change:
            land_again(project, *change)
        project.materialize()
        stages.append(project.contents())
    return project, stages


@pytest.fixture(scope="module")
def reference(materialized: tuple[Project, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return materialized[1]


def served_version(project: Project) -> str | None:
    health = project.target.health()
    served = (health or {"models": {}})["models"].get(MODEL)
    return served and str(served["version"])


def wait_for_version(project: Project, version: str, seconds: float = 200) -> None:
    wait_until(lambda: served_version(project) == version, seconds, f"version {version} serves; see {project.root}")


def test_the_dagster_command(project: Project, reference: list[dict[str, Any]]) -> None:
    add_model(project)
    project.land(DAYS, business=BUSINESS)
    done = project.run(
        *("dagster", "asset", "materialize", "-m", "ml_assets.definitions", "--select", f'key:"{MODEL}/*"'),
        *("--partition-range", f"{FIRST_DAY}...{FIRST_DAY + timedelta(days=DAYS - 1)}"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert project.contents() == reference[0]
    assert served_version(project) == "1"


@dataclass
class Running:
    """A project under a running daemon and web server."""

    project: Project
    url: str
    ticked_contents: dict[str, Any] = field(default_factory=dict)

    def ask(self, query: str, **variables: str) -> Any:
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=20).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def sensors(self) -> list[dict[str, str]]:
        """Name and id of each sensor; none while the web server does not answer yet."""
        try:
            return list(self.ask(SENSORS)["sensorsOrError"].get("results", []))
        except (requests.RequestException, ValueError):
            return []

    def stop_sensors(self) -> None:
        for each in self.sensors():
            done = self.ask(STOP_SENSOR, id=each["id"])
            assert done["stopSensor"]["instigationState"]["status"] == "STOPPED"

    def start_sensors(self) -> None:
        for each in self.sensors():
            assert self.ask(START_SENSOR, name=each["name"])["startSensor"]["sensorState"]["status"] == "RUNNING"

    def stop_schedules(self) -> None:
        for each in self.ask(SCHEDULES)["schedulesOrError"]["results"]:
            done = self.ask(STOP_SCHEDULE, id=each["id"])
            assert done["stopRunningSchedule"]["scheduleState"]["status"] == "STOPPED"

    def runs(self) -> list[dg.DagsterRun]:
        """Oldest first."""
        with self.project.active(), dg.DagsterInstance.get() as instance:
            return list(reversed(instance.get_runs()))

    def wait_until_idle(self) -> None:
        wait_until(lambda: all(run.is_finished for run in self.runs()), 60, "all runs have ended")


WHERE = '{repositoryName: "__repository__", repositoryLocationName: "ml_assets"'
SENSORS = f"{{ sensorsOrError(repositorySelector: {WHERE}}}) {{ ... on Sensors {{ results {{ name id }} }} }} }}"
SCHEDULES = f"{{ schedulesOrError(repositorySelector: {WHERE}}}) {{ ... on Schedules {{ results {{ id }} }} }} }}"
STOP_SENSOR = (
    "mutation ($id: String!) { stopSensor(id: $id) "
    "{ ... on StopSensorMutationResult { instigationState { status } } } }"
)
START_SENSOR = (
    f"mutation ($name: String!) {{ startSensor(sensorSelector: {WHERE}, sensorName: $name}}) "
    "{ ... on Sensor { sensorState { status } } }}"
)
STOP_SCHEDULE = (
    "mutation ($id: String!) { stopRunningSchedule(id: $id) "
    "{ ... on ScheduleStateResult { scheduleState { status } } } }"
)


@pytest.fixture(scope="module")
def running(make_project: Callable[..., Project]) -> Iterator[Running]:
    """Nothing has landed yet, and the sensors are switched off; the schedule ticks every minute."""
    project = make_project("ways")
    add_model(project)
    port = free_port()
    with project.services(webserver_port=port) as log:
        made = Running(project, f"http://127.0.0.1:{port}")
        wait_until(made.sensors, 120, f"the web server answers; see {log}")
        made.stop_sensors()
        yield made


@pytest.fixture(scope="module")
def ticked(running: Running) -> Running:
    """Four days landed, and a real tick of the schedule has found them."""
    running.project.land(DAYS, business=BUSINESS)
    wait_for_version(running.project, "1")
    running.wait_until_idle()
    running.stop_schedules()
    running.ticked_contents = running.project.contents()
    return running


@pytest.fixture(scope="module")
def sensed(ticked: Running) -> Running:
    """A file was replaced, and the sensors have found it."""
    ticked.start_sensors()
    land_again(ticked.project, FIRST_DAY, 99)
    wait_for_version(ticked.project, "2")
    ticked.wait_until_idle()
    ticked.stop_sensors()
    return ticked


def test_a_tick_of_the_schedule(ticked: Running, reference: list[dict[str, Any]]) -> None:
    assert ticked.ticked_contents == reference[0]
    first = ticked.runs()[0]
    assert first.tags["dagster/schedule_name"] == f"{MODEL}_daily"
    assert first.status == dg.DagsterRunStatus.SUCCESS
    endpoint = dg.AssetKey([MODEL, "endpoint"])
    assert endpoint in (first.asset_selection or ()), "one run, from data to endpoint"
    assert [run for run in ticked.runs() if "dagster/schedule_name" in run.tags] == [first], "later ticks find nothing"


def test_the_sensors_on_a_replaced_file(sensed: Running, reference: list[dict[str, Any]]) -> None:
    assert sensed.project.contents() == reference[1]
    scheduled, refreshed, trained = sensed.runs()
    assert refreshed.tags["dagster/sensor_name"] == f"{MODEL}_arrivals"
    assert refreshed.tags["ml_assets/reason"] == "its batches changed"
    assert trained.tags["dagster/sensor_name"] == f"{MODEL}_retraining"
    made_by = {day: record.run_id for day, record in sensed.project.latest().of("features").items()}
    assert made_by.pop(FIRST_DAY.isoformat()) == refreshed.run_id
    assert set(made_by.values()) == {scheduled.run_id}, "no other day was made again"


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on PATH; .ci/run installs it where it may")
        pytest.skip("no chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


def shoot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.wait_for_timeout(2000)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_materialize_in_the_ui_and_graph_and_plots_show(
    sensed: Running, page: Page, reference: list[dict[str, Any]]
) -> None:
    land_again(sensed.project, SECOND_DAY, 77)
    page.goto(f"{sensed.url}/asset-groups")
    expect(page.get_by_text("trained_model").last).to_be_visible(timeout=60_000)
    shoot(page, "graph")
    page.get_by_role("button", name="Materialize all").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Show all partitions").click()
    chosen = dialog.get_by_role("textbox").first
    chosen.fill(SECOND_DAY.isoformat())
    chosen.press("Enter")
    expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible(timeout=20_000)
    shoot(page, "dialog")
    dialog.get_by_role("button", name="Launch").click()
    wait_for_version(sensed.project, "3")
    assert sensed.project.contents() == reference[2]

    page.goto(f"{sensed.url}/assets/{MODEL}/metrics")
    page.get_by_text("[Show Markdown]").first.click(timeout=60_000)
    plot = page.locator("img[src^='data:image/png']").first
    expect(plot).to_be_visible(timeout=20_000)
    assert plot.evaluate("image => image.naturalWidth") > 300
    shoot(page, "plot")
    page.goto(f"{sensed.url}/runs")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=60_000)
    shoot(page, "runs")


def test_a_person_may_materialise_each_asset_alone_and_nothing_changes(
    materialized: tuple[Project, list[dict[str, Any]]],
) -> None:
    project, stages = materialized
    for asset in ("raw_data", "outcomes", "features"):
        project.by_hand(asset, FIRST_DAY.isoformat())
    for asset in ("trained_model", "metrics", "endpoint"):
        project.by_hand(asset)
    assert project.contents() == stages[-1]
    assert served_version(project) == "4"
