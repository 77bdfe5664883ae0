"""What lies in the online store, SQLite and Redis: what the tables say, whatever came before, and as Feast reads it."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.deployment.release import view_of
from ml_assets.errors import OnlineStoreError
from ml_assets.feature_store.online import Holding, bring_up_to_date, holding, mark_of
from ml_assets.feature_store.repository import apply, write_repository
from ml_assets.ml.joins import AVAILABLE_AT, join_table
from ml_assets.model import Model
from ml_assets.serving.look_up import look_up
from ml_assets.serving.online import Ask, Found, OnlineStore, entity_key, open_online, sqlite_path
from ml_assets_tests.feature_store.trips import Trips, at
from ml_assets_tests.project import free_port

if TYPE_CHECKING:
    from feast import FeatureStore

LONG_AFTER = at(40)


@dataclass
class Place:
    """An online store of the model of `trips`, and Feast's store over it."""

    model: Model
    trips: Trips
    feast: "FeatureStore"
    online: OnlineStore
    place: str

    def fill(self, tables: dict[str, pl.DataFrame], as_of: datetime = LONG_AFTER, before: Any = None) -> dict[str, int]:
        return bring_up_to_date(self.feast, self.online, self.holdings(tables, as_of), before or {})

    def holdings(self, tables: dict[str, pl.DataFrame], as_of: datetime = LONG_AFTER) -> dict[str, Holding]:
        return {name: holding(self.model.views[name], table, as_of) for name, table in tables.items()}

    def read(self, view: str, *entities: dict[str, Any]) -> list[Found | None]:
        keys = [entity_key(each.items()) for each in entities]
        return self.online.read([Ask(view, list(self.model.views[view].columns), keys)])[0]

    def lose(self) -> None:
        """The store is gone, and Feast made an empty one in its place."""
        if self.place.startswith("redis"):
            import redis

            redis.Redis.from_url(self.place).flushdb()
        else:
            sqlite_path(self.place, self.model.name).unlink()
        write_repository(self.trips.root / "feast", self.model, self.trips.lake, self._online())
        self.feast = apply(self.trips.root / "feast")

    def _online(self) -> Path | str:
        return self.place if self.place.startswith("redis") else sqlite_path(self.place, self.model.name)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp(request.param)
    trips = Trips(root, name=f"trips_{request.param}")
    trips.land()
    model = trips.model()
    where = str(root / "online") if request.param == "sqlite" else request.getfixturevalue("redis_url")
    online = sqlite_path(where, model.name) if request.param == "sqlite" else where
    write_repository(root / "feast", model, trips.lake, online)
    return Place(model, trips, apply(root / "feast"), open_online(where, model.name), where)


def tables(place: Place) -> dict[str, pl.DataFrame]:
    """Of each view what its asset made."""
    return {name: place.trips.lake.read(place.model.name, name) for name in place.model.views}


