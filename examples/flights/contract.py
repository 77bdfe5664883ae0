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
