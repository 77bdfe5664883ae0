"""A clock that tests set: every process of a project tells its time, and so whole months pass in minutes.

libfaketime stands between the processes and the C library's clocks. Durations (monotonic clocks) stay real, and so do
the times of files, by which sources know them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import sleep

import libfaketime


@dataclass(frozen=True)
class Clock:
    """The time of processes that have `variables` in their environment; this one keeps the real time.

    Attributes:
        file: holds by how many seconds theirs differs.
    """

    file: Path

    @property
    def variables(self) -> dict[str, str]:
        [library] = (Path(libfaketime.__file__).parent / "vendor").rglob("libfaketime.so.1")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, now: datetime) -> None:
        """Make it `now`, for processes that run too: each looks into the file once a second."""
        draft = self.file.with_suffix(".part")
        draft.write_text("")
        real = draft.stat().st_mtime  # whoever sets it may tell the time of it
        draft.write_text(f"{now.timestamp() - real:+.0f}")
        draft.rename(self.file)
        sleep(1.2)
        datetime.now(UTC)  # the look
