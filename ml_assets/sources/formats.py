"""From the bytes of one object to its rows: Parquet, CSV and JSON Lines, plain or packed with gzip or zstd."""

import codecs
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from ml_assets.errors import BatchContentError, SourceError
from ml_assets.spec.sources import AnySource

_FORMATS = {"parquet": "parquet", "csv": "csv", "tsv": "csv", "data": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}
_PACKED = (".gz", ".zst")


def format_of(name: str) -> str | None:
    """The format that a file's ending tells, below `.gz` or `.zst`; None if it tells none.

    >>> format_of("orders/2025-01-31.csv.gz")
    'csv'
    """
    last = name.rsplit("/", 1)[-1].lower()
    for packed in _PACKED:
        last = last.removesuffix(packed)
    endings = last.rsplit(".", 1)
    return _FORMATS.get(endings[-1]) if len(endings) > 1 else None


def read_rows(
    content: bytes | Path, form: str, spec: AnySource, columns: Sequence[str] | None, where: str
) -> pl.DataFrame:
    """The rows of one object: CSV as text, exactly as written; Parquet and JSON Lines with their own types.

    Args:
        columns: read only these, where the format allows it.
        where: model, source and object, for messages.

    Raises:
        BatchContentError: if the object is empty, damaged, or not of the form.
    """
    try:
        frame = _read(content, form, spec, columns)
    except pl.exceptions.NoDataError:
        raise BatchContentError(f"{where} is empty; remove it or land it again") from None
    except pl.exceptions.ColumnNotFoundError as error:
        missing = str(error).splitlines()[0]
        raise BatchContentError(
            f"{where} lacks a column of the contract: {missing}; mend the file, or the contract"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        encoding = codecs.lookup(spec.csv_options.encoding if form == "csv" else error.encoding).name
        raise BatchContentError(
            f"{where} is not written in {encoding}: line {line} holds {error.object[error.start : error.end]!r}; "
            "land it again, or set csv.encoding to what it is written in"
        ) from None
    except PermissionError as error:
        raise SourceError(f"{where} may not be read: {error.strerror}; grant this user access") from error
    except (pl.exceptions.PolarsError, OSError, EOFError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BatchContentError(f"{where} cannot be read as {form}: {reason}; land it again") from error
    if frame.is_empty():
        raise BatchContentError(f"{where} is empty: it holds no rows; remove it or land it again")
    return frame


def _read(content: bytes | Path, form: str, spec: AnySource, columns: Sequence[str] | None) -> pl.DataFrame:
    try:
        frame = _READERS[form](content, spec, columns)
    except pl.exceptions.ColumnNotFoundError:
        frame = _READERS[form](content, spec, None)  # there may be blanks around the names
    names = [name.strip() for name in frame.columns]
    doubled = {name for name in names if names.count(name) > 1}
    if form == "csv":  # Polars numbers the second of two columns with one name
        bases = [name.rsplit("_duplicated_", 1)[0].strip() for name in names if "_duplicated_" in name]
        doubled |= {base for base in bases if base in names}
    if doubled:
        raise ValueError(f"two columns have the name {', '.join(map(repr, sorted(doubled)))}")
    frame.columns = names
    return frame if columns is None or columns == names else frame.select(columns)


def _read_csv(content: bytes | Path, spec: AnySource, columns: Sequence[str] | None) -> pl.DataFrame:
    csv = spec.csv_options
    try:
        frame = _parse_csv(content, spec, csv.encoding)
    except pl.exceptions.ComputeError as error:
        if "utf-8" in str(error).lower():
            _unpacked(content).decode(csv.encoding)  # says which byte in which line
        raise
    if csv.columns is not None and frame.width != len(csv.columns):
        raise ValueError(f"{frame.width} columns where source.csv.columns names {len(csv.columns)}")
    if damaged := [name for name in frame.columns if "\ufffd" in name or "\0" in name]:  # Polars lets them pass
        if csv.encoding != "utf8-lossy":
            _unpacked(content).decode(csv.encoding)
        raise ValueError(f"the name of column {damaged[0]!r} has damaged characters; is it in another encoding?")
    return _without_empty_lines(frame, content, csv.encoding)


def _without_empty_lines(frame: pl.DataFrame, content: bytes | Path, encoding: str) -> pl.DataFrame:
    """An empty line is no row, and one of empty fields (`;;;`) is; Polars reads both as nulls."""
    nothing = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    if not nothing.any():
        return frame
    text = _unpacked(content).decode("utf8" if encoding == "utf8-lossy" else encoding, errors="replace")
    lines = sum(not line for line in text.splitlines())
    return frame.filter(~nothing | (nothing.cum_sum() <= max(int(nothing.sum()) - lines, 0)))


def _parse_csv(content: bytes | Path, spec: AnySource, encoding: str) -> pl.DataFrame:
    csv = spec.csv_options
    if encoding not in ("utf8", "utf-8", "utf8-lossy"):
        content = _unpacked(content).decode(encoding).encode()
    return pl.read_csv(
        content,
        has_header=csv.header,
        new_columns=csv.columns,
        separator=csv.separator,
        encoding="utf8-lossy" if encoding == "utf8-lossy" else "utf8",
        infer_schema=False,
    )


def _unpacked(content: bytes | Path) -> bytes:
    content = content.read_bytes() if isinstance(content, Path) else content
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        with pa.input_stream(io.BytesIO(content), compression="zstd") as stream:
            return bytes(stream.read())
    return content


def _read_parquet(content: bytes | Path, spec: AnySource, columns: Sequence[str] | None) -> pl.DataFrame:
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return pl.read_parquet(source, columns=list(columns) if columns is not None else None)


def _read_jsonl(content: bytes | Path, spec: AnySource, columns: Sequence[str] | None) -> pl.DataFrame:
    text = _unpacked(content).removeprefix(codecs.BOM_UTF8)
    try:
        return pl.read_ndjson(text, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        text.decode()  # says which byte in which line, if that is the reason
        raise


_READERS: dict[str, Callable[[bytes | Path, AnySource, Sequence[str] | None], pl.DataFrame]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
}
