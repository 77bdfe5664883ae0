"""The form in which a release stores a feature: JSON of our own over a closed list of operations.

Polars' serialised form may change with its version; this one does not, so that an old release stays loadable. It holds
no code, and is turned into an expression through Polars' public functions alone.
"""

import json
import re
from typing import Any

import polars as pl

from ml_assets.errors import ReleaseError
from ml_assets.ml.literals import build_literal, read_list, read_literal
from ml_assets.ml.operations import OPERATIONS

FORM = 1  # goes up when what is stored today would be read otherwise; a new operation alone does not change it
DEEPEST = 100  # operations within one another: far below what Python's stack and Polars' take


def to_stable(expression: pl.Expr) -> dict[str, Any]:
    """The stable form of an expression, without its name.

    A node is `{"column": name}`, `{"literal": value, "type": type}`, or `{"op": operation, "of": [nodes], ...}` with
    the operation's options beside.

    Raises:
        ValueError: saying what in the expression is on no list, and what to do; the text goes on after "feature 'x' ".
    """
    try:
        return _read(json.loads(expression.meta.serialize(format="json")), 0)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def from_stable(stored: Any) -> pl.Expr:
    """The expression that `to_stable` was given.

    Raises:
        ReleaseError: if an operation, an option, a type or a number of operands in `stored` is on no list.
    """
    try:
        return _build(stored, 0)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, pl.exceptions.PolarsError) as error:
        raise ReleaseError(f"a stored expression is not valid: {error}") from None


_NAMES = {each.theirs: name for name, each in OPERATIONS.items()}
_TOO_DEEP = f"has more than {DEEPEST} operations within one another; split it up, or use .replace() for a long list"
_ONE_ROW = "; write it with operations on the columns of one row, because a prediction sees one row"
_NO_ROW = {
    "AnonymousFunction": "calls a Python function (map_elements or map_batches)",
    "Over": "is a window over rows (over)",
    "Rolling": "is a rolling window over rows (rolling)",
}
_OTHER_ROWS = re.compile(
    r"(Shift|Rank|Cum|Rolling|Ewm|Sort|ArgSort|Reverse|Unique|Random|Interpolate|PctChange|Diff"
    r"|Gather|Slice|Filter|Explode|Len|Range|RLE|Mode|TopK|DropN|Append|Quantile|ValueCounts|MaxBy|MinBy|QCut|Peak"
    r"|Boolean\.Is(Duplicated|Unique|FirstDistinct|LastDistinct)|Boolean\.(Any|All|HasNulls)$)"
)
_SPACES = {
    "StringExpr": "str.",
    "TemporalExpr": "dt.",
    "ListExpr": "list.",
    "CategoricalExpr": "cat.",
    "BinaryExpr": "",
}
_SAID = {"Random": "sample or shuffle", "RollingExpr": "rolling_mean or the like", "Len": "pl.len"}
_LOOKING_UP = {"is_in": 1, "replace": 2, "replace_strict": 2}  # how many operands after the first one are lists
_NESTED = {*_SPACES, "Boolean", "Pow", "Trigonometry", "StructExpr", "ArrayExpr", "Bitwise", "Range", "Business"}


def _read(node: Any, depth: int) -> dict[str, Any]:
    if depth > DEEPEST:
        raise ValueError(_TOO_DEEP)
    kind, body = _split(node)
    if kind == "Column":
        return {"column": body}
    if kind == "Literal":
        return read_literal(body)
    if kind == "Alias":  # names do not change values; a feature's own name is stored beside it
        return _read(body[0], depth)
    if kind in ("RenameAlias", "KeepName"):
        return _read(body["expr"] if kind == "RenameAlias" else body, depth)
    theirs, operands, payload = _parts(kind, body)
    if theirs not in _NAMES:
        raise ValueError(_refusal(kind, theirs, body))
    name = _NAMES[theirs]
    options = _read_options(name, payload)
    if name in _LOOKING_UP:
        return {"op": name, "of": _read_lists(operands, name, depth)} | options
    return {"op": name, "of": [_read(each, depth + 1) for each in operands]} | options


def _read_lists(operands: list[Any], name: str, depth: int) -> list[dict[str, Any]]:
    """Operands of an operation that looks a value up: in a list, given as such or as a Series, never in a column."""
    value, *others = operands
    read = [read_list(each["Literal"]) if _is_series(each) else _read(each, depth + 1) for each in others]
    if any("literal" not in each and each.get("op") != "split" for each in read[: _LOOKING_UP[name]]):
        raise ValueError(f"looks at other rows ({name} with a column); compare with ==, or give a list of values")
    return [_read(value, depth + 1), *read]


