"""Groups and side tables behind the endpoint: looked up, counted, restored, and proven to be what training saw."""

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl
import pytest
import requests

from ml_assets.assets.parity import Fill, filled, replay
from ml_assets.automation.due import due_data
from ml_assets.deployment.graph import graph_of
from ml_assets.deployment.parity import Difference
from ml_assets.deployment.parts import parts_of
from ml_assets.errors import ReleaseError
from ml_assets.feature_store.online import Holding, holding
from ml_assets.lake import WHOLE, Lake
from ml_assets.ml.features import Features
from ml_assets.ml.joins import AVAILABLE_AT
from ml_assets.model import Model
from ml_assets.registry import Registry
from ml_assets.serving.bundle import GOLDEN, GRAPH, MANIFEST, read_manifest
from ml_assets.serving.graph import Graph
from ml_assets.serving.online import OnlineStore, open_online
from ml_assets.serving.scorer import Scorer
from ml_assets.status import status_of, tell_status
from ml_assets_tests.end_to_end.test_lookups import CONTRACT, FEATURES, wind, zones
from ml_assets_tests.project import SMALL_MODEL, Project, free_port
from ml_assets_tests.releases import sealed

NAME = "late_deliveries"
GROUPS = [
    {
        "name": "restaurant_history",
        "entity": "restaurant_id",
        "windows": ["2d", "4d"],
        "aggregates": {"minutes_late": ["mean", "std"], "late": ["count"]},
    },
    {"name": "pairs", "entity": ["zone", "vehicle"], "windows": ["3d"], "aggregates": {"distance_km": ["mean"]}},
]
ORDER = {
    **{"ordered_at": "2025-01-09T12:40:00Z", "restaurant_id": "r005", "zone": "north", "vehicle": "bike"},
    **{"weather": "dry", "distance_km": 4.2, "items": 3, "order_value": 41.5, "preparation_minutes": 17.0},
    **{"promised_minutes": 32.0, "new_customer": False},
}


@pytest.fixture(scope="module")
def made(make_project: Callable[..., Project]) -> Project:
    """Eight days of orders with two groups, a side table by time and one by key, up to the endpoint."""
    project = make_project("online")
    side = "{{ landing }}/side"
    sources = {each: {"kind": "files", "uri": f"{side}/{each}"} for each in ("wind-*.parquet", "zones.csv")}
    lookups = [
        {"name": "forecast", "contract": "contract.Forecast", "lag": "1h", "tolerance": "24h"}
        | {"source": sources["wind-*.parquet"]},
        {"name": "zones", "contract": "contract.Zones", "by": {"zone": "zone"}, "source": sources["zones.csv"]},
    ]
    spec = SMALL_MODEL | {"groups": GROUPS, "lookups": lookups, "retrain": {"min_new_rows": 1_000_000}}
    folder = project.add_demo_model(**spec)
    for file, more in (("contract.py", CONTRACT), ("features.py", FEATURES)):
        (folder / file).write_text((folder / file).read_text() + more)
    project.land(8)
    (project.landing / "side").mkdir()
    for day in range(1, 9):
        wind(project, day)
    zones(project)
    project.materialize()
    return project


def ask(project: Project, *rows: dict[str, Any]) -> requests.Response:
    served = project.latest().get("endpoint", WHOLE)
    assert served is not None
    return requests.post(served.details["address"], json={"rows": list(rows)}, timeout=10)


def release_of(project: Project) -> Path:
    served = project.latest().get("endpoint", WHOLE)
    assert served is not None
    return project.settings.releases / NAME / str(served.details["release"])


def pipeline_of(project: Project) -> Any:
    served = project.latest().get("endpoint", WHOLE)
    assert served is not None
    return Registry(project.settings.mlflow_uri).load(NAME, served.details["version"])


