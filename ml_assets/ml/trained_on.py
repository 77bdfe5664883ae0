"""What a model version was trained on and answers to, kept with it, so that a later one can be compared with it fairly.

Rows are known by a hash of their key. A row is trained on if the estimator was fitted on it, or the threshold chosen.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

ROWS, ABOUT = "trained_on.npy", "trained_on.json"


@dataclass(frozen=True)
class TrainedOn:
    """A model version's training rows, and what it takes and gives.

    Attributes:
        hashes: of the keys, sorted; shape (rows,), uint64.
        key: columns that identify a row.
        classes: target values in the order of its scores; empty for regression.
        features: for each feature, in the order that the Pipeline takes them, a digest of how it is defined.
    """

    hashes: np.ndarray
    key: list[str]
    target: str
    task: str
    classes: list[Any]
    features: dict[str, str]

    @classmethod
    def of(
        cls,
        rows: pl.DataFrame,
        key: Sequence[str],
        target: str,
        task: str,
        classes: Sequence[Any],
        features: Mapping[str, str],
    ) -> "TrainedOn":
        """Of the very rows that were trained on."""
        return cls(np.unique(hashes_of(rows, key)), list(key), target, task, list(classes), dict(features))

    def has_seen(self, rows: pl.DataFrame) -> np.ndarray:
        """Whether each row was trained on; shape (rows,)."""
        return np.isin(hashes_of(rows, self.key), self.hashes)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """It as files, by name; equal ones have equal bytes."""
        rows = io.BytesIO()
        np.save(rows, self.hashes.astype("<u8"), allow_pickle=False)
        about = {name: value for name, value in vars(self).items() if name in self._STORED}
        return {ROWS: rows.getvalue(), ABOUT: json.dumps(about, indent=2).encode()}

    _STORED = ("key", "target", "task", "classes", "features")

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "TrainedOn":
        about = json.loads(files[ABOUT])
        return cls(np.load(io.BytesIO(files[ROWS]), allow_pickle=False), **about)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the files."""
        return digest_of_files(self.files)

    def obstacle(self, now: "TrainedOn") -> str | None:
        """Why rows as they are made now, for a version that was trained on `now`, cannot be scored with this one."""
        for name in ("key", "target", "task", "classes"):
            theirs, ours = getattr(self, name), getattr(now, name)
            if theirs != ours:
                return f"its {name} is {theirs}, and now it is {ours}"
        if missing := [name for name in self.features if name not in now.features]:
            return f"it needs {_some(missing)}, which {'is' if len(missing) == 1 else 'are'} no longer made"
        if changed := [name for name, digest in self.features.items() if now.features[name] != digest]:
            return (
                f"{_some(changed)} {'is' if len(changed) == 1 else 'are'} made in another way than it was trained with"
            )
        return None


def hashes_of(rows: pl.DataFrame, key: Sequence[str]) -> np.ndarray:
    """A hash of each row's key, shape (rows,), uint64: the same in any process and version.

    A time counts as a moment, whatever its zone and unit.
    """
    columns = [_stable(rows.get_column(name)).alias(name) for name in key]
    texts = pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator="\x1f")).to_series()
    hashed = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(hashed), dtype="<u8").astype(np.uint64)


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of files, by name."""
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return sha.hexdigest()


def _stable(values: pl.Series) -> pl.Series:
    """Texts that say the value, a null told apart from every text."""
    if isinstance(values.dtype, pl.Datetime):
        values = values.dt.epoch("us")
    return ("=" + values.cast(pl.String)).fill_null("")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return f"feature{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"