def past(rows: list[tuple[int, int, int | None, float | None]]) -> pl.DataFrame:
    """Rows of the group `past`: carrier, hours, count, mean."""
    schema = {"carrier": pl.Int64, "hours": pl.Int64, "count": pl.Int64, "mean": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    begin = pl.lit(at(1)).cast(pl.Datetime("us", "UTC"))
    counts = [pl.col("count").alias(f"km_count_{window}") for window in ("1d", "2d")]
    means = [pl.col("mean").alias(f"km_mean_{window}") for window in ("1d", "2d")]
    return frame.select("carrier", (begin + pl.duration(hours="hours")).alias(AVAILABLE_AT), *counts, *means)


def test_every_value_comes_back_to_the_last_bit_and_as_feast_itself_reads_it(place: Place) -> None:
    there = tables(place)
    place.fill(there)
    assert {name: len(each.rows) for name, each in place.holdings(there).items()} == {
        "weather": 2,
        "airports": 3,
        "school_off": 1,
        "past": 2,
        "pairs": 4,
    }
    service = place.feast.get_feature_service(place.model.name)
    entities = [
        {"origin": origin, "carrier": carrier, "station": origin, "code": origin}
        for origin in ("JFK", "LHR", "CDG", "XXX")
        for carrier in (1, 2, 9)
    ]
    told = place.feast.get_online_features(service, entities, full_feature_names=True).to_dict()
    compared = 0
    for name, join in place.model.views.items():
        keys = [{theirs: row[own] for own, theirs in join.by.items()} for row in entities]
        found = place.read(name, *keys)
        for own in join.columns:
            ours = [each.values.get(own) if each else None for each in found]
            assert [repr(each) for each in ours] == [repr(each) for each in told[f"{name}__{own}"]]
            compared += sum(each is not None for each in ours)
        for each, key in zip(found, keys, strict=True):
            row = place.holdings(there)[name].rows.filter(*(pl.col(one) == value for one, value in key.items()))
            assert (each is None) == row.is_empty()
            if each is not None:
                assert each.at == row.item(0, AVAILABLE_AT).timestamp() * 1e6
                assert each.values == row.select(list(join.columns)).row(0, named=True)
    assert compared > 60


def test_feasts_own_materialisation_writes_the_same(place: Place, tmp_path: Path) -> None:
    there = tables(place)
    place.fill(there)
    folder = tmp_path / "feast"
    write_repository(folder, place.model, place.trips.lake, sqlite_path(str(tmp_path), place.model.name))
    apply(folder).materialize(at(-20_200), LONG_AFTER)
    feasts = open_online(str(tmp_path), place.model.name)
    for name, join in place.model.views.items():
        rows = place.holdings(there)[name].rows.select(list(join.by.values()))
        keys = [entity_key(row.items()) for row in rows.iter_rows(named=True)] if join.by else [entity_key([])]
        ask = [Ask(name, list(join.columns), keys)]
        assert feasts.read(ask) == place.online.read(ask)


VALUE = st.sampled_from([None, 0.1 + 0.2, -0.0, 1e300, 5e-324])
ROWS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 130), st.sampled_from([None, 0, -7, 2**62]), VALUE),
    max_size=8,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(st.tuples(ROWS, st.integers(0, 140)), min_size=1, max_size=4))
def test_whatever_arrived_before_the_store_gives_what_the_join_of_training_gives(
    place: Place, history: list[tuple[list[Any], int]]
) -> None:
    join, before = place.model.views["past"], None
    hours = 0
    for rows, later in history:
        hours = max(hours, later)  # time does not run back; rows do change, appear and vanish
        as_of = at(1, hours)
        held = place.holdings({"past": past(rows)}, as_of)["past"]
        bring_up_to_date(place.feast, place.online, {"past": held}, {} if before is None else {"past": before})
        before = held.table()
        known = past(rows).filter(pl.col(AVAILABLE_AT) <= as_of)
        newest = known.get_column(AVAILABLE_AT).max()
        assert newest is None or isinstance(newest, datetime)
        moments = [(newest or as_of) + timedelta(seconds=each) for each in (0, 1, 3 * 86_400 - 3600, 3 * 86_400)]
        asked = pl.DataFrame(
            [(carrier, moment) for carrier in (1, 2, 3, 9, None) for moment in moments],
            schema={"carrier": pl.Int64, "at": pl.Datetime("us", "UTC")},
            orient="row",
        )
        offline, matched = join_table(asked, known, join, "at")
        found = look_up(place.online, [view_of("past", join)], asked, "at")
        assert [not each for each in found.missing] == matched.to_list()
        for name in join.columns.values():
            assert list(map(repr, found.columns[name])) == list(map(repr, offline[name]))


def test_a_value_never_moves_back_in_time_but_a_withdrawn_one_goes(place: Place) -> None:
    first, second = past([(1, 0, 5, 1.0), (2, 0, 6, 2.0)]), past([(1, 0, 5, 1.0), (2, 0, 6, 2.0), (1, 24, 7, None)])
    place.fill({"past": second})
    [newest, other] = place.read("past", {"carrier": 1}, {"carrier": 2})
    assert (newest and newest.values["km_count_1d"], other and other.values["km_count_1d"]) == (7, 6)
    before = {"past": place.holdings({"past": second})["past"].table()}
    late = pl.concat([second, past([(1, 12, 99, 9.0)])])  # arrives late, and is older than what is there
    assert place.fill({"past": late}, before=before) == {"past": 0}
    assert place.read("past", {"carrier": 1}) == [newest]
    assert place.fill({"past": first}, before=before) == {"past": 1}, "the newest row is withdrawn"
    [older] = place.read("past", {"carrier": 1})
    assert older is not None
    assert older.values["km_count_1d"] == 5
    before = {"past": place.holdings({"past": first})["past"].table()}
    assert place.fill({"past": first.filter(pl.col("carrier") == 2)}, before=before) == {"past": 1}
    assert place.read("past", {"carrier": 1}, {"carrier": 2}) == [None, other]


