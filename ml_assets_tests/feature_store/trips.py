"""A model with everything that Feast is told of: groups by one column and by two, side tables with and without time,
with a key and without, one of them with names of its own for the columns of its key.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ml_assets.lake import Lake
from ml_assets.loading import load_model
from ml_assets.model import Model
from ml_assets.spec.model import ModelSpec
from ml_assets_tests.steps import refresh

CONTRACT = """
from typing import Annotated

import pandera.polars as pa
import polars as pl

Time = Annotated[pl.Datetime, "us", "UTC"]


class Trips(pa.DataFrameModel):
    trip: str = pa.Field(metadata={"role": "key"})
    at: Time = pa.Field(metadata={"role": ["key", "event_time"]})
    origin: str = pa.Field(metadata={"role": "request"})
    carrier: int = pa.Field(metadata={"role": "request"})
    km: float = pa.Field(metadata={"role": "request"})
    late: bool = pa.Field(metadata={"role": "target"})


class Weather(pa.DataFrameModel):
    read_at: Time = pa.Field(metadata={"role": "event_time"})
    station: str
    wind: pl.Float32 = pa.Field(nullable=True)
    gusts: pl.Int16 = pa.Field(nullable=True)


class Holidays(pa.DataFrameModel):
    day: Time = pa.Field(metadata={"role": "event_time"})
    school: bool


class Airports(pa.DataFrameModel):
    code: str
    opened: pl.Date = pa.Field(nullable=True)
    zone: str = pa.Field(nullable=True, alias="it's a \\"zone\\"")
"""
FEATURES = """
import polars as pl

FEATURES = [
    pl.col("km"),
    pl.col("weather_wind"),
    pl.col("weather_gusts"),
    pl.col("airports_opened").dt.year(),
    pl.col('airports_it\\'s a "zone"').alias("zone"),
    pl.col("school_off_school"),
]
"""
SIDE = {
    "weather": {"contract": "contract.Weather", "by": {"origin": "station"}, "lag": "1h", "tolerance": "7h"},
    "airports": {"contract": "contract.Airports", "by": {"origin": "code"}},
    "school_off": {"contract": "contract.Holidays", "lag": "6h", "tolerance": "2d"},
}
GROUPS = {
    "past": {"entity": "carrier", "windows": ["1d", "2d"], "aggregates": {"km": ["count", "mean"]}},
    "pairs": {"entity": ["origin", "carrier"], "windows": ["2d"], "aggregates": {"late": ["share"]}, "delay": "2h"},
}


def at(day: int, hour: float = 0) -> datetime:
    """Hours after the beginning of a day of January."""
    return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day - 1, hours=hour)


@dataclass
class Trips:
    """A folder with the model, what arrived for it and its tables."""

    root: Path
    spec: dict[str, Any] = field(default_factory=dict)
    name: str = "trips"
    sides: tuple[str, ...] = tuple(SIDE)
    groups: tuple[str, ...] = tuple(GROUPS)

    def model(self) -> Model:
        """Loaded with the side tables and groups that it has now, and the features that read them."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "contract.py").write_text(CONTRACT)
        left_out = [f"{name}_" for name in SIDE if name not in self.sides]
        lines = [line for line in FEATURES.splitlines() if not any(each in line for each in left_out)]
        (self.root / "features.py").write_text("\n".join(lines))
        source = {"kind": "files", "uri": f"{self.root}/trips.parquet", "batch": "day", "start": "2025-01-01"}
        spec = {
            "name": self.name,
            "task": "binary",
            "contract": "contract.Trips",
            "features": "features.FEATURES",
            "source": source | {"end": "2025-01-04"},
            "lookups": [
                SIDE[name] | {"name": name, "source": {"kind": "files", "uri": f"{self.root}/{name}.parquet"}}
                for name in self.sides
            ],
            "groups": [GROUPS[name] | {"name": name} for name in self.groups],
        }
        return load_model(ModelSpec.model_validate(spec | self.spec), self.root)

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "lake")

    def land(self) -> None:
        """Four days of trips and their side tables, made by the model's assets."""
        self.root.mkdir(parents=True, exist_ok=True)
        trips = [
            (f"{day}{origin}{carrier}", at(day, 12), origin, carrier, float(day * carrier), day % 2 == 0)
            for day in range(1, 5)
            for origin in ("JFK", "LHR")
            for carrier in (1, 2)
        ]
        self._put("trips", trips, ["trip", "at", "origin", "carrier", "km", "late"])
        weather = [
            (at(day, hour), station, float(day) + hour / 8 if hour else None, day)
            for day in range(1, 5)
            for hour in (0, 3, 9)
            for station in ("JFK", "LHR")
        ]
        self._put("weather", weather, ["read_at", "station", "wind", "gusts"])
        self._put(
            "airports",
            [("JFK", date(1948, 7, 1), "north"), ("LHR", None, "south"), ("CDG", date(1974, 3, 8), None)],
            ["code", "opened", 'it\'s a "zone"'],
        )
        self._put("school_off", [(at(day), day % 2 == 0) for day in range(1, 5)], ["day", "school"])
        refresh(self.model(), self.lake)

    def _put(self, name: str, rows: list[Any], columns: list[str]) -> None:
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        kinds = {"wind": pl.Float32, "gusts": pl.Int16}
        frame.cast({each: kind for each, kind in kinds.items() if each in columns}).write_parquet(  # type: ignore[arg-type]
            self.root / f"{name}.parquet"
        )
