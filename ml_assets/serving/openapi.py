"""The server described for people and programs: an OpenAPI document made of the contracts, and a page of it."""

import html
import json
from typing import Any

from ml_assets.serving.bundle import Manifest
from ml_assets.serving.ids import MOST_COLUMNS, MOST_LETTERS, PATTERN
from ml_assets.serving.schema import row_schema
from ml_assets.serving.served import Served

_ERRORS = {
    400: "The request was not whole.",
    401: "No key that counts here.",
    404: "No such model serves here.",
    408: "The request did not arrive in time.",
    413: "More bytes, rows or nesting than this server takes.",
    415: "A body of a kind that is not read here.",
    422: "A row that the contract refuses, by row, column and value.",
    503: "Too much waits already, or the online store does not answer; `Retry-After` says when to come again.",
    504: "The answer took too long.",
}
_ID = [
    {"type": "string", "minLength": 1, "maxLength": MOST_LETTERS},
    {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
]
_IDS = {
    "type": ["array", "null"],
    "description": "By which outcomes will be joined: for each row the value of its key, or null; of a key of several "
    "columns an object of them.",
    "minItems": 1,
    "items": {
        "anyOf": [
            *_ID,
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": MOST_COLUMNS,
                "propertyNames": {"maxLength": MOST_LETTERS},
                "additionalProperties": {"anyOf": _ID},
            },
            {"type": "null"},
        ]
    },
}
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "The caller's id of the request; the answer has it too, or one that was made here.",
    "schema": {"type": "string", "pattern": PATTERN},
}


def document(served: Served) -> dict[str, Any]:
    """The OpenAPI 3.1 document of what serves now."""
    models = {model: serving.scorer.manifest for model, serving in sorted(served.models.items())}
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        },
        "Ids": _IDS,
    }
    paths: dict[str, Any] = {
        "/health": {"get": _plain("Whether the process lives, and what serves.")},
        "/ready": {"get": _plain("Whether everything that should serve does.", 503)},
        "/ping": {"get": _plain("As /ready, for SageMaker.", 503)},
    }
    for model, manifest in models.items():
        schemas[f"{model}.row"] = row_schema(manifest.inputs, manifest.null_values)
        schemas[f"{model}.answer"] = _answer(manifest)
        paths[f"/models/{model}/predict"] = {"post": _predict(model, manifest, f"predict_{model}")}
    if len(models) == 1:
        [(model, manifest)] = models.items()
        paths["/predict"] = {"post": _predict(model, manifest, "predict")}
        paths["/invocations"] = {"post": _invoke(_predict(model, manifest, "invoke"))}
    versions = ", ".join(f"{model} {manifest.version}" for model, manifest in models.items())
    return {
        "openapi": "3.1.0",
        "info": {"title": "ml-assets endpoint", "version": versions or "none yet"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _plain(summary: str, *others: int) -> dict[str, Any]:
    answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
    responses = {str(status): {"description": summary, **answer} for status in (200, *others)}
    return {"summary": summary, "responses": responses}


def _predict(model: str, manifest: Manifest, operation: str) -> dict[str, Any]:
    request = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "minItems": 1, "items": {"$ref": f"#/components/schemas/{model}.row"}},
            "ids": {"$ref": "#/components/schemas/Ids"},
        },
        "required": ["rows"],
        "additionalProperties": False,
    }
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {"type": "array", "items": {"$ref": f"#/components/schemas/{model}.answer"}},
        },
        "required": ["model", "version", "predictions"],
    }
    failed = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "summary": f"Predictions of {model}, an answer for each row",
        "operationId": operation,
        "security": [{}, {"bearer": []}, {"key": []}],
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {"description": "The answers.", "content": {"application/json": {"schema": answer}}},
            **{str(status): {"description": said, "content": failed} for status, said in _ERRORS.items()},
        },
    }


