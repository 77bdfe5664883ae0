"""Whether the values of a day are distributed like those that a model was approved with, and which differences count.

`compare` looks at one column, `judge` at all of them together. What is guaranteed, and what is not, stands in
docs/architecture.md; how often it holds is measured by `ml_assets_tests.drills.drift`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ml_assets.errors import MonitoringError

LEAST_ROWS = 50  # of the day and of the reference; below it nothing is judged
LEAST_DAYS = 20  # of a release; below it nothing is known of how much days differ
PSI_SHARE = 0.09  # PSI is of cells of a tenth of the rows; a little less, so that two bins of a twentieth make one
LEAST_EXPECTED = 5.0  # rows of a cell from which on chi-square holds (Cochran 1954)
TEXTS = (pl.String, pl.Categorical, pl.Enum)
NOT_JUDGED = "none"


@dataclass(frozen=True)
class Drift:
    """One column of a day beside the reference.

    Attributes:
        rows: of the day, those without a value too.
        psi: population stability index, less what chance alone would give; 0 or more. NaN where nothing is judged.
        statistic: of the test with the smallest p-value.
        p_value: of all tests of the column together. NaN where nothing is judged.
        test: the one that decided: `ks`, `chi2`, `rare` (categories) or `nulls`; `none` where nothing is judged.
        unseen: share of the rows whose category the reference does not have, 0 for numbers; NaN where the reference
            has so many categories that it does not name them all.
        limit: what its PSI has to reach to be an alarm; see `judge`.
        note: why nothing is judged, or what is not required, for people.
    """

    name: str
    rows: int
    psi: float
    statistic: float
    p_value: float
    test: str
    alarm: bool
    unseen: float
    note: str = ""
    limit: float = 0.0

    @property
    def judged(self) -> bool:
        return self.test != NOT_JUDGED


@dataclass(frozen=True, eq=False)
class Spread:
    """How much days differ from all days without drift: of the features of a release, or of its scores.

    Attributes:
        usual: by column, the PSI that three of a hundred days exceed; more than 0.
        maxima: of each of those days, the largest PSI of a column divided by what is usual for it.
    """

    usual: Mapping[str, float]
    maxima: Sequence[float]

    def quantile(self, level: float) -> float:
        """What the next day's maximum exceeds with probability `level` at most, if it is exchangeable with these.

        Of n + 1 exchangeable numbers each is equally likely to be the greatest, the second and so on, so the last one
        exceeds the ceil((n + 1)(1 - level))-th smallest of the others that rarely. (Conformal prediction: Vovk,
        Gammerman and Shafer 2005, "Algorithmic Learning in a Random World".) Where there are too few days for that
        it is the largest of them, which the next one exceeds with probability 1 / (n + 1).
        """
        number = len(self.maxima)
        at = math.ceil((number + 1) * (1 - level))
        return sorted(self.maxima)[max(1, min(at, number)) - 1]


@dataclass(frozen=True)
class Cells:
    """Counts of reference and day in the same cells, shape (cells,) each, or (days, cells) of several days; nulls are
    in none of them.

    Attributes:
        ordered: whether neighbours are alike, as bins of numbers are.
    """

    reference: np.ndarray
    day: np.ndarray
    ordered: bool


def on_weekday(reference: Mapping[str, Any], weekday: int) -> dict[str, Any]:
    """The reference of one column on one day of the week, 1 (Monday) to 7.

    Raises:
        MonitoringError: if the release has none, because its rows have no event time or it is an old one.
    """
    if "weekdays" not in reference:
        raise MonitoringError(
            "the release has no distributions by weekday: it was built before they were part of one, or its rows have "
            "no days. Materialise `endpoint` after the next training, or set `monitoring.drift.by: none`"
        )
    return {**reference, **reference["weekdays"][weekday - 1]}


def compare(reference: Mapping[str, Any], values: pl.Series) -> Drift:
    """Hold a day's values of one column against its distribution in a release.

    The tests of a column are
    - `ks` of numbers: two-sample Kolmogorov-Smirnov, the largest difference of both distribution functions at the
      edges of the reference's bins. The largest at some points is at most the largest at all, so its p-value is at
      most too large, also where values repeat. (Hodges 1958; `scipy.stats.ks_2samp` in its asymptotic form.)
    - `chi2`: Pearson's chi-square of homogeneity, of neighbouring bins or of categories; those of which fewer than
      five rows are expected are one cell together. Cells are chosen by both samples together, never by the day alone.
    - `rare` of categories: whether those in that one cell are as frequent as before, together and one by one (the
      smaller p-value, times two). One that was never seen is among them. Fisher's exact test.
    - `nulls`: whether as many values are missing. Fisher's exact test.

    Together: the smallest p-value times the number of tests (Bonferroni), whatever the dependence between them.

    PSI is the sum over cells of (p - q) ln(p / q), with p and q the shares of day and reference (half a row added to
    each cell), nulls being a cell. Without drift PSI / (1/n + 1/N) is distributed as chi-square with cells - 1 degrees
    of freedom (Yurdakul 2018, "Statistical Properties of the Population Stability Index"), so that its mean, (cells -
    1)(1/n + 1/N), is taken off: what is left is as small at 50 rows as at 50,000.

    Args:
        reference: of one column, as `deployment.reference.distribution` made it.
        values: the day's; NaN and infinities count as missing.

    Returns:
        With `alarm` False. Below 50 rows, of the day or the reference, nothing is judged.

    Raises:
        MonitoringError: naming the column, if its type is not the reference's.
    """
    kind = reference.get("kind")
    _require_kind(kind, values)
    counted, nulls, unseen = _count_texts(reference, values) if kind == "text" else _count_numbers(reference, values)
    name, rows = values.name, len(values)
    if rows < LEAST_ROWS or reference["rows"] < LEAST_ROWS:
        few = f"{rows} rows" if rows < LEAST_ROWS else f"the reference has {reference['rows']} rows"
        note = f"{few}; drift is judged from {LEAST_ROWS} on"
        return Drift(name, rows, math.nan, math.nan, math.nan, NOT_JUDGED, False, unseen, note)
    tests = [("nulls", *_exact(reference["nulls"], reference["rows"], nulls, rows))]
    if not reference["nulls"] + nulls:
        tests.clear()  # nothing to ask
    old = kind == "text" and reference["other"] and "rare" not in reference
    if counted.reference.sum() and counted.day.sum() and not old:
        if counted.ordered:
            there = counted.reference + counted.day > 0
            if there.sum() > 2:
                tests.append(("ks", *_kolmogorov_smirnov(counted)))
                tests.append(("chi2", *_chi_square(*_merged(counted))))
            else:  # one question only
                tests.append(("chi2", *_chi_square(counted.reference[there], counted.day[there])))
        else:
            frequent, rare = _pooled(counted)
            tests.append(("chi2", *_chi_square(*frequent)))
            tests.append(("rare", *rare))
    tests = [each for each in tests if not math.isnan(each[2])]
    test, statistic, p_value = min(tests, key=lambda each: each[2], default=("nulls", 0.0, 1.0))
    psi = float(psi_of(counted, np.asarray([reference["nulls"]]), np.asarray([nulls]))[0])
    note = "the release is an old one: of its categories only missing values are judged" if old else ""
    return Drift(name, rows, psi, statistic, min(1.0, p_value * max(1, len(tests))), test, False, unseen, note)


def judge(
    drifts: Sequence[Drift],
    *,
    alarms_per_month: float,
    least: float,
    spreads: Sequence[Spread | None] | None = None,
) -> list[Drift]:
    """Which differences are alarms: those that are certain, large, and larger than days differ anyway.

    All columns and scores of a day are judged together. Without drift, a day with any alarm at all comes at most
    `alarms_per_month` times in 30 days, however many columns there are, and however they depend on each other, if
    - the rows of a day are drawn independently, as many as they may be. On a day on which some columns drift, the same
      bound holds for naming one that does not. (Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".)
    - or if it is exchangeable with the days of its spreads, however its rows depend on each other. Several spreads
      share the level (Bonferroni).

    Args:
        drifts: of one day, all that are judged together.
        alarms_per_month: days with a false alarm in 30 days, at most.
        least: smallest PSI that counts, however certain it is.
        spreads: of each of `drifts` that of its release, None where nothing is known of days; all of one release and
            kind have the same object.

    Returns:
        The same, in the same order, with `alarm` and `limit` set.
    """
    level = min(1.0, alarms_per_month / 30)
    order = sorted((at for at, each in enumerate(drifts) if each.judged), key=lambda at: drifts[at].p_value)
    certain: set[int] = set()
    for passed, at in enumerate(order):
        if drifts[at].p_value > level / (len(order) - passed):
            break
        certain.add(at)
    of_each = spreads or [None] * len(drifts)
    known = {each for each in of_each if each is not None}
    times = {each: each.quantile(level / len(known)) for each in known}
    judged = []
    for at, (each, spread) in enumerate(zip(drifts, of_each, strict=True)):
        usual = times[spread] * spread.usual.get(each.name, 0.0) if spread else 0.0
        alarm = at in certain and each.psi >= least and (spread is None or each.psi > usual)
        judged.append(replace(each, alarm=bool(alarm), limit=max(least, usual)))
    return judged


def _require_kind(kind: Any, values: pl.Series) -> None:
    given = values.dtype
    is_text = isinstance(given, TEXTS)
    is_number = given.is_numeric() or given == pl.Boolean
    if given == pl.Null or (kind == "text" and is_text) or (kind == "number" and is_number):
        return
    wanted = {"text": "texts", "number": "numbers"}.get(str(kind), f"the unknown kind {kind!r}")
    raise MonitoringError(
        f"column {values.name!r} is a {given}, but the release's reference of it has {wanted}: these are not the "
        "inputs of that release; compare each prediction with the release that gave it"
    )


def _count_numbers(reference: Mapping[str, Any], values: pl.Series) -> tuple[Cells, int, float]:
    """Counts in the bins, and on their edges where the reference says how many are; nulls; nothing is unseen."""
    numbers = values.cast(pl.Float64).to_numpy()  # nulls become NaN
    numbers = numbers[np.isfinite(numbers)]
    edges, counts = edges_and_counts(reference)
    day = np.bincount(np.searchsorted(edges, numbers, side="right"), minlength=len(edges) + 1).astype(float)
    return Cells(counts, day, ordered=True), len(values) - len(numbers), 0.0


def edges_and_counts(reference: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The edges of a reference's cells of numbers, shape (cells - 1,), and the rows in each; a cell begins with its
    edge. What lies on an edge of a bin is a cell of its own, if the reference counts it.
    """
    edges, counts = np.asarray(reference["edges"], float), np.asarray(reference["counts"], float)
    if "at" in reference:
        at = np.asarray(reference["at"], float)
        expanded = np.empty(2 * len(edges) + 1)
        expanded[0::2] = counts - np.concatenate([[0.0], at])
        expanded[1::2] = at
        # The next number above an edge begins the rest of its bin.
        edges, counts = np.repeat(edges, 2), expanded
        edges[1::2] = np.nextafter(edges[1::2], math.inf)
    return edges, counts


def _count_texts(reference: Mapping[str, Any], values: pl.Series) -> tuple[Cells, int, float]:
    """Counts by category; nulls; the share of rows with an unseen category.

    The reference's own categories come first, then the day's, and last the rest that the reference does not count one
    by one.
    """
    texts = values.cast(pl.String)
    known = dict(texts.drop_nulls().value_counts().rows())
    named, other = reference["counts"], int(reference["other"])
    rest = {name: count for name, count in known.items() if name not in named}
    rare = reference.get("rare", [] if not other else None)
    seen = set(rare or ())
    unseen = math.nan if rare is None else sum(count for name, count in rest.items() if name not in seen)
    if rare == []:
        listed = sorted(rest)  # each category of the day is known by name, and its count in the reference is 0
        ours = [*named.values(), *(0 for _ in listed)]
        theirs = [*(known.get(name, 0) for name in named), *(rest[name] for name in listed)]
    else:
        ours = [*named.values(), other]
        theirs = [*(known.get(name, 0) for name in named), sum(rest.values())]
    share = unseen / len(texts) if len(texts) else 0.0
    cells = Cells(np.asarray(ours, float), np.asarray(theirs, float), ordered=False)
    return cells, texts.null_count(), share


def _kolmogorov_smirnov(cells: Cells) -> tuple[float, float]:
    from scipy.special import kolmogorov
    from scipy.stats import kstwo

    ours, theirs = cells.reference.sum(), cells.day.sum()
    distance = float(np.abs(np.cumsum(cells.reference) / ours - np.cumsum(cells.day) / theirs).max())
    rows = ours * theirs / (ours + theirs)
    # Of many rows Kolmogorov's limit, which is at most too large, and does not take half a second.
    p_value = kstwo.sf(distance, round(rows)) if rows < 5_000 else kolmogorov(distance * math.sqrt(rows))
    return distance, min(1.0, float(p_value))


def _chi_square(reference: np.ndarray, day: np.ndarray) -> tuple[float, float]:
    """Statistic and p-value; NaN where there is one cell only. Of two cells the exact test, and the difference."""
    from scipy.special import chdtrc

    if len(reference) < 2:
        return math.nan, math.nan
    ours, theirs = reference.sum(), day.sum()
    if len(reference) == 2:
        return _exact(reference[1], ours, day[1], theirs)
    both = reference + day
    # sum (O - E)^2 / E over both rows of the table; in each cell both lie equally far from what is expected
    apart = day - both * theirs / (ours + theirs)
    statistic = float((apart**2 / both).sum() * (ours + theirs) * (1 / ours + 1 / theirs))
    return statistic, float(chdtrc(len(both) - 1, statistic))


def _exact(ours: float, our_rows: float, theirs: float, their_rows: float) -> tuple[float, float]:
    """Fisher's exact test of two shares: their difference, and the p-value."""
    return float(theirs / their_rows - ours / our_rows), float(_two_sided(ours, our_rows, theirs, their_rows))


def _two_sided(ours: Any, our_rows: float, theirs: Any, their_rows: float) -> Any:
    """Twice the smaller tail of the hypergeometric law; of numbers or arrays of them."""
    from scipy.stats import hypergeom

    law = (our_rows + their_rows, ours + theirs, their_rows)
    return np.minimum(1.0, 2 * np.minimum(hypergeom.cdf(theirs, *law), hypergeom.sf(theirs - 1, *law)))


def _exact_of_each(ours: np.ndarray, our_rows: float, theirs: np.ndarray, their_rows: float) -> float:
    """The smallest p-value of Fisher's exact tests of each cell's share, times their number."""
    cells, repeated = np.unique(np.stack([ours, theirs]), axis=1, return_counts=True)
    several = cells.sum(axis=0) > 1  # a single row says nothing, wherever it is
    if not several.any():
        return 1.0
    smallest = _two_sided(cells[0, several], our_rows, cells[1, several], their_rows).min()
    return min(1.0, float(repeated[several].sum() * smallest))


def _expected(cells: Cells) -> np.ndarray:
    """Rows that each cell has in the smaller of both samples, if they do not differ."""
    ours, theirs = cells.reference.sum(), cells.day.sum()
    return np.asarray((cells.reference + cells.day) * min(ours, theirs) / (ours + theirs))


def _merged(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring cells put together until enough rows are expected in each."""
    expected = _expected(cells)[None]
    group = _neighbours(expected, np.maximum(LEAST_EXPECTED, PSI_SHARE * expected.sum(axis=1)))[0]
    return np.bincount(group, cells.reference), np.bincount(group, cells.day)


def _neighbours(weight: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Neighbouring cells are put together until they weigh enough; what is left at the end goes with the last ones.

    Args:
        weight: shape (days, cells).
        least: shape (days,).

    Returns:
        The number of its group for each day and cell, from 0 on; shape (days, cells).
    """
    group = np.zeros(weight.shape, int)
    now, filled = np.zeros(len(weight), int), np.zeros(len(weight))
    for at in range(weight.shape[1]):
        full = filled >= least
        now = now + full
        filled = np.where(full, 0.0, filled) + weight[:, at]
        group[:, at] = now
    short = (filled < least) & (now > 0)
    return np.asarray(group - (short[:, None] & (group == now[:, None])))


def _pooled(cells: Cells) -> tuple[tuple[np.ndarray, np.ndarray], tuple[float, float]]:
    """The cells of chi-square, and the test of all those together of which too few rows are expected."""
    expected = _expected(cells)
    rare = expected < LEAST_EXPECTED
    frequent = cells.reference[~rare], cells.day[~rare]
    if not rare.any():
        return frequent, (math.nan, math.nan)
    ours, theirs = cells.reference[rare].sum(), cells.day[rare].sum()
    share, together = _exact(ours, cells.reference.sum(), theirs, cells.day.sum())
    one_by_one = _exact_of_each(cells.reference[rare], cells.reference.sum(), cells.day[rare], cells.day.sum())
    found = share, min(1.0, 2 * min(together, one_by_one))
    if expected[rare].sum() >= LEAST_EXPECTED:
        frequent = np.append(frequent[0], ours), np.append(frequent[1], theirs)
    return frequent, found


def psi_of(cells: Cells, our_nulls: np.ndarray, their_nulls: np.ndarray) -> np.ndarray:
    """PSI of days as `compare` says it. Cells are of a size in either sample, so that what is new in a day is not lost
    among others.

    Args:
        cells: of one day or several; of the reference one row, or one for each day.
        our_nulls, their_nulls: of reference and day; shape (1,) or (days,).

    Returns:
        Shape (days,).
    """
    day = np.atleast_2d(cells.day)
    reference = np.broadcast_to(np.atleast_2d(cells.reference), day.shape)
    their_nulls = np.asarray(their_nulls, float)
    our_nulls = np.broadcast_to(np.asarray(our_nulls, float), their_nulls.shape)
    ours, theirs = reference.sum(axis=1) + our_nulls, day.sum(axis=1) + their_nulls
    expected = reference * (theirs / ours)[:, None]
    if cells.ordered:
        weight = (expected + day) / 2
        group = _neighbours(weight, np.maximum(LEAST_EXPECTED, PSI_SHARE * weight.sum(axis=1)))
        groups = int(group.max(initial=0)) + 1
        at = (group + groups * np.arange(len(group))[:, None]).ravel()
        reference, day = (
            np.bincount(at, each.ravel(), groups * len(group)).reshape(-1, groups) for each in (reference, day)
        )
    else:
        small = np.maximum(expected, day) < LEAST_EXPECTED
        reference, day = (
            np.column_stack([np.where(small, 0, each), np.where(small, each, 0).sum(axis=1)])
            for each in (reference, day)
        )
    reference, day = np.column_stack([reference, our_nulls]), np.column_stack([day, their_nulls])
    there = reference + day > 0
    number = there.sum(axis=1)
    p, q = ((each + 0.5) / (each.sum(axis=1) + 0.5 * number)[:, None] for each in (day, reference))
    by_chance = (number - 1) * (1 / theirs + 1 / ours)
    return np.asarray(np.maximum(0.0, (np.where(there, (p - q) * np.log(p / q), 0)).sum(axis=1) - by_chance))
