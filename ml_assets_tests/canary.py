"""A champion, its challengers, callers that check each answer, and rollouts by `carry_on`, on the real server."""

import contextlib
import http.client
import itertools
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import onnxruntime
import polars as pl
import requests

from ml_assets.deployment.decision import Limits, Matured
from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.matured import matured_by_step
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.release import as_request
from ml_assets.deployment.rollout import Phase, Plan, State
from ml_assets.deployment.targets import Release
from ml_assets.lake import WHOLE
from ml_assets.ml.feedback import counted, feedback_schema, joined, latest_known
from ml_assets.ml.predictions import KEY, predictions_schema, rows_of_entries
from ml_assets.ml.schemas import outcomes_schema
from ml_assets.serving.bundle import GOLDEN, GRAPH, Manifest, read_manifest, write_manifest
from ml_assets.serving.graph import Graph
from ml_assets.serving.journal import segments
from ml_assets.serving.pointer import Pointer, write_pointers
from ml_assets.serving.scorer import Scorer
from ml_assets.settings import JOURNAL
from ml_assets_tests.endpoint import served
from ml_assets_tests.project import Project, free_port
from ml_assets_tests.rollouts import MemoryJournal, MemoryRegistry

NAME = "late_deliveries"
_NUMBERS = itertools.count()
FAULTS = {"3": "errors", "4": "slow"}  # by version, of the server


Change = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def edited(release: Path, folder: Path, rows: list[Any], change: Change) -> Path:
    """A release of a forest whose leaves hold other class shares, consistent in itself: it answers its golden rows as
    recorded.

    Args:
        folder: whose name begins with the new version.
        change: from the shares, shape (leaves, classes), and the leaves that `rows` and golden rows reach, shape (rows,
            trees), to other shares.
    """
    shutil.copytree(release, folder)
    model = onnx.load(str(folder / GRAPH))
    [table] = [each for each in model.graph.initializer if len(each.dims) == 2]
    loaded = Scorer.load(release)
    golden = msgspec.json.decode((folder / GOLDEN).read_bytes())
    reached = [_leaves(model, table.name, loaded, each) for each in (rows, golden["rows"])]
    shares = change(onnx.numpy_helper.to_array(table).copy(), *reached)
    table.CopyFrom(onnx.numpy_helper.from_array(shares, table.name))
    content = model.SerializeToString()
    (folder / GRAPH).write_bytes(content)
    manifest = msgspec.structs.replace(read_manifest(release), version=folder.name.partition("-")[0])
    golden["answers"] = Scorer(manifest, loaded.features, Graph.load(content), None).predict(golden["rows"])
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
    write_manifest(folder, manifest)
    Scorer.load(folder)
    return folder


def _leaves(model: onnx.ModelProto, table: str, scorer: Scorer, rows: list[Any]) -> np.ndarray:
    """The leaves that rows reach, as positions in the table of shares, shape (rows, trees)."""
    [position] = [each.input[1] for each in model.graph.node if each.op_type == "Gather" and each.input[0] == table]
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    asked.graph.output.append(onnx.helper.make_empty_tensor_value_info(position))
    session = onnxruntime.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    assert isinstance(scorer.estimator, Graph)
    features = scorer.features.compute(scorer.read(rows)[0])
    return np.asarray(session.run([position], scorer.estimator._inputs(features))[0]).reshape(len(rows), -1)


def unchanged(shares: np.ndarray, reached: np.ndarray, golden: np.ndarray) -> np.ndarray:
    return shares


def upside_down(shares: np.ndarray, reached: np.ndarray, golden: np.ndarray) -> np.ndarray:
    return shares[:, ::-1].copy()


def shifted(shares: np.ndarray, reached: np.ndarray, golden: np.ndarray) -> np.ndarray:
    """Scores that are up to 0.2 higher."""
    late = np.minimum(shares[:, 1] + 0.2, 1)
    return np.column_stack([1 - late, late])


def with_holes(shares: np.ndarray, reached: np.ndarray, golden: np.ndarray) -> np.ndarray:
    """NaN in leaves that no golden row reaches, and 5 % of the others, or a little more."""
    leaves, counts = np.unique(reached[~np.isin(reached, golden)], return_counts=True)
    for leaf in leaves[np.argsort(counts)]:
        shares[leaf] = np.nan
        if np.isnan(shares[reached]).any(axis=(1, 2)).mean() >= 0.05:
            break
    return shares


