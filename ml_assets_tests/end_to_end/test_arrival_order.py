"""Any order and any repetition of arrivals ends in the same tables, and these hold what the files say.

Files touch several days and days several files; rows are late, are sent again days later with other values, are broken,
have no time or one before the first day; files are replaced, rewritten, removed, damaged and landed again. Between any
two of these the tables are refreshed or not.
"""

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.assets.raw_data import INGESTED_AT
from ml_assets.lake import PARTITION, Lake
from ml_assets.loading import load_model
from ml_assets.model import Model
from ml_assets.records import read_latest
from ml_assets.spec import ModelSpec
from ml_assets_tests.steps import refresh

CONTRACT = """
from typing import Annotated

import pandera.polars as pa
import polars as pl


class Rides(pa.DataFrameModel):
    ride: str = pa.Field(metadata={"role": "key"})
    at: Annotated[pl.Datetime, "us", "UTC"] = pa.Field(metadata={"role": ["key", "event_time"]})
    km: float = pa.Field(gt=0, nullable=True, metadata={"role": "request"})
    late: bool = pa.Field(nullable=True, metadata={"role": "target"})
"""
TIME = pl.Datetime("us", "UTC")
SCHEMA = {"ride": pl.String, "at": TIME, "km": pl.Float64, "late": pl.Boolean}
DAYS = range(1, 5)  # of January; the fourth is the last of the source
TABLES = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")

Row = dict[str, Any]
Content = list[Row] | bytes | None  # rows, damage, or nothing
Event = tuple[str, Content, bool]  # a file gets a content, and whether the tables are refreshed then


def noon(day: int | None) -> datetime | None:
    """Of a day of January; of the last December for 0."""
    if day is None:
        return None
    return datetime(2025, 1, day, 12, tzinfo=UTC) if day else datetime(2024, 12, 31, tzinfo=UTC)


def rows_of(days: st.SearchStrategy[int | None]) -> st.SearchStrategy[Row]:
    """Few rides, so that they are sent again: with other values on their day, or on another day."""
    return st.fixed_dictionaries(
        {
            "ride": st.sampled_from("ab"),
            "at": days.map(noon),
            "km": st.sampled_from([1.0, 2.5, None, -1.0]),
            "late": st.sampled_from([True, False, None]),
        }
    )


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    """Rows of a file, of which one has a day at least: a file of which none has is refused."""
    others = draw(st.lists(rows_of(st.sampled_from([None, 0, *DAYS])), max_size=4))
    return list(draw(st.permutations([draw(rows_of(st.sampled_from(DAYS))), *others])))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[str, list[Event]]:
    """An ending, and what lands in which order: each file some contents one after the other."""
    ending = draw(st.sampled_from([".csv", ".parquet"]))
    queues = []
    for number in range(draw(st.integers(1, 4))):
        earlier = draw(st.lists(st.one_of(some_rows(), st.sampled_from([None, b"PAR1 garbage"])), max_size=2))
        last = draw(st.one_of(some_rows(), some_rows(), some_rows(), st.none()))
        queues.append([(f"{number}{ending}", each) for each in [*earlier, *[last] * draw(st.integers(1, 2))]])
    landed: list[Event] = []
    while queues:
        queue = draw(st.sampled_from(queues))
        landed.append((*queue.pop(0), draw(st.booleans())))
        queues = [each for each in queues if each]
    return ending, landed


class Place:
    """A folder in which files land, and a lake."""

    def __init__(self, root: Path) -> None:
        self.landing, self.lake = root / "landing", Lake(root / "lake")
        self.landing.mkdir()
        (root / "contract.py").write_text(CONTRACT)
        source = {
            **{"kind": "files", "uri": f"{self.landing}/*", "batch": "day", "start": "2025-01-01", "end": "2025-01-04"},
            "limits": {"rejected": 1.0},  # a refused day keeps what it held, which does depend on what came before
        }
        spec = {"name": "rides", "task": "binary", "contract": "contract.Rides", "source": source}
        self.model: Model = load_model(ModelSpec.model_validate(spec), root)

    def land(self, name: str, content: Content) -> None:
        path = self.landing / name
        if content is None:
            path.unlink(missing_ok=True)
            return
        arriving = path.with_name(f".{name}")
        arriving.write_bytes(content if isinstance(content, bytes) else encoded(content, path.suffix))
        arriving.rename(path)

    def refresh(self) -> list[list[str]]:
        with contextlib.suppress(dg.Failure):
            return refresh(self.model, self.lake)
        return []

    def tables(self) -> dict[str, list[Row]]:
        """Rows of each table, but for the time at which they came."""
        found = {}
        for table in TABLES:
            rows = self.lake.read("rides", table)
            rows = rows.select(sorted(name for name in rows.columns if name != INGESTED_AT))
            found[table] = rows.sort(rows.columns, nulls_last=True).to_dicts()
        return found

    def versions(self) -> list[int | None]:
        return [self.lake.version("rides", table) for table in TABLES]


def encoded(rows: list[Row], ending: str) -> bytes:
    frame, buffer = pl.DataFrame(rows, schema=SCHEMA), io.BytesIO()
    if ending == ".parquet":
        frame.write_parquet(buffer)
    else:
        frame.write_csv(buffer, datetime_format="%FT%T%.6fZ")
    return buffer.getvalue()


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder))


def latest_rows(final: dict[str, list[Row]]) -> tuple[dict[tuple[str, str], Row], Counter[str]]:
    """By the words of the documentation: which row of each ride and day counts, and how many rows a day has."""
    counts: Counter[str] = Counter()
    kept: dict[tuple[str, str], Row] = {}
    for name in sorted(final):
        inside = [row for row in final[name] if row["at"] is not None and row["at"] >= noon(1)]
        home = min(f"{row['at']:%Y-%m-%d}" for row in inside)
        for row in final[name]:
            day = f"{row['at']:%Y-%m-%d}" if any(row is each for each in inside) else home
            counts[day] += 1
            if any(row is each for each in inside) and (row["km"] is None or row["km"] > 0):
                kept[day, row["ride"]] = row
    return kept, counts


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(arrived=arrivals())
def test_any_order_and_repetition_of_arrivals_ends_in_the_same_tables(arrived: tuple[str, list[Event]]) -> None:
    ending, landed = arrived
    final = {name: content for name, content, _ in landed}
    with place() as one, place() as other:
        for name, content, refreshed in landed:
            one.land(name, content)
            if refreshed:
                one.refresh()
        one.refresh()
        for name, content in final.items():
            other.land(name, content)
        other.refresh()

        assert filled(one.tables()) == filled(other.tables())
        there = {name: content for name, content in final.items() if isinstance(content, list)}
        kept, counts = latest_rows(there)
        cleaned = one.tables()["cleaned_data"]
        assert {(row[PARTITION], row["ride"]): {key: row[key] for key in SCHEMA} for row in cleaned} == kept
        assert len(cleaned) == len(kept)
        assert Counter(row[PARTITION] for row in one.tables()["raw_data"]) == counts
        records = read_latest(one.lake, "rides")
        for day, record in records.of("cleaned_data").items():
            details = record.details
            assert counts[day] == details["raw"] == record.rows + details["rejected"] + details["duplicates"]

        versions = one.versions()
        for name, content in there.items():
            one.land(name, content)  # the same once more
        one.refresh()
        assert one.versions() == versions, f"the same {ending} files again change no table"
        assert one.refresh() == []


def filled(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Tables without columns of which nothing is left."""
    return {
        table: [{name: value for name, value in row.items() if value is not None} for row in rows]
        for table, rows in tables.items()
    }
