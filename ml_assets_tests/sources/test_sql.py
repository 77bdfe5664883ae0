"""SQL tables as sources, against a PostgreSQL server and, where noted, SQLite."""

import itertools
import logging
import select
import signal
import socket
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import psycopg2
import pytest

from ml_assets.access import Access
from ml_assets.contract import Contract
from ml_assets.errors import SourceError
from ml_assets.lake import Lake
from ml_assets.sources import Batch, Calendar, Source, open_source, retries
from ml_assets.sources.feed import Feed, read_partitions, survey
from ml_assets.sources.listing import Listing
from ml_assets.spec.sources import SqlSource
from ml_assets_tests.postgres import PASSWORD, Postgres, packaged_binaries, postgres_server
from ml_assets_tests.project import free_port, wait_until

UTC_DAYS = Calendar("at", "UTC", date(2025, 1, 1))
names = (f"test_{number}" for number in itertools.count())

ORDERS = """create table orders (id int primary key, at timestamptz, changed timestamptz, value double precision);
            create index on orders (changed); create index on orders (at)"""


class Database:
    """One database of a test's own, with sources that read it."""

    def __init__(self, server: Postgres) -> None:
        self.server, self.name = server, next(names)
        server.execute("postgres", f"create database {self.name}")

    def __call__(self, *statements: str) -> None:
        self.server.execute(self.name, *statements)

    def source(self, calendar: Calendar | None = UTC_DAYS, *, port: int | None = None, **spec: Any) -> Source:
        return source_of(self.server.url(self.name, port=port), calendar, **spec)


def source_of(url: str, calendar: Calendar | None = UTC_DAYS, **changes: Any) -> Source:
    spec = SqlSource(**({"kind": "sql", "database": "shop", "table": "orders", "watermark": "changed"} | changes))
    return open_source(spec, "demo: source", Access(databases={"shop": url}), calendar)


def fingerprints(source: Source) -> dict[str, str]:
    return {each.id: each.fingerprint for each in source.batches()}


def rows_of(source: Source) -> dict[str | None, int]:
    return {each.day: each.rows for each in source.batches()}


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    made = Database(postgres)
    yield made
    postgres.execute("postgres", f"drop database {made.name} with (force)")


@pytest.fixture
def orders(database: Database) -> Database:
    """Three days with two orders each, changed an hour after they were made."""
    database(
        ORDERS,
        """insert into orders select n, t, t + interval '1 hour', n from generate_series(1, 6) n,
           lateral (select timestamptz '2025-01-01 10:00Z' + (n - 1) / 2 * interval '1 day') as x(t)""",
    )
    return database


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


def test_a_day_with_rows_is_a_batch_and_is_read_whole(orders: Database) -> None:
    source = orders.source()
    assert [(each.id, each.day, each.rows) for each in source.batches()] == [
        (f"2025-01-0{day}", f"2025-01-0{day}", 2) for day in (1, 2, 3)
    ]
    rows = source.read(source.batches()[1])
    assert rows.sort("id").to_dict(as_series=False) == {
        "id": [3, 4],
        "at": [datetime(2025, 1, 2, 10, tzinfo=UTC)] * 2,
        "changed": [datetime(2025, 1, 2, 11, tzinfo=UTC)] * 2,
        "value": [3.0, 4.0],
    }
    assert source.read(source.batches()[1], ["id"]).columns == ["id"]
    assert source.address(source.batches()[1]) == "shop: orders of 2025-01-02"


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ("insert into orders values (7, '2025-01-02 12:00Z', '2025-01-09Z')", {"2025-01-02"}),
        ("insert into orders values (7, '2025-01-02 12:00Z', '2025-01-01Z')", {"2025-01-02"}),
        ("insert into orders values (7, '2025-01-02 12:00Z', null)", {"2025-01-02"}),
        ("update orders set value = 0, changed = '2025-01-09Z' where id = 3", {"2025-01-02"}),
        ("update orders set value = 0, changed = '2025-01-02 10:59:59.999999Z' where id = 3", {"2025-01-02"}),
        ("delete from orders where id = 3", {"2025-01-02"}),
        ("delete from orders where id in (3, 4)", {"2025-01-02"}),
        ("update orders set at = '2025-01-03Z' where id = 3", {"2025-01-02", "2025-01-03"}),
        ("update orders set at = '2025-01-07Z' where id = 3", {"2025-01-02", "2025-01-07"}),
        ("update orders set at = null where id = 3", {"2025-01-01", "2025-01-02"}),
        ("update orders set value = 1 where false", set()),
    ],
    ids=["insert", "late", "null", "update", "older", "delete", "empty", "move", "new-day", "no-time", "nothing"],
)
def test_each_kind_of_change_shows_in_the_days_that_it_touches_alone(
    orders: Database, change: str, touched: set[str]
) -> None:
    source = orders.source()
    before = fingerprints(source)
    orders(change)
    after = fingerprints(source)
    assert {day for day in before | after if before.get(day) != after.get(day)} == touched


