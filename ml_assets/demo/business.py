"""A delivery service: its orders by day, what became of them, and its mistakes. Seeded, so a day is always the same.

Orders of a day are exported at midnight. Whether an order came late is reported hours to days later, in files of
their own, by the day of the report. Some rows are broken, as everywhere.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

FIRST_DAY = date(2025, 1, 1)
ZONES = np.array(["centre", "north", "south", "east", "harbour"])
VEHICLES = np.array(["bike", "scooter", "car"])
WEATHER = np.array(["dry", "rain", "snow"])
OPTIONAL = ["distance_km", "weather", "courier_id"]
REPORTS_WITHIN = timedelta(days=3)  # after which nearly every outcome has been reported


@dataclass(frozen=True)
class Business:
    """How the business runs.

    Attributes:
        orders_per_day: mean number of orders on a week day.
        drift_from: from this day on couriers are scarce: the same orders take longer, and come from further away.
        scarcity: how scarce they are then.
        missing, repeated, broken: shares of orders with a missing optional value, exported twice, with an impossible
            value.
        unreported: share of orders whose outcome is never reported.
    """

    seed: int = 7
    orders_per_day: int = 500
    restaurants: int = 120
    couriers: int = 60
    drift_from: date | None = None
    scarcity: float = 1.0
    missing: float = 0.03
    repeated: float = 0.01
    broken: float = 0.01
    unreported: float = 0.02

    def orders(self, day: date) -> pl.DataFrame:
        """The export of one day, with its mistakes."""
        orders = self._true_orders(day).drop("minutes_late", "reported_at", "reported")
        random = self._random(day, "export")
        orders = _blank(orders, OPTIONAL, self.missing, random)
        orders = _break(orders, self.broken, random)
        again = orders.filter(pl.Series(random.random(orders.height) < self.repeated))
        return pl.concat([orders, again])

    def outcomes(self, day: date) -> pl.DataFrame:
        """The reports that came in on one day, about orders of that day and the days before."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        days = [day - timedelta(days=each) for each in range(REPORTS_WITHIN.days, -1, -1)]
        made = pl.concat([self._true_orders(each) for each in days if each >= FIRST_DAY])
        reported = made.filter(
            pl.col("reported"), pl.col("reported_at") >= start, pl.col("reported_at") < start + timedelta(days=1)
        )
        return reported.select("order_id", "reported_at", "minutes_late", late=pl.col("minutes_late") > 0).sort(
            "reported_at", "order_id"
        )

    def asked(self, day: date, number: int | None = None) -> list[dict[str, Any]]:
        """Orders of a day as the shop asks about them: what is known then, with the order's own id.

        Args:
            number: how many, from the first; None: all.
        """
        afterwards = ("minutes_late", "reported_at", "reported")
        # What is missing in the export is missing when the shop asks: else each request would be unlike the training.
        orders = _blank(self._true_orders(day).drop(afterwards), OPTIONAL, self.missing, self._random(day, "export"))
        orders = orders if number is None else orders.head(number)
        return orders.with_columns(pl.col("ordered_at").dt.strftime("%FT%TZ")).to_dicts()

    def _random(self, day: date, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, day.toordinal(), len(purpose), *purpose.encode()])

    def _true_orders(self, day: date) -> pl.DataFrame:
        """What really happened on one day, outcomes included."""
        random = self._random(day, "orders")
        scarcity = self.scarcity if self.drift_from is not None and day >= self.drift_from else 0.0
        weekend = day.weekday() >= 4
        count = int(random.poisson(self.orders_per_day * (1.3 if weekend else 1.0)))
        hour = np.clip(
            np.where(random.random(count) < 0.35, random.normal(12.5, 1.2, count), random.normal(19.0, 1.8, count)),
            8,
            23.9,
        )
        restaurant = random.integers(0, self.restaurants, count)
        courier = random.integers(0, self.couriers, count)
        vehicle = random.choice(3, count, p=[0.5, 0.3, 0.2])
        snow_season = day.month in (12, 1, 2)
        weather = random.choice(3, count, p=[0.62, 0.26, 0.12] if snow_season else [0.7, 0.3, 0.0])
        zone = random.choice(5, count, p=[0.35, 0.2, 0.2, 0.15, 0.1])
        distance = np.round(random.gamma(3.0, 0.9 + 0.2 * scarcity, count) + 0.3, 2)
        items = random.poisson(2.2, count) + 1
        value = np.round(items * random.gamma(6.0, 2.1, count) + 3, 2)
        slowness = np.random.default_rng([self.seed, 1]).normal(0, 4, self.restaurants)[restaurant]
        skill = np.random.default_rng([self.seed, 2]).normal(0, 2, self.couriers)[courier]
        preparation = np.round(np.clip(8 + 1.6 * items + slowness + random.normal(0, 1.5, count), 3, 60), 1)
        promised = np.round(20 + 2.0 * distance + 0.9 * items + random.choice([-5, 0, 5, 10], count), 0)
        peak = np.exp(-((hour - 19.0) ** 2) / 4) + 0.6 * np.exp(-((hour - 12.5) ** 2) / 2)
        speed = np.array([3.6, 2.6, 2.9])[vehicle]  # minutes a kilometre
        taken = (
            preparation
            + speed * distance * np.array([1.0, 1.25, 1.7])[weather]
            + 7.0 * peak * (1.15 if weekend else 1.0)
            + np.array([2.0, 0.0, 0.5, 1.0, 5.0])[zone]
            + skill
            + 6.0 * scarcity
            + random.normal(0, 2.0, count)
        )
        ordered = [
            datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=int(each * 3600)) for each in hour
        ]
        wait = random.gamma(1.5, 5.0, count)  # hours until the report
        return pl.DataFrame(
            {
                "order_id": [f"{day:%y%m%d}-{number:05d}" for number in range(count)],
                "ordered_at": pl.Series(ordered, dtype=pl.Datetime("us", "UTC")),
                "restaurant_id": [f"r{each:03d}" for each in restaurant],
                "courier_id": [f"c{each:03d}" for each in courier],
                "zone": ZONES[zone].tolist(),
                "vehicle": VEHICLES[vehicle].tolist(),
                "weather": WEATHER[weather].tolist(),
                "distance_km": distance,
                "items": items.astype(np.int64),
                "order_value": value,
                "preparation_minutes": preparation,
                "promised_minutes": promised,
                "new_customer": (random.random(count) < 0.2).tolist(),
                "minutes_late": np.round(taken - promised, 1),
                "reported_at": pl.Series(
                    [at + timedelta(hours=1 + float(hours)) for at, hours in zip(ordered, wait, strict=True)],
                    dtype=pl.Datetime("us", "UTC"),
                ),
                "reported": (random.random(count) >= self.unreported).tolist(),
            }
        ).sort("ordered_at", "order_id")


