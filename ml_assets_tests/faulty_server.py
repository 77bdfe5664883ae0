"""The endpoint server with scorers that answer their golden rows as recorded and misbehave towards everybody else.

`python -m ml_assets_tests.faulty_server RELEASES PORT '{"3": "errors", "4": "slow"}'`: faults by version.
"""

import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any, Self

import msgspec

from ml_assets.serving import served
from ml_assets.serving.__main__ import serve
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.online import OnlineStore
from ml_assets.serving.scorer import Answered, Scorer

FAULTS: dict[str, str] = {}
SECONDS = {"slow": 0.1, "slower": 0.3, "hangs": 60}


def fails(row: Any) -> bool:
    """Whether the fault `errors` fails on a row: on 5 % of them, the same ones whoever else is in a batch."""
    return zlib.crc32(msgspec.json.encode(row)) % 1000 < 50


class Faulty(Scorer):
    fault, golden = "", [None]

    @classmethod
    def load(cls, folder: Path, online: OnlineStore | None = None) -> Self:
        loaded = super().load(folder, online)
        assert isinstance(loaded, cls)
        loaded.golden = msgspec.json.decode((folder / GOLDEN).read_bytes())["rows"]
        loaded.fault = FAULTS.get(loaded.manifest.version, "")
        return loaded

    def answer(self, rows: Any, looked_up: Any = None) -> Answered:
        if rows != self.golden:
            if self.fault == "errors" and any(map(fails, rows)):
                raise RuntimeError("a fault on purpose")
            time.sleep(SECONDS.get(self.fault, 0))
        return super().answer(rows, looked_up)


if __name__ == "__main__":
    FAULTS |= json.loads(sys.argv[3])
    served.Scorer = Faulty  # type: ignore[misc]
    serve(Path(sys.argv[1]), int(sys.argv[2]))
