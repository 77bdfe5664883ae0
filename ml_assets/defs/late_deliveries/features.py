"""What the model sees of an order: each line is one feature, a function of the order's own columns."""

import polars as pl

hour = pl.col("ordered_at").dt.hour() + pl.col("ordered_at").dt.minute() / 60

FEATURES = [
    pl.col("zone"),
    pl.col("vehicle"),
    pl.col("weather"),
    pl.col("distance_km"),
    pl.col("items"),
    pl.col("order_value"),
    pl.col("preparation_minutes"),
    pl.col("promised_minutes"),
    pl.col("new_customer"),
    hour.alias("hour"),
    (hour - 19).abs().alias("hours_from_dinner_peak"),
    pl.col("ordered_at").dt.weekday().alias("weekday"),
    (pl.col("promised_minutes") - pl.col("preparation_minutes")).alias("minutes_to_ride"),
    (pl.col("distance_km") / (pl.col("promised_minutes") - pl.col("preparation_minutes"))).alias("speed_needed"),
    (pl.col("order_value") / pl.col("items")).alias("value_per_item"),
]
