"""How often days without drift are alarms, and how often planted drift is found, by the number of rows of a day.

.venv/bin/python -W ignore -m ml_assets_tests.drills.drift --batches 1000 --seed 1

Each batch is a day of each size beside a reference of 5,000 rows of its own, all drawn from the same distributions: 40
columns and a score; skewed and normal numbers, counts, truth values down to 1 %, categories with rare values, nulls;
columns that are independent, and columns that share nine tenths of their variance. It goes through `ml.drift.compare`
and `judge`, as a day of `monitoring` does. The last table asks what it costs that an alarm has also to be more than the
days of the reference differ: with references of 30 days, the same days are judged with and without these.

Ends with an error if there are beyond doubt more alarms than stated without drift, or a planted shift is found less
often than stated.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import beta, norm, poisson

from ml_assets.deployment.day_spread import spread_of
from ml_assets.deployment.reference import distribution
from ml_assets.ml.days import weekdays
from ml_assets.ml.drift import Drift, Spread, compare, judge

SIZES = (50, 200, 1_000, 5_000, 50_000)
REFERENCE_ROWS = 5_000
ALARMS_PER_MONTH = 1.0
LEAST = 0.1
COLUMNS = 41  # with the score
SHARED = {"independent": 0.0, "dependent": 0.9}

# What makes a column of standard normal numbers; a second one says which are missing.
Column = Callable[[np.ndarray, np.ndarray], pl.Series]


@cache
def _thresholds(kind: str, size: float) -> np.ndarray:
    if kind == "counts":
        upto = poisson.cdf(np.arange(40), size)
    else:
        weights = 1 / np.arange(1, int(size) + 1) ** 1.3
        upto = np.cumsum(weights / weights.sum())
    return np.asarray(norm.ppf(np.clip(upto, 0, 1))[:-1])


def skewed(z: np.ndarray, _: np.ndarray) -> pl.Series:
    return pl.Series(np.exp(z))


def normal(z: np.ndarray, _: np.ndarray) -> pl.Series:
    return pl.Series(z)


def zero_mostly(z: np.ndarray, _: np.ndarray) -> pl.Series:
    return pl.Series(np.maximum(z - 0.25, 0))


def counts(mean: float) -> Column:
    return lambda z, _: pl.Series(np.searchsorted(_thresholds("counts", mean), z).astype(float))


def truth(share: float) -> Column:
    return lambda z, _: pl.Series((z < norm.ppf(share)).astype(float))


def categories(number: int) -> Column:
    names = pl.Series([f"category {each}" for each in range(number)])
    return lambda z, _: names.gather(np.searchsorted(_thresholds("categories", number), z))


def missing(share: float) -> Column:
    return lambda z, u: pl.Series(np.where(u < norm.ppf(share), np.nan, z)).fill_nan(None)


ALL: tuple[Column, ...] = (
    *[skewed] * 8,
    *[normal] * 6,
    *[zero_mostly] * 2,
    *map(counts, (0.2, 1, 3, 8)),
    *map(truth, (0.5, 0.3, 0.1, 0.05, 0.02, 0.01)),
    *map(categories, (3, 5, 8, 12, 20, 30, 60, 200)),
    *map(missing, (0.5, 0.2, 0.1, 0.05, 0.02, 0.005)),
)


def normals(rows: int, shared: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shape (columns, rows) each: what columns are made of, and what makes values missing, too."""
    common = random.standard_normal(rows, dtype=np.float32)

    def drawn(number: int) -> np.ndarray:
        own = random.standard_normal((number, rows), dtype=np.float32)
        return np.asarray(np.sqrt(1 - shared) * own + np.sqrt(shared) * common, dtype=float)

    return drawn(COLUMNS), drawn(6)


def table(rows: int, shared: float, random: np.random.Generator) -> list[pl.Series]:
    """Forty columns, and a score that depends on the first ten of them."""
    z, u = normals(rows, shared, random)
    made = [each(z[at], u[at % 6]).alias(f"column {at}") for at, each in enumerate(ALL)]
    return [*made, pl.Series("score", norm.cdf(z[:10].mean(axis=0) + 0.3 * z[-1]))]


