"""What a training came from, so that it can be explained and made again: code, packages, machine, table versions."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_assets
from ml_assets.digests import digest_of
from ml_assets.settings import PROJECT_ROOT

FORM = 1  # of the facts; raised when they are written otherwise
FACTS, CODE = "reproduce.json", "code"  # artefacts of the MLflow run
LOCK = "requirements.lock"
# Packages that decide what is learnt, or how it is read; others are named together.
MATTERING = (
    *("scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "pandas", "polars", "pyarrow", "deltalake"),
    *("skops", "mlflow", "optuna", "ray"),
)
_PACKAGE = Path(__file__).resolve().parent
_NO_PLATFORM = ("defs", "demo")  # folders of the package in which no code of the platform lies
_MOST_CHANGED = 20  # files that are named


def environment() -> dict[str, Any]:
    """Python, platform, version of every installed package, and the digest of the lock that they should come from."""
    lock = PROJECT_ROOT / LOCK
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed(),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def installed() -> dict[str, str]:
    """Version of each installed package, by the names of their folders: reading all metadata takes 200 times longer."""
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in Path(place or ".").glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name.lower().replace("_", "-"), version)  # the first on the path is imported
    return dict(sorted(found.items()))


def code_of(folder: Path | None) -> dict[str, Any]:
    """The platform's version, digest and commit, and the digest and commit of each file of a model's folder."""
    return {
        "ml_assets": ml_assets.__version__,
        "ml_assets_digest": platform_digest(_PACKAGE),
        "git": commit_of(PROJECT_ROOT),
        "model_git": commit_of(folder) if folder and not folder.is_relative_to(PROJECT_ROOT) else None,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files_of(folder).items()},
    }


def files_of(folder: Path | None) -> dict[str, bytes]:
    """The files that declare a model."""
    if folder is None:
        return {}
    found = sorted(path for pattern in ("*.py", "*.yaml") for path in folder.glob(pattern))
    return {path.name: path.read_bytes() for path in found}


def platform_digest(package: Path) -> str:
    """Digest of the Python files of this package, or of a copy of it, without the models in it."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in _NO_PLATFORM:
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest_of(found)


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder is at, and which files below it are not as committed; None without git."""
    commit = git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = (git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".") or "").splitlines()
    return {
        "commit": commit.strip(),
        "dirty": bool(changed),
        "changed": [line[3:] for line in changed[:_MOST_CHANGED]],
    }


def git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it is not there, or refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def tags_of(where: Mapping[str, Any], code: Mapping[str, Any]) -> dict[str, str]:
    """Environment and code as tags of an MLflow run, by which runs can be searched."""
    at = code["git"] or {}
    known = {
        "python": where["python"],
        "platform": where["platform"],
        "lock_digest": where["lock"],
        "ml_assets_version": code["ml_assets"],
        "mlflow.source.git.commit": at.get("commit"),
        "git_dirty": str(at["dirty"]).lower() if at else None,
        "model_git_commit": (code["model_git"] or {}).get("commit"),
    }
    packages = {f"package.{name}": where["packages"].get(name) for name in MATTERING}
    return {name: value for name, value in (known | packages).items() if value}
