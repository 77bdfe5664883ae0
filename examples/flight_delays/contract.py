"""Departures from New York, as `flights` knows them, with the delay itself as target."""

from typing import Annotated

import pandera.polars as pa
import polars as pl

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Flights(pa.DataFrameModel):
    """Domestic departures from EWR, JFK and LGA. Other columns of the file are kept in `raw_data` and not used."""

    time_hour: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]}, description="Scheduled hour of departure")
    carrier: str = pa.Field(metadata={"role": ["key", "entity"]})
    flight: int = pa.Field(ge=1, metadata={"role": "key"})
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"], metadata={"role": ["key", "entity"]})
    dest: str = pa.Field(metadata={"role": "request"})
    distance: int = pa.Field(gt=0, metadata={"role": "request"}, description="Statute miles")
    sched_dep_time: int = pa.Field(ge=0, le=2400, metadata={"role": "request"}, description="Local clock, HHMM")
    arr_delay: int = pa.Field(nullable=True, metadata={"role": "target"}, description="Minutes, negative is early")


class Weather(pa.DataFrameModel):
    """Hourly observations at the three airports."""

    time_hour: UtcTime = pa.Field(metadata={"role": "event_time"})
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    temp: float = pa.Field(ge=-60, le=130, nullable=True, description="Fahrenheit")
    humid: float = pa.Field(ge=0, le=101, nullable=True, description="Percent")
    wind_speed: float = pa.Field(ge=0, le=150, nullable=True, description="mph")
    precip: float = pa.Field(ge=0, nullable=True, description="Inches")
    pressure: float = pa.Field(ge=900, le=1100, nullable=True, description="mbar")
    visib: float = pa.Field(ge=0, nullable=True, description="Miles")