def test_the_server_looks_up_what_training_joined(made: Project) -> None:
    model, lake = made.model(), made.lake
    counted = made.target.health()
    before = counted["models"][NAME]["looked_up"] if counted else {}
    answer = ask(made, ORDER, ORDER | {"restaurant_id": "r999"}, ORDER | {"ordered_at": "2025-01-31T12:00:00Z"})
    assert answer.status_code == 200, answer.text
    first, unknown, later = answer.json()["predictions"]
    assert "missing" not in first
    assert unknown["missing"] == {"restaurant_history": "unknown"}
    assert later["missing"] == {"restaurant_history": "stale", "pairs": "stale", "forecast": "stale"}
    assert unknown["score"] != first["score"] != later["score"]
    health = made.target.health()
    assert health is not None
    counts = health["models"][NAME]["looked_up"]
    grown = {name: {how: n - before[name].get(how, 0) for how, n in each.items()} for name, each in counts.items()}
    assert grown["restaurant_history"] == {"found": 1, "unknown": 1, "stale": 1}
    assert grown["zones"]["found"] == 3
    metrics = requests.get(f"{made.target.url()}/metrics", timeout=5).text
    outcome = f'{{model="{NAME}",outcome="stale",view="restaurant_history"}}'
    assert f"ml_assets_looked_up_total{outcome} {float(counts['restaurant_history']['stale'])}" in metrics
    told: list[str] = []
    tell_status(status_of(made.settings), told.append)
    assert any("looks up restaurant_history: " in line and "1 stale, 1 unknown" in line for line in told), told
    # What was looked up is what the group's table holds for that moment.
    history = lake.read(NAME, "restaurant_history").filter(pl.col("restaurant_id") == "r005").sort(AVAILABLE_AT)
    looked_up = {
        **{f"restaurant_history_{name}": history[name][-1] for name in model.groups["restaurant_history"].columns},
        "forecast_wind": 8 * 3 % 7 + 23.0,
        "zones_hills": 3.0,
    }
    pairs = lake.read(NAME, "pairs").filter(pl.col("zone") == "north", pl.col("vehicle") == "bike").sort(AVAILABLE_AT)
    looked_up["pairs_distance_km_mean_3d"] = pairs["distance_km_mean_3d"][-1]
    assert made.target.ask(NAME, [ORDER], looked_up=[looked_up])["predictions"] == [first]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zones_hills": 3.0}, "column 'zones_hills' is looked up in zones; do not send it, but zone"),
        ({"restaurant_id": 7}, "column 'restaurant_id' is 7, not a String"),
        ({"restaurant_id": None}, "column 'restaurant_id' is null"),
        ({"ordered_at": None}, "column 'ordered_at' is null"),
    ],
)
def test_a_wrong_entity_key_or_a_column_that_is_looked_up_is_refused(
    made: Project, change: dict[str, Any], said: str
) -> None:
    answer = ask(made, ORDER | change)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_the_release_was_proven_at_three_cut_offs(made: Project) -> None:
    with made.active(), dg.DagsterInstance.get() as instance:
        key = dg.AssetCheckKey(dg.AssetKey([NAME, "endpoint"]), "parity")
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert evaluation.passed
    rows = evaluation.metadata["rows"].value
    assert len(rows) == 3
    assert all(1 <= count <= 200 for count in rows.values())


def test_a_lost_online_store_is_noticed_and_filled_from_the_lake(made: Project) -> None:
    answers = ask(made, ORDER, ORDER | {"restaurant_id": "r017"}).json()["predictions"]
    online = open_online(made.settings.online_place, NAME)
    assert due_data(made.model(), made.lake, online).needs == {}
    for each in made.settings.feast.glob(f"{NAME}/online.db*"):
        each.unlink()
    lost = ask(made, ORDER)
    assert lost.status_code == 503
    assert "online.db cannot be read" in lost.json()["error"]
    [stretch] = due_data(made.model(), made.lake, online).stretches()
    assert (stretch.assets, stretch.reason) == (
        ["online_features"],
        "the online store was lost, or values have become available",
    )
    made.materialize()
    assert ask(made, ORDER, ORDER | {"restaurant_id": "r017"}).json()["predictions"] == answers


def test_a_store_that_does_not_answer_is_a_problem_and_no_reason_to_run(made: Project) -> None:
    online = open_online(f"redis://127.0.0.1:{free_port()}/0", NAME)
    due = due_data(made.model(), made.lake, online)
    assert due.needs == {}
    assert "does not answer" in str(due.problems["online_features"])


