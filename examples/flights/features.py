"""What is known an hour before departure. Not whether there is a tail number: a flight without one is cancelled."""

import pandas as pd
import polars as pl

local = pl.col("time_hour").dt.convert_time_zone("America/New_York")


def minutes(clock: str) -> pl.Expr:
    """Minutes since midnight of a clock time written as HHMM."""
    return pl.col(clock) // 100 * 60 + pl.col(clock) % 100


FEATURES = [
    pl.col("carrier"),
    pl.col("origin"),
    pl.col("dest"),
    pl.col("distance"),
    minutes("sched_dep_time").alias("departure_minute"),
    minutes("sched_arr_time").alias("arrival_minute"),
    (minutes("sched_arr_time") - minutes("sched_dep_time")).alias("clock_minutes"),
    local.dt.weekday().alias("weekday"),
    pl.col("weather_temp"),
    pl.col("weather_dewp"),
    pl.col("weather_humid"),
    pl.col("weather_wind_speed"),
    pl.col("weather_wind_gust").fill_null(0).alias("gust"),
    pl.col("weather_precip"),
    pl.col("weather_pressure"),
    pl.col("weather_visib"),
    pl.col("destination_lat"),
    pl.col("destination_lon"),
    (2013 - pl.col("plane_year")).alias("plane_age"),
    pl.col("plane_seats"),
]


def clean(df: pd.DataFrame) -> pd.DataFrame:
    """The target: late is more than 15 minutes; not known for cancelled and diverted flights."""
    return df.assign(late=(df["arr_delay"] > 15).astype("boolean").mask(df["arr_delay"].isna()))
