"""Which labelled rows are trained on, validated on and held out. Done before anything is fitted."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from ml_assets.errors import TrainingError
from ml_assets.spec import Split


@dataclass(frozen=True)
class Sides:
    """Row positions, each of shape (n,), of a frame's training, validation and test rows; no row is on two sides."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_rows(frame: pl.DataFrame, split: Split, key: Sequence[str], time: str | None, zone: str, place: str) -> Sides:
    """Assign each row to a side.

    By time the earliest rows train and the latest are held out; rows of one moment stay together, and rows without a
    time train. At random each row's side is a hash of its key, so that it stays there for ever, whatever other rows
    come; the shares, also those within each class, are met up to chance.

    Raises:
        TrainingError: if no row is left to train on or to test on.
    """
    if split.by == "random":
        position = hash_of_key(frame, key, split.salt)
        test, validation = position < split.test, position < split.test + split.validation
    else:
        assert time is not None
        moments = frame.get_column(time)
        test_from = _midnight(split.test_from, moments, zone) or _quantile(moments, 1 - split.test)
        if split.test_from is not None:
            validation_from = _midnight(split.validation_from, moments, zone) or test_from
        else:
            validation_from = _quantile(moments, 1 - split.test - split.validation)
        test = (moments >= test_from).fill_null(False).to_numpy()
        validation = (moments >= validation_from).fill_null(False).to_numpy()
    sides = Sides(np.flatnonzero(~validation & ~test), np.flatnonzero(validation & ~test), np.flatnonzero(test))
    if not len(sides.train) or not len(sides.test):
        raise TrainingError(
            f"{place}: the split leaves {len(sides.train)} rows to train on and {len(sides.test)} to test on, of "
            f"{frame.height}; change split in defs.yaml"
        )
    return sides


def folds(
    frame: pl.DataFrame, split: Split, number: int, key: Sequence[str], time: str | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds for cross-validation within training rows, of the same kind as the split: (train, judge) positions.

    By time each fold is judged on rows later than those that it was trained on; at random by a hash of the key.
    """
    if split.by == "random":
        fold = (hash_of_key(frame, key, f"{split.salt}/folds") * number).astype(int)
        return [(np.flatnonzero(fold != each), np.flatnonzero(fold == each)) for each in range(number)]
    assert time is not None
    order = frame.get_column(time).arg_sort().to_numpy()
    pieces = np.array_split(order, number + 1)
    return [(np.concatenate(pieces[: each + 1]), pieces[each + 1]) for each in range(number)]


def hash_of_key(frame: pl.DataFrame, key: Sequence[str], salt: str) -> np.ndarray:
    """A number in [0, 1) per row, shape (rows,): the same for the same key and salt in any process and version."""
    texts = frame.select(
        pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in key], separator="\x1f")
    ).to_series()
    hashed = (hashlib.blake2b(f"{salt}\x1e{text}".encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(hashed), dtype=">u8").astype(np.float64) / 2.0**64


def _quantile(moments: pl.Series, share: float) -> datetime | date:
    ordered = moments.drop_nulls().sort()
    found: datetime | date = ordered[min(int(len(ordered) * share), len(ordered) - 1)]
    return found


def _midnight(day: date | None, moments: pl.Series, zone: str) -> datetime | date | None:
    """The start of a local day, comparable with `moments`."""
    if day is None or moments.dtype == pl.Date:
        return day
    local = datetime(day.year, day.month, day.day)
    if getattr(moments.dtype, "time_zone", None) is None:
        return local
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo(moments.dtype.time_zone))  # type: ignore[attr-defined]