def test_rows_of_nothing_but_nulls_are_written(place: Place) -> None:
    """Feast's `write_to_online_store` leaves them out, and what was there before would seem to hold."""
    place.fill({"past": past([(1, 0, 5, 1.0)])})
    before = {"past": place.holdings({"past": past([(1, 0, 5, 1.0)])})["past"].table()}
    place.fill({"past": past([(1, 24, None, None)])}, before=before)
    [found] = place.read("past", {"carrier": 1})
    assert found is not None
    assert found.at == at(2).timestamp() * 1e6
    assert set(found.values.values()) == {None}


def test_what_did_not_change_is_not_written_again(place: Place) -> None:
    rows = [(carrier, 0, carrier, 0.5) for carrier in range(1, 50)]
    place.fill({"past": past(rows)})
    before = {"past": place.holdings({"past": past(rows)})["past"].table()}
    assert place.fill({"past": past(rows)}, before=before) == {"past": 0}
    assert place.fill({"past": past([*rows, (7, 24, 1, 1.0)])}, before=before) == {"past": 1}


@pytest.mark.parametrize("how", ["lost", "killed"])
def test_a_store_that_was_lost_or_whose_writer_was_killed_is_filled_anew(place: Place, how: str) -> None:
    there = tables(place)
    place.fill(there)
    before = {name: each.table() for name, each in place.holdings(there).items()}
    answers = [place.read(name, *_entities(place, name)) for name in place.model.views]
    if how == "lost":
        place.lose()
        assert place.online.marks() == {}
    else:
        bring_up_to_date(place.feast, place.online, place.holdings({"past": past([(1, 99, 0, None)])}), {})
        place.online.mark("past", None)
    written = place.fill(there, before=before)
    assert written["past"] == 2
    assert [place.read(name, *_entities(place, name)) for name in place.model.views] == answers


def _entities(place: Place, name: str) -> list[dict[str, Any]]:
    values = {"station": ["JFK", "LHR"], "code": ["JFK", "CDG"], "carrier": [1, 2], "origin": ["JFK", "LHR"]}
    keys = place.model.views[name].by.values()
    return [{key: values[key][number] for key in keys} for number in range(2)]


def test_a_view_whose_entity_changed_is_brought_up_to_date(place: Place) -> None:
    place.fill({"past": past([(1, 0, 5, 1.0)])})
    held = place.holdings({"past": past([(1, 0, 5, 1.0)])})["past"]
    before = {"past": held.table().with_columns(entity=pl.lit('{"truck":7}'))}
    place.online.mark("past", mark_of(before["past"]))
    bring_up_to_date(place.feast, place.online, {"past": held}, before)
    assert place.read("past", {"carrier": 1}) != [None]


def test_a_model_whose_name_ends_like_another_leaves_that_ones_entities_alone(redis_url: str, tmp_path: Path) -> None:
    places = []
    for name in ("late_runs", "runs"):
        trips = Trips(tmp_path / name, name=name)
        model = trips.model()
        write_repository(trips.root / "feast", model, trips.lake, redis_url)
        online = open_online(redis_url, name)
        places.append(Place(model, trips, apply(trips.root / "feast"), online, redis_url))
    late, runs = places
    late.fill({"past": past([(1, 24, 5, 1.0), (2, 24, 6, 2.0)])})
    there = late.read("past", {"carrier": 1}, {"carrier": 2})
    runs.fill({"past": past([(1, 24, 7, 3.0)])})
    assert late.read("past", {"carrier": 1}, {"carrier": 2}) == there
    assert None not in there


