"""Orders, 100,000 of them in one file."""

from typing import Annotated

import pandera.polars as pa
import polars as pl

UtcTime = Annotated[pl.Datetime, "us", "UTC"]
REQUEST = {"role": "request"}


class Orders(pa.DataFrameModel):
    """Orders of a delivery service."""

    order_id: str = pa.Field(metadata={"role": "key"})
    ordered_at: UtcTime = pa.Field(metadata={"role": "event_time"})
    zone: str = pa.Field(nullable=True, metadata=REQUEST)
    vehicle: str = pa.Field(nullable=True, metadata=REQUEST)
    weather: str = pa.Field(nullable=True, metadata=REQUEST)
    kitchen: str = pa.Field(nullable=True, metadata=REQUEST)
    payment: str = pa.Field(nullable=True, metadata=REQUEST)
    distance_km: float = pa.Field(gt=0, le=100, nullable=True, metadata=REQUEST)
    items: int = pa.Field(ge=1, metadata=REQUEST)
    order_value: float = pa.Field(gt=0, metadata=REQUEST)
    preparation_minutes: float = pa.Field(nullable=True, metadata=REQUEST)
    promised_minutes: float = pa.Field(metadata=REQUEST)
    temperature: float = pa.Field(nullable=True, metadata=REQUEST)
    rain_mm: float = pa.Field(nullable=True, metadata=REQUEST)
    courier_load: float = pa.Field(metadata=REQUEST)
    restaurant_load: float = pa.Field(metadata=REQUEST)
    late: bool = pa.Field(metadata={"role": "target"})
