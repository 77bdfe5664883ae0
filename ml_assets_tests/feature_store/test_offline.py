"""Feast's own point-in-time join over the lake gives what training joins."""

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_assets.assets.joined import with_joined
from ml_assets.feature_store.repository import apply, write_repository
from ml_assets.feature_store.types import stored_type
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.joins import AVAILABLE_AT, Join, join_table
from ml_assets.model import Model
from ml_assets_tests.feature_store.trips import Trips, at

Row = dict[str, Any]
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ROWS = {"row": pl.Int64, "origin": pl.String, "carrier": pl.Int64, "event_timestamp": pl.Datetime("us", "UTC")}


class Both:
    """The same tables, joined by us and by Feast."""

    def __init__(self, trips: Trips) -> None:
        self.model: Model = trips.model()
        self.lake: Lake = trips.lake
        write_repository(trips.root / "feast", self.model, self.lake, trips.root / "online.db")
        self.store = apply(trips.root / "feast")

    def put(self, tables: dict[str, list[Row]]) -> None:
        """Write tables; of those that are not named there is nothing."""
        for name, join in self.model.views.items():
            frame = pl.DataFrame(tables.get(name, []), schema=dict(join.types))
            self.lake.replace("trips", name, frame.with_columns(pl.lit(WHOLE).alias(PARTITION)), [WHOLE])

    def ours(self, rows: pl.DataFrame) -> pl.DataFrame:
        for name, join in self.model.views.items():
            table = self.lake.read("trips", name)
            joined, _ = join_table(rows, table, join, "event_timestamp")
            rows = rows.hstack(joined.select(_as_stored(join, name)))
        return rows

    def feasts(self, rows: pl.DataFrame) -> pl.DataFrame:
        service = self.store.get_feature_service("trips")
        asked = rows.to_pandas().astype({"carrier": "Int64"})
        job = self.store.get_historical_features(asked, service, full_feature_names=True)
        found = pl.from_arrow(job.to_arrow())
        assert isinstance(found, pl.DataFrame)
        return found.sort("row")

    def assert_equal(self, rows: list[Row]) -> pl.DataFrame:
        asked = pl.DataFrame([{"row": number} | row for number, row in enumerate(rows)], schema=ROWS)
        ours, feasts = self.ours(asked), self.feasts(asked)
        features = [name for name in ours.columns if name not in ROWS]
        assert_frame_equal(feasts.select("row", *features), ours.select("row", *features), check_exact=True)
        return ours


def _as_stored(join: Join, view: str) -> list[pl.Expr]:
    found = []
    for name, beside in join.columns.items():
        kind = join.types[name]
        value = pl.col(beside).to_physical() if kind.is_temporal() else pl.col(beside)
        found.append(value.cast(stored_type(kind)).alias(f"{view}__{name}"))
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(Trips(tmp_path_factory.mktemp("offline") / "trips"))


def weather(available: datetime, station: str | None, wind: float | None, read_at: datetime | None = None) -> Row:
    return {AVAILABLE_AT: available, "station": station, "wind": wind, "read_at": read_at or available}


def asked(when: datetime | None, origin: str | None = "JFK", carrier: int | None = 1) -> Row:
    return {"event_timestamp": when, "origin": origin, "carrier": carrier}


@pytest.mark.parametrize(
    ("age", "found"),
    [
        (timedelta(0), True),
        (-MICROSECOND, False),  # not there yet
        (timedelta(hours=6), True),
        (timedelta(hours=6) + MICROSECOND, False),  # too old: tolerance of seven hours, one of them the lag
    ],
)
def test_both_ends_of_the_time_that_a_value_counts_belong_to_it(both: Both, age: timedelta, found: bool) -> None:
    both.put({"weather": [weather(at(2), "JFK", 7.0)]})
    joined = both.assert_equal([asked(at(2) + age)])
    assert joined["weather__wind"].to_list() == [7.0 if found else None]


def test_of_two_rows_available_at_one_time_the_later_one_counts(both: Both) -> None:
    early, late = at(2) - 2 * MICROSECOND, at(2) - MICROSECOND
    both.put({"weather": [weather(at(2), "JFK", 1.0, early), weather(at(2), "JFK", 2.0, late)]})
    assert both.assert_equal([asked(at(2, 1))])["weather__wind"].to_list() == [2.0]


def test_rows_without_an_earlier_value_stay_and_so_do_repeated_ones(both: Both) -> None:
    both.put({"weather": [weather(at(2), "JFK", 7.0), weather(at(2), None, 9.0)]})
    rows = [asked(at(1)), asked(at(2)), asked(at(2)), asked(at(2), "CDG"), asked(at(2), None), asked(at(1))]
    assert both.assert_equal(rows)["weather__wind"].to_list() == [None, 7.0, 7.0, None, None, None]


def test_a_table_without_a_row_leaves_nulls(both: Both) -> None:
    both.put({})
    joined = both.assert_equal([asked(at(2))])
    assert joined.drop(list(ROWS)).row(0) == (None,) * (joined.width - len(ROWS))


