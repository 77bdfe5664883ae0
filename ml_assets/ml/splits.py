"""Which labelled rows are trained on, validated on and held out. Done before anything is fitted."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from ml_assets.durations import parse_duration
from ml_assets.errors import TrainingError
from ml_assets.ml.days import end_of_day
from ml_assets.spec.training import Split


@dataclass(frozen=True)
class Sides:
    """Row positions, each of shape (n,), of a frame's training, validation and test rows; no row is on two sides.

    Attributes:
        gap: rows on no side, because their outcomes were not known when the next side began.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    gap: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.intp))


@dataclass(frozen=True)
class Columns:
    """What a split looks at.

    Attributes:
        key: columns that identify a row.
        time: when it happened; needed by time.
        known: when its outcome became known, in UTC; null or no such column: nobody says.
        zone: where a day begins, and where a time without a zone was read off a clock.
    """

    key: Sequence[str]
    time: str | None = None
    known: str | None = None
    zone: str = "UTC"


def split_rows(frame: pl.DataFrame, split: Split, columns: Columns, place: str) -> Sides:
    """Assign each row to a side.

    By time the earliest rows train and the latest are held out; rows of one moment stay together, and rows without a
    time train. A row whose outcome was not known when the next side began is on no side: a model that was trained then
    could not have learnt from it. With `split.gap` these are the rows that happened less than it before.
    At random each row's side is a hash of its key, so that it stays there for ever, whatever other rows come; the
    shares, also those within each class, are met up to chance. By entity it is a hash of the entity, so that all rows
    of one are on one side; `test` and `validation` are then shares of the entities.

    Raises:
        TrainingError: if no row is left to train on or to test on.
    """
    if split.by != "time":
        position = _position(frame, split, columns, split.salt)
        test, held = position < split.test, position < split.test + split.validation
        late = np.zeros(frame.height, dtype=bool)
    else:
        assert columns.time is not None
        moments = frame.get_column(columns.time)
        validation_from, test_from = _starts(moments, split, columns.zone)
        test = (moments >= test_from).fill_null(False).to_numpy()
        held = (moments >= validation_from).fill_null(False).to_numpy()
        late = np.where(
            held,
            _known_too_late(frame, test_from, split, columns),
            _known_too_late(frame, validation_from, split, columns),
        )
    train, validation = ~held & ~late, held & ~test & ~late
    sides = Sides(*(np.flatnonzero(each) for each in (train, validation, test, ~test & late)))
    if not len(sides.train) or not len(sides.test):
        gap = f"; {len(sides.gap)} others are in the gap before the next side" if len(sides.gap) else ""
        raise TrainingError(
            f"{place}: the split leaves {len(sides.train)} rows to train on and {len(sides.test)} to test on, of "
            f"{frame.height}{gap}; change split in defs.yaml"
        )
    return sides


