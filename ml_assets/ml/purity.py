"""Proof by behaviour that an expression is a function of its row alone: generated rows, in other company and alone."""

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isfinite
from typing import Any

import polars as pl

ROWS = 200


@dataclass(frozen=True)
class Possible:
    """What the values of a column can be, as far as its contract says it plainly. None: nothing is said."""

    allowed: tuple[Any, ...] | None = None
    above: Any = None
    least: Any = None
    below: Any = None
    most: Any = None

    def holds(self, value: Any) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )


def generated_rows(
    types: Mapping[str, pl.DataType], possible: Mapping[str, Possible] | None = None, height: int = ROWS
) -> pl.DataFrame:
    """Rows of made-up values, the same in every process: shape (height, columns), with nulls and repeated values."""
    chance = random.Random(20250101)
    known = possible or {}
    columns = [_column(name, kind, known.get(name, Possible()), height, chance) for name, kind in types.items()]
    return pl.DataFrame(columns or {"_row": range(height)})  # an expression may read no column at all


def in_company(rows: pl.DataFrame) -> pl.DataFrame:
    """A single row with a row of nulls behind it, and several as they are: how features are computed, always.

    Polars divides one number by another, but many by a constant by multiplying with its reciprocal (2.1), which differs
    in the last bit; it does so by chunks. With two different rows in one chunk it does what it does with many.
    """
    return rows.vstack(_nulls(tuple(rows.schema.items()))).rechunk() if rows.height == 1 else rows.rechunk()


@functools.lru_cache(maxsize=256)
def _nulls(schema: tuple[tuple[str, pl.DataType], ...]) -> pl.DataFrame:
    """A row of nulls, which takes Polars a millisecond to make."""
    return pl.DataFrame(schema=dict(schema)).clear(1)


def impure(expressions: Sequence[pl.Expr], rows: pl.DataFrame) -> list[int]:
    """Positions of the expressions that give some row another value when other rows stand beside it, or none.

    Each is computed for all rows together, in another order, in pieces, and row by row. The values have to be equal bit
    by bit (NaN equals NaN). Rows that an expression cannot take alone, such as a text that is no number, do not count
    for it; one that can take none of them counts as a function of its row.
    """
    whole = [position for position, each in enumerate(expressions) if _values([each], rows) is not None]
    found = []
    if not _alike([expressions[position] for position in whole], rows):
        found = [position for position in whole if not _alike([expressions[position]], rows)]
    for position in set(range(len(expressions))) - set(whole):
        taken = _taken(expressions[position], rows)
        if taken.height and not _alike([expressions[position]], taken):
            found.append(position)
    return sorted(found)


def unequal(expressions: Sequence[pl.Expr], others: Sequence[pl.Expr], rows: pl.DataFrame) -> list[int]:
    """Positions of the expressions that do not give the same types and, bit by bit, the same values as `others`."""
    found = []
    for position, (one, other) in enumerate(zip(expressions, others, strict=True)):
        taken = rows if _values([one], rows) is not None else _taken(one, rows)
        wanted, given = _values([one], taken), _values([other], taken)
        if wanted is not None and (given is None or not _same(wanted, given)):
            found.append(position)
    return found


