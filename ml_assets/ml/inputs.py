"""Features as a fitted Pipeline takes them. What serves a Pipeline needs this, and nothing of training."""

from typing import TYPE_CHECKING

import polars as pl

from ml_assets.ml.features import MISSING

if TYPE_CHECKING:
    import pandas as pd


def model_inputs(features: pl.DataFrame) -> "pd.DataFrame":
    """Features as the Pipeline takes them: numbers as float64 with NaN for null, texts with a category for null."""
    return features.with_columns(pl.col(pl.String).fill_null(MISSING)).to_pandas()
