"""A release of the demo's model, and one of a model that looks nothing up."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_assets.lake import WHOLE
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets_tests.endpoint import served
from ml_assets_tests.image import Image, built
from ml_assets_tests.project import Project

MODEL = "late_deliveries"


@pytest.fixture(scope="package")
def release(small: Project) -> Path:
    record = small.latest().get("endpoint", WHOLE)
    assert record is not None
    return small.settings.releases / MODEL / str(record.details["release"])


@pytest.fixture(scope="package")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The endpoint's image, as far as a folder can be one."""
    made = built("endpoint", tmp_path_factory.mktemp("image"))
    made.model.mkdir()
    return made


@pytest.fixture(scope="package")
def guarded(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with narrow limits that asks for a key: its address, and the file of its keys."""
    home = tmp_path_factory.mktemp("guarded")
    shutil.copytree(release, home / "releases" / MODEL / release.name)
    write_pointers(home / "releases", MODEL, Pointer(release.name))
    keys = home / "keys"
    keys.write_text("from-file\n")
    limits = {"ML_ASSETS_ENDPOINT_MAX_BYTES": "20000", "ML_ASSETS_ENDPOINT_MAX_ROWS": "5"}
    named = {"ML_ASSETS_ENDPOINT_KEYS": "first, second", "ML_ASSETS_ENDPOINT_KEYS_FILE": str(keys)}
    with served(home, **limits, **named) as url:
        yield url, keys
