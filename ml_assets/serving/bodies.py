"""From a request's bytes to rows: JSON or CSV, within limits."""

import csv
import io
from typing import Any, NamedTuple

import msgspec

from ml_assets.errors import InvalidRequestError, MlAssetsError
from ml_assets.serving.bundle import Input
from ml_assets.serving.ids import require_ids
from ml_assets.serving.options import Options

JSON, CSV = "application/json", "text/csv"


class TooLargeError(MlAssetsError):
    """A request that is larger than this server takes."""

    status = 413


class UnsupportedError(MlAssetsError):
    """A body of a kind that is not read here."""

    status = 415


class GoneError(MlAssetsError):
    """The caller went away before its request was whole."""

    status = 400


async def read_body(receive: Any, headers: dict[bytes, bytes], most: int) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: as soon as it is known to have more than `most` bytes.
        GoneError: if the caller goes away.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        raise TooLargeError(f"the body has {int(length):,} bytes; this server takes {most:,}")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError("the caller went away")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise TooLargeError(f"the body has more than {most:,} bytes, which is what this server takes")
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class Sent(NamedTuple):
    """A request's rows, with what may be sent along.

    Attributes:
        looked_up: what was looked up for them before.
        ids: the caller's id of each, or null.
    """

    rows: list[Any]
    looked_up: Any = None
    ids: list[Any] | None = None


def rows_of_json(body: bytes, options: Options) -> Sent:
    """Rows of `{"rows": [...]}`, and `ids` and `looked_up`, if they are sent along.

    Raises:
        InvalidRequestError: if it is something else.
        TooLargeError: if it has more rows, or is nested deeper, than can be read.
    """
    try:
        sent = msgspec.json.decode(body)
    except RecursionError:
        raise TooLargeError("the body is nested too deeply; a row holds plain values only") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is no JSON: {error}") from None
    if not isinstance(sent, dict) or not {"rows"} <= sent.keys() <= {"rows", "ids", "looked_up"}:
        raise InvalidRequestError('send {"rows": [{column: value, ...}, ...]}')
    rows = sent["rows"]
    if not isinstance(rows, list) or not rows:
        raise InvalidRequestError('send {"rows": [{column: value, ...}, ...]} with one row at least')
    _few_enough(rows, options)
    ids = sent.get("ids")
    return Sent(rows, sent.get("looked_up"), None if ids is None else require_ids(ids, len(rows)))


def rows_of_csv(body: bytes, inputs: list[Input], options: Options) -> list[Any]:
    """Rows of CSV: with a header, or else with the columns that the model needs in the contract's order. An empty field
    of a number, time or truth value is null.

    Raises:
        InvalidRequestError: naming row, column and value, or if it is no CSV.
        TooLargeError: if it has more rows than this server takes.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode()), strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is no CSV: {error}") from None
    known = {column.name: column for column in inputs}
    names = [column.name for column in inputs if column.needed]
    if lines and set(lines[0]) <= known.keys():
        names, lines = lines[0], lines[1:]
    if not lines:
        raise InvalidRequestError("the CSV has no row")
    _few_enough(lines, options)
    rows = []
    for number, line in enumerate(lines):
        if len(line) != len(names):
            raise InvalidRequestError(
                f"row {number}: {len(line)} fields for {len(names)} columns; send {', '.join(names)} in this order, or "
                "a header"
            )
        rows.append({name: _value(text, known[name], number) for name, text in zip(names, line, strict=True)})
    return rows


def _few_enough(rows: list[Any], options: Options) -> list[Any]:
    if len(rows) > options.max_rows:
        raise TooLargeError(f"{len(rows):,} rows; this server takes {options.max_rows:,} at once")
    return rows


def _value(text: str, column: Input, number: int) -> Any:
    if column.type in ("String", "Date", "Datetime"):
        return text
    text = text.strip()
    if not text:
        return None
    try:
        if column.type == "Boolean":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return float(text) if column.type.startswith("Float") else int(text)
    except (ValueError, KeyError):
        raise InvalidRequestError(
            f"row {number}: column {column.name!r} is {text!r:.80}, not a {column.type}"
        ) from None


def csv_of(answers: list[dict[str, Any]]) -> bytes:
    """Answers as CSV with a header; of several classes a score each."""
    flat = [
        {name: value for name, value in each.items() if name not in ("scores", "missing")}
        | {f"score_{label}": score for label, score in each.get("scores", {}).items()}
        for each in answers
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue().encode()
