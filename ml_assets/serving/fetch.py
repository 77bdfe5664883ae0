"""`python -m ml_assets.serving.fetch SOURCE ROOT MODEL RELEASE SHA256`: bring a release to where a server serves from.

What a pod does before its server starts. Only the very bytes that were approved are unpacked, wherever they come from.
"""

import io
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from ml_assets.errors import MlAssetsError, ReleaseError
from ml_assets.serving.bundle import read_manifest, sha256
from ml_assets.serving.pointer import Pointer, write_pointers

SECONDS = 60.0


def fetch(source: str, root: Path, model: str, release: str, digest: str) -> Path:
    """Unpack a release's archive below a folder of releases, and point to it.

    Args:
        source: address or path of the archive.
        digest: SHA-256 of the archive.

    Returns:
        The release's folder.

    Raises:
        ReleaseError: if it is not there, is another one, or its files are not what its manifest says.
    """
    content = _read(source)
    if (found := sha256(content)) != digest:
        raise ReleaseError(f"{source} has the SHA-256 {found}, and {digest} was approved; copy the release there again")
    folder = root / model / release
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            archive.extractall(draft, filter="data")
        manifest = read_manifest(draft)
        if (manifest.model, manifest.version) != (model, release.partition("-")[0]):
            raise ReleaseError(f"{source} holds {manifest.model} version {manifest.version}, not {model} {release}")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    write_pointers(root, model, Pointer(release))
    return folder


def _read(source: str) -> bytes:
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=SECONDS) as answer:
                return bytes(answer.read())
        return Path(source).read_bytes()
    except OSError as error:
        raise ReleaseError(f"{source} cannot be read: {error}") from None


if __name__ == "__main__":
    try:
        print(fetch(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
    except MlAssetsError as error:
        sys.exit(str(error))
