"""The report page says what the tables hold, in every state that a model may be in, and reads well in a browser."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from ml_assets.lake import PARTITION, Lake
from ml_assets.model import Model
from ml_assets.records import Record, append_records
from ml_assets.report.write import served_reports, write_report
from ml_assets_tests.project import Project
from ml_assets_tests.reported import NOW, served

SECTIONS = ("quality", "requests", "drift", "rejected", "refused", "rollouts", "trainings", "freshness")
HOSTILE = "<script>document.title='run'</script>\"'"


@pytest.fixture(scope="module")
def model(make_project: Callable[..., Project]) -> Model:
    project = make_project("reported")
    project.add_demo_model()
    return project.model()


@pytest.fixture
def write(model: Model, tmp_path: Path) -> Callable[..., str]:
    """The page of a model after some days of serving; without options of one that was never materialised."""

    def make(**options: object) -> str:
        lake = Lake(tmp_path / "lake")
        if options:
            served(lake, model.name, **options)  # type: ignore[arg-type]
        return write_report(lake, model, tmp_path / "page.html", NOW).read_text()

    return make


def headline_of(page: str) -> str:
    found = re.search(r'<div class="headline.*?</div>', page, re.S)
    assert found
    return re.sub(r"<[^>]*>|\s+", " ", found[0])


def section(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_all_is_well_only_where_nothing_is_wrong(write: Callable[..., str]) -> None:
    page = write(days=40, versions=2)
    said = headline_of(page)
    assert "All is well. Version 2 keeps its promise: roc_auc" in said
    assert "promised 0.820" in said
    assert "2-0123456789ab, since 5 Nov 2026" in page
    assert "with alarms" not in page


def test_what_is_wrong_is_said_first_and_the_worst_features_are_shown_first(write: Callable[..., str]) -> None:
    page = write(days=120, versions=4, drifts=3, features=20)
    said = headline_of(page)
    assert "2 things are wrong." in said
    assert "roc_auc of version 4 is 0." in said
    assert "Drift: " in said
    drift = section(page, "drift")
    shown = re.findall(r'class="name" title="([^"]*)"', drift)
    assert set(shown[:3]) == {"distance_km", "value_per_item", "weather"}
    assert "3 with alarms" in drift
    assert "8 more" in drift, "the others fold away"


def test_retrainings_and_promotions_are_marked_and_told_with_their_reasons(write: Callable[..., str]) -> None:
    page = write(days=60, versions=4)
    quality, trainings, rollouts = (section(page, each) for each in ("quality", "trainings", "rollouts"))
    for version in ("1", "2", "4"):
        assert f"version {version} was promoted" in quality
    assert "version 3 was trained" in quality, "it was refused, and never promoted"
    assert "1,622 rows in new or changed days" in trainings
    assert "f1 0.7612, at least 0.8 is asked for" in trainings
    assert "retrain.min_new_rows is 20,000" in trainings, "and why not"
    assert trainings.count("retrain.min_new_rows") == 1, "the same reason with other numbers is told once"
    assert rollouts.count("not worse than the champion") >= 3
    assert "3-0123456789ab" not in rollouts


def test_rejected_rows_by_reason(write: Callable[..., str], tmp_path: Path, model: Model) -> None:
    page = write(days=30)
    rejected = section(page, "rejected")
    rows = Lake(tmp_path / "lake").read(model.name, "rejected_rows")
    assert f"{rows.height:,} of {600 * 30 + rows.height:,} rows broke the contract" in rejected
    told = dict(re.findall(r'aria-label="(distance_km: in_range\(0, 100\)|items: is a Int64): (\d+);', rejected))
    for column, reason in (("distance_km", "distance_km: in_range(0, 100)"), ("items", "items: is a Int64")):
        assert int(told[reason]) == rows.filter(pl.col("reasons").str.contains(f'"{column}"')).height


def test_a_day_is_judged_once_it_is_over(write: Callable[..., str], tmp_path: Path, model: Model) -> None:
    """What the tables say of today raises no alarm on the page, also if something did write one."""
    write(days=20)
    lake = Lake(tmp_path / "lake")
    today = str(NOW.date())
    rows = lake.read(model.name, "monitoring", [today])
    lake.replace(model.name, "monitoring", rows.with_columns(alarm=pl.col("limit").is_not_null()), [today])
    page = write_report(lake, model, tmp_path / "page.html", NOW).read_text()
    assert "All is well" in headline_of(page)


def test_an_alarm_that_is_over_is_no_longer_wrong(write: Callable[..., str], tmp_path: Path, model: Model) -> None:
    write(days=20)
    lake = Lake(tmp_path / "lake")
    for back, wrong in ((3, False), (1, True)):
        day = str(NOW.date() - timedelta(days=back))
        rows = lake.read(model.name, "monitoring", [day])
        lake.replace(model.name, "monitoring", rows.with_columns(alarm=pl.col("name") == "failed_share"), [day])
        page = write_report(lake, model, tmp_path / "page.html", NOW).read_text()
        assert ("Requests fail" in headline_of(page)) == wrong
        assert 'class="alarm"' in section(page, "requests"), "but it is marked for ever"


@pytest.mark.parametrize("days", [0, 1, 2])
def test_a_model_at_its_beginning(write: Callable[..., str], days: int) -> None:
    page = write(days=days) if days else write()
    for each in SECTIONS:
        assert f'<section id="{each}">' in page
    assert "nan" not in page.lower().replace("financ", "")
    said = headline_of(page)
    assert ("Nothing serves yet" in said) == (days == 0)
    if days:
        assert "Version 1 serves; its quality is not known yet" in said


def test_a_model_that_serves_and_was_never_asked(model: Model, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    said = {"release": "1-ab", "version": "1", "since": NOW.isoformat(), "challenger": None, "waits": ""}
    append_records(lake, model.name, [Record("endpoint", "all", "i", "c", 1, "r", 0, said, NOW)])
    page = write_report(lake, model, tmp_path / "page.html", NOW).read_text()
    assert "Version 1 serves, and nobody has asked it yet." in headline_of(page)


def test_gaps_are_gaps_and_silence_is_said(write: Callable[..., str], tmp_path: Path, model: Model) -> None:
    page = write(days=30, gaps=True)
    line = re.search(r'<path class="line v0" d="([^"]*)"', section(page, "requests"))
    assert line
    assert line[1].count("M") >= 4, "no line is drawn over days without requests"
    later = write_report(Lake(tmp_path / "lake"), model, tmp_path / "page.html", NOW + timedelta(days=5)).read_text()
    assert "Nothing was asked and watched since 25 Nov 2026." in headline_of(later)
    assert "All is well" not in later


def test_a_year_of_forty_features_is_quick_and_small(write: Callable[..., str], model: Model, tmp_path: Path) -> None:
    write(days=365, features=40, versions=5, drifts=40)
    began = time.perf_counter()
    file = write_report(Lake(tmp_path / "lake"), model, tmp_path / "page.html", NOW)
    assert time.perf_counter() - began < 3
    assert file.stat().st_size < 500_000
    assert "each cell is the worst day of a week" in file.read_text()


def test_only_reports_are_served(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "secret.html").write_text("no")
    (tmp_path / "reports" / "rides.html").write_text("yes")
    (tmp_path / "reports" / ".rides.html.7").write_text("half")
    with served_reports(tmp_path / "reports", 0) as port:
        url = f"http://127.0.0.1:{port}"
        assert requests.get(f"{url}/rides.html", timeout=5).text == "yes"
        for path in ("", "other.html", ".rides.html.7", "%2e%2e/secret.html", "..%2fsecret.html"):
            assert requests.get(f"{url}/{path}", timeout=5).status_code == 404, path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on PATH; .ci/run installs it where it may")
        pytest.skip("no chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_asks_for_nothing_and_runs_nothing(
    browser: Browser, write: Callable[..., str], tmp_path: Path, scheme: str
) -> None:
    text = write(days=100, features=14, versions=4, drifts=2, hostile=HOSTILE)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    said: list[str] = []
    for width, height in ((375, 812), (1280, 900)):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto((tmp_path / "page.html").as_uri())
        for each in page.locator("details").all():
            each.evaluate("details => { details.open = true }")
        assert page.title() == "late_deliveries: report"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("section").count() == len(SECTIONS)
        assert page.locator("svg[role=img]").count() > 15
        wide = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)"
        assert page.locator("main *:not(svg *)").evaluate_all(wide) == []
        overlapping = """all => all.flatMap(axis => {
            const boxes = [...axis.children].map(one => one.getBoundingClientRect()).filter(box => box.width);
            return boxes.slice(1).filter((box, at) => box.left < boxes[at].right).map(() => axis.innerHTML) })"""
        assert page.locator(".x").evaluate_all(overlapping) == []
        context.close()
    assert said == []


def test_the_table_is_read_as_the_day_of_the_asset_says(
    write: Callable[..., str], tmp_path: Path, model: Model
) -> None:
    """Days older than a year are not read."""
    write(days=3)
    lake = Lake(tmp_path / "lake")
    old = lake.read(model.name, "monitoring", [str(NOW.date())]).with_columns(pl.lit("2025-01-01").alias(PARTITION))
    lake.replace(model.name, "monitoring", old, ["2025-01-01"])
    page = write_report(lake, model, tmp_path / "page.html", NOW).read_text()
    assert "23 Nov 2026 to 25 Nov 2026" in page
