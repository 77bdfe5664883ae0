"""Digests of content, not of files: equal values give equal digests in any process, file layout or row order given.

Skipping unchanged work, data versions, verdicts and releases all compare what these functions return.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON-like value in canonical form: sorted keys, no spaces, dates as text."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Sets in one order, which differs from process to process; anything else as text."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain, ensure_ascii=False)


def digest_of_frame(frame: pl.DataFrame) -> str:
    """SHA-256 (hex) of a table's columns, types and values, in the given row order and in sorted column order."""
    sha = hashlib.sha256(f"{frame.height}".encode())
    for name in sorted(frame.columns):
        series = frame.get_column(name)
        sha.update(f"\0{name}\0{series.dtype}\0".encode())
        nulls = series.null_count()
        sha.update(np.packbits(series.is_null().to_numpy()).tobytes() if nulls else b"complete")
        if series.dtype == pl.Null:
            continue
        if series.dtype == pl.Boolean or series.dtype.is_numeric() or series.dtype.is_temporal():
            physical = series.to_physical()
            physical = physical.fill_null(False if series.dtype == pl.Boolean else 0) if nulls else physical
            sha.update(np.ascontiguousarray(physical.to_numpy()).data)
        else:
            text = series.cast(pl.String)
            for part in _text_buffers(text.fill_null("") if nulls else text):
                sha.update(part)
    return sha.hexdigest()


def _text_buffers(texts: pl.Series) -> tuple[Any, Any]:
    """Where each text ends, and all texts one after the other, without a copy into Python."""
    array = texts.rechunk().to_arrow().cast("large_string")
    if not len(array):
        return b"", b""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.ascontiguousarray(ends - ends[0]), (memoryview(data)[ends[0] : ends[-1]] if data is not None else b"")


def digest_of_fitted(estimator: Any) -> str:
    """SHA-256 (hex) of what a fitted scikit-learn object has learnt: parameters, arrays, trees.

    Serialised files differ at every dump, so this walks the object's state instead. `n_jobs`, which changes how long a
    prediction takes and not what it is, is left out.
    """
    sha = hashlib.sha256()
    _feed(sha, estimator)
    return sha.hexdigest()


def digest_of_model(pipeline: Any, threshold: float | None) -> str:
    """SHA-256 (hex) of all that a model's answers come from: what its Pipeline has learnt, and its threshold."""
    return digest_of([digest_of_fitted(pipeline), threshold])


def _feed(sha: Any, value: Any) -> None:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    sha.update(f"<{kind}>".encode())
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        sha.update(repr(value).encode())
    elif isinstance(value, np.ndarray):
        sha.update(f"{value.dtype.str if value.dtype.names is None else value.dtype.names}{value.shape}".encode())
        if value.dtype.names is not None:  # structured rows have padding bytes of no meaning
            for name in value.dtype.names:
                sha.update(np.ascontiguousarray(value[name]).tobytes())
        elif value.dtype == object:
            for item in value.ravel().tolist():
                _feed(sha, item)
        else:
            sha.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            if key != "n_jobs":
                _feed(sha, key)
                _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        sha.update(f"{len(value)}".encode())
        for item in value:
            _feed(sha, item)
    elif isinstance(value, set | frozenset):
        for item in sorted(value, key=repr):
            _feed(sha, item)
    elif isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        sha.update(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        state = value.__getstate__()
        _feed(sha, state if state is not None else {})
