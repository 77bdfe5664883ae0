"""The generated repository is one that Feast's own command works on, and follows the model."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import SettingsError
from ml_assets.feature_store.repository import apply, entity_names, write_repository
from ml_assets_tests.feature_store.trips import Trips, at
from ml_assets_tests.project import PROGRAMS

ODD = '$HOME it\'s "ü"'  # of folders


def feast(folder: Path, *command: str) -> str:
    """What Feast's command prints."""
    done = subprocess.run(
        [str(PROGRAMS / "feast"), "-c", str(folder), *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("ML_ASSETS_")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def values(store: Any, name: str, **keys: Any) -> dict[str, Any]:
    """Features of one row as the online store has them."""
    service = store.get_feature_service(name)
    found = store.get_online_features(service, [keys], full_feature_names=True).to_dict()
    return {name: each for name, (each,) in found.items() if "__" in name and not name.endswith("available_at_us")}


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Trips:
    made = Trips(tmp_path_factory.mktemp("repository") / "trips")
    made.land()
    return made


def test_feasts_command_works_on_it(trips: Trips, tmp_path: Path) -> None:
    folder = tmp_path / ODD / "feast"
    write_repository(folder, trips.model(), trips.lake, tmp_path / ODD / "online" / "$USER.db")
    assert "Created feature service" in feast(folder, "apply")
    materialize = ("materialize", "1970-01-01T00:00:00", "2025-01-06T00:00:00")
    with ThreadPoolExecutor(2) as pool:  # each is 5 s of imports
        views, _ = pool.map(lambda command: feast(folder, *command), [("feature-views", "list"), materialize])
    assert all(name in views for name in ("weather", "airports", "school_off", "past", "pairs"))
    assert (tmp_path / ODD / "online" / "$USER.db").is_file()
    store = apply(folder)
    assert {each.name for each in store.list_entities()} == {"carrier", "code", "origin", "station"}
    assert values(store, "trips", origin="JFK", carrier=1) == {
        "weather__wind": 4 + 9 / 8,
        "weather__gusts": 4,
        "airports__opened": -7854,
        'airports__it\'s a "zone"': "north",
        "school_off__school": True,
        "past__km_count_1d": 2,
        "past__km_count_2d": 4,
        "past__km_mean_1d": 4.0,
        "past__km_mean_2d": 3.5,
        "pairs__late_share_2d": 0.5,
    }
    unknown = values(store, "trips", origin="CDG", carrier=9)
    assert {name for name, each in unknown.items() if each is not None} == {"airports__opened", "school_off__school"}


def test_what_the_model_no_longer_has_leaves_the_registry_and_the_rest_keeps_its_values(
    trips: Trips, tmp_path: Path
) -> None:
    folder, online = tmp_path / "feast", tmp_path / "online.db"
    write_repository(folder, trips.model(), trips.lake, online)
    store = apply(folder)
    store.materialize(at(-365), at(6))
    fewer = Trips(trips.root, sides=("weather",), groups=("past",))
    write_repository(folder, fewer.model(), trips.lake, online)
    for _ in range(2):
        store = apply(folder)
        assert {each.name for each in store.list_feature_views()} == {"weather", "past"}
        assert {each.name for each in store.list_entities()} == {"carrier", "station"}
        assert {each.name for each in store.list_data_sources()} == {"weather", "past"}
        assert values(store, "trips", origin="JFK", carrier=1)["past__km_mean_1d"] == 4.0
        intervals = store.get_feature_view("past").materialization_intervals
        assert len(intervals) == 1, "Feast still knows what it wrote"


def test_a_model_without_side_tables_and_groups_has_an_empty_repository(trips: Trips, tmp_path: Path) -> None:
    folder, online = tmp_path / "feast", tmp_path / "online.db"
    write_repository(folder, trips.model(), trips.lake, online)
    apply(folder)
    write_repository(folder, Trips(trips.root, sides=(), groups=()).model(), trips.lake, online)
    store = apply(folder)
    assert (store.list_feature_views(), store.list_entities(), store.list_feature_services()) == ([], [], [])


def test_models_in_one_process_do_not_mix(trips: Trips, tmp_path: Path) -> None:
    names = {"trips": ("past",), "others": ("pairs",)}
    for name, groups in names.items():
        model = Trips(trips.root, name=name, sides=(), groups=groups).model()
        write_repository(tmp_path / name, model, trips.lake, tmp_path / "online.db")
    for name, groups in names.items():
        store = apply(tmp_path / name)
        assert store.project == name
        assert [each.name for each in store.list_feature_views()] == list(groups)


def test_a_file_that_says_the_same_is_left_alone(trips: Trips, tmp_path: Path) -> None:
    def write() -> dict[str, int]:
        write_repository(tmp_path, trips.model(), trips.lake, tmp_path / "online.db")
        return {name: (tmp_path / name).stat().st_ino for name in ("feature_store.yaml", "repo.py")}

    assert write() == write()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["feature_store.yaml", "repo.py"]


def test_the_password_of_redis_reaches_feast_whatever_it_is_and_is_for_the_owner_alone(
    trips: Trips, tmp_path: Path
) -> None:
    from feast import FeatureStore
    from feast.infra.online_stores.redis import RedisOnlineStore

    address = "rediss://me:1,$HOME%40%27%22%5C%F0%9F%9A%82=@redis.local:7000/3"
    write_repository(tmp_path, trips.model(), trips.lake, address)
    file = tmp_path / "feature_store.yaml"
    assert file.stat().st_mode & 0o077 == 0
    online = FeatureStore(str(tmp_path)).config.online_store
    assert (online.type, online.skip_dedup) == ("redis", True)
    assert RedisOnlineStore._parse_connection_string(online.connection_string) == (
        [{"host": "redis.local", "port": "7000"}],
        {"db": 3, "ssl": True, "username": "me", "password": "1,$HOME@'\"\\🚂="},
    )


@pytest.mark.parametrize("address", ["redis.local:6379", "redis://:secret@[::1]/0", "redis://:secret@h/0?timeout=1"])
def test_an_address_that_feast_cannot_be_told_is_refused_without_its_password(
    trips: Trips, tmp_path: Path, address: str
) -> None:
    with pytest.raises(SettingsError, match="Feast is told a Redis as") as refused:
        write_repository(tmp_path, trips.model(), trips.lake, address)
    assert "secret" not in str(refused.value)


def test_a_key_of_two_types_is_two_entities(trips: Trips) -> None:
    views = trips.model().views
    pairs, past = views["pairs"], views["past"]
    other = {name: past.types["km_mean_1d"] if name == "carrier" else kind for name, kind in past.types.items()}
    assert entity_names({"pairs": pairs, "past": type(past)(past.by, past.columns, other, past.freshness)}) == {
        "pairs": {"origin": "origin", "carrier": "pairs_carrier"},
        "past": {"carrier": "past_carrier"},
    }
