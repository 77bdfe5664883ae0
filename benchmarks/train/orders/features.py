"""What the model sees of an order."""

import polars as pl

FEATURES = [
    *(
        pl.col(name)
        for name in (
            *("distance_km", "items", "order_value", "preparation_minutes", "promised_minutes", "temperature"),
            *("rain_mm", "courier_load", "restaurant_load", "zone", "vehicle", "weather", "kitchen", "payment"),
        )
    ),
    (pl.col("order_value") / pl.col("items")).alias("value_per_item"),
    (pl.col("promised_minutes") / pl.col("distance_km")).alias("minutes_per_km"),
    pl.col("ordered_at").dt.hour().cast(pl.Float64).alias("hour"),
    pl.col("ordered_at").dt.weekday().cast(pl.String).alias("weekday"),
]
