"""Rows and outcomes in PostgreSQL: exactly the days whose rows changed are made again."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import polars as pl
import pytest
from psycopg2.extras import execute_values

from ml_assets.automation.due import due_data
from ml_assets.demo.business import FIRST_DAY
from ml_assets_tests.postgres import PASSWORD, Postgres
from ml_assets_tests.project import SMALL, SMALL_MODEL, Project

NAME = "sql_model"
DAYS = 5
SOURCE = {"kind": "sql", "database": "business", "watermark": "changed_at"}
TYPES = {pl.Float64: "double precision", pl.Int64: "bigint", pl.Boolean: "boolean", pl.String: "text"}


@pytest.fixture(scope="module")
def made(make_project: Callable[..., Project], postgres: Postgres) -> Iterator[Project]:
    """Five days of the demo's business in two tables, materialised."""
    postgres.execute("postgres", f"create database {NAME}")
    postgres.execute(NAME, "create schema sales")
    days = [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]
    insert(postgres, "sales.orders", pl.concat([SMALL.orders(day) for day in days]), "ordered_at")
    insert(postgres, "reports", pl.concat([SMALL.outcomes(day) for day in days]), "reported_at")
    project = make_project("sql")
    project.variables["ML_ASSETS_DATABASE_BUSINESS"] = postgres.url(NAME)
    rows = SOURCE | {"table": "sales.orders", "batch": "day", "start": FIRST_DAY.isoformat()}
    outcomes = SOURCE | {"table": "reports", "key": ["order_id"]}
    project.add_demo_model(**SMALL_MODEL, source=rows, outcomes=outcomes)
    project.materialize()
    yield project
    postgres.execute("postgres", f"drop database {NAME} with (force)")


def insert(postgres: Postgres, table: str, frame: pl.DataFrame, time: str) -> None:
    columns = ", ".join(f"{name} {TYPES.get(type(kind), 'timestamptz')}" for name, kind in frame.schema.items())
    postgres.execute(NAME, f"create table {table} ({columns}, changed_at timestamptz)")
    with closing(postgres.connect(NAME)) as connection, connection, connection.cursor() as cursor:
        execute_values(cursor, f"insert into {table} values %s", frame.with_columns(pl.col(time).alias("t")).rows())


def days_due(project: Project) -> set[str]:
    due = due_data(project.model(), project.lake)
    assert due.problems == []
    return {day for stretch in due.stretches() for day in stretch}


def contents(project: Project) -> dict[tuple[str, str], str]:
    return {(asset, day): each for asset, days in project.contents().items() for day, each in days.items()}


def test_rows_and_outcomes_of_tables_become_an_approved_model(made: Project, postgres: Postgres) -> None:
    assert days_due(made) == set()
    latest = made.latest()
    assert sorted(latest.of("raw_data")) == [str(FIRST_DAY + timedelta(days=number)) for number in range(DAYS)]
    with closing(postgres.connect(NAME)) as connection, connection.cursor() as cursor:
        cursor.execute("select (select count(*) from sales.orders), (select count(*) from reports)")
        orders, reports = cursor.fetchone()
    assert sum(each.rows for each in latest.of("raw_data").values()) == orders
    assert sum(each.rows for each in latest.of("outcomes").values()) == reports
    assert latest.of("endpoint")


DAY = "ordered_at::date = '2025-01-0{}'"
ONE = "order_id = (select min(order_id) from sales.orders where distance_km > 0 and " + DAY + ")"


@pytest.mark.parametrize(
    ("change", "touched", "assets"),
    [
        (
            f"update sales.orders set order_value = order_value + 1, changed_at = now() where {ONE.format(2)}",
            {"2025-01-02"},
            {"raw_data", "cleaned_data", "features"},
        ),
        (
            f"delete from sales.orders where {ONE.format(3)}",
            {"2025-01-03"},
            {"raw_data", "cleaned_data", "features"},
        ),
        (
            f"""insert into sales.orders select 'late', ordered_at, restaurant_id, courier_id, zone, vehicle, weather,
                distance_km, items, order_value, preparation_minutes, promised_minutes, new_customer,
                timestamptz '2025-01-04 12:00Z' from sales.orders where {ONE.format(4)}""",
            {"2025-01-04"},
            {"raw_data", "cleaned_data", "features"},
        ),
        (
            """update reports set minutes_late = minutes_late + 100, late = true, changed_at = now() where order_id =
               (select min(order_id) from reports where not late and reported_at::date = '2025-01-02')""",
            {"2025-01-02"},
            {"outcomes"},
        ),
        ("update sales.orders set order_value = 0 where false", set(), set()),
    ],
    ids=["update", "delete", "late-commit", "outcome", "nothing"],
)
def test_exactly_the_touched_days_are_due_and_refreshed(
    made: Project, postgres: Postgres, change: str, touched: set[str], assets: set[str]
) -> None:
    before = contents(made)
    postgres.execute(NAME, "set time zone 'UTC'", change)
    assert days_due(made) == touched
    made.materialize()
    assert days_due(made) == set()
    after = contents(made)
    changed = {key for key in before | after if before.get(key) != after.get(key) and key[0] != "trained_model"}
    assert {day for _, day in changed} == touched
    assert {asset for asset, _ in changed} == assets


def test_no_file_of_the_project_holds_the_password(made: Project) -> None:
    escaped = PASSWORD.replace("/", "%2F").replace(":", "%3A")
    found = [
        path
        for path in made.root.rglob("*")
        if path.is_file() and any(each.encode() in path.read_bytes() for each in (PASSWORD, escaped))
    ]
    assert found == []
