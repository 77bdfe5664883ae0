"""Files in a local folder or below an S3 prefix, as batches."""

import contextlib
import glob
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch
from ml_assets.sources.formats import format_of, read_rows
from ml_assets.sources.patterns import fixed_part
from ml_assets.spec.sources import FilesSource


class Objects(Protocol):
    """A place with objects: a local folder or an S3 bucket."""

    def list(self) -> list[Batch]: ...

    def changed(self) -> bool: ...

    def open(self, batch: Batch) -> bytes | Path: ...

    def address(self, batch: Batch) -> str: ...


@dataclass(frozen=True)
class FileSource:
    """Batches of one model's files.

    Attributes:
        place: model and key in its YAML, for messages.
    """

    spec: FilesSource
    objects: Objects
    place: str

    def batches(self) -> list[Batch]:
        return self.objects.list()

    def changed(self) -> bool:
        return self.objects.changed()

    def address(self, batch: Batch) -> str:
        return self.objects.address(batch)

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        form = self.spec.format or format_of(batch.id)
        where = f"{self.place}: {self.address(batch)}"
        if form is None:
            raise SourceError(f"{where}: its ending tells no format; set source.format")
        try:
            content = self.objects.open(batch)
        except FileNotFoundError:
            raise SourceError(f"{where} is gone; land it again") from None
        return read_rows(content, form, self.spec, columns, where)


@dataclass(frozen=True)
class LocalObjects:
    """Files that match a pattern. A file's fingerprint is its size and time of change."""

    pattern: str
    place: str

    @property
    def root(self) -> Path:
        return Path(fixed_part(self.pattern) or ".")

    def address(self, batch: Batch) -> str:
        return str(self.root / batch.id)

    def list(self) -> list[Batch]:
        root = self.root
        if not root.is_dir():
            raise SourceError(
                f"{self.place}: the folder {root} does not exist; create it (an empty one is fine) or mend uri"
            )
        found = []
        within = self.pattern.removeprefix(fixed_part(self.pattern)).lstrip("/")
        for name in sorted(glob.glob(within, root_dir=root, recursive=True)):
            if name.rpartition("/")[2].startswith((".", "_")):
                continue
            with contextlib.suppress(FileNotFoundError):  # gone again, or a link to nowhere
                said = (root / name).stat()
                if stat.S_ISREG(said.st_mode):
                    found.append(Batch(name, f"{said.st_size}-{said.st_mtime_ns}"))
        return found

    def changed(self) -> bool:
        return True  # a listing of a folder is as cheap as it gets

    def open(self, batch: Batch) -> Path:
        path = self.root / batch.id
        if not path.stat().st_size:
            raise SourceError(f"{self.place}: {path} is empty (0 bytes); remove it or land it again")
        return path
