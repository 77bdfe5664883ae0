"""What a row of a request may be, as JSON Schema (2020-12, which OpenAPI 3.1 uses)."""

from collections.abc import Sequence
from typing import Any

from ml_assets.serving.bundle import Input

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LIMITS = {"above": "exclusiveMinimum", "least": "minimum", "below": "exclusiveMaximum", "most": "maximum"}
_AWARE = r"(Z|[+-]\d{2}:?\d{2})$"


def row_schema(inputs: Sequence[Input], null_values: Sequence[str]) -> dict[str, Any]:
    """The schema of one row. A nullable column may be left out; unknown columns may not be there."""
    return {
        "type": "object",
        "properties": {column.name: _value(column, null_values) for column in inputs},
        "required": [column.name for column in inputs if column.needed and not column.nullable],
        "additionalProperties": False,
    }


def _value(column: Input, null_values: Sequence[str]) -> dict[str, Any]:
    if not column.needed:
        return {"description": "May be sent and is ignored: no feature reads it."}
    schema = _typed(column, null_values)
    bounds = column.bounds
    if bounds is not None:
        numeric = schema["type"] in ("integer", "number")
        for name, keyword in _LIMITS.items():
            limit = getattr(bounds, name)
            if limit is not None and numeric:
                schema[keyword] = limit
            elif limit is not None:
                schema["description"] = f"{schema.get('description', '')} {name}: {limit}.".strip()
        if bounds.allowed is not None:
            schema["enum"] = list(bounds.allowed)
    if column.nullable:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _typed(column: Input, null_values: Sequence[str]) -> dict[str, Any]:
    kind = column.type
    if kind == "Boolean":
        return {"type": "boolean"}
    if kind.startswith("Float"):
        return {"type": "number"}
    if kind.startswith(("Int", "UInt")):
        bits, signed = int(kind.lstrip("UInt")), kind.startswith("I")
        most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return {"type": "integer", "minimum": -most - 1 if signed else 0, "maximum": most}
    if kind == "Date":
        return {"type": "string", "format": "date"}
    if kind == "Datetime":
        zoned = {"pattern": _AWARE} if column.time_zone else {}
        return {"type": "string", "format": "date-time", **zoned}
    if column.nullable:
        return {"type": "string", "description": f"Null, as are: {', '.join(map(repr, null_values))}."}
    return {"type": "string", "pattern": r"\S", "not": {"enum": list(null_values)}}
