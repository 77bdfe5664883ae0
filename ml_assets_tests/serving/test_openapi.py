"""The server's own description of itself, and whether it keeps to it whatever it is sent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

from ml_assets.deployment.release import as_json
from ml_assets.errors import InvalidRequestError
from ml_assets.ml.purity import generated_rows
from ml_assets.serving.bundle import SCHEMA, Bounds, read_manifest
from ml_assets.serving.frames import describe, frame_of
from ml_assets.serving.schema import row_schema
from ml_assets_tests.project import Project

INPUTS = [
    describe("zone", pl.String(), nullable=False, needed=True, bounds=Bounds(allowed=("a", "b"))),
    describe("note", pl.String(), nullable=True, needed=True),
    describe("name", pl.String(), nullable=False, needed=True),
    describe("items", pl.Int16(), nullable=False, needed=True, bounds=Bounds(least=1, below=9)),
    describe("km", pl.Float64(), nullable=True, needed=True, bounds=Bounds(above=0, most=100)),
    describe("new", pl.Boolean(), nullable=False, needed=True),
    describe("on", pl.Date(), nullable=False, needed=True, bounds=Bounds(least="2025-01-01")),
    describe("at", pl.Datetime("us", "UTC"), nullable=False, needed=True),
    describe("key", pl.String(), nullable=False, needed=False),
]
ROW = {"zone": "a", "name": "x", "items": 1, "new": True, "on": "2025-01-01", "at": "2025-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"km": 100, "note": None, "key": 7}, None),
        ({"zone": "c"}, "row 0: column 'zone' is 'c', not one of 'a', 'b'"),
        ({"zone": None}, "row 0: column 'zone' is null; it is needed, as a String"),
        ({"items": 9}, "row 0: column 'items' is 9, and has to be below 9"),
        ({"items": 0}, "row 0: column 'items' is 0, and has to be at least 1"),
        ({"items": 2.5}, "row 0: column 'items' is 2.5, not a Int16"),
        ({"km": 0.0}, "row 0: column 'km' is 0.0, and has to be above 0"),
        ({"km": 100.5}, "row 0: column 'km' is 100.5, and may be at most 100"),
        ({"km": "far"}, "row 0: column 'km' is 'far', not a Float64"),
        ({"new": 1}, "row 0: column 'new' is 1, not a Boolean"),
        ({"on": "2024-12-31"}, "row 0: column 'on' is 2024-12-31, and has to be at least 2025-01-01"),
        ({"at": "2025-01-31T12:00:00"}, "without a time zone"),
        ({"other": 1}, "row 0: column 'other' is not in the contract"),
    ],
)
def test_the_schema_and_the_server_refuse_the_same(change: dict[str, Any], said: str | None) -> None:
    row = ROW | change
    checker = jsonschema.Draft202012Validator(row_schema(INPUTS, [""]), format_checker=jsonschema.FormatChecker())
    if said is None:
        checker.validate(row)
        assert frame_of([row], INPUTS).height == 1
        return
    with pytest.raises(InvalidRequestError) as refused:
        frame_of([row], INPUTS)
    assert said in str(refused.value)
    if "on" not in change:  # that a day lies before another one is nothing that JSON Schema can say
        assert not checker.is_valid(row)


def test_the_releases_schema_takes_its_contracts_rows(small: Project, release: Path) -> None:
    contract, manifest = small.model().contract, read_manifest(release)
    checker = jsonschema.Draft202012Validator(json.loads((release / SCHEMA).read_bytes()))
    types = {column.name: contract.types[column.name] for column in manifest.inputs if column.needed}
    rows = as_json(generated_rows(types, contract.possible))
    for row in rows:
        kept = {name: value for name, value in row.items() if value is not None}
        nulls = [name for name in checker.schema["required"] if name not in kept]
        assert checker.is_valid(kept) != bool(nulls), (row, [each.message for each in checker.iter_errors(kept)])


def test_the_description_is_valid_openapi_and_the_page_is_made_of_it(small: Project) -> None:
    url = small.target.url()
    described = requests.get(f"{url}/openapi.json", timeout=5).json()
    OpenAPIV31SpecValidator(described).validate()
    assert {"/predict", "/models/late_deliveries/predict", "/invocations", "/health"} <= described["paths"].keys()
    page = requests.get(f"{url}/docs", timeout=5)
    assert page.headers["content-type"].startswith("text/html")
    for name in described["components"]["schemas"]["late_deliveries.row"]["properties"]:
        assert f"<code>{name}</code>" in page.text
    assert "://" not in page.text, "it loads nothing from elsewhere"


def test_the_server_keeps_to_its_description(small: Project) -> None:
    """Schemathesis sends what the description allows and what it does not.

    Only that all of the former is answered is not asked for: a quotient of two numbers can be too large for the model,
    which no schema of a row can say.
    """
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{small.target.url()}/openapi.json"]
    options = ["--max-examples=25", "--seed=1", "--phases=examples,coverage,fuzzing", "--no-color", "--workers=1"]
    options += ["--exclude-checks=positive_data_acceptance"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
