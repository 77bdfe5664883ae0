"""The Dagster UI in a real browser: "Materialize" brings a model to life; the graph and the plots show."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

from ml_assets_tests.project import SMALL_MODEL, Project, free_port, wait_until

SCREENSHOTS = os.environ.get("ML_ASSETS_TEST_SCREENSHOTS")


@pytest.fixture(scope="module")
def ui(make_project: Callable[..., Project]) -> Iterator[tuple[Project, str]]:
    """Landed files, and the UI with its daemon, whose sensors are switched off so that only clicks do anything."""
    project = make_project("ui")
    project.add_demo_model(**SMALL_MODEL)
    project.land(3)
    port = free_port()
    with project.services(webserver_port=port) as log:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return requests.get(f"{url}/server_info", timeout=2).ok
            except requests.RequestException:
                return False

        wait_until(ready, 120, f"the UI answers; see {log}")
        yield project, url


@pytest.fixture
def page() -> Iterator[Page]:
    browser_path = shutil.which("chromium")
    if browser_path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on PATH; .ci/run installs it where it may")
        pytest.skip("no chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


def shoot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_ui(ui: tuple[Project, str], page: Page) -> None:
    project, url = ui
    page.goto(f"{url}/asset-groups")
    page.wait_for_timeout(8000)
    shoot(page, "graph")
    page.get_by_role("button", name="Materialize all").first.click()
    page.wait_for_timeout(3000)
    shoot(page, "dialog")
    expect(page.get_by_role("dialog")).to_be_visible()