# What can go wrong between training and serving, and which feature must be named.


def tampered(project: Project, folder: Path, change: Callable[[dict[str, Any], Any], Any]) -> Path:
    """A release that is consistent in itself, golden rows included, and not what was trained."""
    shutil.copytree(release_of(project), folder)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    pipeline = change(manifest, pipeline_of(project)) or pipeline_of(project)
    (folder / GRAPH).write_bytes(graph_of(parts_of(pipeline)))

    golden = json.loads((folder / GOLDEN).read_bytes())
    sealed(folder, manifest)
    read = read_manifest(folder)
    scorer = Scorer(read, Features.from_json(read.features), Graph.load((folder / GRAPH).read_bytes()), None)
    golden["answers"] = scorer.predict(golden["rows"], golden["looked_up"])
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
    sealed(folder, manifest)
    return folder


def refitted_scaler(manifest: dict[str, Any], pipeline: Any) -> Any:
    """As if it had been fitted on other rows than the training ones."""
    prepare = pipeline[0]
    position = prepare.transformers_[0][2].index("distance_km")
    prepare.named_transformers_["number"][1].mean_[position] += 0.01
    return pipeline


def swapped_column(manifest: dict[str, Any], pipeline: Any) -> None:
    features = {each["name"]: each for each in manifest["features"]["features"]}
    one, other = features["preparation_minutes"], features["promised_minutes"]
    one["expression"], other["expression"] = other["expression"], one["expression"]


def int_to_float(manifest: dict[str, Any], pipeline: Any) -> None:
    [items] = [each for each in manifest["inputs"] if each["name"] == "items"]
    items["type"] = "Float64"


def zone_shift(manifest: dict[str, Any], pipeline: Any) -> None:
    [time] = [each for each in manifest["inputs"] if each["name"] == "ordered_at"]
    time["time_zone"] = "Europe/Berlin"


@pytest.mark.parametrize(
    ("change", "named", "what"),
    [
        (refitted_scaler, {"distance_km"}, "prepared"),
        (swapped_column, {"preparation_minutes", "promised_minutes"}, "value"),
        (int_to_float, {"items", "value_per_item"}, "type of items"),
        (zone_shift, {"hour", "hours_from_dinner_peak", "weekday"}, "type of ordered_at"),
    ],
    ids=["refitted scaler", "swapped column", "int to float", "time zone shift"],
)
def test_parity_names_the_feature_that_a_release_computes_otherwise(
    made: Project, tmp_path: Path, change: Any, named: set[str], what: str
) -> None:
    release = tampered(made, tmp_path / "release", change)
    Scorer.load(release)  # its own golden rows do not show it
    found = replayed(made, release)
    assert named <= {each.feature for each in found}
    assert what in {each.what for each in found}


def stale(model: Model, lake: Lake, holdings: Mapping[str, Holding], folder: str) -> OnlineStore:
    """The newest row of every other restaurant did not reach the store."""
    rows = lake.read(model.name, "restaurant_history")
    held = holdings["restaurant_history"]
    older = holding(held.join, rows, held.newest - timedelta(seconds=1)) if held.newest else held
    some = held.rows["restaurant_id"].gather_every(2)
    mixed = [
        held.rows.filter(~pl.col("restaurant_id").is_in(some)),
        older.rows.filter(pl.col("restaurant_id").is_in(some)),
    ]
    return filled(model, lake, {**holdings, "restaurant_history": Holding(held.join, pl.concat(mixed), None)}, folder)


def off_by_one(model: Model, lake: Lake, holdings: Mapping[str, Holding], folder: str) -> OnlineStore:
    """Each window ends a day too early, under the time of the right one."""
    rows = lake.read(model.name, "restaurant_history").with_columns(pl.col(AVAILABLE_AT) + timedelta(days=1))
    held = holdings["restaurant_history"]
    shifted = holding(held.join, rows, held.newest) if held.newest else held
    return filled(model, lake, {**holdings, "restaurant_history": shifted}, folder)


