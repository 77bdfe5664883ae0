"""What drills of the endpoint server ask: a small demo, materialised, whose own server was stopped."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ml_assets.lake import WHOLE
from ml_assets_tests.project import SMALL_MODEL, Project

NAME = "late_deliveries"


@contextlib.contextmanager
def small_project() -> Iterator[tuple[Project, Path]]:
    """The project, and an empty folder for what a drill needs beside it; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "project")
        project.add_demo_model(**SMALL_MODEL)
        project.land(8)
        project.materialize()
        project.target.stop()
        place = Path(folder) / "drill"
        place.mkdir()
        yield project, place


def release_of(project: Project) -> Path:
    """The release that serves."""
    record = project.latest().get("endpoint", WHOLE)
    assert record is not None
    return project.settings.releases / NAME / str(record.details["release"])