def test_a_watermark_that_was_null_and_gets_a_value_shows(orders: Database) -> None:
    orders("update orders set changed = null where id = 3")
    source = orders.source()
    before = fingerprints(source)
    orders("update orders set changed = '1970-01-01Z' where id = 3")
    assert fingerprints(source)["2025-01-02"] != before["2025-01-02"]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_servers_time_zone_changes_no_fingerprint(orders: Database, zone: str) -> None:
    before = fingerprints(orders.source())
    orders(f"alter database {orders.name} set timezone to '{zone}'")
    assert fingerprints(orders.source()) == before
    assert orders.source().read(Batch("x", "x", "2025-01-02"))["at"].to_list()[0] == datetime(
        2025, 1, 2, 10, tzinfo=UTC
    )


ZONES = {  # day: (zone, first moment, last second), both in UTC
    "spring": ("Europe/Berlin", date(2025, 3, 30), "2025-03-29 23:00", "2025-03-30 21:59:59"),
    "autumn": ("Europe/Berlin", date(2025, 10, 26), "2025-10-25 22:00", "2025-10-26 22:59:59"),
    "midnight-skipped": ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04 03:00", "2018-11-05 01:59:59"),
    "midnight-twice": ("America/Havana", date(2025, 11, 2), "2025-11-02 04:00", "2025-11-03 04:59:59"),
}


@pytest.mark.parametrize(("zone", "day", "start", "end"), ZONES.values(), ids=list(ZONES))
def test_listed_and_read_days_are_local_ones_of_23_and_25_hours_too(
    database: Database, zone: str, day: date, start: str, end: str
) -> None:
    database(
        ORDERS,
        f"""insert into orders values (1, timestamptz '{start}Z' - interval '1 microsecond', now()),
            (2, '{start}Z', now()), (3, '{end}Z', now()), (4, timestamptz '{end}Z' + interval '1 second', now())""",
    )
    source = database.source(Calendar("at", zone, day - timedelta(days=3)))
    days = [str(day - timedelta(days=1)), str(day), str(day + timedelta(days=1))]
    assert rows_of(source) == dict(zip(days, (1, 2, 1), strict=True))
    assert [source.read(each)["id"].to_list() for each in source.batches()] == [[1], [2, 3], [4]]


def test_a_timestamp_without_zone_is_local_time_and_a_date_is_its_day(database: Database) -> None:
    database(
        "create table orders (at timestamp, on_day date, changed timestamp)",
        "insert into orders values ('2025-01-02 23:30', '2025-01-02', now()), ('2025-01-03', '2025-01-03', now())",
    )
    for time, kind in (("at", pl.Datetime("us")), ("on_day", pl.Date())):
        source = database.source(Calendar(time, "Asia/Tokyo", date(2025, 1, 1)))
        assert rows_of(source) == {"2025-01-02": 1, "2025-01-03": 1}
        assert source.read(source.batches()[0]).height == 1
        assert source.read(source.batches()[0]).schema[time] == kind


def test_days_outside_of_the_calendar_are_not_asked_for_and_with_clip_belong_to_its_ends(orders: Database) -> None:
    orders("insert into orders values (7, '2199-01-01Z', now()), (8, null, now())")
    day = date(2025, 1, 2)
    assert rows_of(orders.source(Calendar("at", "UTC", day))) == {"2025-01-02": 3, "2025-01-03": 2}
    assert rows_of(orders.source(Calendar("at", "UTC", day, day))) == {"2025-01-02": 3}
    clipped = orders.source(Calendar("at", "UTC", day, date(2025, 1, 3), clip=True))
    assert rows_of(clipped) == {"2025-01-02": 5, "2025-01-03": 3}
    assert [sorted(clipped.read(each)["id"]) for each in clipped.batches()] == [[1, 2, 3, 4, 8], [5, 6, 7]]
    assert rows_of(orders.source(Calendar("at", "UTC", day, clip=True))) == {"2025-01-02": 5, "2025-01-03": 2}
    before = fingerprints(clipped)
    orders("update orders set at = '2025-01-02Z' where id = 1")
    assert fingerprints(clipped)["2025-01-02"] != before["2025-01-02"]