def _invoke(predict: dict[str, Any]) -> dict[str, Any]:
    """The same for SageMaker: CSV is read and written too."""
    text = {"text/csv": {"schema": {"type": "string"}}}
    body, good = predict["requestBody"], predict["responses"]["200"]
    failed = predict["responses"]["422"]["content"]
    inference_id = _REQUEST_ID | {
        "name": "X-Amzn-SageMaker-Inference-Id",
        "description": "SageMaker's InferenceId: the id of the row, where there is one.",
    }
    return predict | {
        "parameters": [*predict["parameters"], inference_id],
        "requestBody": body | {"content": body["content"] | text},
        "responses": predict["responses"]
        | {"200": good | {"content": good["content"] | text}}
        | {"406": {"description": "No such kind of answer; JSON and CSV are written.", "content": failed}},
    }


def _answer(manifest: Manifest) -> dict[str, Any]:
    missing = {
        "type": "object",
        "description": "Side tables and groups that had nothing for the row, and why.",
        "additionalProperties": {"type": "string"},
    }
    if manifest.task == "regression":
        return _object({"value": {"type": "number"}}, {"missing": missing})
    label = {"enum": list(manifest.classes)}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    if manifest.task == "binary":
        said = f"Of {manifest.classes[1]!r}."
        if manifest.threshold is not None:
            said += f" From {manifest.threshold:g} on it is the label."
        return _object({"label": label, "score": score | {"description": said}}, {"missing": missing})
    scores = _object({str(each): score for each in manifest.classes}, {})
    return _object({"label": label, "scores": scores}, {"missing": missing})


def _object(needed: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": needed | other, "required": list(needed), "additionalProperties": False}


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ml-assets endpoint</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ text-align: left; padding: .25rem .75rem .25rem 0;
border-bottom: 1px solid #8884; vertical-align: top }}
code, pre {{ font-family: ui-monospace, monospace; font-size: 13px }}
pre {{ padding: .75rem; background: #8881; overflow-x: auto }} .dim {{ opacity: .7 }}
</style></head><body><h1>ml-assets endpoint</h1>
<p>For programs: <a href="/openapi.json">openapi.json</a>. Also <a href="/health">/health</a>,
<a href="/ready">/ready</a>, <a href="/metrics">/metrics</a>.</p>{models}</body></html>"""


def page(served: Served) -> str:
    """The document as a page that loads nothing from elsewhere."""
    return _PAGE.format(
        models="".join(_section(model, serving.scorer.manifest) for model, serving in sorted(served.models.items()))
        or "<p>No model serves yet.</p>"
    )


def _section(model: str, manifest: Manifest) -> str:
    schema = row_schema(manifest.inputs, manifest.null_values)
    rows = "".join(
        f"<tr><td><code>{html.escape(column.name)}</code></td><td>{html.escape(column.type)}</td>"
        f"<td>{'yes' if column.name in schema['required'] else 'no'}</td>"
        f"<td class=dim>{html.escape(_said(schema['properties'][column.name]))}</td></tr>"
        for column in manifest.inputs
    )
    example = {column.name: _example(schema["properties"][column.name]) for column in manifest.inputs if column.needed}
    body = html.escape(json.dumps({"rows": [example]}, indent=1))
    answer = html.escape(json.dumps(_answer(manifest)["properties"], indent=1))
    return (
        f"<h2>{html.escape(model)} <span class=dim>version {html.escape(manifest.version)}</span></h2>"
        f"<p><code>POST /models/{html.escape(model)}/predict</code></p>"
        f"<table><tr><th>column<th>type<th>needed<th>values</tr>{rows}</table>"
        f"<h3>Request</h3><pre>{body}</pre><h3>An answer for each row</h3><pre>{answer}</pre>"
    )


def _said(schema: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in schema.items() if name not in ("type", "pattern", "not"))


def _example(schema: dict[str, Any]) -> Any:
    """Something that the schema allows; no value of a real row."""
    kind = schema["type"][0] if isinstance(schema["type"], list) else schema["type"]
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "string":
        return {"date": "2025-01-31", "date-time": "2025-01-31T12:00:00Z"}.get(schema.get("format", ""), "text")
    if kind == "boolean":
        return False
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    return max(1, int(least) + 1) if "maximum" not in schema else min(max(1, int(least) + 1), int(schema["maximum"]))