def _is_series(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("Literal"), dict) and "Series" in node["Literal"]


def _parts(kind: str, body: Any) -> tuple[str, list[Any], Any]:
    """Polars' name of an operation, its operands and its options, wherever Polars' JSON has them."""
    if kind == "BinaryExpr":
        return f"BinaryExpr.{body['op']}", [body["left"], body["right"]], None
    if kind == "Ternary":
        return kind, [body["predicate"], body["truthy"], body["falsy"]], None
    if kind == "Cast":
        return kind, [body["expr"]], {"dtype": body["dtype"], "options": body["options"]}
    if kind != "Function":
        return kind, [], None
    name, payload = _split(body["function"])
    if name in _NESTED:
        inner, payload = _split(payload)
        name = f"{name}.{inner}"
    if name == "StringExpr.Strptime":
        payload = {"dtype": payload[0]} | {key: value for key, value in payload[1].items() if key != "cache"}
    return name, body["input"], payload


def _split(function: Any) -> tuple[str, Any]:
    if isinstance(function, dict):
        return next(iter(function.items()))
    return str(function), None


def _refusal(kind: str, theirs: str, body: Any) -> str:
    if kind == "Selector":
        return "holds a wildcard or selector; name each column, so that no outcome can slip in"
    if kind in _NO_ROW:
        return _NO_ROW[kind] + _ONE_ROW
    if kind == "Agg":
        return f"aggregates over rows ({_snake(next(iter(body)))}){_ONE_ROW}"
    space, _, name = theirs.rpartition(".")
    said = _SPACES.get(space, "") + _SAID.get(name, _snake(name))
    if theirs == "FillNullWithStrategy":
        return "looks at other rows (fill_null with a strategy); write .fill_null(value)"
    if _OTHER_ROWS.match(theirs):
        return f"looks at other rows ({said}){_ONE_ROW}"
    return (
        f"uses {said}, which is not among the operations that a release can store; docs/bring-your-own-data.md says "
        "which are: write it with those, or make it a column of the source"
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _read_options(name: str, payload: Any) -> dict[str, Any]:
    options = OPERATIONS[name].options
    if isinstance(payload, list) and len(payload) == len(options):
        given = dict(zip(options, payload, strict=True))
    elif isinstance(payload, dict) and set(payload) == {each.theirs for each in options.values()}:
        given = {ours: payload[each.theirs] for ours, each in options.items()}
    elif len(options) == 1 and not isinstance(payload, list):
        given = dict.fromkeys(options, payload)
    elif payload is None and not options:
        given = {}
    else:
        raise ValueError(
            f"uses {name} with options that this version of ml-assets does not know: {payload!r:.80}; leave them out"
        )
    try:
        return {ours: options[ours].read(value) for ours, value in given.items()}
    except (LookupError, ValueError, TypeError) as error:
        raise ValueError(f"uses {name} with an option that a release cannot store: {error}") from None


def _build(stored: Any, depth: int) -> pl.Expr:
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} operations within one another")
    if not isinstance(stored, dict):
        raise ValueError(f"{stored!r:.80} is no operation, column or literal")
    if set(stored) == {"column"}:
        return pl.col(_column(stored["column"]))
    if set(stored) == {"literal", "type"}:
        return build_literal(stored["literal"], stored["type"])
    name = stored.get("op")
    if not isinstance(name, str) or name not in OPERATIONS:
        raise ValueError(f"{name!r:.80} is no operation that this version of ml-assets knows")
    found = OPERATIONS[name]
    if set(stored) != {"op", "of", *found.options}:
        raise ValueError(f"{name} takes {', '.join(['op', 'of', *found.options])}, not {', '.join(map(str, stored))}")
    operands = stored["of"]
    if not isinstance(operands, list) or not found.least <= len(operands) <= (found.most or len(operands)):
        most = "or more" if found.most is None else f"to {found.most}"
        raise ValueError(f"{name} takes {found.least} {most} operands, not {operands!r:.80}")
    options = {ours: each.load(stored[ours]) for ours, each in found.options.items()}
    return found.build(*(_build(each, depth + 1) for each in operands), **options)


def _column(name: Any) -> str:
    if not isinstance(name, str) or name == "*" or (name.startswith("^") and name.endswith("$")):
        raise ValueError(f"{name!r:.80} is no column's name")  # Polars takes these for wildcards
    return name
