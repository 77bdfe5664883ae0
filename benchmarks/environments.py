"""An environment of its own for each tool that is compared with: no tool decides which versions another one gets."""

import subprocess
import sys
from pathlib import Path


def environment_in(place: Path, *install: str) -> Path:
    """Python of the environment at `place`; it is made if it is not there.

    Args:
        install: what `uv pip install` is told.

    Raises:
        CalledProcessError: if that does not go.
    """
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)], check=True)
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *install]
        subprocess.run(command, check=True)
        (place / "ready").touch()
    return python
