"""From the JSON of an API to rows: the list of objects within it, and their columns without loss."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ml_assets.errors import SourceError

_WHOLE = 2**53  # largest whole number below which a float holds each of them
_INT64 = range(-(2**63), 2**63)


def rows_at(document: Any, path: str | None, where: str) -> list[dict[str, Any]]:
    """The list of objects at a dotted path, such as `data.items`; the document itself for None.

    Raises:
        SourceError: if there is anything else; it names what.
    """
    found, at = document, "at its top"
    walked: list[str] = []
    for name in path.split(".") if path else []:
        if not isinstance(found, Mapping) or name not in found:
            raise SourceError(f"{where}: nothing at {path!r}; {at} is {described(found)}; mend source.records")
        walked.append(name)
        found, at = found[name], f"at {'.'.join(walked)!r}"
    if not isinstance(found, list):
        raise SourceError(f"{where}: no list of rows {at}, but {described(found)}; set source.records to the list")
    for number, row in enumerate(found):
        if not isinstance(row, dict):
            raise SourceError(f"{where}: row {number} {at} is no object, but {described(row)}; mend source.records")
    return found


def text_at(document: Any, path: str, where: str) -> str | None:
    """The text at a dotted path; None if there is nothing or null.

    Raises:
        SourceError: if there is anything but a text.
    """
    found = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is not None and not isinstance(found, str):
        raise SourceError(f"{where}: at {path!r} is {described(found)} and no address; mend source.next")
    return found or None


def described(value: Any) -> str:
    """A JSON value for a message: what it is, and never what it says."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    kinds = {str: "a text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return kinds[type(value)]


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame, one column per name in order of first appearance; a missing name is null.

    A column is Boolean, Int64 or Float64 where all its values are, and Float64 for whole and broken numbers together
    if that loses nothing; else text: what is nested as JSON, and other values as JSON writes them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])


def _column(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(each) for each in values if each is not None}
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds == {int} and all(each in _INT64 for each in values if each is not None):
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds == {float} or (kinds == {int, float} and all(abs(each) <= _WHOLE for each in values if type(each) is int)):
        floats = [None if each is None else float(each) for each in values]
        return pl.Series(name, floats, dtype=pl.Float64)
    texts = [each if each is None or isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in values]
    return pl.Series(name, texts, dtype=pl.String)