def test_a_view_that_the_model_has_no_more_goes_and_another_models_of_the_same_name_stays(
    redis_url: str, tmp_path: Path
) -> None:
    carriers, tables = ({"carrier": 1}, {"carrier": 2}), {"past": past([(1, 24, 5, 1.0), (2, 24, 6, 2.0)])}
    held: dict[str, Place] = {}
    for name in ("late_rides", "rides"):
        trips = Trips(tmp_path / name, name=name)
        model = trips.model()
        write_repository(trips.root / "feast", model, trips.lake, redis_url)
        held[name] = Place(model, trips, apply(trips.root / "feast"), open_online(redis_url, name), redis_url)
        held[name].fill(tables)
    late, rides = held.values()
    there, before = late.read("past", *carriers), rides.holdings(tables)["past"].table()
    columns = {"past": list(rides.model.views["past"].columns)}
    write_repository(
        rides.trips.root / "feast",
        Trips(tmp_path / "rides", name="rides", groups=()).model(),
        rides.trips.lake,
        redis_url,
    )
    store = apply(rides.trips.root / "feast")
    assert "past" not in {each.name for each in store.list_feature_views()}
    bring_up_to_date(store, rides.online, {}, {"past": before}, columns)
    assert rides.read("past", *carriers) == [None, None]
    assert "past" not in rides.online.marks()
    assert late.read("past", *carriers) == there
    assert None not in there


def test_a_view_that_was_dropped_is_filled_again_when_it_returns(place: Place) -> None:
    tables = {"past": past([(1, 24, 5, 1.0)])}
    place.fill(tables)
    before = {"past": place.holdings(tables)["past"].table()}
    bring_up_to_date(place.feast, place.online, {}, before, {"past": list(place.model.views["past"].columns)})
    assert place.read("past", {"carrier": 1}) == [None]
    apply(place.trips.root / "feast")
    place.fill(tables)
    assert place.read("past", {"carrier": 1}) != [None]


def test_outcomes_of_a_look_up(place: Place) -> None:
    place.fill({"past": past([(1, 24, 5, math.pi)])})
    view = view_of("past", place.model.views["past"])
    moments = {"later": -1, "found": 0, "still fresh": 3 * 86_400, "stale": 3 * 86_400 + 1}
    asked = pl.DataFrame(
        {"carrier": [1] * 4 + [2, None], "at": [at(2) + timedelta(seconds=each) for each in (*moments.values(), 0, 0)]}
    )
    found = look_up(place.online, [view], asked, "at")
    assert [each.get("past", "found") for each in found.missing] == [
        *("later", "found", "found", "stale", "unknown", "unknown")
    ]
    assert found.counts == {"past": {"later": 1, "found": 2, "stale": 1, "unknown": 2}}
    assert found.columns["past_km_mean_1d"].to_list() == [None, math.pi, math.pi, None, None, None]


def test_a_column_that_the_store_does_not_hold_makes_the_entity_unknown(place: Place) -> None:
    """A release that is older than the group's definition must not mix old and new values."""
    place.fill({"past": past([(1, 24, 5, 1.0)])})
    view = view_of("past", place.model.views["past"])
    more = msgspec.structs.replace(view.columns["km_mean_1d"], name="past_km_sum_9d")
    older = msgspec.structs.replace(view, columns=view.columns | {"km_sum_9d": more})
    asked = pl.DataFrame({"carrier": [1], "at": [at(2)]})
    assert look_up(place.online, [older], asked, "at").missing == [{"past": "unknown"}]


def test_a_view_that_lost_columns_keeps_nothing_of_them(place: Place) -> None:
    """Beside newer values they would seem as new to a release that still reads them."""
    place.fill({"past": past([(1, 24, 5, 1.0), (2, 24, 6, 2.0)])})
    whole = list(place.model.views["past"].columns)
    keys = [entity_key([("carrier", 1)])]
    place.online.keep_only("past", whole[:1], whole[1:], ["carrier"], keys)
    [kept, removed] = place.read("past", {"carrier": 1}, {"carrier": 2})
    assert kept is not None
    assert (list(kept.values), removed) == (whole[:1], None)
    asked = pl.DataFrame({"carrier": [1], "at": [at(2)]})
    every = view_of("past", place.model.views["past"])
    assert look_up(place.online, [every], asked, "at").missing == [{"past": "unknown"}], "an older release"


def test_a_store_that_does_not_answer_is_an_error_without_its_password(tmp_path: Path) -> None:
    ask = [Ask("past", ["km"], [entity_key([("carrier", 1)])])]
    port = free_port()
    with pytest.raises(OnlineStoreError, match=rf"Redis at 127\.0\.0\.1:{port}, does not answer") as raised:
        open_online(f"redis://:sesame@127.0.0.1:{port}/0", "trips").read(ask)
    assert "sesame" not in str(raised.value)
    with pytest.raises(OnlineStoreError, match=r"online\.db cannot be read"):
        open_online(str(tmp_path), "trips").read(ask)