@dataclass(frozen=True)
class Calm:
    """Days without drift: on how many there was an alarm, if any difference counts, and with the default's least."""

    batches: int = 0
    alarms: int = 0
    alarms_by_default: int = 0

    def __add__(self, other: "Calm") -> "Calm":
        return Calm(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def calm(kind: str, batches: int, seed: int, sizes: Sequence[int] = SIZES, with_each: int = 1) -> dict[int, Calm]:
    """Days without drift, by their rows.

    Args:
        with_each: how many days of each size share a reference; the interval of a size is right if none do.
    """
    shared, random = SHARED[kind], np.random.default_rng([seed, list(SHARED).index(kind)])
    found = dict.fromkeys(sizes, Calm())
    for _ in range(batches // with_each):
        reference = [distribution(each) for each in table(REFERENCE_ROWS, shared, random)]
        for rows in [*sizes] * with_each:
            day = [compare(ours, theirs) for ours, theirs in zip(reference, table(rows, shared, random), strict=True)]
            alarms = [
                any(each.alarm for each in judge(day, alarms_per_month=ALARMS_PER_MONTH, least=least))
                for least in (0.0, LEAST)
            ]
            found[rows] += Calm(1, *alarms)
    return found


@dataclass(frozen=True)
class Shift:
    """What is planted in one column of 41, and from how many rows on it is found in nine of ten days (None: never)."""

    name: str
    before: Column
    after: Column
    found_from: int | None


def _moved(by: float, times: float = 1.0, of: Column = normal) -> Column:
    return lambda z, u: of(z * times + by, u)


def _new(share: float) -> Column:
    """A category that the reference does not have."""

    def made(z: np.ndarray, u: np.ndarray) -> pl.Series:
        new = pl.Series(u < norm.ppf(share))
        return pl.select(pl.when(new).then(pl.lit("new")).otherwise(categories(8)(z, u))).to_series()

    return made


SHIFTS = (
    Shift("normal, mean + 0.25 sd", normal, _moved(0.25), None),
    Shift("normal, mean + 0.4 sd", normal, _moved(0.4), 1_000),
    Shift("normal, mean + 0.5 sd", normal, _moved(0.5), 200),
    Shift("normal, mean + 1 sd", normal, _moved(1.0), 50),
    Shift("skewed, each value 1.65 times (0.5 sd of its logarithm)", skewed, _moved(0.5, of=skewed), 200),
    Shift("normal, sd 1.5 times", normal, _moved(0, 1.5), 1_000),
    Shift("normal, sd 2 times", normal, _moved(0, 2.0), 200),
    Shift("counts, mean 3 becomes 4", counts(3), counts(4), 200),
    Shift("truth, 10 % become 20 %", truth(0.1), truth(0.2), None),
    Shift("truth, 10 % become 30 %", truth(0.1), truth(0.3), 200),
    Shift("truth, 30 % become 60 %", truth(0.3), truth(0.6), 200),
    Shift("8 categories, 5 % new", categories(8), _new(0.05), 200),
    Shift("8 categories, 20 % new", categories(8), _new(0.2), 50),
    Shift("12 categories, evenly instead of skewed", categories(12), lambda z, u: _even(z), 50),
    Shift("nulls, 5 % become 10 %", missing(0.05), missing(0.1), None),
    Shift("nulls, 5 % become 20 %", missing(0.05), missing(0.2), 200),
    Shift("nulls, 2 % become 30 %", missing(0.02), missing(0.3), 50),
)


def _even(z: np.ndarray) -> pl.Series:
    names = pl.Series([f"category {each}" for each in range(12)])
    return names.gather(np.minimum(norm.cdf(z) * 12, 11).astype(int))


def power(number: int, rows: int, batches: int, seed: int) -> float:
    """The share of days on which a shift of one column is found, among 40 others that do not drift."""
    shift, random = SHIFTS[number], np.random.default_rng([seed, rows, number])

    def drawn(column: Column, many: int) -> pl.Series:
        return column(random.standard_normal(many), random.standard_normal(many)).alias("shifted")

    others = [Drift(f"column {at}", rows, 0.0, 0.0, 1.0, "ks", False, 0.0) for at in range(COLUMNS - 1)]
    found = 0
    for _ in range(batches):
        drift = compare(distribution(drawn(shift.before, REFERENCE_ROWS)), drawn(shift.after, rows))
        found += judge([drift, *others], alarms_per_month=ALARMS_PER_MONTH, least=LEAST)[0].alarm
    return found / batches


@dataclass(frozen=True)
class Beside:
    """Days beside references of days: on how many there was an alarm, without knowing of these, and with it.

    Attributes:
        calm: without drift, PSI of at least 0.1; shape (2,).
        any_difference: without drift, with `least` at 0; shape (2,).
        found: each of `SHIFTS`; shape (shifts, 2).
    """

    calm: np.ndarray
    any_difference: np.ndarray
    found: np.ndarray


def beside_days(rows: int, batches: int, seed: int, days: int = 30) -> Beside:
    """As `calm` and `power`, each batch beside a reference of its own, of days with as many rows as the day."""
    random = np.random.default_rng([seed, rows, days])
    dates = np.repeat(np.datetime64("2026-01-01") + np.arange(days), rows)
    week = weekdays(pl.Series(dates), "UTC")
    beside = Beside(np.zeros(2, int), np.zeros(2, int), np.zeros((len(SHIFTS), 2), int))

    def alarms(drifts: list[Drift], spread: Spread, name: str, least: float) -> np.ndarray:
        return np.array(
            [
                any(
                    each.alarm and name in (each.name, "")
                    for each in judge(
                        drifts, alarms_per_month=ALARMS_PER_MONTH, least=least, spreads=[known] * len(drifts)
                    )
                )
                for known in (None, spread)
            ]
        )

    def spread_named(references: list[dict[str, Any]], columns: list[pl.Series]) -> Spread:
        said = spread_of(references, columns, dates)["none"]
        return Spread({each.name: usual for each, usual in zip(columns, said["usual"], strict=True)}, said["maxima"])

    for _ in range(batches):
        columns = table(days * rows, SHARED["dependent"], random)
        references = [distribution(each, week) for each in columns]
        spread = spread_named(references, columns)
        drifts = [compare(*each) for each in zip(references, table(rows, SHARED["dependent"], random), strict=True)]
        beside.calm[:] += alarms(drifts, spread, "", LEAST)
        beside.any_difference[:] += alarms(drifts, spread, "", 0.0)
        for at, shift in enumerate(SHIFTS):
            z, u = random.standard_normal((2, (days + 1) * rows))
            own = shift.before(z[rows:], u[rows:]).alias("shifted")
            reference = distribution(own, week)
            alone = spread_named([reference], [own])
            both = Spread({**spread.usual, **alone.usual}, np.maximum(spread.maxima, alone.maxima).tolist())
            planted = compare(reference, shift.after(z[:rows], u[:rows]).alias("shifted"))
            beside.found[at] += alarms([planted, *drifts[1:]], both, "shifted", LEAST)
    return beside


def interval(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share, by Clopper and Pearson."""
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0


def drill(batches: int, shifted: int, seed: int, processes: int) -> list[str]:
    """Prints both tables; returns what is not as stated."""
    stated, part = ALARMS_PER_MONTH / 30, 20
    wrong = []
    with ProcessPoolExecutor(processes) as pool:
        calms = {
            kind: [pool.submit(calm, kind, part, 1000 * seed + at) for at in range(batches // part)] for kind in SHARED
        }
        powers = {
            (at, rows): pool.submit(power, at, rows, shifted, seed) for at in range(len(SHIFTS)) for rows in SIZES
        }
        print(
            "| rows | columns | days without drift | with an alarm, any difference counting | 95 % interval | ", end=""
        )
        print(f"with PSI >= {LEAST:g} |\n|---|---|---|---|---|---|")
        for kind, parts in calms.items():
            for rows in SIZES:
                each = sum((one.result()[rows] for one in parts), Calm())
                low, high = interval(each.alarms, each.batches)
                print(
                    f"| {rows:,} | {kind} | {each.batches:,} | {each.alarms} ({each.alarms / each.batches:.1%}) "
                    f"| {low:.1%} to {high:.1%} | {each.alarms_by_default} |",
                    flush=True,
                )
                if low > stated:
                    wrong.append(f"{rows} rows, {kind}: {each.alarms} alarms of {each.batches}, {stated:.1%} may")
        print(f"\n| shift of one column in {COLUMNS} | stated |", *(f" {rows:,} rows |" for rows in SIZES), sep="")
        print("|---|---|", "---|" * len(SIZES), sep="")
        for at, shift in enumerate(SHIFTS):
            found = [powers[at, rows].result() for rows in SIZES]
            said = "too small" if shift.found_from is None else f"from {shift.found_from:,} rows"
            print(f"| {shift.name} | {said} |", *(f" {each:.0%} |" for each in found), sep="", flush=True)
            wrong += [
                f"{shift.name}: found on {share:.0%} of days of {rows} rows, 90 % stated"
                for rows, share in zip(SIZES, found, strict=True)
                if shift.found_from is not None and rows >= shift.found_from and share < 0.9
            ]
    return wrong


def drill_days(batches: int, seed: int, processes: int, sizes: Sequence[int] = (200, 1_000)) -> list[str]:
    """Prints the table of `beside_days`; returns what is not as stated."""
    with ProcessPoolExecutor(processes) as pool:
        found = list(pool.map(beside_days, sizes, [batches] * len(sizes), [seed] * len(sizes)))
    print("\n| beside a reference of 30 days |", *(f" {rows:,} rows | with days |" for rows in sizes), sep="")
    print("|---|", "---|---|" * len(sizes), sep="")
    lines = [
        ("no drift, any difference counting", [each.any_difference for each in found]),
        (f"no drift, PSI >= {LEAST:g}", [each.calm for each in found]),
        *((shift.name, [each.found[at] for each in found]) for at, shift in enumerate(SHIFTS)),
    ]
    for name, counts in lines:
        print(f"| {name} |", *(f" {each[0] / batches:.0%} | {each[1] / batches:.0%} |" for each in counts), sep="")
    return [
        f"{rows} rows beside days: {each.any_difference[1]} alarms of {batches}"
        for rows, each in zip(sizes, found, strict=True)
        if interval(each.any_difference[1], batches)[0] > ALARMS_PER_MONTH / 30
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batches", type=int, default=1000)
    options.add_argument("--shifted", type=int, default=500)
    options.add_argument("--beside-days", type=int, default=200, help="Batches beside a reference of days.")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    processes = min(2, os.cpu_count() or 1)
    wrong = drill(chosen.batches, chosen.shifted, chosen.seed, processes) if chosen.batches else []
    if chosen.beside_days:
        wrong += drill_days(chosen.beside_days, chosen.seed, processes)
    print("\n".join(["", *(f"NOT AS STATED: {each}" for each in wrong)] if wrong else ["\nAll as stated."]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
