"""How the columns of a batch differ from the contract: what is missing, and what is new or of another type."""

import difflib
from collections.abc import Sequence

import polars as pl

from ml_assets.contract import Contract


def lacking(contract: Contract, columns: Sequence[str]) -> str | None:
    """Why a batch with these columns cannot be taken, as the rest of a sentence about it; None if none is missing."""
    missing = [name for name in contract.types if name not in columns]
    if not missing:
        return None
    told = [_perhaps(name, contract, columns) for name in missing]
    return (
        f"lacks the column {', '.join(told)} of the contract; it has {', '.join(columns)}. Nothing of it was written: "
        "mend the file, or the contract if the column is gone for good"
    )


def drift_of(contract: Contract, frame: pl.DataFrame) -> list[str]:
    """Differences of a batch, as it arrived, from the contract; sentences for people. None of them refuses it."""
    said = []
    if new := [name for name in frame.columns if name not in contract.types]:
        said.append(f"new column {', '.join(map(repr, new))}: kept in raw_data as text, part of no cleaned row")
    common = [name for name in frame.columns if name in contract.types]
    if common != [name for name in contract.types if name in common]:
        said.append(f"columns in another order than the contract's: {', '.join(common)}")
    if all(kind == pl.String for kind in frame.schema.values()):
        return said  # a format without types
    for name in common:
        there, kind = frame.schema[name], contract.types[name]
        if there == pl.String and kind.is_numeric():
            said.append(f"column {name!r} arrived as text, the contract says {kind}: its numbers were read from text")
        elif there not in (kind, pl.Null):
            said.append(f"column {name!r} arrived as {there}, the contract says {kind}: converted without loss")
    return said


def _perhaps(name: str, contract: Contract, columns: Sequence[str]) -> str:
    """A missing column, with the unknown one that stands in its place or is spelt nearly as it is."""
    unknown = {_plain(each): each for each in columns if each not in contract.types}
    near = difflib.get_close_matches(_plain(name), unknown, n=1, cutoff=0.75)
    position = list(contract.types).index(name)
    if near:
        new = unknown[near[0]]
    elif len(columns) >= len(contract.types) and columns[position] in unknown.values():
        new = columns[position]
    else:
        return repr(name)
    return f"{name!r} (perhaps renamed to {new!r})"


def _plain(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())
