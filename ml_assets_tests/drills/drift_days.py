"""Whether alarms of drift keep to their rate where the rows of a day are not independent.

.venv/bin/python -W ignore -m ml_assets_tests.drills.drift_days --references 200
.venv/bin/python -W ignore -m ml_assets_tests.drills.drift_days --model flights --until 2013-09-01 --after 2013-10-01

The first form draws days that share effects, of which some have heavy tails; days alone are judged, without asking
whether a difference is certain. The second one takes a model that was trained in this project (`ML_ASSETS_HOME`): its
features until a day beside each day after another one, and each half of the weeks beside the other half, judged as in
`monitoring`, without days and with them.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from ml_assets.deployment.day_spread import spread_of
from ml_assets.deployment.reference import distribution
from ml_assets.lake import Lake
from ml_assets.ml.days import weekdays
from ml_assets.ml.drift import Spread, compare, judge, on_weekday
from ml_assets.serving.bundle import REFERENCE
from ml_assets.settings import Settings
from ml_assets_tests.drills.drift import ALARMS_PER_MONTH, LEAST, interval

WAYS = ("none", "weekday")
References = dict[str, dict[str, Any]]


def made(rows: pl.DataFrame, days: np.ndarray) -> tuple[References, dict[str, Spread]]:
    """References by column, and how much days differ, by way."""
    week = weekdays(pl.Series(days), "UTC")
    references = {each.name: distribution(each, week) for each in rows}
    said = spread_of(list(references.values()), rows.get_columns(), days)
    spreads = {
        by: Spread(
            {name: usual for name, usual in zip(rows.columns, each["usual"], strict=True) if usual}, each["maxima"]
        )
        for by, each in said.items()
        if "maxima" in each
    }
    return references, spreads


def alarms(
    references: References, rows: pl.DataFrame, day: date, by: str, spreads: Sequence[Spread | None], certain: bool
) -> list[list[str]]:
    """The columns that are alarms, for each of the spreads."""
    drifts = [
        compare(on_weekday(each, day.isoweekday()) if by == "weekday" else each, rows.get_column(name))
        for name, each in references.items()
    ]
    judged = [judge(drifts, alarms_per_month=ALARMS_PER_MONTH, least=LEAST, spreads=[s] * len(drifts)) for s in spreads]
    return [
        [each.name for each in found if (each.alarm if certain else each.psi >= LEAST and each.psi > each.limit)]
        for found in judged
    ]


def drawn(number: int, references: int, seed: int, rows: int = 60, columns: int = 12, new: int = 8) -> None:
    """Prints a line: of days that share values, how many are alarms beside a reference of `number` days."""
    random = np.random.default_rng([seed, number])
    hits, tried = dict.fromkeys(WAYS, 0), dict.fromkeys(WAYS, 0)
    dates = np.datetime64("2026-01-01") + np.arange(number + new)
    for _ in range(references):
        effect = random.standard_t(3, (columns, number + new)) * np.linspace(0, 0.8, columns)[:, None]
        effect += 0.3 * random.normal(size=number + new)
        values = random.normal(size=(columns, number + new, rows)) + effect[:, :, None]
        order = random.permutation(number + new)
        ours = np.sort(order[:number])
        frame = pl.DataFrame({str(at): values[at][ours].ravel() for at in range(columns)})
        beside, spreads = made(frame, np.repeat(dates[ours], rows))
        for by, spread in spreads.items():
            for each in order[number:]:
                day = pl.DataFrame({str(at): values[at][each] for at in range(columns)})
                hits[by] += bool(alarms(beside, day, dates[each].astype(date), by, [spread], certain=False)[0])
                tried[by] += 1
    stated = max(ALARMS_PER_MONTH / 30, 1 / (number + 1))
    shares = ", ".join(f"{by} {hits[by] / tried[by]:.1%} of {tried[by]:,}" for by in WAYS if tried[by])
    print(f"{number} days, stated {stated:.1%}: {shares}", flush=True)


def trained(model: str, time: str, zone: str, until: date, after: date) -> None:
    """Prints what is said of the days of a model that was trained in this project."""
    settings = Settings.from_environment()
    newest = max((settings.releases / model).glob(f"*/{REFERENCE}"), key=lambda each: each.stat().st_mtime)
    names = list(json.loads(newest.read_bytes())["features"])
    table = Lake(settings.lake).read(model, "features").sort(time)
    table = table.with_columns(pl.col(time).dt.convert_time_zone(zone).dt.date().alias("day"))
    before, week = table.filter(pl.col("day") < until), (pl.col("day").dt.ordinal_day() - 1) // 7 % 2
    for label, ours, theirs in (
        (f"until {until} | after {after}", before, table.filter(pl.col("day") >= after)),
        ("odd weeks | even weeks", before.filter(week == 0), before.filter(week == 1)),
        ("even weeks | odd weeks", before.filter(week == 1), before.filter(week == 0)),
    ):
        references, spreads = made(ours.select(names), ours.get_column("day").to_numpy())
        for by in WAYS:
            found = [
                alarms(references, rows, day, by, [None, spreads[by]], certain=True)
                for (day,), rows in theirs.partition_by("day", as_dict=True).items()
            ]
            for said, each in zip(("without days", "with days"), zip(*found, strict=True), strict=True):
                hits = sum(map(bool, each))
                low, high = interval(hits, len(each))
                most = Counter(name for names in each for name in names).most_common(5)
                print(f"{label} | {by} | {said}: {hits} of {len(each)} ({low:.1%} to {high:.1%}); {most}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--references", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--model", help="One that was trained in this project, with daily features.")
    options.add_argument("--time", default="time_hour")
    options.add_argument("--zone", default="America/New_York")
    options.add_argument("--until", type=date.fromisoformat)
    options.add_argument("--after", type=date.fromisoformat)
    chosen = options.parse_args()
    if chosen.model:
        trained(chosen.model, chosen.time, chosen.zone, chosen.until, chosen.after)
    else:
        for number in (20, 30, 60):
            drawn(number, chosen.references, chosen.seed)


if __name__ == "__main__":
    main()
