"""What the model sees: work and capital, not race, sex or the survey's weight."""

import pandas as pd
import polars as pl

FEATURES = [
    pl.col("age"),
    pl.col("workclass"),
    pl.col("education_num"),
    pl.col("marital_status"),
    pl.col("occupation"),
    pl.col("relationship"),
    pl.col("capital_gain"),
    pl.col("capital_loss"),
    pl.col("hours_per_week"),
    (pl.col("capital_gain") / pl.col("hours_per_week")).alias("gain_per_hour"),
    (pl.col("native_country") == "United-States").alias("from_united_states"),
]


def clean(df: pd.DataFrame) -> pd.DataFrame:
    """Labels without the dot with which the second file ends them."""
    return df.assign(income=df["income"].str.rstrip("."))
