"""What an order looks like, which columns say what, and which values are possible."""

from typing import Annotated

import pandera.polars as pa
import polars as pl

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Orders(pa.DataFrameModel):
    """Orders of a delivery service, and whether they came late."""

    order_id: str = pa.Field(metadata={"role": "key"})
    ordered_at: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]})
    restaurant_id: str = pa.Field(metadata={"role": "entity"})
    courier_id: str = pa.Field(nullable=True, metadata={"role": "entity"})
    zone: str = pa.Field(isin=["centre", "north", "south", "east", "harbour"], metadata={"role": "request"})
    vehicle: str = pa.Field(isin=["bike", "scooter", "car"], metadata={"role": "request"})
    weather: str = pa.Field(isin=["dry", "rain", "snow"], nullable=True, metadata={"role": "request"})
    distance_km: float = pa.Field(gt=0, le=100, nullable=True, metadata={"role": "request"})
    items: int = pa.Field(ge=1, metadata={"role": "request"})
    order_value: float = pa.Field(gt=0, metadata={"role": "request"})
    preparation_minutes: float = pa.Field(ge=0, le=240, metadata={"role": "request"}, description="As estimated")
    promised_minutes: float = pa.Field(gt=0, metadata={"role": "request"}, description="As told to the customer")
    new_customer: bool = pa.Field(metadata={"role": "request"})
    reported_at: UtcTime = pa.Field(metadata={"role": "known_at"})
    minutes_late: float = pa.Field(nullable=True, metadata={"role": "outcome"}, description="Negative: early")
    late: bool = pa.Field(nullable=True, metadata={"role": "target"}, description="After the promised time")
