"""`ml-assets reproduce`: a version made again, in a process of its own, from what was recorded of it.

Nothing is changed. What trains is `reproduction.py`, with the model's files as they were recorded, and with this
package as it was if its commit is still there.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_assets.errors import TrackingError
from ml_assets.provenance import MATTERING, git, platform_digest
from ml_assets.registry import Registry
from ml_assets.settings import PREFIX, PROJECT_ROOT, Settings

Facts = Mapping[str, Any]


def reproduce(settings: Settings, model: str, version: str, tell: Callable[[str], None]) -> bool:
    """Train a version again and compare; tell what differs.

    Returns:
        Whether the same rows gave the same model, to the last bit.

    Raises:
        TrackingError: if MLflow does not hold the version and what it was made from.
    """
    registry = Registry(settings.mlflow_uri, settings.s3_endpoint_url)
    registry.reach()
    facts = registry.facts(model, version)
    tables = " and ".join(f"{table} version {number}" for table, number in facts["table_versions"].items())
    tell(f"{model} version {version}: {facts['counts']['labelled']:,} labelled rows, of {tables}")
    with tempfile.TemporaryDirectory(prefix="ml-assets-reproduce-") as folder:
        root = Path(folder)
        registry.code(model, version, facts, root / "models" / model)
        code, notes = _platform(facts, root)
        tell(f"code: {code}")
        found = _retrained(settings, facts, root)
    stored = registry.digest(model, version)
    differing = [*differences(facts, found), *notes]
    same = found.get("model_digest") == facts["model_digest"] == stored
    if same:
        tell(f"Reproduced: the same rows gave the same model ({facts['model_digest'][:12]}).")
        if differing:
            tell(f"That is so although there are differences: {'; '.join(differing)}")
        return True
    if stored != facts["model_digest"]:
        differing.insert(0, f"model: MLflow holds another one ({stored[:12]}) than was trained")
    tell(f"Not reproduced: {found.get('model_digest', 'no model')[:12]}, recorded {facts['model_digest'][:12]}.")
    for each in differing:
        tell(f"  {each}")
    if not differing:
        tell("  Nothing that was recorded differs: the training depends on something else, such as an unset seed")
    return False


def differences(recorded: Facts, found: Facts) -> list[str]:
    """What a version was made from that is not as it was: row sets, parameters, packages, code."""
    return [
        *found.get("problems", []),
        *_rows(recorded, found),
        *_parameters(recorded["parameters"], found.get("parameters", recorded["parameters"])),
        *_environment(recorded["environment"], found["environment"]),
        *_code(recorded, found),
    ]


def _rows(recorded: Facts, found: Facts) -> Iterator[str]:
    versions = recorded["table_versions"]
    for table, was in recorded["tables"].items():
        now = found.get("tables", {}).get(table, was)
        if now != was:
            yield f"{table} version {versions[table]}: its content differs ({now['rows']:,} rows, {was['rows']:,} then)"
    for name, was in recorded["rows"].items():
        now = found.get("rows", {}).get(name, was)
        if now != was:
            rows = f"{now['rows']:,} rows, {was['rows']:,} then"
            yield f"row set {name}: {rows if now['rows'] != was['rows'] else 'other values in its rows'}"


def _parameters(recorded: Facts, found: Facts) -> Iterator[str]:
    for name in sorted(recorded.keys() | found.keys()):
        was, now = repr(recorded.get(name, "none")), repr(found.get(name, "none"))  # as text: no NaN equals another
        if was != now:
            yield f"parameter {name.removeprefix('estimator__')}: {was} recorded, {now} here"


def _environment(recorded: Facts, found: Facts) -> Iterator[str]:
    for name in ("python", "platform"):
        if recorded[name] != found[name]:
            yield f"{name}: {recorded[name]} recorded, {found[name]} here"
    was, now = recorded["packages"], found["packages"]
    names = sorted(each for each in was.keys() | now.keys() if was.get(each) != now.get(each))
    for name in names:
        if name in MATTERING:
            yield f"package {name} {now.get(name, 'is not installed')}, recorded {was.get(name, 'none')}"
    if others := [name for name in names if name not in MATTERING]:
        yield f"other packages: {', '.join(f'{name} {now.get(name)}, recorded {was.get(name)}' for name in others)}"
    if recorded["lock"] != found["lock"]:
        yield "requirements.lock: another one"


def _code(recorded: Facts, found: Facts) -> Iterator[str]:
    if found.get("code_digest", recorded["code_digest"]) != recorded["code_digest"]:
        yield "code: the recorded files mean something else to this version of ml-assets"


def _platform(facts: Facts, root: Path) -> tuple[str, list[str]]:
    """Which code of this package is used, in words, and what differs. The recorded commit is unpacked if need be."""
    code = facts["code"]
    at = code["git"] or {"commit": "", "dirty": True, "changed": []}
    short = at["commit"][:10]
    if platform_digest(PROJECT_ROOT / "ml_assets") == code["ml_assets_digest"]:
        return f"as recorded{f', commit {short}' if short and not at['dirty'] else ''}", []
    archive = _archive(at["commit"]) if at["commit"] else None
    if archive is not None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(root / "platform", filter="data")
        if platform_digest(root / "platform" / "ml_assets") == code["ml_assets_digest"]:
            return f"commit {short}, unpacked beside the one that is here", []
    here = (git(PROJECT_ROOT, "rev-parse", "HEAD") or "").strip()[:10] or "no commit"
    changed = (git(PROJECT_ROOT, "diff", "--name-only", at["commit"], "--", "ml_assets") or "") if at["commit"] else ""
    names = sorted({*changed.splitlines(), *at["changed"]})
    said = f"code: ml_assets at {short or 'no commit'}{', with changes' if at['dirty'] else ''}, here {here}"
    said += f"; other files: {', '.join(names[:10])}" if names else ""
    return "the one that is here, because the recorded one is not to be had", [said]


def _archive(commit: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), "archive", commit, "ml_assets", "pyproject.toml", "requirements.lock"],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _retrained(settings: Settings, facts: Facts, root: Path) -> dict[str, Any]:
    """What a new process makes of the facts."""
    asked, answer = root / "facts.json", root / "answer.json"
    asked.write_text(json.dumps(facts))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {
        f"{PREFIX}HOME": str(settings.home),
        f"{PREFIX}LANDING": settings.landing,
        f"{PREFIX}MODELS": str(root / "models"),
        "PYTHONPATH": str(root / "platform"),  # empty, or this package as it was
    }
    command = [sys.executable, "-W", "ignore", "-m", "ml_assets.reproduction", str(asked), str(answer)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode or not answer.exists():
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise TrackingError(f"{facts['model']}: the process that was to train it again failed: {lines[-1]}")
    return dict(json.loads(answer.read_text()))