CHALLENGERS: dict[str, Change] = {
    "2-good": unchanged,
    "3-errors": unchanged,  # the server makes it fail: `faulty_server`
    "4-slow": unchanged,
    "5-nan": with_holes,
    "6-shifted": shifted,
    "7-worse": upside_down,
}


class Finding(NamedTuple):
    """For what a bad challenger is to be taken back.

    Attributes:
        enough: requests of the challenger that suffice for that, at most, whatever the step; docs/evidence/canary.md.
        limits: that are not the default.
    """

    finding: str
    enough: int
    limits: dict[str, Any]


FINDINGS = {
    "3-errors": Finding("errors", 1500, {}),
    "4-slow": Finding("latency", 1500, {}),
    "5-nan": Finding("answers", 250, {}),
    "6-shifted": Finding("scores", 300, {}),
    # The scores of a new model may well be others. Here they are upside down.
    "7-worse": Finding("quality", 300, {"scores": 1.0, "to_promote": ("errors",)}),
}


@dataclass
class Callers:
    """Callers that ask over several connections until told to stop, and compare each answer with its version's. Each
    request is an order of its own: `#` and a number make it one.

    Attributes:
        answers: by version, one for each row.
        wrong: answers that are no version's, and what is no answer.
        versions: who answered, how often.
    """

    url: str
    rows: list[dict[str, Any]]
    ids: list[str]
    answers: dict[str, list[Any]]
    connections: int = 6
    wrong: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def asking(self) -> Iterator["Callers"]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.connections)]
        for each in threads:
            each.start()
        try:
            yield self
        finally:
            self._stop.set()
            for each in threads:
                each.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        each = number * len(self.rows) // self.connections
        while not self._stop.is_set():
            each = (each + 1) % len(self.rows)
            order = f"{self.ids[each]}#{next(_NUMBERS)}"
            body = msgspec.json.encode({"rows": [self.rows[each]], "ids": [order]})
            started = time.perf_counter()
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            self.seconds.append(time.perf_counter() - started)
            said = msgspec.json.decode(content)
            version = said.get("version")
            if response.status != 200 or said["predictions"] != [self.answers[version][each]]:
                self.wrong.append(f"{response.status}: {content!r:.300}")
            else:
                self.versions[version] += 1


@dataclass
class Looked:
    """What came of a rollout.

    Attributes:
        states: its journal.
        looks: requests that the challenger had been given in all steps, at each look that did not end the rollout.
    """

    states: Sequence[State]
    looks: list[int]
    callers: Callers

    @property
    def last(self) -> State:
        return self.states[-1]

    @property
    def undecided(self) -> int:
        """After how many requests of the challenger it was still under way."""
        return max(self.looks, default=0)

    @property
    def given(self) -> int:
        return sum(each.challenger.requests for each in self.last.observed)

    @property
    def decided_by(self) -> int:
        """Requests of the challenger that the finding comes from which took it back."""
        found = [each["requests"] for each in self.last.findings if each["name"] == self.finding]
        return int(found[0]) if found else self.given

    @property
    def finding(self) -> str:
        """What it was rolled back for."""
        return self.last.reason.partition(":")[0] if self.last.phase is Phase.ROLLED_BACK else ""


