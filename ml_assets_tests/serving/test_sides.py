"""Two releases that answer one model's requests: who answers which, who steps in, and what is counted of it."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ml_assets.deployment.targets import Observation
from ml_assets.errors import InvalidRequestError, OnlineStoreError
from ml_assets.serving import sides
from ml_assets.serving.batching import Batcher
from ml_assets.serving.bodies import Sent
from ml_assets.serving.bundle import FORMAT, Manifest
from ml_assets.serving.loaded import Loaded
from ml_assets.serving.observed import SECONDS, SHARES, Observed, validity
from ml_assets.serving.pointer import Beside
from ml_assets.serving.scorer import Answered
from ml_assets.serving.sides import Asked, Split, key_of
from ml_assets.serving.sticky import takes_challenger

ROW = {"courier": "c1"}
NAN = float("nan")


def manifest(version: str, task: str = "binary", entity: tuple[str, ...] = ("courier",)) -> Manifest:
    classes = {"binary": [False, True], "multiclass": ["a", "b"], "regression": []}[task]
    said: dict[str, Any] = {"event_time": None, "threshold": None, "scorer": "onnx", "scorer_reason": ""}
    said |= {name: [] for name in ("inputs", "views", "null_values")}
    said |= {name: {} for name in ("features", "verdict", "built_with", "files")}
    return Manifest(format=FORMAT, model="m", version=version, task=task, classes=classes, entity=entity, **said)


class Answers:
    """Answers each row with what it is told to, and notes what it was asked."""

    def __init__(self, version: str, answer: Callable[[Any], Any]) -> None:
        self.manifest = manifest(version)
        self.one = answer
        self.asked: list[Any] = []

    def answer(self, rows: list[Any], looked_up: Any = None) -> Answered:
        self.asked += rows
        return Answered([self.one(row) for row in rows])


def score(value: float) -> Callable[[Any], Any]:
    return lambda row: {"label": value >= 0.5, "score": value}


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(row: Any) -> Any:
        raise error

    return answer


CHAMPION = score(0.1)


def split_of(
    challenger: Callable[[Any], Any],
    champion: Callable[[Any], Any] = CHAMPION,
    *,
    weight: int = 100,
    shadow: bool = False,
    seconds: float = 30,
) -> Split:
    loaded = [
        Loaded(f"{version}-x", scorer, Batcher(scorer, apart=version == "2"), "")  # type: ignore[arg-type]
        for version, scorer in (("1", Answers("1", champion)), ("2", Answers("2", challenger)))
    ]
    beside = Beside("2-x", 0 if shadow else weight, "salt", shadow)
    return Split(loaded[0], loaded[1], beside, {"score": SHARES}, seconds)


def asked(split: Split, *rows: Any, times: int = 1) -> list[tuple[str, list[Any]] | Exception]:
    """For each request who answered and what, or what was raised."""

    async def ask() -> list[Any]:
        found: list[Any] = []
        for _ in range(times):
            try:
                by, answers = await split.answered(Sent(list(rows or (ROW,))), Asked(None, b""))
                found.append((by.version, answers.answers))
            except Exception as error:
                found.append(error)
        while split._shadows:
            await asyncio.sleep(0.01)
        return found

    return asyncio.run(ask())


def counted(split: Split) -> list[tuple[int, int, int]]:
    """Requests, errors and invalid answers of both sides, as a target reads them."""
    seen = Observation.from_json(split.to_json())
    return [(each.requests, each.errors, each.invalid) for each in (seen.champion, seen.challenger)]


CHAMPIONS_ANSWER = ("1", [{"label": False, "score": 0.1}])


def test_the_challenger_answers_its_keys_and_the_champion_all_others() -> None:
    split = split_of(score(0.9), weight=30)
    rows = [{"courier": f"c{number}"} for number in range(300)]
    found = [asked(split, row)[0] for row in rows]
    for row, each in zip(rows, found, strict=True):
        assert not isinstance(each, Exception)
        assert (each[0] == "2") == takes_challenger(row["courier"], "salt", 30)
        assert each[1][0]["score"] == {"1": 0.1, "2": 0.9}[each[0]]
    champion, challenger = counted(split)
    assert champion[0] + challenger[0] == 300
    assert 60 < challenger[0] < 120
    seen = Observation.from_json(split.to_json())
    assert sum(seen.challenger.latency.counts) == sum(seen.challenger.scores["score"].counts) == challenger[0]


def test_all_rows_of_a_request_are_answered_by_one_version() -> None:
    split = split_of(score(0.9), weight=50)
    for number in range(20):
        rows = [{"courier": f"c{number + each}"} for each in range(40)]
        [(version, answers)] = asked(split, *rows)  # type: ignore[misc]
        assert {each["score"] for each in answers} == {{"1": 0.1, "2": 0.9}[version]}


@pytest.mark.parametrize(
    ("challenger", "counts"),
    [
        (raising(RuntimeError("broken")), (1, 1, 0)),
        (raising(OnlineStoreError("gone")), (1, 1, 0)),
        (raising(InvalidRequestError("its contract is stricter")), (1, 1, 0)),
        (score(NAN), (1, 0, 1)),
        (score(1.5), (1, 0, 1)),
        (score(-0.1), (1, 0, 1)),
        (lambda row: {"label": "maybe", "score": 0.5}, (1, 0, 1)),
        (lambda row: {"label": True}, (1, 0, 1)),
        (lambda row: {"label": True, "score": None}, (1, 0, 1)),
    ],
)
def test_where_the_challenger_has_no_answer_the_champion_answers_and_it_is_counted(
    challenger: Callable[[Any], Any], counts: tuple[int, int, int]
) -> None:
    split = split_of(challenger)
    assert asked(split) == [CHAMPIONS_ANSWER]
    assert counted(split) == [(0, 0, 0), counts]


def test_too_few_answers_are_no_answer() -> None:
    split = split_of(score(0.9))
    split.challenger.scorer.answer = lambda rows, looked_up=None: Answered([])  # type: ignore[method-assign]
    assert asked(split) == [CHAMPIONS_ANSWER]
    assert counted(split)[1] == (1, 1, 0)


def test_what_both_refuse_is_the_callers_fault_and_told_by_the_champion() -> None:
    split = split_of(raising(InvalidRequestError("so")), raising(InvalidRequestError("row 0: no")))
    [error] = asked(split)
    assert str(error) == "row 0: no"
    assert counted(split) == [(0, 0, 0), (0, 0, 0)]


def test_what_nobody_can_answer_counts_for_who_was_asked_first() -> None:
    gone = raising(OnlineStoreError("gone"))
    split = split_of(gone, gone)
    assert isinstance(asked(split)[0], OnlineStoreError)
    assert counted(split) == [(0, 0, 0), (1, 1, 0)]
    split = split_of(gone, gone, weight=1)
    assert not takes_challenger("c1", "salt", 1)
    assert isinstance(asked(split)[0], OnlineStoreError)
    assert counted(split) == [(1, 1, 0), (0, 0, 0)]


def test_a_challenger_that_hangs_makes_few_callers_wait_and_none_fail() -> None:
    wait = threading.Event()
    split = split_of(lambda row: wait.wait(5) and None, seconds=0.4)
    started = time.monotonic()
    assert asked(split, times=20) == [CHAMPIONS_ANSWER] * 20
    assert time.monotonic() - started < 1, "only the first one waits for it"
    wait.set()
    assert counted(split) == [(0, 0, 0), (20, 20, 0)]


def test_in_shadow_the_champion_answers_and_both_are_counted() -> None:
    split = split_of(lambda row: {"label": row["courier"] == "c1", "score": 0.9}, shadow=True)
    for courier in ("c1", "c2", "c2"):
        assert asked(split, {"courier": courier}) == [CHAMPIONS_ANSWER]
    assert counted(split) == [(3, 0, 0), (3, 0, 0)]
    said = split.to_json()
    assert (said["shadow"], said["agreed"], said["dropped"]) == (True, 2, 0)
    assert said["challenger"]["scores"]["score"]["counts"][17] == 3


@pytest.mark.parametrize(("challenger", "counts"), [(raising(RuntimeError("no")), (2, 2, 0)), (score(NAN), (2, 0, 2))])
def test_faults_of_a_shadow_are_counted_and_seen_by_nobody(challenger: Any, counts: tuple[int, int, int]) -> None:
    split = split_of(challenger, shadow=True)
    assert asked(split, times=2) == [CHAMPIONS_ANSWER] * 2
    assert counted(split) == [(2, 0, 0), counts]


def test_a_slow_shadow_delays_nobody_and_what_it_cannot_take_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sides, "MOST_SHADOWS", 3)
    go = threading.Event()
    split = split_of(lambda row: go.wait(5) and {"label": False, "score": 0.1}, shadow=True)

    async def ask() -> float:
        started = time.monotonic()
        for _ in range(10):
            assert (await split.answered(Sent([ROW]), Asked(None, b"")))[0].version == "1"
        seconds = time.monotonic() - started
        go.set()
        while split._shadows:
            await asyncio.sleep(0.01)
        return seconds

    assert asyncio.run(ask()) < 1
    assert counted(split) == [(3, 0, 0), (3, 0, 0)], "what was not compared counts for neither side"
    assert split.to_json()["dropped"] == 7


@pytest.mark.parametrize(
    ("row", "ids", "given", "by", "key"),
    [
        ({"courier": "c1", "zone": 7}, ["a"], "id", "entity", '["c1",7]'),
        ({"courier": None, "zone": 7}, ["a"], "id", "entity", "[null,7]"),
        ({"courier": "c1", "zone": 7}, ["a"], "id", "request", "a"),
        ({"other": 1}, ["a"], "id", "entity", "a"),
        ({"other": 1}, [12], "id", "entity", "12"),
        ({"other": 1}, [{"order": 1}], "id", "entity", '{"order":1}'),
        ({"other": 1}, [None], "id", "entity", "id"),
        ({"other": 1}, None, None, "entity", "the body"),
        ("no row", None, None, "entity", "the body"),
    ],
)
def test_what_sticks_to_a_side(row: Any, ids: Any, given: str | None, by: str, key: str) -> None:
    assert key_of(Sent([row, {}], None, ids), Asked(given, b"the body"), ("courier", "zone"), by) == key


def test_one_entity_column_is_the_key_itself() -> None:
    assert key_of(Sent([ROW]), Asked("id", b""), ("courier",), "entity") == "c1"


def test_histograms_count_a_value_at_an_edge_below_it() -> None:
    seen = Observed({"score": (0.25, 0.5)})
    for value in (0.25, 0.26, 0.5, 0.9):
        seen.answered(SECONDS[3], {"score": value})
    said = seen.to_json()
    assert said["scores"]["score"]["counts"] == [1, 2, 1]
    assert said["latency"]["counts"][3] == 4


@pytest.mark.parametrize(
    ("task", "answer", "valid"),
    [
        ("regression", {"value": 1e300}, True),
        ("regression", {"value": float("inf")}, False),
        ("regression", {"value": None}, False),
        ("binary", {"label": True, "score": 1.0}, True),
        ("binary", {"label": None, "score": 1.0}, False),
        ("multiclass", {"label": "a", "scores": {"a": 0.7, "b": 0.3}}, True),
        ("multiclass", {"label": "c", "scores": {"a": 0.7, "b": 0.3}}, False),
        ("multiclass", {"label": "a", "scores": {"a": 0.7}}, False),
        ("multiclass", {"label": "a", "scores": {"a": NAN, "b": 0.3}}, False),
        ("multiclass", {"label": "a"}, False),
    ],
)
def test_what_an_answer_is(task: str, answer: dict[str, Any], valid: bool) -> None:
    assert validity(manifest("1", task))([answer]) is valid
