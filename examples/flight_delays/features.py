"""What is known an hour before departure."""

import polars as pl

FEATURES = [
    pl.col("carrier"),
    pl.col("origin"),
    pl.col("dest"),
    pl.col("distance"),
    (pl.col("sched_dep_time") // 100 * 60 + pl.col("sched_dep_time") % 100).alias("departure_minute"),
    pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.weekday().alias("weekday"),
    pl.col("weather_temp"),
    pl.col("weather_humid"),
    pl.col("weather_wind_speed"),
    pl.col("weather_precip"),
    pl.col("weather_pressure"),
    pl.col("weather_visib"),
]