def test_a_snapshot_is_one_batch_read_whole_and_none_while_the_table_is_empty(orders: Database) -> None:
    source = orders.source(None)
    (before,) = source.batches()
    assert (before.id, before.day) == ("orders", None)
    assert source.read(before).height == 6
    orders("delete from orders where id = 1")
    assert source.batches() != [before]
    orders("delete from orders")
    assert source.batches() == []
    assert source.read(before).is_empty()


UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class Rows(pa.DataFrameModel):
    id: int = pa.Field(metadata={"role": "key"})
    at: UtcTime = pa.Field(metadata={"role": ["key", "event_time"]})
    value: float = pa.Field(nullable=True, metadata={"role": "target"})


def feed_of(source: Source, calendar: Calendar = UTC_DAYS) -> Feed:
    return Feed("demo", "raw_data", source, Contract.read(Rows, "demo"), calendar)


def test_rows_without_a_time_stray_into_the_first_partition_in_sight(orders: Database, tmp_path: Path) -> None:
    orders("update orders set at = null where id = 6")
    feed = feed_of(orders.source())
    found = survey(feed, Lake(tmp_path))
    rows = read_partitions(feed, found, sorted(found.partitions)).sort("id")
    assert rows["_partition"].to_list() == [f"2025-01-0{day}" for day in (1, 1, 2, 2, 3, 1)]
    assert rows["_stray"].to_list() == [False] * 5 + [True]


def test_a_contract_that_takes_local_times_for_utc_is_told_so_and_loses_no_rows(
    database: Database, tmp_path: Path
) -> None:
    database(
        "create table orders (id int, at timestamp, changed timestamp, value float)",
        "insert into orders values (1, '2025-01-02 23:30', now())",
    )
    calendar = Calendar("at", "Europe/Berlin", date(2025, 1, 1))
    feed = feed_of(database.source(calendar), calendar)
    found = survey(feed, Lake(tmp_path))
    with pytest.raises(SourceError, match=r"of 2025-01-02: by the contract at is a Datetime.*such as 2025-01-03"):
        read_partitions(feed, found, ["2025-01-02"])


def test_types_are_kept_where_polars_has_them_and_are_text_elsewhere(database: Database) -> None:
    database(
        "create type mood as enum ('good')",
        "create domain positive as int check (value > 0)",
        """create table orders as select 1::bigint as id, '2025-01-02 10:00+02'::timestamptz as at, now() as changed,
           1.50::numeric(30, 2) as price, true as new, '2025-01-02'::date as day, 1.5::real as km, 'a b' as name,
           '6ecd8c99-4036-403d-bf84-cf8400f67836'::uuid as uuid, '{"a": [1]}'::jsonb as json, array[1, 2] as many,
           '\\x00ff'::bytea as bytes, interval '1 day' as long, time '10:00' as clock, 'good'::mood as mood,
           7::positive as domain, '1.2.3.4'::inet as inet, point(1, 2) as odd, null::int as none, null as nothing""",
    )
    source = database.source()
    row = source.read(source.batches()[0]).drop("changed")
    assert row.row(0, named=True) == {
        "id": 1,
        "at": datetime(2025, 1, 2, 8, tzinfo=UTC),
        "price": "1.50",
        "new": True,
        "day": date(2025, 1, 2),
        "km": 1.5,
        "name": "a b",
        "uuid": "6ecd8c99-4036-403d-bf84-cf8400f67836",
        "json": '{"a": [1]}',
        "many": "{1,2}",
        "bytes": "\\x00ff",
        "long": "1 day",
        "clock": "10:00:00",
        "mood": "good",
        "domain": 7,
        "inet": "1.2.3.4/32",
        "odd": "(1,2)",
        "none": None,
        "nothing": None,
    }
    assert row.schema["none"] == pl.Int64
    assert row.schema["at"] == pl.Datetime("us", "UTC")


