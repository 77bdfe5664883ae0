"""A release as one file, model.tar.gz, as SageMaker takes it: equal releases give equal bytes."""

import gzip
import io
import tarfile
from pathlib import Path

from ml_assets.serving.bundle import read_manifest, write_atomically


def archive_of(folder: Path) -> Path:
    """Where the archive of a release lies: beside its folder."""
    return folder.with_name(f"{folder.name}.tar.gz")


def pack(folder: Path) -> Path:
    """Write the archive of a release, or find it written.

    Raises:
        ReleaseError: if a file of the release is missing or was changed.
    """
    read_manifest(folder)
    target = archive_of(folder)
    packed = io.BytesIO()
    # Without times, owners and names of this machine.
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    if not target.exists() or target.read_bytes() != packed.getvalue():
        write_atomically(target, packed.getvalue())
    return target
