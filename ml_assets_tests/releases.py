"""Releases that are not what was trained, and consistent in themselves."""

from pathlib import Path
from typing import Any

import msgspec

from ml_assets.serving.bundle import MANIFEST, seal, sha256


def sealed(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest over the files that it names, as they are."""
    files = {name: sha256((folder / name).read_bytes()) for name in manifest["files"]}
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest | {"files": files}))
    seal(folder)