def test_a_day_of_many_chunks_is_read_whole_whatever_is_null_in_the_first(
    orders: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_assets.sources.sql_table.ROWS_AT_ONCE", 100)
    orders(
        """insert into orders select n, '2025-01-05Z', now(), case when n > 1200 then n end
           from generate_series(1001, 1250) n"""
    )
    rows = orders.source().read(Batch("2025-01-05", "", "2025-01-05"))
    assert (rows.height, rows["value"].null_count(), rows["value"].sum()) == (250, 200, sum(range(1201, 1251)))


def test_schemas_odd_names_and_views_are_read(database: Database) -> None:
    database(
        'create schema "Sales 1"',
        """create table "Sales 1"."Or""der's" (id int, "at time%(x)s" timestamptz, "select" timestamptz, day text)""",
        """insert into "Sales 1"."Or""der's" values (1, '2025-01-02Z', now(), 'x'), (2, '2025-01-03Z', now(), 'y')""",
        """create view seen as select * from "Sales 1"."Or""der's" where id = 1""",
    )
    calendar = Calendar("at time%(x)s", "UTC", date(2025, 1, 1))
    source = database.source(calendar, table="""Sales 1.Or"der's""", watermark="select")
    assert [source.read(each)["day"].to_list() for each in source.batches()] == [["x"], ["y"]]
    assert rows_of(database.source(calendar, table="seen", watermark="select")) == {"2025-01-02": 1}


def test_a_day_is_read_by_its_index(orders: Database) -> None:
    orders(
        """insert into orders select n, timestamptz '2020-01-01Z' + n * interval '1 minute', now(), n
           from generate_series(10, 60000) n""",
        "analyze orders",
        f"alter database {orders.name} set auto_explain.log_min_duration = 0",
        f"alter database {orders.name} set auto_explain.log_format = 'text'",
        f"alter database {orders.name} set session_preload_libraries = 'auto_explain'",
    )
    log = orders.server.folder / "log"
    before = log.stat().st_size
    source = orders.source(Calendar("at", "Europe/Berlin", date(2020, 1, 1)))
    assert source.read(Batch("2020-01-03", "", "2020-01-03")).height == 1440
    said = log.read_bytes()[before:].decode()
    assert "orders_at_idx" in said.split("SELECT orders.id")[-1]


# What tells of changes, cheaply.


@pytest.fixture
def watched(orders: Database) -> Source:
    source = orders.source(overlap="1h")
    assert source.changed(), "nothing was listed yet"
    source.batches()
    assert not source.changed()
    return source


@pytest.mark.parametrize(
    "change",
    [
        "insert into orders values (7, '2025-01-04Z', '2025-01-09Z')",
        "insert into orders values (7, '2025-01-01Z', '2025-01-03 10:30Z')",
        "update orders set changed = '2025-01-09Z' where id = 1",
        "delete from orders where id = 6",
    ],
    ids=["insert", "late-commit", "update", "recent-delete"],
)
def test_a_change_is_noticed_without_listing(orders: Database, watched: Source, change: str) -> None:
    orders(change)
    assert watched.changed()
    assert watched.changed(), "until it is listed"
    watched.batches()
    assert not watched.changed()


def test_what_is_older_than_the_overlap_is_found_by_the_next_full_listing(orders: Database, watched: Source) -> None:
    listing = Listing(watched)
    before = listing.batches()
    orders("delete from orders where id = 1", "insert into orders values (7, '2025-01-02Z', '2025-01-01Z')")
    assert not watched.changed()
    assert listing.batches(certain=False) == before
    assert {each.day: each.rows for each in listing.batches()} == {"2025-01-01": 1, "2025-01-02": 3, "2025-01-03": 2}


def test_a_transaction_that_commits_while_it_is_listed_is_not_missed(orders: Database, watched: Source) -> None:
    with closing(orders.server.connect(orders.name)) as late, late.cursor() as cursor:
        cursor.execute("insert into orders values (7, '2025-01-02Z', '2025-01-03 10:30Z')")
        orders("insert into orders values (8, '2025-01-03Z', '2025-01-03 11:05Z')")
        assert rows_of(watched)["2025-01-02"] == 2
        assert not watched.changed()
        late.commit()
    assert watched.changed()
    assert rows_of(watched)["2025-01-02"] == 3


def test_a_table_without_any_watermark_yet_is_watched(database: Database) -> None:
    database(ORDERS)
    source = database.source()
    assert source.batches() == []
    assert not source.changed()
    database("insert into orders values (1, '2025-01-02Z', null)")
    assert source.changed()


def test_two_threads_list_and_watch_one_source_without_missing_a_change(orders: Database) -> None:
    source, missed = orders.source(), []

    def watch(first: int) -> None:
        for number in range(first, first + 10):
            orders(f"insert into orders values ({number}, '2025-01-02Z', now())")
            if source.changed() and number not in [row for b in source.batches()[1:2] for row in source.read(b)["id"]]:
                missed.append(number)

    threads = [threading.Thread(target=watch, args=[first]) for first in (100, 200)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert missed == []
    assert rows_of(source)["2025-01-02"] == 22


# What will fail again.


def refused(source: Source, caplog: pytest.LogCaptureFixture, *secrets: str) -> str:
    """The message of what is refused at the first try."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SourceError) as caught:
        source.batches()
    assert not [each for each in caplog.records if "try 1" in each.getMessage()]
    for secret in (*secrets, PASSWORD):
        assert secret not in str(caught.value) + repr(source) + caplog.text
    return str(caught.value)


def test_a_wrong_password_and_an_unknown_database_are_refused_at_once_without_secrets(
    orders: Database, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = source_of(orders.server.url(orders.name, password="Wr0ng@pass"))
    said = refused(wrong, caplog, "Wr0ng@pass", "Wr0ng%40pass")
    assert said.startswith("demo: source: shop: orders: ")
    assert 'password authentication failed for user "tests"; mend ML_ASSETS_DATABASE_SHOP' in said
    said = refused(source_of(orders.server.url("nowhere")), caplog)
    assert 'database "nowhere" does not exist; mend ML_ASSETS_DATABASE_SHOP' in said


@pytest.mark.parametrize(
    ("spec", "time", "said"),
    [
        ({"table": "ordres"}, "at", "demo: source: shop: ordres: no such table or view"),
        ({"table": "sales.orders"}, "at", "shop: sales.orders: no such table or view"),
        (
            {"watermark": "updated"},
            "at",
            "has no column 'updated', which is `watermark`; it has id, at, changed",
        ),
        ({"watermark": "value"}, "at", "the watermark 'value' is a DOUBLE PRECISION; it must be a timestamp"),
        ({}, "ordered_at", "orders has no column 'ordered_at', which is the event time"),
        ({}, "value", "the event time 'value' is a DOUBLE PRECISION; make it a timestamp or a date"),
    ],
    ids=["table", "schema", "watermark", "watermark-type", "time", "time-type"],
)
def test_what_the_table_lacks_is_named(
    orders: Database, caplog: pytest.LogCaptureFixture, spec: dict[str, Any], time: str, said: str
) -> None:
    assert said in refused(orders.source(Calendar(time, "UTC", date(2025, 1, 1)), **spec), caplog)


def test_a_table_that_may_not_be_read_is_named(orders: Database, caplog: pytest.LogCaptureFixture) -> None:
    orders("drop role if exists reader", "create role reader login password 'reader-pass'")
    url = orders.server.url(orders.name, password="reader-pass").replace("tests:", "reader:")
    assert "permission denied for table orders" in (said := refused(source_of(url), caplog, "reader-pass"))
    assert said.endswith("grant SELECT on it to this user")


def test_a_time_that_python_cannot_hold_is_named(orders: Database, caplog: pytest.LogCaptureFixture) -> None:
    orders("update orders set changed = '0044-03-15Z BC' where id = 1")
    source = orders.source(Calendar("at", "UTC", date(2025, 1, 1)))
    assert len(source.batches()) == 3
    with pytest.raises(SourceError, match=r"shop: orders: .*mend the table, or read it through a view"):
        source.read(source.batches()[0])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "set ML_ASSETS_DATABASE_SHOP to the database's SQLAlchemy URL"),
        ("s3cret-nonsense", "ML_ASSETS_DATABASE_SHOP is no SQLAlchemy URL"),
        ("postgresql://u:s3cret@host:not-a-port/x", "ML_ASSETS_DATABASE_SHOP is no SQLAlchemy URL"),
        ("oddity://u:s3cret@host/x", "ML_ASSETS_DATABASE_SHOP is no SQLAlchemy URL"),
        ("mysql+nodriver://u:s3cret@host/x", "ML_ASSETS_DATABASE_SHOP is no SQLAlchemy URL"),
        ("mysql+pymysql://u:s3cret@host/x", "needs a driver that is not installed (pymysql)"),
        ("sqlite:////nowhere/x.db", "the file /nowhere/x.db does not exist; mend ML_ASSETS_DATABASE_SHOP"),
    ],
    ids=["none", "nonsense", "port", "dialect", "variant", "driver", "file"],
)
def test_a_url_that_is_none_is_refused_without_being_quoted(
    caplog: pytest.LogCaptureFixture, url: str | None, said: str
) -> None:
    spec = SqlSource(kind="sql", database="shop", table="orders", watermark="changed")
    source = open_source(spec, "demo: source", Access(databases={"shop": url} if url else {}), UTC_DAYS)
    assert said in refused(source, caplog, "s3cret")


# What passes.


def tries(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == retries.log.name]


def test_a_server_that_never_answers_ends_after_five_tries(quick: None, caplog: pytest.LogCaptureFixture) -> None:
    url = f"postgresql://tests:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{free_port()}/shop"
    with pytest.raises(SourceError, match=r"shop: orders: .*Connection refused.*\(tried 5 times\)"):
        source_of(url).batches()
    assert len(tries(caplog)) == 4
    assert tries(caplog)[0].startswith("try 1 of 5 failed: demo: source: shop: orders: ")
    assert PASSWORD not in caplog.text


@pytest.fixture
def slow(orders: Database) -> Database:
    """Reading the view `slow` holds on until nobody holds the lock 1."""
    orders(
        """create function held(x int) returns int language plpgsql as
           $$ begin perform pg_advisory_xact_lock_shared(1); return x; end $$""",
        "create view slow as select held(id) as id, at, changed from orders",
    )
    return orders


@contextmanager
def reading(database: Database, fault: Callable[[], None]) -> Iterator[list[Any]]:
    """Read a day, with a fault in the middle of its query."""
    source, done = database.source(table="slow"), []
    thread = threading.Thread(target=lambda: done.append(outcome(lambda: source.read(Batch("x", "", "2025-01-02")))))
    with closing(database.server.connect(database.name)) as holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(1)")
        thread.start()
        waiting = "select pid from pg_locks where locktype = 'advisory' and not granted"
        wait_until(lambda: (cursor.execute(waiting), cursor.fetchone())[1], 20, "the query waits")
        fault()
    yield done
    thread.join(60)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def finished(database: Database, fault: Callable[[], None]) -> Any:
    with reading(database, fault) as done:
        pass
    return done[0]


def test_a_session_that_is_terminated_in_mid_query_is_read_again(
    slow: Database, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    end = """select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'ml-assets' and wait_event_type = 'Lock'"""
    assert finished(slow, lambda: slow(end))["id"].to_list() == [3, 4]
    assert len(tries(caplog)) == 1
    assert "terminat" in tries(caplog)[0], "by the server's message, or by the driver's where that was lost"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["shutdown", "crash"])
def test_a_server_that_restarts_in_mid_query_is_waited_for(
    slow: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    monkeypatch.setattr(retries, "_wait", lambda state: 1.0)

    def restart() -> None:
        slow.server.stop(how)
        wait_until(lambda: tries(caplog), 20, "the read failed once")
        slow.server.start()

    assert finished(slow, restart)["id"].to_list() == [3, 4]
    assert tries(caplog)


@contextmanager
def resetting_proxy(port: int, passed: int, resets: int) -> Iterator[int]:
    """A proxy that resets the first connections once the server has sent some bytes through them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(client: socket.socket, most: int | None) -> None:
        sent = 0
        with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(4096)
                    if not data:
                        return
                    sent += len(data) if source is server else 0
                    if most is not None and sent > most:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    (client if source is server else server).sendall(data)

    def serve() -> None:
        for number in itertools.count():
            client = outcome(lambda: listener.accept()[0])
            if isinstance(client, OSError):
                return
            most = passed if number < resets else None
            threading.Thread(target=pump, args=[client, most], daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("passed", [0, 100_000], ids=["connecting", "streaming"])
def test_a_connection_that_is_reset_is_made_again(
    orders: Database, quick: None, caplog: pytest.LogCaptureFixture, passed: int
) -> None:
    orders("insert into orders select n, '2025-01-05Z', now(), n from generate_series(1001, 10000) n")
    with resetting_proxy(orders.server.port, passed, resets=2) as port:
        rows = orders.source(port=port).read(Batch("2025-01-05", "", "2025-01-05"))
    assert rows["id"].n_unique() == rows.height == 9000
    assert len(tries(caplog)) == 2


def test_a_statement_time_out_and_too_many_connections_are_tried_again(
    slow: Database, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{slow.server.url(slow.name)}?options=-c%20statement_timeout%3D50"
    with closing(slow.server.connect(slow.name)) as holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(1)")
        with pytest.raises(SourceError, match=r"canceling statement due to statement timeout.*tried 5 times"):
            source_of(url, table="slow").read(Batch("x", "", "2025-01-02"))
    with pytest.raises(psycopg2.OperationalError), all_connections(slow.server):
        slow.server.connect()
    with (
        all_connections(slow.server),
        pytest.raises(SourceError, match=r"(too many clients|remaining connection slots).*tried 5 times"),
    ):
        slow.source().batches()
    assert len(slow.source().batches()) == 3


@contextmanager
def all_connections(server: Postgres) -> Iterator[None]:
    held = []
    try:
        while not isinstance(made := outcome(server.connect), Exception):
            held.append(made)
        yield
    finally:
        for each in held:
            each.close()


def test_both_kinds_of_binaries_serve() -> None:
    """The fixture takes Debian's where they are; here those of the package are used, or this is the same."""
    binaries = packaged_binaries()
    if binaries is None:
        pytest.skip("pgserver has no wheel for this Python")
    with postgres_server(binaries) as server:
        database = Database(server)
        database(ORDERS, "insert into orders values (1, '2025-01-02Z', now())")
        assert rows_of(database.source()) == {"2025-01-02": 1}


# SQLite.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            create table orders (id integer, at datetime, changed datetime, price decimal(10, 2), name text);
            insert into orders values (1, '2025-01-01 23:59:59.999', '2025-01-02 10:00:00', 1.5, 'a'),
                (2, '2025-01-02', '2025-01-02 11:00:00', 2, 'b'),
                (3, '2025-01-02T00:00:00', '2025-01-02 12:00:00', null, 'c'),
                (4, null, '2025-01-02 12:00:00', 1, null);
        """)
    return path


def execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


def test_sqlite_lists_reads_and_tells_changes(file: Path) -> None:
    source = source_of(f"sqlite:///{file}")
    assert rows_of(source) == {"2025-01-01": 2, "2025-01-02": 2}
    assert [source.read(each)["id"].to_list() for each in source.batches()] == [[1, 4], [2, 3]]
    assert source.read(source.batches()[0]).drop("changed").row(0) == (1, "2025-01-01 23:59:59.999", "1.5", "a")
    for change in (
        "insert into orders values (5, '2025-01-02', '2025-01-02 11:30:00', 1, 'late')",
        "update orders set changed = '2025-01-02 13:00:00' where id = 2",
        "delete from orders where id = 2",
    ):
        before = fingerprints(source)
        assert not source.changed()
        execute(file, change)
        assert source.changed()
        after = fingerprints(source)
        assert {day for day in before | after if before.get(day) != after.get(day)} == {"2025-01-02"}
    assert len(source_of(f"sqlite:///{file}", None).batches()) == 1


def test_sqlite_knows_days_of_utc_alone_and_its_errors_are_not_tried_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calendar = Calendar("at", "Europe/Berlin", date(2025, 1, 1))
    said = refused(source_of(f"sqlite:///{file}", calendar), caplog)
    assert "sqlite cannot tell the days of Europe/Berlin; use `timezone: UTC`" in said
    assert "shop: nothing: no such table" in refused(source_of(f"sqlite:///{file}", table="nothing"), caplog)


def test_sqlite_that_is_locked_is_asked_again(file: Path, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("begin exclusive")
        with pytest.raises(SourceError, match=r"database is locked.*tried 5 times"):
            source_of(f"sqlite:///{file}?timeout=0.01").batches()
    assert len(source_of(f"sqlite:///{file}").batches()) == 2


def test_sqlite_names_the_column_that_holds_what_its_type_does_not_allow(file: Path) -> None:
    execute(file, "update orders set id = 'x' where id = 1")
    source = source_of(f"sqlite:///{file}")
    with pytest.raises(SourceError, match="column 'id' cannot be read as Int64"):
        source.read(source.batches()[0])
