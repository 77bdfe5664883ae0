"""The endpoint's image without a container engine: its Dockerfile's packages and files in a folder, and its command.

What a folder cannot show: the base image, its Python, and that the root is read-only (that nothing is written into it
is looked at instead).
"""

import fnmatch
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

from ml_assets.settings import PROJECT_ROOT

DOCKERFILE = PROJECT_ROOT / "deploy" / "docker" / "endpoint.Dockerfile"
MOVED = ("/opt", "/var/lib", "/nonexistent", "/tmp")  # what of the image's file system is made below the folder


@dataclass(frozen=True)
class Image:
    """What an image holds, below `root`.

    Attributes:
        settings: its ENV.
        entrypoint, command: as `docker run` puts them together.
    """

    root: Path
    settings: dict[str, str]
    entrypoint: list[str]
    command: list[str]

    @property
    def python(self) -> Path:
        return self.root / "opt" / "venv" / "bin" / "python"

    @property
    def model(self) -> Path:
        """Where a model is mounted."""
        return self.root / "opt" / "ml" / "model"

    def run(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """What `subprocess` takes to run the image with arguments instead of its own, with nothing else around it."""
        program, *rest = [*self.entrypoint, *(arguments or self.command)]
        assert program == "python"
        moved = [_moved(each, self.root) for each in rest]
        return {
            "args": [str(self.python), *moved],
            "env": self.settings | environment,
            "cwd": self.root / "opt" / "endpoint",
        }

    def files(self) -> set[Path]:
        """All files that it was built with or that were written since, apart from its own folder for that."""
        return {path for path in self.root.rglob("*") if not path.is_relative_to(self.root / "var")}


def built(target: str, root: Path) -> Image:
    """Do what the stages of a target say, below a folder."""
    stages = _stages()
    (root / "opt").mkdir(parents=True)
    settings: dict[str, str] = {}
    said: dict[str, str] = {}
    for each in _whole(stages, target):
        kind, value = each["instruction"], each["value"]
        if kind == "COPY" and "--from=" in value:
            _install(stages, value.split()[0].partition("=")[2], root)
        elif kind == "COPY":
            source, place = value.split()
            _copy(PROJECT_ROOT / source, Path(_moved(place, root)))
        elif kind == "RUN" and "compileall" in value:
            subprocess.run([sys.executable, "-m", "compileall", "-q", str(root / "opt" / "endpoint")], check=True)
        elif kind == "ENV":
            for pair in shlex.split(value):
                name, _, content = pair.partition("=")
                settings[name] = content
        else:
            said[kind] = value
    (root / "opt" / "ml").mkdir(parents=True)
    (root / "var" / "lib" / "ml-assets").mkdir(parents=True)
    moved = {name: ":".join(_moved(part, root) for part in value.split(":")) for name, value in settings.items()}
    moved["PATH"] = moved["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    return Image(root, moved, json.loads(said["ENTRYPOINT"]), json.loads(said["CMD"]))


def instructions(target: str) -> dict[str, str]:
    """The last of each instruction of a target."""
    return {each["instruction"]: each["value"] for each in _whole(_stages(), target)}


def _stages() -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """By name what a stage builds on, and its instructions."""
    stages: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    name = ""
    for each in DockerfileParser(path=str(DOCKERFILE)).structure:
        if each["instruction"] == "FROM":
            origin, _, name = each["value"].split()
            stages[name] = origin, []
        elif name and each["instruction"] != "COMMENT":
            stages[name][1].append(each)
    return stages


def _whole(stages: dict[str, tuple[str, list[dict[str, Any]]]], name: str) -> list[dict[str, Any]]:
    if name not in stages:
        return []
    origin, own = stages[name]
    return [*_whole(stages, origin), *own]


def _install(stages: dict[str, Any], stage: str, root: Path) -> None:
    """The environment that a stage makes: exactly what its requirements say."""
    uv = str(Path(sys.executable).with_name("uv"))
    place = root / "opt" / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    copied: dict[str, str] = {}
    for each in _whole(stages, stage):
        if each["instruction"] == "COPY":
            source, inside = each["value"].split()
            copied[inside] = str(PROJECT_ROOT / source)
        elif "pip install" in each["value"]:
            wanted = copied[each["value"].split("--requirement ")[1].split()[0]]
            install = [uv, "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--requirement", wanted]
            subprocess.run([*install, "--python", str(place / "bin" / "python")], check=True)


def _copy(source: Path, place: Path) -> None:
    """A folder without what the build's context leaves out."""
    ignored = [
        line
        for line in DOCKERFILE.with_name(f"{DOCKERFILE.name}.dockerignore").read_text().splitlines()
        if line and not line.startswith(("#", "!")) and line != "*"
    ]

    def left_out(folder: str, names: list[str]) -> list[str]:
        found = []
        for name in names:
            path = str((Path(folder) / name).relative_to(PROJECT_ROOT))
            if any(fnmatch.fnmatch(path, line.replace("**/", "*")) for line in ignored):
                found.append(name)
        return found

    shutil.copytree(source, place, ignore=left_out)


def _moved(path: str, root: Path) -> str:
    return f"{root}{path}" if path.startswith(MOVED) else path
