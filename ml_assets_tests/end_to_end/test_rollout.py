"""A second version takes the champion's place step by step, asked by callers over HTTP; by hand it goes back."""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import requests
import yaml

from ml_assets.automation.due_training import due_training
from ml_assets.automation.rollout import rollout_sensor
from ml_assets.deployment.rollout import Phase, State
from ml_assets.lake import WHOLE
from ml_assets.registry import Registry
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.rollouts import LakeJournal
from ml_assets_tests.project import Project, status
from ml_assets_tests.test_targets import KUBERNETES, SAGEMAKER

CONTRACT = """
import pandera.polars as pa


class Loans(pa.DataFrameModel):
    loan: int = pa.Field(metadata={"role": "key"})
    income: float = pa.Field(gt=0, metadata={"role": "request"})
    amount: int = pa.Field(ge=0, metadata={"role": "request"})
    defaulted: bool = pa.Field(metadata={"role": "target"})
"""
LOGISTIC = "sklearn.linear_model.LogisticRegression"
SPEC: dict[str, Any] = {
    "task": "binary",
    "contract": "contract.Loans",
    "source": {"kind": "files", "uri": "{{ landing }}/loans.csv"},
    "split": {"by": "random", "test": 0.3},
    "training": {"min_rows": 500, "folds": 2},
    "estimator": {"class": LOGISTIC},
    "gates": {"champion": "off"},
    "endpoint": {
        "canary": [20, 50, 100],
        "bake": "0s",
        "min_requests": 40,
        # So wide that a few hundred requests decide; by default it takes thousands.
        "tolerate": {"errors": 0.2, "scores": 0.5},
    },
}


class Lender:
    """A model whose versions are rolled out, and its callers."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.landing.mkdir(parents=True)
        random = np.random.default_rng(2)
        income = random.gamma(4.0, 10.0, 1500).round(3)
        pl.DataFrame(
            {
                "loan": range(1500),
                "income": income,
                "amount": random.integers(1, 9, 1500),
                "defaulted": random.random(1500) < 1 / (1 + np.exp((income - 25) / 8)),
            }
        ).write_csv(project.landing / "loans.csv")
        project.add_model("loans", SPEC, CONTRACT)
        self.asked = 0

    def change(self, **attributes: Any) -> None:
        path = self.project.settings.models / "loans" / "defs.yaml"
        spec = yaml.safe_load(path.read_text())
        spec["attributes"] |= attributes
        path.write_text(yaml.safe_dump(spec))

    @property
    def registry(self) -> Registry:
        return Registry(self.project.settings.mlflow_uri)

    def states(self) -> list[State]:
        return list(LakeJournal(self.project.lake, "loans").states())

    def ask(self, requests_: int) -> list[tuple[str, str]]:
        """The id of each request, and the version that answered it."""
        url = self.project.target.url()
        answered = []
        with requests.Session() as session:
            for _ in range(requests_):
                self.asked += 1
                row = {"income": 5.0 + self.asked % 60, "amount": 1 + self.asked % 8}
                answer = session.post(f"{url}/predict", json={"rows": [row], "ids": [self.asked]}, timeout=10)
                assert answer.status_code == 200, answer.text
                answered.append((str(self.asked), answer.json()["version"]))
        return answered

    def tick(self) -> str:
        """A tick of the rollout's sensor, and the run that it asks for; why it did nothing, or empty."""
        with self.project.active(), dg.DagsterInstance.get() as instance:
            settings, model = self.project.settings, self.project.model("loans")
            target = self.project.target
            serving = ServingResource(home=str(settings.home), releases=str(target.releases), port=target.port)
            resources = {"lake": LakeResource(root=str(settings.lake)), "serving": serving}
            with dg.build_sensor_context(instance, resources=resources) as context:
                found = rollout_sensor(model)(context)
            for request in found.run_requests or []:
                job = self.project.definitions().resolve_job_def("loans")
                done = job.execute_in_process(
                    instance=instance, asset_selection=request.asset_selection, tags=request.tags
                )
                assert done.success
            return str(found.skip_reason.skip_message if found.skip_reason else "")

    def alone(self) -> str:
        """Materialise `endpoint` as a person does; what its step raised, empty if nothing."""
        with self.project.active(), dg.DagsterInstance.get() as instance:
            job = self.project.definitions().resolve_job_def("loans")
            key = dg.AssetKey(["loans", "endpoint"])
            result = job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)
        failed = [each for each in result.all_events if each.is_step_failure]
        error = failed[0].step_failure_data.error if failed else None
        while error is not None and error.cause is not None:
            error = error.cause
        return str(error.message) if error else ""

    def due(self) -> tuple[tuple[str, ...], str]:
        found = due_training(self.project.model("loans"), self.project.lake, health=self.project.target.health())
        return found.assets, found.reason

    def said(self) -> dict[str, Any]:
        record = self.project.latest("loans").get("endpoint", WHOLE)
        assert record is not None
        return record.details


