"""What the prediction log keeps of an answer besides its bytes, and of a refusal without any value of the request."""

import re
from typing import Any

import polars as pl

from ml_assets.feature_store.types import stored_type
from ml_assets.serving.bundle import Manifest

_NAMED = re.compile(r"row \d+: (?:column|feature) '([^']{1,200})'")  # how messages about a row begin


def reason_of(error: Exception, manifest: Manifest) -> tuple[str, str | None]:
    """The kind of an error, and the column or feature that it is about.

    A message quotes values, and an unknown column is a text of the caller's: only names that the release has are kept.
    """
    found = _NAMED.match(str(error))
    known = {column.name for column in manifest.inputs} | {each["name"] for each in manifest.features["features"]}
    column = found[1] if found and found[1] in known else None
    return type(error).__name__, column


def kept(looked_up: pl.DataFrame | None) -> list[list[Any]] | None:
    """Looked-up columns as lists of plain values, as the online store keeps them: every bit of them."""
    if looked_up is None:
        return None
    return [series.cast(stored_type(series.dtype)).to_list() for series in looked_up]


def restored(columns: list[list[Any]], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """What `kept` was given, its columns having this schema."""
    return pl.DataFrame(
        [
            pl.Series(name, values, dtype=stored_type(kind), strict=True).cast(kind)
            for values, (name, kind) in zip(columns, schema.items(), strict=True)
        ]
    )
