"""The files of a release: names, manifest, digests. Written by `deployment.release`, read by the endpoint server.

releases/<model>/serving.json                   which release serves, and which one beside it; see `pointer`
releases/<model>/<version>-<digest>/            one immutable release
    manifest.json                               what it is, with the SHA-256 of every other file
    manifest.sha256                             and that of the manifest
    model.onnx                                  the fitted Pipeline as a graph
    model.skops                                 instead of it: the fitted Pipeline itself, where no graph is made of it
    golden.json                                 requests with the answers that they must get
    input.schema.json                           what a row of a request may be, as JSON Schema
    reference.json                              distributions of the features and scores that it was approved with
releases/<model>/<version>-<digest>.tar.gz      the same files, as SageMaker takes them
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ml_assets.errors import ReleaseError

MANIFEST, GOLDEN, POINTER = "manifest.json", "golden.json", "serving.json"
MANIFEST_DIGEST = "manifest.sha256"
GRAPH, PIPELINE = "model.onnx", "model.skops"
SCHEMA, REFERENCE = "input.schema.json", "reference.json"
ONNX, SCIKIT_LEARN = "onnx", "scikit-learn"  # what scores
FORMAT = 5


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the contract's checks say plainly about a column's values; times as ISO 8601 texts. None: nothing."""

    allowed: tuple[bool | int | float | str, ...] | None = None
    above: int | float | str | None = None
    least: int | float | str | None = None
    below: int | float | str | None = None
    most: int | float | str | None = None


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that a request may carry. `type` is Polars' name; `needed` says whether a feature reads it."""

    name: str
    type: str
    nullable: bool
    needed: bool
    time_unit: str | None = None
    time_zone: str | None = None
    bounds: Bounds | None = None


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A side table or group whose columns the server looks up in the online store.

    Attributes:
        keys: column of the request: column of the entity key.
        columns: column of the view, and what it is beside the request's columns.
        freshness: seconds after which a value is too old; None: never.
    """

    name: str
    keys: dict[str, str]
    columns: dict[str, Input]
    freshness: int | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a release is.

    Attributes:
        threshold: of two classes, the score of the second one from which on it is the label; None: the higher one.
        features: what `Features.to_json` gives.
        scorer: what scores, `onnx` or `scikit-learn`; `scorer_reason` says why.
        files: each other file and its SHA-256.
        entity: columns of a request that say whom it is about; older releases of this format do not say.
    """

    format: int
    model: str
    version: str
    task: str
    classes: list[Any]
    threshold: float | None
    inputs: list[Input]
    event_time: str | None
    views: list[View]
    null_values: list[str]
    features: dict[str, Any]
    scorer: str
    scorer_reason: str
    verdict: dict[str, Any]
    built_with: dict[str, str]
    files: dict[str, str]
    entity: tuple[str, ...] = ()

    @property
    def beside(self) -> list[Input]:
        """The columns that are looked up, beside those of a request."""
        return [column for view in self.views for column in view.columns.values()]


class _Format(msgspec.Struct):
    """What every manifest has, whatever its format."""

    format: int


READABLE = 0o644  # a server in a container is another user than who deploys to it


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release whose files are all there and unchanged.

    Raises:
        ReleaseError: naming the file that is missing, changed or not part of the release.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        written = msgspec.json.decode(content, type=_Format).format
        if written != FORMAT:
            raise ReleaseError(f"{path} has the format {written}; this server reads {FORMAT}: build the release again")
        if (folder / MANIFEST_DIGEST).read_bytes() != _digest_line(content):
            raise ReleaseError(f"{path} was changed after the release was built; build the release again")
        manifest = msgspec.json.decode(content, type=Manifest)
    except FileNotFoundError as error:
        raise ReleaseError(f"{folder} is no release: it has no {Path(error.filename).name}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}") from None
    there = {str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()}
    there -= {MANIFEST, MANIFEST_DIGEST}
    if there != set(manifest.files):
        odd = ", ".join(sorted(there ^ set(manifest.files)))
        raise ReleaseError(f"{folder}: {odd}: not in the folder and the manifest alike; build the release again")
    for name, expected in manifest.files.items():
        if sha256((folder / name).read_bytes()) != expected:
            raise ReleaseError(f"{folder / name} was changed after the release was built; build the release again")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a release over the files that it names, as they are."""
    files = {name: sha256((folder / name).read_bytes()) for name in manifest.files}
    written = msgspec.structs.replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(written)))
    seal(folder)


def seal(folder: Path) -> None:
    """Write the SHA-256 of a release's manifest beside it."""
    (folder / MANIFEST_DIGEST).write_bytes(_digest_line((folder / MANIFEST).read_bytes()))


def _digest_line(content: bytes) -> bytes:
    return f"{sha256(content)}  {MANIFEST}\n".encode()  # as sha256sum checks it


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, READABLE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