@pytest.fixture(scope="module")
def lender(make_project: Callable[..., Project]) -> Lender:
    """Version 1 serves, and version 2 is approved and has its first share of the traffic."""
    made = Lender(make_project("lender"))
    made.project.materialize("loans")
    assert made.registry.champion("loans") == "1"
    made.change(estimator={"class": LOGISTIC, "params": {"C": 0.5}})
    made.project.materialize("loans")
    return made


def test_the_first_version_has_all_traffic_and_the_second_its_first_share_only(lender: Lender) -> None:
    first = [each for each in lender.states() if each.number == 1]
    assert first[-1].phase is Phase.PROMOTED
    assert first[-1].challenger.version == "1"
    assert lender.registry.champion("loans") == "1", "the alias moves when the target confirms, not before"
    said = lender.said()
    assert (said["version"], said["phase"], said["weight"]) == ("1", "baking", 20)
    assert lender.due() == ((), lender.due()[1]), "what is handed over is not due again"
    rollout = status(lender.project)["models"]["loans"]["rollout"]
    assert (rollout["phase"], rollout["weight"]) == ("baking", 20)
    assert "of 40 requests" in lender.tick()


def test_callers_move_to_it_step_by_step_and_stick_to_their_side(lender: Lender) -> None:
    begun = time.time()
    before = lender.ask(400)
    share = sum(version == "2" for _, version in before) / len(before)
    assert 0.12 < share < 0.28
    assert lender.tick() == ""
    assert lender.said()["weight"] == 50
    after = lender.ask(400)
    assert 0.4 < sum(version == "2" for _, version in after) / len(after) < 0.6
    served = lender.project.run("ml-assets", "served", "loans", "--key", after[0][0])
    assert f": {after[0][1]}-" in served.stdout, served.stdout + served.stderr
    assert lender.tick() == ""
    assert lender.states()[-1].phase is Phase.PROMOTED, (lender.states()[-1], time.time() - begun)
    assert lender.registry.champion("loans") == "2"
    assert lender.said()["version"] == "2"
    assert {version for _, version in lender.ask(20)} == {"2"}
    assert lender.tick() == "no rollout is under way"
    findings = {each["name"]: each["outcome"] for each in lender.states()[-2].findings}
    assert findings["errors"] == findings["scores"] == "within"


def test_the_same_release_again_is_no_rollout(lender: Lender) -> None:
    before = len(lender.states())
    assert lender.alone() == ""
    assert len(lender.states()) == before
    assert lender.due()[0] == ()


def test_by_hand_the_last_champion_comes_back_and_stays(lender: Lender) -> None:
    done = lender.project.run("ml-assets", "rollback", "loans")
    assert done.returncode == 0, done.stderr
    assert lender.registry.champion("loans") == "1"
    assert {version for _, version in lender.ask(5)} == {"1"}
    assert lender.due()[0] == ()
    assert lender.alone() == ""
    assert lender.said()["version"] == "1", "what a person took back does not come back by itself"
    assert "replaced by hand" in lender.said()["waits"]
    unknown = lender.project.run("ml-assets", "rollback", "loans", "--to", "9")
    assert (unknown.returncode, "'9' never served; there were 1-" in unknown.stderr) == (1, True)


def test_a_challenger_whose_verdict_is_edited_is_taken_back_and_refused(lender: Lender) -> None:
    lender.change(estimator={"class": LOGISTIC, "params": {"C": 2.0}})
    lender.project.materialize("loans")
    assert (lender.said()["version"], lender.said()["phase"]) == ("1", "baking")
    verdict = lender.registry.verdict("loans", "3")
    assert verdict is not None
    text = lender.registry.client.get_model_version("loans", "3").tags["ml_assets.verdict"]
    lender.registry.client.set_model_version_tag(
        "loans", "3", "ml_assets.verdict", text.replace('"approved": true', '"approved": false')
    )
    assert "was changed after it fell" in lender.alone()
    last = lender.states()[-1]
    assert (last.phase, last.cause) == (Phase.ROLLED_BACK, "withdrawn")
    assert {version for _, version in lender.ask(5)} == {"1"}
    assert lender.registry.champion("loans") == "1"
    for target, variables in (("sagemaker", SAGEMAKER), ("kubernetes", KUBERNETES)):
        lender.change(endpoint={"target": target})
        lender.project.variables |= variables
        assert "was changed after it fell" in lender.alone(), "nobody asks a target first, nor does one have to answer"
    lender.change(endpoint=SPEC["endpoint"])
    # As it was, it is rolled out after all.
    lender.registry.client.set_model_version_tag("loans", "3", "ml_assets.verdict", text)
    assert lender.alone() == ""
    assert lender.states()[-1].phase is Phase.BAKING
