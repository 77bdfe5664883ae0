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
    assert due.problems == {}
    return {day for stretch in due.stretches() for day in stretch.partitions}


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


ORDER = "(select min(order_id) from sales.orders where distance_km > 0 and ordered_at::date = '2025-01-0{}')"


def test_exactly_the_touched_days_are_due_and_refreshed(made: Project, postgres: Postgres) -> None:
    before = contents(made)
    postgres.execute(NAME, "update sales.orders set changed_at = changed_at where false")
    assert days_due(made) == set()
    postgres.execute(
        NAME,
        "set time zone 'UTC'",
        f"update sales.orders set order_value = order_value + 1, changed_at = now() where order_id = {ORDER.format(2)}",
        f"delete from sales.orders where order_id = {ORDER.format(3)}",
        # Committed now, with the watermark of a transaction that began long ago.
        f"""insert into sales.orders select 'late', ordered_at, restaurant_id, courier_id, zone, vehicle, weather,
            distance_km, items, order_value, preparation_minutes, promised_minutes, new_customer,
            timestamptz '2025-01-04 12:00Z' from sales.orders where order_id = {ORDER.format(4)} limit 1""",
        """update reports set minutes_late = minutes_late + 100, late = true, changed_at = now() where order_id =
           (select min(order_id) from reports where not late and reported_at::date = '2025-01-01')""",
    )
    assert days_due(made) == {"2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04"}
    made.materialize()
    assert days_due(made) == set()
    after = contents(made)
    changed = {key for key in before | after if before.get(key) != after.get(key) and key[0] != "trained_model"}
    rows = {(asset, f"2025-01-0{day}") for asset in ("raw_data", "cleaned_data", "features") for day in (2, 3, 4)}
    assert changed == rows | {("outcomes", "2025-01-01")}


def test_no_file_of_the_project_holds_the_password(made: Project) -> None:
    escaped = PASSWORD.replace("/", "%2F").replace(":", "%3A")
    found = [
        path
        for path in made.root.rglob("*")
        if path.is_file() and any(each.encode() in path.read_bytes() for each in (PASSWORD, escaped))
    ]
    assert found == []