def folds(
    frame: pl.DataFrame, split: Split, number: int, columns: Columns, place: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds for cross-validation within training rows, of the same kind as the split: (train, judge) positions.

    By time each fold is judged on rows later than those that it was trained on, with the same gap; at random by a hash
    of the key, and by entity of the entity.

    Raises:
        TrainingError: if a fold has no row to learn from or to be judged on.
    """
    if split.by != "time":
        fold = (_position(frame, split, columns, f"{split.salt}/folds") * number).astype(int)
        made = [(np.flatnonzero(fold != each), np.flatnonzero(fold == each)) for each in range(number)]
    else:
        made = _folds_by_time(frame, split, number, columns)
    for position, (learn, judge) in enumerate(made, start=1):
        if not len(learn) or not len(judge):
            raise TrainingError(
                f"{place}: fold {position} of the cross-validation has {len(learn)} rows to learn from and "
                f"{len(judge)} to be judged on; set training.folds lower{' or split.gap' if split.by == 'time' else ''}"
            )
    return made


def _folds_by_time(
    frame: pl.DataFrame, split: Split, number: int, columns: Columns
) -> list[tuple[np.ndarray, np.ndarray]]:
    assert columns.time is not None
    moments = frame.get_column(columns.time)
    starts = [_quantile(moments, each / (number + 1)) for each in range(1, number + 1)]
    made = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        since = (moments >= start).fill_null(False).to_numpy()
        before = np.ones(frame.height, dtype=bool) if end is None else (moments < end).fill_null(False).to_numpy()
        learn = ~since & ~_known_too_late(frame, start, split, columns)
        made.append((np.flatnonzero(learn), np.flatnonzero(since & before)))
    return made


def hash_of_key(frame: pl.DataFrame, key: Sequence[str], salt: str) -> np.ndarray:
    """A number in [0, 1) per row, shape (rows,): the same for the same key and salt in any process and version."""
    texts = frame.select(
        pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in key], separator="\x1f")
    ).to_series()
    hashed = (hashlib.blake2b(f"{salt}\x1e{text}".encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(hashed), dtype=">u8").astype(np.float64) / 2.0**64


def _position(frame: pl.DataFrame, split: Split, columns: Columns, salt: str) -> np.ndarray:
    """Where each row stands in [0, 1), by its key or its entity; shape (rows,).

    A row without an entity, or without a part of one, stands by its key: nothing says that it belongs to another.
    """
    if split.by == "random":
        return hash_of_key(frame, columns.key, salt)
    known = frame.select(pl.all_horizontal(pl.col(split.entities).is_not_null())).to_series().to_numpy()
    return np.where(known, hash_of_key(frame, split.entities, salt), hash_of_key(frame, columns.key, salt))


def _starts(moments: pl.Series, split: Split, zone: str) -> tuple[datetime | date, datetime | date]:
    """When validation and test begin; at the same time if nothing is validated on."""
    if split.test_from is None:
        return _quantile(moments, 1 - split.test - split.validation), _quantile(moments, 1 - split.test)
    test_from = _midnight(split.test_from, moments, zone)
    return (_midnight(split.validation_from, moments, zone) if split.validation_from else test_from), test_from


def _known_too_late(frame: pl.DataFrame, start: datetime | date, split: Split, columns: Columns) -> np.ndarray:
    """Whether each row's outcome was not known yet when a side began; shape (rows,)."""
    if split.gap is not None:
        happened = frame.select(moment_of(str(columns.time), frame, columns.zone)).to_series()
        late = happened > _in_utc(start, columns.zone) - parse_duration(split.gap)
    elif columns.known is None:
        return np.zeros(frame.height, dtype=bool)
    else:
        late = frame.get_column(columns.known) > _in_utc(start, columns.zone)
    found: np.ndarray = late.fill_null(False).to_numpy()
    return found


def moment_of(time: str, frame: pl.DataFrame, zone: str) -> pl.Expr:
    """By when a row had happened, in UTC: of a date only the end is sure."""
    kind = frame.schema[time]
    if kind == pl.Date:
        return end_of_day(pl.col(time), zone)
    if getattr(kind, "time_zone", None) is None:
        return (
            pl.col(time)
            .dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
            .dt.convert_time_zone("UTC")
        )
    return pl.col(time).dt.convert_time_zone("UTC")


def _in_utc(start: datetime | date, zone: str) -> datetime:
    """The beginning of a side as a moment; that of a day is its midnight."""
    at = start if isinstance(start, datetime) else datetime(start.year, start.month, start.day)
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)


def _quantile(moments: pl.Series, share: float) -> datetime | date:
    ordered = moments.drop_nulls().sort()
    found: datetime | date = ordered[min(int(len(ordered) * share), len(ordered) - 1)]
    return found


def _midnight(day: date, moments: pl.Series, zone: str) -> datetime | date:
    """The start of a local day, comparable with `moments`."""
    if moments.dtype == pl.Date:
        return day
    local = datetime(day.year, day.month, day.day)
    if getattr(moments.dtype, "time_zone", None) is None:
        return local
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo(moments.dtype.time_zone))  # type: ignore[attr-defined]
