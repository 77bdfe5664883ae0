"""Probes of the real endpoint server: dead, hanging, wrong and slow ones are found within two intervals, and nothing
else is.

Time is the daemon's as it would be at worst: a fault begins right after a good probe, a look comes every five seconds
and each one late, a probe that hangs takes its whole time.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from ml_assets.automation.probe import may_serve, probe_once, probe_sensor
from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.probing import Patience, probe_local
from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.targets import Described, Release
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.probes import Probe, Watch, append_row, read_probes, state_of
from ml_assets.probes import State as Noticed
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.rollouts import LakeJournal
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets_tests.drills.swaps import variant
from ml_assets_tests.project import Project, free_port, wait_until
from ml_assets_tests.proxy import Proxy, proxy_before

NAME = "late_deliveries"
EVERY, TICK, TIMEOUT = timedelta(seconds=30), timedelta(seconds=5), 0.5
START = datetime(2026, 11, 25, tzinfo=UTC)
PATIENCE = Patience(timeout=TIMEOUT, slow=0.25)


def rolled(number: int, phase: Phase, challenger: str, champion: str | None = None) -> State:
    sides = Release.named(challenger), Release.named(champion) if champion else None
    return State(number, phase, *sides, "", START, START, START, serves=Described(challenger))


@dataclass
class Place:
    """A model with a release that serves, by the journal and on a server of its own."""

    model: Model
    home: Path
    release: str
    server: LocalTarget

    @property
    def lake(self) -> Lake:
        return Lake(self.home / "lake")

    @property
    def serving(self) -> ServingResource:
        return ServingResource(home=str(self.home), releases=str(self.home / "releases"), port=self.server.port)

    def start(self) -> int:
        self.server.start()
        known = self.server.known()
        assert known is not None
        url = f"http://127.0.0.1:{known['port']}"
        self.server.wait_for(url, NAME, self.release)
        return known["pid"]

    def probe(self, patience: Patience = PATIENCE) -> Probe:
        found = probe_local(self.server, NAME, {self.release}, patience)
        assert found is not None
        return found

    def say_port(self, port: int) -> None:
        known = self.server.known()
        assert known is not None
        (self.home / "endpoint.json").write_text(json.dumps(known | {"port": port}))

    def noticed(self) -> tuple[float, Noticed]:
        """After how many seconds, at worst, something is noticed that begins right after a good probe; and what."""
        watch = Watch()
        for number in (-2, -1):  # the last good probe is at START, in the time that follows
            watch, _ = watch.after(Probe("good", 1.0, at=START + (number + 1) * EVERY))
        assert watch.state == "good"
        now = START
        while now < START + 10 * EVERY:
            now += TICK + timedelta(microseconds=1)  # a look comes later than it could, each time
            if watch.due(now, EVERY):
                said = self.probe()
                watch, row = watch.after(replace(said, at=now))
                if said.ms is None:
                    now += timedelta(seconds=5)  # the default timeout
                if row is not None and watch.state != "good":
                    lake = Lake(self.home / uuid.uuid4().hex)
                    append_row(lake, NAME, row)
                    state = state_of(lake, NAME)
                    assert state is not None
                    assert not state.good
                    return (now - START).total_seconds(), state
        raise AssertionError("it was not noticed")


@pytest.fixture(scope="module")
def place(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("probed")
    record = small.latest().get("endpoint", WHOLE)
    assert record is not None
    name = str(record.details["release"])
    shutil.copytree(small.settings.releases / NAME / name, home / "releases" / NAME / name)
    write_pointers(home / "releases", NAME, Pointer(name))
    made = Place(small.model(), home, name, LocalTarget(home, home / "releases", free_port()))
    LakeJournal(made.lake, NAME).append(rolled(1, Phase.PROMOTED, name))
    yield made
    made.server.stop()


@pytest.fixture
def running(place: Place) -> Iterator[int]:
    """Process number of the server. One that a test stopped goes on afterwards, and one that it killed comes back."""
    pid = place.start()
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def proxied(place: Place, running: int) -> Iterator[Proxy]:
    known = place.server.known()
    assert known is not None
    with proxy_before(known["port"]) as proxy:
        place.say_port(proxy.port)
        yield proxy
        place.say_port(known["port"])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize(("fault", "found", "said"), [(kill, "dead", "does not answer"), (stop, "hanging", "in 0.5 s")])
def test_a_dead_or_hanging_server_is_found_within_two_intervals(
    place: Place, running: int, fault: Callable[[int], None], found: str, said: str
) -> None:
    assert place.probe().found == "good"
    fault(running)
    seconds, state = place.noticed()
    assert seconds < 2 * EVERY.total_seconds()
    assert state.found == found
    assert said in state.reason


@pytest.mark.parametrize(
    ("fault", "found", "said"),
    [
        ({"replaced": (b'"label":', b'"lable":')}, "wrong", "golden row 0 is answered with"),
        ({"replaced": (b'"version":"', b'"version":"9')}, "wrong", "answers, and"),
        ({"status": 500}, "wrong", "answers a known prediction with 500"),
        ({"status": 504}, "hanging", "504"),
        ({"delay": 0.3}, "slow", "more than 250 ms"),
        ({"trickle": 0.05}, "hanging", "no answer in 0.5 s"),
        ({"replaced": (b"{", b"")}, "wrong", "JSON"),
    ],
    ids=["answers", "version", "failing", "given up", "slow", "trickling", "no JSON"],
)
def test_a_wrong_or_slow_server_is_found_within_two_intervals(
    place: Place, proxied: Proxy, fault: dict[str, Any], found: str, said: str
) -> None:
    assert place.probe().found == "good"
    for name, value in fault.items():
        setattr(proxied, name, value)
    seconds, state = place.noticed()
    assert seconds < 2 * EVERY.total_seconds()
    assert state.found == found
    assert said in state.reason
    assert set(proxied.probes) == {"1"}, "or it would be logged as a prediction"


def test_another_program_at_the_port_another_release_and_none_are_found(place: Place, running: int) -> None:
    known = place.server.known()
    assert known is not None
    (place.home / "endpoint.json").write_text(json.dumps(known | {"pid": 1}))
    assert (place.probe().found, "another program" in place.probe().reason) == ("dead", True)
    (place.home / "endpoint.json").write_text(json.dumps(known))
    other = probe_local(place.server, NAME, {"9-ab12"}, PATIENCE)
    assert other is not None
    assert (other.found, other.reason) == ("wrong", f"{place.release} serves, and 9-ab12 is to")
    none = probe_local(place.server, "other", {"9-ab12"}, PATIENCE)
    assert none is not None
    assert none.found == "dead"


def test_a_server_that_was_stopped_on_purpose_is_no_outage_and_nothing_is_asked_before_a_release_serves(
    place: Place, running: int
) -> None:
    lake = place.lake
    place.server.stop()
    assert probe_once(place.model, lake, place.serving, Watch())[1].startswith("no server is said to run")
    empty = Lake(place.home / "empty")
    assert probe_once(place.model, empty, place.serving, Watch())[1] == "no release serves yet"
    assert place.server.known() is None
    assert may_serve([rolled(1, Phase.BAKING, "1-a")]) == set(), "a first release that is not there yet"


def test_both_sides_of_a_rollout_may_serve_and_then_the_one_that_it_left() -> None:
    assert may_serve([rolled(2, Phase.PROMOTING, "2-b", "1-a")]) == {"1-a", "2-b"}
    assert may_serve([rolled(2, Phase.PROMOTED, "2-b", "1-a")]) == {"2-b"}
    assert may_serve([rolled(2, Phase.ROLLED_BACK, "2-b", "1-a")]) == {"1-a"}


def test_swaps_of_releases_make_no_probe_bad(place: Place, running: int) -> None:
    releases = place.home / "releases" / NAME
    other = variant(releases / place.release, releases / "2-variant", "2").name
    names = itertools.cycle([other, place.release])
    url, over = place.server.url(), threading.Event()
    assert url is not None

    def swap() -> None:
        for name in itertools.islice(names, 6):
            write_pointers(place.home / "releases", NAME, Pointer(name))
            place.server.wait_for(url, NAME, name)
        over.set()

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = []
    while not over.is_set():
        found.append(probe_local(place.server, NAME, {other, place.release}, Patience(timeout=10, slow=10)))
    swapping.join()
    assert len(found) > 20
    assert [each for each in found if each is None or each.found != "good"] == []


def test_the_sensor_asks_at_its_interval_keeps_its_cursor_and_writes_what_it_found(place: Place, running: int) -> None:
    sensor = probe_sensor(place.model)
    resources = {"lake": LakeResource(root=str(place.lake.root)), "serving": place.serving}
    before = len(read_probes(place.lake, NAME))

    def tick(cursor: str | None) -> str:
        with dg.build_sensor_context(cursor=cursor, resources=resources) as context:
            result = sensor.evaluate_tick(context)
        assert result.cursor is not None
        return result.cursor

    cursor = tick(None)
    asked = Watch.from_json(cursor)
    assert asked.counts == {"good": 1}
    assert tick(cursor) == cursor, "it is too early for another one"
    earlier = {each: START for each in ("last", "begun", "turned") if getattr(asked, each)}
    cursor = tick(replace(asked, **earlier).to_json())  # type: ignore[arg-type]
    assert Watch.from_json(cursor).state == "good"
    assert len(read_probes(place.lake, NAME)) == before + 1
    assert Watch.from_json(tick(None)).state == "good", "a cursor that is lost is made good by the table"
    assert Watch.from_json(tick("of another kind")).state == "good"
    url = f"http://127.0.0.1:{(place.server.known() or {})['port']}"
    wait_until(lambda: requests.get(f"{url}/health", timeout=5).json()["prediction_log"]["logged"] == 0, 5, "no log")


def watched(found: str) -> tuple[Watch, list[dict[str, Any]]]:
    """What becomes of probes, by their first letters, one every thirty seconds."""
    names = {"g": "good", "d": "dead", "h": "hanging", "s": "slow", "w": "wrong"}
    watch, rows = Watch(), []
    for number, each in enumerate(found):
        probe = Probe(names[each], 2.0 if each in "gs" else None, names[each], START + number * EVERY)  # type: ignore[arg-type]
        watch, row = watch.after(probe)
        rows += [] if row is None else row.to_dicts()
        watch = Watch.from_json(watch.to_json())
    return watch, rows


def test_two_probes_in_a_row_change_the_state_and_one_does_not() -> None:
    assert [each["state"] for each in watched("gg" + "dgdgsg")[1]] == ["good"]
    assert [each["state"] for each in watched("gg" + "dh")[1]] == ["good", "hanging"]
    assert [each["state"] for each in watched("gg" + "dd" + "hgs" + "gg")[1]] == ["good", "dead", "good"]
    assert watched("dg")[0].state is None, "they say different things"
    assert watched("gdd")[0].state == "dead"
    back = watched("gg" + "dd" + "gg")[1][-1]
    assert back["since"] == START + 4 * EVERY, "since the first of both"


def test_rows_sum_up_ten_minutes_and_lose_no_probe() -> None:
    watch, rows = watched("g" * 50 + "ddd" + "g" * 40)
    counted = sum(watch.counts.values()) + sum(each["probes"] for each in rows)
    assert counted == 93
    assert sum(each["dead"] for each in rows) == 3
    assert all(each["to"] - each["from"] <= timedelta(minutes=10) for each in rows)
    assert len(rows) == 6, "of ten minutes each, and one more at each change"
