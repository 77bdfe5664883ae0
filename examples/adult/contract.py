"""Rows of the UCI Adult data (a census extract of 1994), as they come: blanks before texts, `?` for missing."""

import pandera.polars as pa

REQUEST = {"role": "request"}


class Adult(pa.DataFrameModel):
    """People and whether they earn more than 50,000 dollars a year."""

    age: int = pa.Field(ge=16, le=120, metadata=REQUEST)
    workclass: str = pa.Field(nullable=True, metadata=REQUEST)
    fnlwgt: int = pa.Field(gt=0, metadata=REQUEST, description="Survey weight")
    education: str = pa.Field(metadata=REQUEST)
    education_num: int = pa.Field(ge=1, le=16, metadata=REQUEST)
    marital_status: str = pa.Field(metadata=REQUEST)
    occupation: str = pa.Field(nullable=True, metadata=REQUEST)
    relationship: str = pa.Field(metadata=REQUEST)
    race: str = pa.Field(metadata=REQUEST)
    sex: str = pa.Field(metadata=REQUEST)
    capital_gain: int = pa.Field(ge=0, metadata=REQUEST)
    capital_loss: int = pa.Field(ge=0, metadata=REQUEST)
    hours_per_week: int = pa.Field(ge=1, le=99, metadata=REQUEST)
    native_country: str = pa.Field(nullable=True, metadata=REQUEST)
    # The second file ends its labels with a dot; clean(df) takes it off.
    income: str = pa.Field(isin=["<=50K", ">50K", "<=50K.", ">50K."], metadata={"role": "target"})