def land(business: Business, landing: Path, first: date, days: int) -> list[Path]:
    """Write the exports and reports of some days below `landing`, each file in one move, as a careful system does."""
    written = []
    for number in range(days):
        day = first + timedelta(days=number)
        for folder, frame in (("orders", business.orders(day)), ("outcomes", business.outcomes(day))):
            target = landing / folder / f"{day}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.part")
            frame.write_parquet(draft)
            draft.rename(target)
            written.append(target)
    return written


def _blank(orders: pl.DataFrame, columns: list[str], share: float, random: np.random.Generator) -> pl.DataFrame:
    blanks = {name: pl.Series(random.random(orders.height) < share) for name in columns}
    return orders.with_columns(pl.when(~blank).then(pl.col(name)).alias(name) for name, blank in blanks.items())


def _break(orders: pl.DataFrame, share: float, random: np.random.Generator) -> pl.DataFrame:
    """Make some rows impossible, each in one of five ways."""
    way = np.where(random.random(orders.height) < share, random.integers(0, 5, orders.height), -1)
    kinds = pl.Series(way)
    return orders.with_columns(
        distance_km=pl.when(kinds == 0).then(-1.0).when(kinds == 1).then(4800.0).otherwise("distance_km"),
        vehicle=pl.when(kinds == 2).then(pl.lit("rocket")).otherwise("vehicle"),
        items=pl.when(kinds == 3).then(0).otherwise("items").cast(pl.Int64),
        restaurant_id=pl.when(kinds != 4).then("restaurant_id"),
    )