@pytest.mark.parametrize("fill", [stale, off_by_one], ids=["stale online row", "off-by-one window"])
def test_parity_names_the_feature_whose_online_value_is_another(made: Project, fill: Fill) -> None:
    found = replayed(made, release_of(made), fill)
    assert found
    assert {each.what for each in found} == {"value"}
    assert all(each.feature.startswith("restaurant_history_") for each in found)


def replayed(project: Project, release: Path, fill: Fill = filled) -> list[Difference]:
    latest = project.latest()
    shown = replay(project.model(), project.lake, latest, release, pipeline_of(project), fill)
    assert sum(shown.rows.values()) > 3
    return [difference for _, _, difference in shown.found]


def test_a_release_without_parity_is_refused_and_what_served_serves_on(made: Project) -> None:
    assert replayed(made, release_of(made)) == []
    release, day = release_of(made), max(made.latest().of("features"))
    right = made.lake.read(NAME, "features", [day])
    wrong = right.with_columns(pl.col("restaurant_history_minutes_late_mean_2d") * (1 + 2**-52))
    made.lake.replace(NAME, "features", wrong, [day])
    with pytest.raises(ReleaseError, match=r"not served: feature 'restaurant_history_minutes_late_mean_2d': value is"):
        made.by_hand("endpoint")
    made.lake.replace(NAME, "features", right, [day])
    with made.active(), dg.DagsterInstance.get() as instance:
        key = dg.AssetCheckKey(dg.AssetKey([NAME, "endpoint"]), "parity")
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event is not None
        assert record.event.asset_check_evaluation is not None
        assert not record.event.asset_check_evaluation.passed
        assert "minutes_late_mean_2d" in str(record.event.asset_check_evaluation.metadata["differences"].value)
    after = made.target.health()
    assert after is not None
    assert after["models"][NAME]["release"] == release.name


def test_a_new_day_refreshes_the_store_in_the_run_that_makes_it(made: Project) -> None:
    before = made.latest().get("online_features", WHOLE)
    made.materialize()  # what was asked until now is logged
    assert made.materialize() == []
    assert made.latest().get("online_features", WHOLE) == before, "nothing but that was due"
    made.land(1, first=(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=8)).date())
    online = open_online(made.settings.online_place, NAME)
    [stretch] = due_data(made.model(), made.lake, online).stretches()
    assert stretch.partitions == ["2025-01-09"]
    assert {"raw_data", "restaurant_history", "features", "online_features"} <= set(stretch.assets)
    made.materialize()
    after = made.latest().get("online_features", WHOLE)
    assert before is not None
    assert after is not None
    assert after.content != before.content
    assert due_data(made.model(), made.lake, online).needs == {}


def test_the_same_with_redis(made: Project, redis_url: str) -> None:
    import redis

    order = ORDER | {"ordered_at": "2025-01-10T12:40:00Z"}
    before = ask(made, order, order | {"restaurant_id": "r999"}).json()["predictions"]
    assert [each["missing"] for each in before] == [
        {"forecast": "stale"},
        {"forecast": "stale", "restaurant_history": "unknown"},
    ]
    made.target.stop()
    moved = Project(made.root, made.variables | {"ML_ASSETS_ONLINE_STORE": redis_url})
    [stretch] = due_data(moved.model(), moved.lake, open_online(redis_url, NAME)).stretches()
    assert stretch.assets == ["online_features"]
    for each in made.settings.feast.glob(f"{NAME}/online.db*"):
        each.unlink()
    moved.materialize()
    moved.target.start()
    moved.target.wait_for(str(moved.target.url()), NAME, release_of(moved).name)
    assert ask(moved, order, order | {"restaurant_id": "r999"}).json()["predictions"] == before
    redis.Redis.from_url(redis_url).flushdb()
    assert set(ask(moved, order).json()["predictions"][0]["missing"]) == set(moved.model().views)
    moved.materialize()
    assert ask(moved, order, order | {"restaurant_id": "r999"}).json()["predictions"] == before
    assert not list(made.settings.feast.glob(f"{NAME}/online.db*"))
    for each in made.root.rglob("*"):
        if each.is_file() and each.name != "feature_store.yaml":
            assert b"sesame" not in each.read_bytes(), f"{each} holds the password"