@dataclass
class Canary:
    """A server of its own over a champion and challengers, whose callers are real and whose journal is in memory.

    Attributes:
        rows, ids: of orders whose outcomes are known.
    """

    home: Path
    project: Project
    rows: list[dict[str, Any]]
    ids: list[str]
    outcomes: pl.DataFrame
    answers: dict[str, list[Any]]
    server: LocalTarget
    champion: Release

    @classmethod
    @contextlib.contextmanager
    def running(cls, project: Project, home: Path) -> Iterator["Canary"]:
        record = project.latest().get("endpoint", WHOLE)
        assert record is not None
        champion = Release.named(str(record.details["release"]))
        release = home / "releases" / NAME / champion.name
        shutil.copytree(project.settings.releases / NAME / champion.name, release)
        model = project.model()
        orders = project.lake.read(NAME, "cleaned_data").unique(model.outcome_key, keep="none", maintain_order=True)
        rows = as_request(orders, read_manifest(release))
        folders = [release] + [edited(release, release.parent / name, rows, each) for name, each in CHALLENGERS.items()]
        answers = {each.name.partition("-")[0]: Scorer.load(each).predict(rows) for each in folders}
        port = free_port()
        command = [sys.executable, "-m", "ml_assets_tests.faulty_server", str(home / "releases"), str(port)]
        write_pointers(home / "releases", NAME, Pointer(champion.name))
        target = LocalTarget(home, home / "releases", port)
        with served(home, port, [*command, json.dumps(FAULTS)]) as url:
            pid = requests.get(f"{url}/health", timeout=5).json()["pid"]
            (home / "endpoint.json").write_text(json.dumps({"pid": pid, "port": port}))
            kinds = outcomes_schema(model.contract, model.outcome_key).columns
            outcomes = project.lake.read(NAME, "outcomes").select(list(kinds))
            ids = [str(each) for each in orders[model.outcome_key[0]].to_list()]
            yield cls(home, project, rows, ids, outcomes, answers, target, champion)

    def feedback(self, since: datetime) -> pl.DataFrame:
        """What the server has logged since then, as rows of `feedback`, by the functions of the assets."""
        model = self.project.model()
        url, key = self.server.url(), model.outcome_key
        assert url is not None
        self.server.wait_until_logged(url)
        begin = int(since.timestamp() * 1e6)
        entries = [each for some in segments(self.home / JOURNAL / NAME) for each in some.read().entries]
        entries = [each for each in entries if each.at >= begin]
        types = {name: model.contract.types[name] for name in key}
        schema = predictions_schema(model.contract, key, model.features, model.spec.task)
        load = lambda name: Scorer.load(self.home / "releases" / NAME / name)  # noqa: E731
        rows = rows_of_entries(entries, "all", load, schema, types, model.spec.task).rows
        asked = rows.select(pl.col(KEY + key[0]).alias("asked")).unique()
        outcomes = asked.with_columns(pl.col("asked").str.split("#").list.first().alias(key[0])).join(
            self.outcomes, on=key, how="inner"
        )
        known = latest_known(outcomes.drop(key).rename({"asked": key[0]}), key)
        wanted = feedback_schema(model.contract, key, model.spec.task)
        return joined(counted(rows, pl.DataFrame(), key), known, wanted, key)

    def roll(self, name: str, plan: Plan, seconds: float, *, quality: bool = False, connections: int = 6) -> Looked:
        """Roll a challenger out under load until that is over.

        Args:
            seconds: after which that is an error.
        """
        challenger, journal = Release.named(name), MemoryJournal()
        registry = MemoryRegistry(alias=self.champion.version)
        target = LocalRollout(self.server, NAME, by="request")
        url = self.server.url()
        assert url is not None
        target.rollback(self.champion)
        manifests = {each: self._manifest(each) for each in (self.champion.name, name)}

        def matured(state: State) -> tuple[Matured, ...]:
            classes = {each: manifest.classes for each, manifest in manifests.items()}
            return matured_by_step(
                journal.states(),
                self.feedback(state.started),
                target=self.project.model().contract.target,
                task="binary",
                classes=classes,
            )

        looks: list[int] = []
        deadline = time.monotonic() + seconds
        callers = Callers(url, self.rows, self.ids, self.answers, connections)
        with callers.asking():
            while True:
                carry_on(target, journal, registry, lambda: challenger, plan, matured=matured if quality else None)
                if journal.kept[-1].phase.over:
                    break
                assert time.monotonic() < deadline, journal.kept[-1]
                looks.append(sum(each.challenger.requests for each in journal.kept[-1].observed) + self._given())
                time.sleep(0.1)
        assert target.describe().alone(journal.kept[-1].owner.name)  # type: ignore[union-attr]
        return Looked(journal.states(), looks, callers)

    def _given(self) -> int:
        """Requests of the challenger so far in this step."""
        answer = self.server.get(f"/models/{NAME}/rollout")
        seen = answer.json()["observed"] if answer is not None else None
        return int(seen["challenger"]["requests"]) if seen else 0

    def _manifest(self, name: str) -> Manifest:
        return read_manifest(self.home / "releases" / NAME / name)


def quick(**limits: Any) -> Plan:
    """A plan for a test: two steps that bake as short as they may."""
    return Plan((20, 50), timedelta(seconds=0.3), 100, timedelta(minutes=5), limits=Limits(**limits))