def _values(expressions: Sequence[pl.Expr], rows: pl.DataFrame) -> pl.DataFrame | None:
    """What the expressions give for the rows, named by position; None if they cannot take them."""
    named = {str(position): each for position, each in enumerate(expressions)}
    try:
        return in_company(rows).with_columns(**named).select(list(named)).head(rows.height)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _taken(expression: pl.Expr, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that an expression can take alone."""
    return rows.filter(pl.Series([_values([expression], each) is not None for each in rows.iter_slices(1)]))


def _alike(expressions: Sequence[pl.Expr], rows: pl.DataFrame) -> bool:
    """Whether each row gets the same values in the order given, in another, in pieces and alone."""
    if not expressions:
        return True
    together = _values(expressions, rows)
    order = random.Random(rows.height).sample(range(rows.height), rows.height)
    shuffled = rows[order]
    cuts = [0, rows.height // 13, rows.height // 3, rows.height]
    pieces = [shuffled[start:end] for start, end in pairwise(cuts) if start < end]
    for parts, expected in (([shuffled], order), (pieces, order), (list(rows.iter_slices(1)), None)):
        given = [_values(expressions, part) for part in parts]
        if together is None or any(each is None for each in given):
            return False
        wanted = together if expected is None else together[expected]
        if not _same(wanted, pl.concat([each for each in given if each is not None])):
            return False
    return True


def _same(wanted: pl.DataFrame, given: pl.DataFrame) -> bool:
    """Whether types and values are equal, floats bit by bit but for NaN."""
    return wanted.schema == given.schema and all(
        one.equals(other, null_equal=True) and (not one.dtype.is_float() or _bits(one) == _bits(other))
        for one, other in zip(wanted.iter_columns(), given.iter_columns(), strict=True)
    )


def _bits(values: pl.Series) -> bytes:
    """Floats as bytes, which tell -0.0 from 0.0, with one NaN for all."""
    return values.fill_nan(float("nan")).fill_null(0).to_numpy().tobytes()


def _column(name: str, kind: pl.DataType, possible: Possible, height: int, chance: random.Random) -> pl.Series:
    pool = _pool(kind, possible, chance)
    values = [None if chance.random() < 0.1 or not pool else chance.choice(pool) for _ in range(height)]
    return pl.Series(name, values, dtype=kind, strict=False)


def _pool(kind: pl.DataType, possible: Possible, chance: random.Random) -> list[Any]:
    """Values of a type to choose from, those of a contract where it names them."""
    if possible.allowed is not None:
        return list(possible.allowed)
    made = next((make(kind, chance) for fits, make in _MAKERS if fits(kind)), [])
    try:
        fitting = [each for each in made if possible.holds(each)]
    except TypeError:  # a limit of another type than the column
        return made
    if kind.is_numeric() and len(fitting) < len(made) // 2:
        fitting += _within(kind, possible, chance)
    return fitting


def _within(kind: pl.DataType, possible: Possible, chance: random.Random) -> list[Any]:
    """Numbers between the limits of a column."""
    low = possible.least if possible.above is None else possible.above
    high = possible.most if possible.below is None else possible.below
    low = low if low is not None and isfinite(low) else None
    high = high if high is not None and isfinite(high) else (low or 0) + 1000
    low = low if low is not None else high - 1000
    numbers = [chance.uniform(low, high) for _ in range(40)]
    numbers = [round(each) for each in numbers] if kind.is_integer() else numbers
    return [each for each in numbers if possible.holds(each)]


def _integers(kind: pl.DataType, chance: random.Random) -> list[Any]:
    smallest, largest = pl.select(least=kind.min(), most=kind.max()).row(0)  # type: ignore[attr-defined]
    numbers = [
        0,
        1,
        2,
        3,
        5,
        7,
        10,
        12,
        18,
        24,
        31,
        59,
        60,
        100,
        127,
        200,
        255,
        365,
        2024,
        86_400,
        2**31,
        2**53 + 1,
        2**62 - 1,
    ]
    numbers += [chance.randint(0, 10 ** chance.randint(1, 6)) for _ in range(15)]
    return [each for number in numbers for each in (number, -number) if smallest <= each <= largest]


def _floats(kind: pl.DataType, chance: random.Random) -> list[Any]:
    numbers = [0.0, 1.0, 0.1, 0.5, 1 / 3, 2.5, 100.0, 1e-30, 1e30, 2.0**53, 0.30000000000000004]
    numbers += [chance.expovariate(0.1) for _ in range(10)] + [10 ** chance.uniform(-6, 9) for _ in range(10)]
    return [each for number in numbers for each in (number, -number)]


def _texts(kind: pl.DataType, chance: random.Random) -> list[Any]:
    texts = [
        "",
        "a",
        "b",
        "A b",
        " x ",
        "UPPER",
        "Straße",
        "日本語",
        "12",
        "-3.5",
        "007",
        "true",
        "x-y-z",
        "a@b.example",
    ]
    texts += ["2020-02-29", "2021-03-28 02:30:00", "2021-03-28T02:30:00Z", "10:30", "100%", "a.b.c", "(1) [2] {3}\\"]
    return texts + ["".join(chance.choices("abcXYZ 019-", k=chance.randint(1, 12))) for _ in range(20)]


def _moments(chance: random.Random) -> list[datetime]:
    """Times over eighty years: midnights, ends of months and years, changes of the clock, fractions of seconds."""
    texts = ["1970-01-01", "1999-12-31T23:59:59.999999", "2000-02-29T12:00", "2024-12-30", "2021-01-03T23:30"]
    texts += ["2021-03-28T01:30", "2021-03-28T02:30", "2021-10-31T00:30", "2021-10-31T01:30", "2021-11-07T05:30"]
    first = datetime(1960, 1, 1)
    some = [first + timedelta(microseconds=chance.randrange(80 * 365 * 86_400 * 10**6)) for _ in range(20)]
    whole = [first + timedelta(hours=chance.randrange(80 * 365 * 24)) for _ in range(20)]
    return [datetime.fromisoformat(each) for each in texts] + some + whole


def _datetimes(kind: pl.DataType, chance: random.Random) -> list[Any]:
    moments = _moments(chance)
    return [each.replace(tzinfo=UTC) for each in moments] if getattr(kind, "time_zone", None) else moments


def _dates(kind: pl.DataType, chance: random.Random) -> list[Any]:
    return [each.date() for each in _moments(chance)]


def _times(kind: pl.DataType, chance: random.Random) -> list[Any]:
    return [each.time() for each in _moments(chance)]


def _durations(kind: pl.DataType, chance: random.Random) -> list[Any]:
    return [each - datetime(2000, 1, 1) for each in _moments(chance)]


def _truths(kind: pl.DataType, chance: random.Random) -> list[Any]:
    return [True, False]


_MAKERS: list[tuple[Callable[[pl.DataType], bool], Callable[[pl.DataType, random.Random], list[Any]]]] = [
    (lambda kind: kind.is_integer(), _integers),
    (lambda kind: kind.is_float(), _floats),
    (lambda kind: kind == pl.String, _texts),
    (lambda kind: kind == pl.Boolean, _truths),
    (lambda kind: kind == pl.Datetime, _datetimes),
    (lambda kind: kind == pl.Date, _dates),
    (lambda kind: kind == pl.Time, _times),
    (lambda kind: kind == pl.Duration, _durations),
]
