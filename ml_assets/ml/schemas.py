"""Pandera schemas of the tables that the platform makes, derived from the contract and the features."""

import pandera.polars as pa
import polars as pl

from ml_assets.contract import Contract
from ml_assets.feature_store.online import ENTITY, VALUES
from ml_assets.ml.features import Features
from ml_assets.ml.fed_back import SCORED_BY
from ml_assets.ml.groups import Group
from ml_assets.ml.joins import AVAILABLE_AT
from ml_assets.ml.lookups import Lookup
from ml_assets.ml.training import KNOWN_AT

REJECTED = pa.DataFrameSchema(
    {
        "_source": pa.Column(pl.String, description="Batch that the row arrived in"),
        "_row": pa.Column(pl.Int64, pa.Check.ge(0), description="Row number in the batch"),
        "reasons": pa.Column(pl.String, pa.Check.str_startswith("[{"), description="column, check, value, as JSON"),
        "row": pa.Column(pl.String, pa.Check.str_startswith("{"), description="The row as it arrived, as JSON"),
    },
    description="Rows that break the contract, with every reason.",
)

ONLINE = pa.DataFrameSchema(
    {
        ENTITY: pa.Column(pl.String, pa.Check.str_startswith("{"), description="Columns of the key, as JSON"),
        AVAILABLE_AT: pa.Column(pl.Datetime("us", "UTC"), description="From when on the values can be used"),
        VALUES: pa.Column(pl.String, pa.Check.str_startswith("{"), description="Columns of the view, as JSON"),
    },
    description="What the online store holds, one line per entity of each side table and group.",
)

METRICS = pa.DataFrameSchema(
    {
        "version": pa.Column(pl.String),
        "rows": pa.Column(pl.String, pa.Check.isin(["test", "validation"]), description="Which held-out rows"),
        "slice": pa.Column(pl.String, description="Which part of them: a column's value, or all"),
        "metric": pa.Column(pl.String),
        "value": pa.Column(pl.Float64, nullable=True),
        "low": pa.Column(pl.Float64, nullable=True, description="Of the 95% interval; of slices, of all together"),
        "high": pa.Column(pl.Float64, nullable=True),
        "count": pa.Column(pl.Int64, pa.Check.ge(1), description="Number of rows measured on"),
    },
    unique=["rows", "slice", "metric"],
    description="Metrics on rows that the model was not trained on.",
)


def outcomes_schema(contract: Contract, key: list[str]) -> pa.DataFrameSchema:
    """Key, outcome columns as the contract has them, and when each became known."""
    columns = {name: pa.Column(contract.types.get(name, pl.String)) for name in key}
    columns |= {
        name: pa.Column(contract.types[name], checks=column.checks, nullable=column.nullable)
        for name, column in contract.schema.columns.items()
        if name in contract.having("outcome", "target")
    }
    columns[KNOWN_AT] = pa.Column(pl.Datetime("us", "UTC"), nullable=True)
    return pa.DataFrameSchema(columns, description="What became known after the event, and when.")


def features_schema(contract: Contract, features: Features, weights: str | None) -> pa.DataFrameSchema:
    """Key, entities, event time and the rows' weights, and each feature: a finite number or a text, or null."""
    carried = contract.carried_with(weights)
    own = {name: pa.Column(kind, nullable=name not in contract.key) for name, kind in carried.items()}
    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite", error="finite")
    computed = {
        name: pa.Column(kind, checks=[finite] if kind == pl.Float64 else None, nullable=True)
        for name, kind in features.types.items()
        if name not in own
    }
    return pa.DataFrameSchema(own | computed, description="Features of each cleaned row; no outcome is among them.")


def lookup_schema(lookup: Lookup) -> pa.DataFrameSchema:
    """The side table's contract, and from when on a row can be used."""
    return lookup.contract.schema.add_columns({AVAILABLE_AT: pa.Column(pl.Datetime("us", "UTC"))})


def group_schema(group: Group) -> pa.DataFrameSchema:
    """Entity, from when on its values can be used, and the values."""
    known = {name: pa.Column(kind) for name, kind in group.schema.items() if name not in group.columns}
    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite", error="finite")
    values = {
        name: pa.Column(
            kind, checks=[finite] if kind == pl.Float64 else pa.Check.ge(0), nullable=name not in group.counts
        )
        for name, kind in group.columns.items()
    }
    return pa.DataFrameSchema(
        known | values, unique=[*group.entity, AVAILABLE_AT], description="Aggregates of each entity's past rows."
    )


def training_schema(
    contract: Contract, features: Features, weights: str | None, *, fed_back: bool = False
) -> pa.DataFrameSchema:
    """The features' columns, a target that is never null, and when it became known.

    Args:
        fed_back: whether predictions are among the rows.
    """
    schema = features_schema(contract, features, weights)
    target = pa.Column(contract.types[contract.target], nullable=False)
    more = {contract.target: target, KNOWN_AT: pa.Column(pl.Datetime("us", "UTC"), nullable=True)}
    if fed_back:
        more[SCORED_BY] = pa.Column(pl.String, nullable=True, description="Version that predicted it first; no feature")
    return schema.add_columns(more)


def answers_schema(task: str) -> pa.DataFrameSchema:
    """The endpoint's answers to golden rows."""
    if task == "regression":
        return pa.DataFrameSchema({"value": pa.Column(pl.Float64)}, description="Answers to the golden rows.")
    probability = pa.Column(pl.Float64, pa.Check.in_range(0, 1), description="Of the label, or of the positive class")
    return pa.DataFrameSchema(
        {"label": pa.Column(pl.String), "score": probability}, description="Answers to the golden rows."
    )
