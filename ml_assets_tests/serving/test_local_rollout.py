"""The endpoint server as a target of rollouts: what it is asked for, what it says, and what it refuses."""

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Phase, Plan
from ml_assets.deployment.targets import Described, Release
from ml_assets.errors import TargetError, TargetUnavailableError
from ml_assets.serving.bundle import GOLDEN, GRAPH, MANIFEST, read_manifest, write_manifest
from ml_assets.serving.pointer import Beside, Pointer, read_pointers, write_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets.serving.served import Served
from ml_assets.serving.sides import Split
from ml_assets.serving.sticky import takes_challenger
from ml_assets_tests.drills.swaps import variant
from ml_assets_tests.project import free_port, wait_until
from ml_assets_tests.rollouts import MemoryJournal, MemoryRegistry

MODEL = "late_deliveries"
OLD = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases: the one of the project, `2-variant` for which every row is positive, and bad ones."""
    releases = tmp_path_factory.mktemp("rollout") / "releases"
    there = releases / MODEL
    shutil.copytree(release, there / release.name)
    good = variant(release, there / "2-variant", "2")
    other = there / "8-other-task"
    shutil.copytree(good, other)
    manifest, loaded = msgspec.structs.replace(read_manifest(good), version="8", task="regression"), Scorer.load(good)
    golden = msgspec.json.decode((good / GOLDEN).read_bytes())
    golden["answers"] = Scorer(manifest, loaded.features, loaded.estimator, None).predict(golden["rows"])
    (other / GOLDEN).write_bytes(msgspec.json.encode(golden))
    write_manifest(other, manifest)
    shutil.copytree(good, there / "9-changed")
    (there / "9-changed" / GRAPH).write_bytes(b"no graph")
    return releases


@pytest.fixture(scope="module")
def champion(release: Path) -> Release:
    return Release.named(release.name)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[LocalTarget]:
    target = LocalTarget(folder.parent, folder, free_port())
    yield target
    target.stop()


@pytest.fixture
def rollout(running: LocalTarget, champion: Release) -> LocalRollout:
    made = LocalRollout(running, MODEL, by="request")
    made.rollback(champion)
    return made


@pytest.fixture(scope="module")
def rows(folder: Path, champion: Release) -> list[dict[str, Any]]:
    return list(msgspec.json.decode((folder / MODEL / champion.name / GOLDEN).read_bytes())["rows"])


CHALLENGER = Release.named("2-variant")


def versions(target: LocalTarget, rows: list[dict[str, Any]], ids: list[str]) -> list[str]:
    return [str(target.ask(MODEL, rows[:1], ids=[each])["version"]) for each in ids]


def test_a_challenger_is_staged_gets_its_keys_and_takes_over_without_being_loaded_again(
    rollout: LocalRollout, champion: Release, rows: list[dict[str, Any]]
) -> None:
    server = rollout.server
    assert rollout.describe().alone(champion.name)
    with pytest.raises(TargetError, match="2-variant is not staged"):
        rollout.shift(CHALLENGER, 50, "salt", shadow=False)
    rollout.stage(CHALLENGER)
    said = rollout.describe()
    assert (said.stable, said.challenger, said.weight, said.ready) == (champion.name, CHALLENGER.name, 0, True)
    ids = [f"order-{number}" for number in range(40)]
    assert {*versions(server, rows, ids)} == {"1"}, "it gets no traffic yet"
    with pytest.raises(TargetUnavailableError):
        rollout.observe(OLD, shadow=False)
    rollout.shift(CHALLENGER, 50, "salt", shadow=False)
    said = rollout.describe()
    assert (said.weight, said.salt, said.ready, said.refused) == (50, "salt", True, {})
    wanted = ["2" if takes_challenger(each, "salt", 50) else "1" for each in ids]
    assert versions(server, rows, ids) == versions(server, rows, ids) == wanted
    seen = rollout.observe(OLD, shadow=False)
    assert (seen.champion.requests, seen.challenger.requests) == (2 * wanted.count("1"), 2 * wanted.count("2"))
    assert (seen.challenger.errors, seen.challenger.invalid, seen.challenger.golden) == (0, 0, 0)
    health = server.health()
    assert health is not None
    beside = health["models"][MODEL]["challenger"]
    assert (beside["version"], beside["release"], beside["weight"], beside["shadow"]) == ("2", "2-variant", 50, False)
    assert "salt" not in str(health)
    metrics = requests.get(f"{server.url()}/metrics", timeout=5).text
    labels = f'model="{MODEL}",side="challenger",version="2"'
    assert f"ml_assets_side_requests_total{{{labels}}} {2.0 * wanted.count('2')}" in metrics
    assert f'ml_assets_challenger_weight{{model="{MODEL}",version="2"}} 50.0' in metrics
    rollout.shift(CHALLENGER, 90, "salt", shadow=False)
    assert rollout.observe(OLD, shadow=False).challenger.requests == 0, "another step is counted anew"
    rollout.promote(CHALLENGER)
    assert rollout.describe().alone(CHALLENGER.name)
    assert {*versions(server, rows, ids)} == {"2"}
    log = server.log.read_text()
    assert log.count("release 2-variant is loaded as challenger") == 1
    assert read_pointers(server.releases, MODEL) == Pointer("2-variant")


def test_a_shadow_is_seen_by_nobody(rollout: LocalRollout, rows: list[dict[str, Any]]) -> None:
    rollout.stage(CHALLENGER)
    rollout.shift(CHALLENGER, 0, "salt", shadow=True)
    assert {*versions(rollout.server, rows, [f"o{number}" for number in range(20)])} == {"1"}
    wait_until(lambda: rollout.observe(OLD, shadow=True).challenger.requests == 20, 5, "it was asked in the background")
    seen = rollout.observe(OLD, shadow=True)
    assert (seen.shadow, seen.champion.requests) == (True, 20)
    assert rollout.describe().shadow


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("9-changed", r"model\.onnx was changed after the release was built"),
        ("8-other-task", "its task is regression, and that of 1-.*, which serves, is binary"),
        ("7-nowhere", "is no release"),
    ],
)
def test_a_challenger_that_cannot_be_loaded_is_refused_with_the_reason_and_the_champion_goes_on(
    rollout: LocalRollout, champion: Release, rows: list[dict[str, Any]], name: str, said: str
) -> None:
    with pytest.raises(TargetError, match=rf"late_deliveries: release {name} is refused: .*({said})"):
        rollout.stage(Release.named(name))
    described = rollout.describe()
    assert (described.stable, described.challenger) == (champion.name, None)
    assert described.refused.keys() == {name}
    health = rollout.server.health()
    assert health is not None
    assert health["refused_challengers"][MODEL]["release"] == name
    assert versions(rollout.server, rows, ["a"]) == ["1"]
    rollout.rollback(champion)
    assert rollout.describe().alone(champion.name)
    assert not rollout.describe().refused


def test_a_release_is_asked_by_name_for_a_proof_and_for_nothing_else(
    rollout: LocalRollout, champion: Release, rows: list[dict[str, Any]]
) -> None:
    rollout.stage(CHALLENGER)
    rollout.shift(CHALLENGER, 50, "salt", shadow=False)
    server = rollout.server
    for name, version in (("2-variant", "2"), (champion.name, "1")):
        assert server.ask(MODEL, rows, probe=name)["version"] == version
    assert server.ask(MODEL, rows, probe=True)["version"] == "1", "an unnamed probe is answered by who serves"
    seen = rollout.observe(OLD, shadow=False)
    assert (seen.champion.requests, seen.challenger.requests) == (0, 0), "probes are no traffic"
    unknown = server.respond(MODEL, rows, probe="3-x")
    assert (unknown.status_code, "there is" in unknown.json()["error"]) == (404, True)
    assert server.respond(MODEL, [{}], probe="2-variant").status_code == 422


def test_a_first_release_is_staged_beside_nobody(rollout: LocalRollout, champion: Release) -> None:
    rollout.rollback(None)
    assert rollout.describe() == Described()
    rollout.stage(CHALLENGER)
    assert (rollout.describe().stable, rollout.describe().ready) == (None, True)
    rollout.promote(CHALLENGER)
    assert rollout.describe().alone(CHALLENGER.name)


def test_a_challenger_that_was_staged_by_whoever_died_is_proven_before_it_is_ready(
    rollout: LocalRollout, folder: Path, champion: Release
) -> None:
    golden = folder / MODEL / "2-variant" / GOLDEN
    content = golden.read_bytes()
    write_pointers(folder, MODEL, Pointer(champion.name, Beside("2-variant")))
    wait_until(lambda: rollout.describe().challenger == "2-variant", 5, "it is loaded")
    assert rollout.describe().ready
    try:
        said = msgspec.json.decode(content)
        said["answers"][0]["score"] += 0.01
        golden.write_bytes(msgspec.json.encode(said))
        described = rollout.describe()
        assert not described.ready
        assert described.refused["2-variant"].reason == "2-variant answers 1 golden rows otherwise than recorded"
        write_pointers(folder, MODEL, Pointer(champion.name, Beside("2-variant", 50, "s", by="request")))
        wait_until(lambda: rollout.describe().weight == 50, 5, "it has traffic")
        assert rollout.observe(OLD, shadow=False).challenger.golden == 1
    finally:
        golden.write_bytes(content)


def test_a_server_that_died_in_a_step_loses_its_counts_and_nothing_is_promoted_on_them(
    rollout: LocalRollout, champion: Release, rows: list[dict[str, Any]]
) -> None:
    journal, registry = MemoryJournal(), MemoryRegistry(alias="1")
    plan = Plan((50,), timedelta(0), requests=20)

    def tick() -> str:
        return carry_on(rollout, journal, registry, lambda: CHALLENGER, plan).reason

    tick()
    salt = journal.kept[-1].salt
    theirs = [each for each in map(str, range(200)) if takes_challenger(each, salt, 50)][:15]
    versions(rollout.server, rows, theirs)
    assert "15 of 20 requests" in tick()
    pid = rollout.server.health()["pid"]  # type: ignore[index]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: rollout.server.url() is None, 5, "it is gone")
    assert rollout.describe() == Described(), "nothing serves, and nobody claims so"
    assert "0 of 20 requests" in tick(), "the server is started, and the step begins anew"
    assert journal.kept[-1].phase is Phase.BAKING
    versions(rollout.server, rows, theirs)
    assert "15 of 20 requests" in tick()
    assert (rollout.describe().stable, registry.alias) == (champion.name, "1")


def test_a_change_of_the_traffic_loads_nothing(folder: Path, champion: Release) -> None:
    served = Served(folder, None)

    def follow(beside: Beside | None, release: str = champion.name) -> Split | None:
        write_pointers(folder, MODEL, Pointer(release, beside))
        served.refresh()
        return served.models[MODEL].split

    first = follow(Beside("2-variant", 5, "s"))
    assert first is not None
    assert follow(Beside("2-variant", 5, "s")) is first, "nothing changed, so it is counted on"
    second = follow(Beside("2-variant", 25, "s"))
    assert second is not None
    assert second is not first
    assert second.challenger is first.challenger
    assert second.champion.scorer is first.champion.scorer
    assert follow(None, "2-variant") is None
    assert served.models[MODEL].scorer is first.challenger.scorer
    assert served.challengers == {}
    assert (folder / MODEL / "2-variant" / MANIFEST).exists()
