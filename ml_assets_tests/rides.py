"""A small model with all its files and tables in a folder, refreshed without Dagster's runs: rides, perhaps late.

Their outcomes come in the same files, or in files of their own.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ml_assets.assets.raw_data import INGESTED_AT
from ml_assets.lake import Lake
from ml_assets.loading import load_model
from ml_assets.model import Model
from ml_assets.records import read_latest
from ml_assets.spec.model import ModelSpec
from ml_assets_tests.steps import refresh

CONTRACT = """
from typing import Annotated

import pandera.polars as pa
import polars as pl


class Rides(pa.DataFrameModel):
    ride: str = pa.Field(metadata={"role": "key"})
    at: Annotated[pl.Datetime, "us", "UTC"] = pa.Field(metadata={"role": ["key", "event_time"]})
    km: float = pa.Field(gt=0, nullable=True, metadata={"role": "request"})
    known: Annotated[pl.Datetime, "us", "UTC"] = pa.Field(metadata={"role": "known_at"})
    late: bool = pa.Field(nullable=True, metadata={"role": "target"})
"""
FEATURES = "import polars as pl\n\nFEATURES = [pl.col('km'), (pl.col('km') * 2).alias('both_ways')]\n"
TIME = pl.Datetime("us", "UTC")
SCHEMA = {"ride": pl.String, "at": TIME, "km": pl.Float64, "known": TIME, "late": pl.Boolean, "note": pl.String}
COLUMNS = {"rides": ["ride", "at", "km"], "outcomes": ["ride", "known", "late"]}  # where outcomes have their own files
DAYS = range(1, 5)  # of January, the first and the last of the source
NO_LIMIT = {"rejected": 1.0}  # a day that is refused keeps what it held, which does depend on what came before
DATA = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "history", "features")
GROUP = {"name": "history", "entity": "ride", "windows": ["1d", "2d"], "within": "9d"}
OF_RIDES = {"km": ["count", "sum", "days_since_last"]}
OF_OUTCOMES = {"late": ["share", "count"]}  # those that come in the same rows may become known at any time
TABLES = (*DATA, "rejected_outcomes")

Row = dict[str, Any]
Content = list[Row] | bytes | None


def noon(day: int | None) -> datetime | None:
    """Of a day of January; 0 is the last of December."""
    return None if day is None else datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(days=day - 1)


@dataclass
class Place:
    """A folder with a model, what arrived for it and its tables.

    Attributes:
        apart: each step runs as in a process of its own.
    """

    root: Path
    own_outcomes: bool
    apart: bool = False
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        for folder in COLUMNS:
            (self.root / folder).mkdir(parents=True)
        (self.root / "contract.py").write_text(CONTRACT)
        (self.root / "features.py").write_text(FEATURES)
        january = {"batch": "day", "start": "2025-01-01", "end": f"2025-01-0{DAYS[-1]}"}
        spec: dict[str, Any] = {
            "name": "rides",
            "task": "binary",
            "contract": "contract.Rides",
            "features": "features.FEATURES",
            "source": {"kind": "files", "uri": f"{self.root}/rides/*", "limits": NO_LIMIT} | january,
            "groups": [GROUP | {"aggregates": OF_RIDES | (OF_OUTCOMES if self.own_outcomes else {})}],
        }
        if self.own_outcomes:
            outcomes = {"kind": "files", "uri": f"{self.root}/outcomes/*", "limits": NO_LIMIT, "key": ["ride"]}
            spec["outcomes"] = outcomes
        self.model = load_model(ModelSpec.model_validate(spec), self.root)

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "lake")

    def put(self, name: str, content: Content) -> None:
        """A file of `rides/` or `outcomes/` gets a content."""
        folder = name.split("/", maxsplit=1)[0]
        _put(self.root / name, content, COLUMNS[folder] if self.own_outcomes else list(SCHEMA)[:-1])

    def refresh(self) -> list[list[str]]:
        return refresh(self.model, self.lake, apart=self.apart)

    def tables(self) -> dict[str, list[Row]]:
        """Rows of each table, sorted. A column that only rows had which are gone is no difference."""
        found = {}
        for table in TABLES:
            there = self.lake.read("rides", table)
            there = there.select(
                pl.col(name)
                for name in sorted(there.columns)
                if name != INGESTED_AT and not there[name].is_null().all()
            )
            found[table] = sorted(there.to_dicts(), key=str)
        return found

    def contents(self) -> dict[str, dict[str, str]]:
        """What the records say of each day that has rows."""
        latest = read_latest(self.lake, "rides")
        return {each: {day: one.content for day, one in latest.of(each).items() if one.rows} for each in DATA}

    def versions(self) -> dict[str, int | None]:
        return {each: self.lake.version("rides", each) for each in (*TABLES, "batches", "surveys")}


@contextmanager
def place(own_outcomes: bool, *, apart: bool = False) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder), own_outcomes, apart)


def _put(path: Path, content: Content, columns: Sequence[str]) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        frame = pl.DataFrame(content, schema=SCHEMA).select(*columns, *(["note"] if "note" in content[0] else []))
        if path.stem.endswith("1"):  # by another program, with columns in another order
            frame = frame.select(reversed(frame.columns))
        if path.suffix == ".csv":
            frame.write_csv(path, datetime_format="%FT%T%.6fZ")
        else:
            frame.write_parquet(path)
