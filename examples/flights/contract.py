"""Departures from New York, as the airlines and airports know them; what happened afterwards is marked as outcome."""

from typing import Annotated

import pandera.polars as pa
import polars as pl

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Flights(pa.DataFrameModel):
    """Domestic departures from EWR, JFK and LGA."""

    time_hour: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]}, description="Scheduled hour of departure")
    carrier: str = pa.Field(metadata={"role": ["key", "entity"]})
    flight: int = pa.Field(ge=1, metadata={"role": "key"})
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"], metadata={"role": ["key", "entity"]})
    dest: str = pa.Field(metadata={"role": "request"})
    tailnum: str = pa.Field(nullable=True, metadata={"role": "request"}, description="Which plane")
    distance: int = pa.Field(gt=0, metadata={"role": "request"}, description="Statute miles")
    sched_dep_time: int = pa.Field(ge=0, le=2400, metadata={"role": "request"}, description="Local clock, HHMM")
    sched_arr_time: int = pa.Field(
        ge=0, le=2400, nullable=True, metadata={"role": "request"}, description="Local clock, HHMM"
    )
    dep_time: int = pa.Field(ge=1, le=2400, nullable=True, metadata={"role": "outcome"})
    arr_time: int = pa.Field(ge=1, le=2400, nullable=True, metadata={"role": "outcome"})
    dep_delay: int = pa.Field(nullable=True, metadata={"role": "outcome"}, description="Minutes, negative is early")
    arr_delay: int = pa.Field(nullable=True, metadata={"role": "outcome"}, description="Minutes, negative is early")
    air_time: int = pa.Field(nullable=True, metadata={"role": "outcome"}, description="Minutes")
    late: bool = pa.Field(
        nullable=True, metadata={"role": "target", "derived": True}, description="Over 15 minutes late"
    )


class Weather(pa.DataFrameModel):
    """Hourly observations at the three airports. Of two with the same hour, such as a correction, the later counts."""

    time_hour: UtcTime = pa.Field(metadata={"role": "event_time"})
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    temp: float = pa.Field(ge=-60, le=130, nullable=True, description="Fahrenheit")
    dewp: float = pa.Field(ge=-80, le=130, nullable=True, description="Fahrenheit")
    humid: float = pa.Field(ge=0, le=101, nullable=True, description="Percent")
    wind_speed: float = pa.Field(ge=0, le=150, nullable=True, description="mph")
    wind_gust: float = pa.Field(ge=0, le=200, nullable=True, description="mph; null: no gust")
    precip: float = pa.Field(ge=0, nullable=True, description="Inches")
    pressure: float = pa.Field(ge=900, le=1100, nullable=True, description="mbar")
    visib: float = pa.Field(ge=0, nullable=True, description="Miles")


class Airports(pa.DataFrameModel):
    """Where an airport lies."""

    faa: str
    lat: float = pa.Field(ge=-90, le=90)
    lon: float = pa.Field(ge=-180, le=180)


class Planes(pa.DataFrameModel):
    """What the registry knows of a plane. American and Envoy report fleet numbers, which are not in it."""

    tailnum: str
    year: int = pa.Field(ge=1940, nullable=True, description="When it was built")
    seats: int = pa.Field(gt=0, nullable=True)