def test_values_come_in_the_types_that_are_stored(both: Both) -> None:
    both.put({"airports": [{AVAILABLE_AT: ALWAYS, "code": "JFK", "opened": at(1).date(), 'it\'s a "zone"': "n"}]})
    joined = both.feasts(pl.DataFrame([{"row": 0} | asked(at(1))], schema=ROWS))
    assert joined["airports__opened"].to_list() == [20089], "days since 1970"
    assert joined.schema['airports__it\'s a "zone"'] == pl.String


TTLS = [timedelta(0), timedelta(hours=6), timedelta(hours=42), timedelta(days=3)]
available = st.sampled_from([at(1), at(1, 3), at(2), at(3)])
asked_at = st.builds(
    lambda start, ttl, off: start + ttl + off * MICROSECOND, available, st.sampled_from(TTLS), st.integers(-1, 1)
)
numbers = st.none() | st.floats(width=32, allow_nan=False)
origins, carriers = st.sampled_from(["JFK", "LHR", "CDG", None]), st.sampled_from([1, 2, 9, None])


def rows_of(columns: dict[str, st.SearchStrategy[Any]], *key: str) -> st.SearchStrategy[list[Row]]:
    """Rows that differ in their key, sorted by it."""
    return st.lists(
        st.fixed_dictionaries(columns), max_size=8, unique_by=lambda row: tuple(row[each] for each in key)
    ).map(lambda rows: sorted(rows, key=lambda row: [str(row[each]) for each in key]))


time = {AVAILABLE_AT: available}
tables = st.fixed_dictionaries(
    {
        "weather": rows_of(
            time
            | {
                "station": st.sampled_from(["JFK", "LHR", None]),
                "wind": numbers,
                "gusts": st.none() | st.integers(0, 9),
            }
            | {"read_at": st.sampled_from([at(1, minute / 60) for minute in range(30)])},
            "read_at",  # so that no two rows of a time are as late as each other
        ),
        "airports": rows_of(
            {AVAILABLE_AT: st.just(ALWAYS), "code": st.sampled_from(["JFK", "LHR"]), "opened": st.none() | st.dates()},
            "code",
        ),
        "school_off": rows_of(time | {"day": st.just(at(1)), "school": st.none() | st.booleans()}, AVAILABLE_AT),
        "past": rows_of(
            time
            | {"carrier": st.sampled_from([1, 2, None]), "km_count_1d": st.integers(0, 2**53), "km_mean_2d": numbers},
            *(AVAILABLE_AT, "carrier"),
        ),
        "pairs": rows_of(
            time
            | {"origin": st.sampled_from(["JFK", None]), "carrier": st.sampled_from([1, 2]), "late_share_2d": numbers},
            *(AVAILABLE_AT, "origin", "carrier"),
        ),
    }
)
many = st.lists(st.builds(asked, asked_at, origins, carriers), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=tables, rows=many)
def test_feast_joins_as_training_does(both: Both, content: dict[str, list[Row]], rows: list[Row]) -> None:
    both.put(content)
    both.assert_equal(rows)


def test_rows_of_training_are_what_feast_gives(tmp_path: Path) -> None:
    trips = Trips(tmp_path / "trips")
    trips.land()
    both = Both(trips)
    cleaned = trips.lake.read("trips", "cleaned_data")
    joined, _ = with_joined(both.model, trips.lake, cleaned, sorted(set(cleaned[PARTITION])))
    rows = cleaned.select(
        pl.int_range(pl.len()).alias("row"), "origin", "carrier", pl.col("at").alias("event_timestamp")
    )
    feasts = both.feasts(rows)
    for name, join in both.model.views.items():
        ours = joined.select(_as_stored(join, name))
        assert_frame_equal(feasts.select(ours.columns), ours, check_exact=True)
        assert not all(feasts[each].is_null().all() for each in ours.columns)


def test_the_lake_is_not_written_by_feast(both: Both) -> None:
    there = both.lake.read("trips", "past").to_pandas()
    with pytest.raises(NotImplementedError, match="past: only the assets of ml-assets write"):
        both.store.write_to_offline_store("past", there)


def test_feasts_default_store_loses_rows_without_an_earlier_value(tmp_path: Path) -> None:
    """Why it is never used."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    path = tmp_path / "wind.parquet"
    pl.DataFrame([weather(at(2), "JFK", 7.0)]).select(AVAILABLE_AT, "station", "wind").write_parquet(path)
    config = RepoConfig(
        project="lost",
        registry=str(tmp_path / "registry.db"),
        provider="local",
        online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        entity_key_serialization_version=3,
    )
    assert config.offline_store.type == "dask"
    store = FeatureStore(config=config)
    station = Entity(name="station", value_type=ValueType.STRING)
    source = FileSource(name="wind", path=str(path), timestamp_field=AVAILABLE_AT)
    view = FeatureView(
        name="wind",
        entities=[station],
        ttl=timedelta(hours=6),
        schema=[Field(name="wind", dtype=Float64)],
        source=source,
    )
    store.apply([station, view])
    rows = pd.DataFrame({"station": ["JFK", "JFK", "CDG"], "event_timestamp": [at(1), at(2), at(2)]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = store.get_historical_features(rows, ["wind:wind"]).to_df()
    assert len(found) < len(rows)
