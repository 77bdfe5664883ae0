"""How a model learns and decides, from its YAML to the labels over HTTP.

Split by entity, weighed by class and column, calibrated, with a threshold chosen for its cost.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import requests
import yaml

from ml_assets.errors import RunFailedError
from ml_assets.lake import WHOLE
from ml_assets.ml.verdict import Verdict
from ml_assets.registry import Registry
from ml_assets.serving.bundle import GOLDEN, read_manifest
from ml_assets_tests.project import Project

CONTRACT = """
import pandera.polars as pa


class Loans(pa.DataFrameModel):
    loan: int = pa.Field(metadata={"role": "key"})
    customer: str = pa.Field(nullable=True, metadata={"role": "entity"})
    income: float = pa.Field(gt=0, metadata={"role": "request"})
    amount: int = pa.Field(ge=0, metadata={"role": "request"})
    defaulted: bool = pa.Field(metadata={"role": "target"})
"""
SPEC: dict[str, Any] = {
    "task": "binary",
    "contract": "contract.Loans",
    "source": {"kind": "files", "uri": "{{ landing }}/loans.csv"},
    "split": {"by": "entity", "entity": "customer", "validation": 0.2, "test": 0.2},
    "threshold": {"objective": "cost", "false_positive": 1, "false_negative": 8},
    "training": {
        "min_rows": 500,
        "folds": 3,
        "class_weights": {True: 4, False: 1},
        "sample_weights": "amount",
        "calibration": "isotonic",
    },
    "estimator": {"class": "sklearn.linear_model.LogisticRegression"},
    "endpoint": {"canary": [100]},
}


def loans(number: int = 1500) -> pl.DataFrame:
    random = np.random.default_rng(2)
    income = random.gamma(4.0, 10.0, number).round(3)
    return pl.DataFrame(
        {
            "loan": range(number),
            "customer": [f"c{each:03d}" if each % 50 else "" for each in random.integers(0, 300, number)],
            "income": income,
            "amount": random.integers(1, 9, number),
            "defaulted": random.random(number) < 1 / (1 + np.exp((income - 25) / 8)),
        }
    )


@pytest.fixture(scope="module")
def bank(make_project: Callable[..., Project]) -> Project:
    project = make_project("bank")
    project.landing.mkdir(parents=True)
    loans().write_csv(project.landing / "loans.csv")
    project.add_model("loans", SPEC, CONTRACT)
    project.materialize("loans")
    return project


def details(project: Project, asset: str) -> dict[str, Any]:
    record = project.latest("loans").get(asset, WHOLE)
    assert record is not None
    return record.details


def test_labels_are_by_the_threshold_that_was_chosen(bank: Project) -> None:
    threshold = details(bank, "trained_model")["threshold"]
    assert 0.02 < threshold < 0.3, "a missed default costs eight times as much, so about 1 / 9"
    rows = [{"loan": 1, "income": float(each)} for each in range(5, 90)]
    answer = requests.post(f"{bank.target.url()}/predict", json={"rows": rows}, timeout=10).json()["predictions"]
    assert [each["label"] for each in answer] == [each["score"] >= threshold for each in answer]
    assert any(threshold <= each["score"] < 0.5 for each in answer), "these have another label than by the higher score"
    release = bank.settings.releases / "loans" / details(bank, "endpoint")["release"]
    assert read_manifest(release).threshold == threshold
    golden = msgspec.json.decode((release / GOLDEN).read_bytes())["answers"]
    assert [each["label"] for each in golden] == [each["score"] >= threshold for each in golden]


def test_it_is_judged_by_that_threshold_and_stored_wherever_the_model_is(bank: Project) -> None:
    about = details(bank, "trained_model")
    counts = about["counts"]
    assert counts["labelled"] == counts["trained_on"] + counts["validation"] + counts["test"]
    values = details(bank, "metrics")["values"]
    assert values["recall"] > 0.9 > 0.6 > values["precision"]
    registry = Registry(bank.settings.mlflow_uri)
    version = registry.client.get_model_version("loans", about["version"])
    assert float(version.tags["threshold"]) == about["threshold"]
    run = registry.client.get_run(about["mlflow_run_id"])
    assert run.data.metrics["threshold"] == about["threshold"]
    assert run.data.metrics["threshold_cost"] < 0.5
    verdict = registry.verdict("loans", about["version"])
    assert isinstance(verdict, Verdict)
    assert verdict.model_digest == about["model_digest"]


def test_weights_lie_beside_the_features_and_are_none(bank: Project) -> None:
    assert bank.model("loans").features.names == ["income"]
    weighed = bank.lake.read("loans", "features").join(loans(), on="loan", suffix="_landed")
    assert weighed["amount"].equals(weighed["amount_landed"].rename("amount"))
    client = Registry(bank.settings.mlflow_uri).client
    params = client.get_run(details(bank, "trained_model")["mlflow_run_id"]).data.params
    assert params["sample_weights"] == "amount"
    assert params["calibration"] == "isotonic"
    assert params["class_weights"] == "{'False': 1.0, 'True': 4.0}"


def test_scores_are_probabilities_although_defaults_weigh_more(bank: Project) -> None:
    rows = [{"loan": each["loan"], "income": each["income"]} for each in loans().to_dicts()]
    answer = requests.post(f"{bank.target.url()}/predict", json={"rows": rows}, timeout=10).json()["predictions"]
    assert np.mean([each["score"] for each in answer]) == pytest.approx(loans()["defaulted"].mean(), abs=0.04)


def change(project: Project, **attributes: Any) -> None:
    path = project.settings.models / "loans" / "defs.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["attributes"] |= attributes
    path.write_text(yaml.safe_dump(spec))


def test_another_objective_is_another_training(bank: Project) -> None:
    before = details(bank, "trained_model")
    change(bank, threshold={"objective": "f1"})
    bank.materialize("loans")
    after = details(bank, "trained_model")
    assert after["threshold"] > before["threshold"]
    assert after["model_digest"] != before["model_digest"]
    assert details(bank, "endpoint")["version"] == after["version"]


def test_an_estimator_beyond_the_allow_list_is_trained_and_judged_and_does_not_serve(bank: Project) -> None:
    served = details(bank, "endpoint")
    change(
        bank,
        estimator={"class": "sklearn.neighbors.KNeighborsClassifier"},
        training={"min_rows": 500, "folds": 2},
        gates={"champion": "off"},  # it is worse, and would be refused for that
    )
    with pytest.raises(
        RunFailedError, match=r"loans version 3 cannot be served: it holds .*sklearn\.neighbors\._kd_tree"
    ):
        bank.materialize("loans")
    assert details(bank, "metrics")["version"] == "3"
    assert details(bank, "metrics")["approved"]
    assert details(bank, "endpoint") == served
    assert requests.get(f"{bank.target.url()}/health", timeout=5).json()["models"]["loans"]["version"] == "2"
