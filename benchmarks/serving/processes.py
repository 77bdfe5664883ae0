"""All processes of one server, wherever they went: they are known by a variable that each inherits."""

import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "SERVING_BENCHMARK"
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """MiB of all processes: what each has resident, and the same with shared pages counted once (PSS)."""

    resident: float
    proportional: float


@dataclass
class Processes:
    """What was started under one mark."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def all(self) -> list[psutil.Process]:
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get(MARK) == self.mark and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
        return found

    def cpu_seconds(self) -> float:
        """User and system time so far, with that of children that ended."""
        total = 0.0
        for each in self.all():
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
        return total

    def memory(self) -> Memory:
        held = []
        for each in self.all():
            with contextlib.suppress(psutil.Error):
                held.append(each.memory_full_info())
        return Memory(sum(each.rss for each in held) / MIB, sum(each.pss for each in held) / MIB)

    @contextlib.contextmanager
    def started(self, command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen]:
        """A server while it runs; afterwards nothing of it does."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                env={**environment, MARK: self.mark},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            deadline = time.monotonic() + 5
            while (left := self.all()) and time.monotonic() < deadline:
                time.sleep(0.1)
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            process.wait(15)


def environment_without_settings() -> dict[str, str]:
    """This process's environment without what would make the servers differ from their defaults."""
    # Where a shell or an image sets it, each process would compile all packages anew.
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ML_ASSETS_") and name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    }
