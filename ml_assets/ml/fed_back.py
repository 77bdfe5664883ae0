"""Predictions as training rows: those whose outcome came, and of which the source has no row.

Of a prediction only what the model saw is taken: features, or request columns to make them anew. Its label and scores
are not; the version that gave them is beside the row, and no feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from ml_assets.ml.features import Features
from ml_assets.ml.feedback import FIRST
from ml_assets.ml.predictions import FEATURE, FEATURES_DIGEST, KEY, REQUEST
from ml_assets.ml.splits import moment_of

SCORED_BY = "_scored_by"  # version that scored a row first; null if none did


@dataclass(frozen=True)
class FedBack:
    """What predictions give to a training.

    Attributes:
        rows: as the table `features` has them, in the order of requests, marked with `_scored_by`.
        scored: key and `_scored_by` of every prediction with a key, the first of each.
        left_out: predictions that the source has no row of and that are no rows for other reasons than that no outcome
            came, by reason.
    """

    rows: pl.DataFrame
    scored: pl.DataFrame
    left_out: dict[str, int] = field(default_factory=dict)

    def mark(self, rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        """Rows of the source, each with the version that scored it first."""
        return rows.join(self.scored, on=list(key), how="left", maintain_order="left")


@dataclass(frozen=True)
class Wanted:
    """What a row of the table `features` is.

    Attributes:
        key: columns by which an outcome finds its row.
        needed: columns without which a row cannot be placed: the whole key, the entities of a split, its weight.
        carried: columns beside the features, with their types.
        request: what a request can say, with types.
        time: when it happened; `zone`: where a day begins.
    """

    key: Sequence[str]
    needed: Sequence[str]
    carried: dict[str, pl.DataType]
    features: Features
    request: dict[str, pl.DataType]
    time: str
    zone: str

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Name and type of each column of a row."""
        return self.carried | {name: kind for name, kind in self.features.types.items() if name not in self.carried}


def fed_back(
    predictions: pl.DataFrame, source: pl.DataFrame, wanted: Wanted, cut_off: datetime | None, delay: timedelta
) -> FedBack:
    """What the first prediction of each key gives.

    A row that happened less than `delay` before the cut-off is left for later: outcomes that come early are not like
    the others. Features are as the model saw them if they were made by today's expressions. Otherwise they are made of
    the request's columns, where these are all that they read; what was looked up then is not to be had any more.

    Args:
        predictions: rows of the table.
        source: rows of the table `features`.
    """
    kinds = {name: wanted.carried[name] for name in wanted.key}
    if predictions.is_empty():
        nothing = pl.DataFrame(schema=wanted.columns | {SCORED_BY: pl.String()})
        return FedBack(nothing, nothing.select(*wanted.key, SCORED_BY))
    keyed = predictions.with_columns(
        pl.col(KEY + name).cast(kind, strict=False).alias(KEY + name) for name, kind in kinds.items()
    ).drop_nulls([KEY + name for name in wanted.key])
    first = keyed.sort(FIRST).unique([KEY + name for name in wanted.key], keep="first", maintain_order=True)
    named = [pl.col(KEY + name).alias(name) for name in wanted.key]
    scored = first.select(*named, pl.col("version").alias(SCORED_BY))
    there = source.select(pl.col(name).alias(KEY + name) for name in wanted.key)
    absent = first.join(there, on=there.columns, how="anti", maintain_order="left")
    rows = _carried(absent, wanted)
    placed = rows.select(pl.all_horizontal(pl.col(name).is_not_null() for name in wanted.needed)).to_series()
    made, features = _features(absent, wanted)
    ripe = pl.repeat(True, rows.height, eager=True)
    if cut_off is not None:
        happened = rows.select(moment_of(wanted.time, rows, wanted.zone)).to_series()
        ripe = (happened <= cut_off - delay).fill_null(False)
    beside = [name for name in features.columns if name not in rows.columns]
    whole = pl.concat([rows, features.select(beside)], how="horizontal").select(list(wanted.columns))
    marked = whole.with_columns(absent.get_column("version").alias(SCORED_BY))
    left_out = {
        "without_place": int((~placed).sum()),
        "not_remade": int((placed & ~made).sum()),
        "not_matured": int((placed & made & ~ripe).sum()),
    }
    return FedBack(marked.filter(placed & made & ripe), scored, left_out)


def _carried(predictions: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    """Key, entities, event time and weight, as far as the requests say them; null where they do not."""
    columns = []
    for name, kind in wanted.carried.items():
        there = next((each for each in (KEY + name, REQUEST + name) if each in predictions.columns), None)
        columns.append(
            pl.Series(name, [None] * predictions.height, dtype=kind)
            if there is None
            else predictions.get_column(there).cast(kind, strict=False).alias(name)
        )
    return pl.DataFrame(columns)


def _features(predictions: pl.DataFrame, wanted: Wanted) -> tuple[pl.Series, pl.DataFrame]:
    """Whether each row's features are to be had, shape (n,), and the features, of which the others mean nothing."""
    features = wanted.features
    number = predictions.height
    digests = predictions.get_column(FEATURES_DIGEST) if FEATURES_DIGEST in predictions.columns else None
    nothing = pl.Series([None] * number, dtype=pl.String)
    same = ((nothing if digests is None else digests) == features.digest).fill_null(False)
    seen = pl.DataFrame(
        [
            predictions.get_column(FEATURE + name).cast(kind, strict=False).alias(name)
            if FEATURE + name in predictions.columns
            else pl.Series(name, [None] * number, dtype=kind)
            for name, kind in features.types.items()
        ]
    )
    if same.all() or any(REQUEST + name not in predictions.columns for name in features.inputs):
        return same, seen
    inputs = pl.DataFrame(
        predictions.get_column(REQUEST + name).cast(wanted.request[name], strict=False).alias(name)
        for name in features.inputs
    )
    # A column that an older release did not ask for is null, and so is one that a caller left out: nobody knows which.
    complete = inputs.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
    anew = features.compute(inputs)
    return same | complete, pl.DataFrame([seen[name].zip_with(same, anew[name]) for name in features.names])
