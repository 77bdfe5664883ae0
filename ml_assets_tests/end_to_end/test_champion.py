"""A new version beside the one that serves: compared on rows that neither was trained on, and again if that changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml

from ml_assets.assets.champion import rival_on_record
from ml_assets.automation.due_training import due_training
from ml_assets.errors import RunFailedError
from ml_assets.lake import WHOLE
from ml_assets.ml import skops_store
from ml_assets.ml.trained_on import ROWS
from ml_assets.registry import TRAINED_ON, Registry
from ml_assets.status import status_of, tell_status
from ml_assets.why import tell_why
from ml_assets_tests.project import Project

CONTRACT = """
import pandera.polars as pa


class Loans(pa.DataFrameModel):
    loan: int = pa.Field(metadata={"role": "key"})
    region: str = pa.Field(metadata={"role": "entity"})
    income: float = pa.Field(gt=0, metadata={"role": "request"})
    amount: int = pa.Field(ge=0, metadata={"role": "request"})
    defaulted: bool = pa.Field(metadata={"role": "target"})
"""
FEATURES = "import polars as pl\n\nFEATURES = [pl.col('income'), pl.col('amount')]\n"
LOGISTIC = "sklearn.linear_model.LogisticRegression"
SPEC: dict[str, Any] = {
    "task": "binary",
    "contract": "contract.Loans",
    "features": "features.FEATURES",
    "source": {"kind": "files", "uri": "{{ landing }}/loans.csv"},
    "split": {"by": "random", "test": 0.3},
    "training": {"min_rows": 500, "folds": 2},
    "estimator": {"class": LOGISTIC},
    "metrics": {"slices": ["region"], "slice_rows": 50},
    "endpoint": {"canary": [100]},
}


class Bank:
    """The project, and what of it the tests look at."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.landing.mkdir(parents=True)
        random = np.random.default_rng(2)
        income = random.gamma(4.0, 10.0, 1500).round(3)
        pl.DataFrame(
            {
                "loan": range(1500),
                "region": random.choice(["north", "south", "west"], 1500),
                "income": income,
                "amount": random.integers(1, 9, 1500),
                "defaulted": random.random(1500) < 1 / (1 + np.exp((income - 25) / 8)),
            }
        ).write_csv(project.landing / "loans.csv")
        project.add_model("loans", SPEC, CONTRACT, FEATURES)

    @property
    def registry(self) -> Registry:
        return Registry(self.project.settings.mlflow_uri)

    def change(self, features: str | None = None, **attributes: Any) -> None:
        path = self.project.settings.models / "loans" / "defs.yaml"
        spec = yaml.safe_load(path.read_text())
        spec["attributes"] |= attributes
        path.write_text(yaml.safe_dump(spec))
        if features:
            (path.parent / "features.py").write_text(features)

    def details(self, asset: str) -> dict[str, Any]:
        record = self.project.latest("loans").get(asset, WHOLE)
        assert record is not None
        return record.details

    def due(self) -> tuple[tuple[str, ...], str]:
        found = due_training(self.project.model("loans"), self.project.lake)
        return found.assets, found.reason

    def alone(self, asset: str) -> str:
        """Materialise one asset; what its step raised, empty if nothing."""
        with self.project.active(), dg.DagsterInstance.get() as instance:
            job = self.project.definitions().resolve_job_def("loans")
            key = dg.AssetKey(["loans", asset])
            result = job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)
        failed = [each for each in result.all_events if each.is_step_failure]
        error = failed[0].step_failure_data.error if failed else None
        while error is not None and error.cause is not None:
            error = error.cause
        return str(error.message) if error else ""


@pytest.fixture(scope="module")
def bank(make_project: Callable[..., Project]) -> Bank:
    """Two versions that served one after the other, and nothing due."""
    bank = Bank(make_project("bank"))
    bank.project.materialize("loans")
    assert bank.details("metrics")["comparison"]["outcome"] == "no champion"
    bank.change(estimator={"class": LOGISTIC, "params": {"C": 0.5}})
    bank.project.materialize("loans")
    return bank


def test_a_version_is_compared_with_the_one_that_serves_on_rows_that_neither_was_trained_on(bank: Bank) -> None:
    judged, counts = bank.details("metrics"), bank.details("trained_model")["counts"]
    compared = judged["comparison"]
    assert (compared["champion"], compared["outcome"]) == ("1", "alike")
    assert compared["rows"] == counts["test"], "a hash of its key keeps each row on its side"
    assert compared["low"] < compared["value"] < compared["high"]
    verdict = bank.registry.verdict("loans", "2")
    assert verdict is not None
    assert verdict.champion == "1"
    assert {each["name"] for each in verdict.gates} == {"prior", "champion", "min_rows", "held_out"}
    assert all(each["reason"] for each in verdict.gates)
    assert bank.registry.champion("loans") == "2"


def test_what_serves_is_not_compared_with_itself_and_nothing_becomes_due_by_serving(bank: Bank) -> None:
    assert bank.due() == ((), "version 2 is up to date and serves")
    assert bank.alone("metrics") == ""
    assert bank.details("metrics")["comparison"]["champion"] == "1", "the version that it replaced"
    assert bank.alone("endpoint") == "", "the server may have to be brought back at any time"
    assert bank.due() == ((), "version 2 is up to date and serves")


def test_what_a_version_was_trained_on_is_kept_with_it(bank: Bank) -> None:
    kept = bank.registry.trained_on("loans", "2")
    assert kept is not None
    counts = bank.details("trained_model")["counts"]
    assert len(kept.hashes) == counts["trained_on"] + counts["validation"]
    rows = bank.project.lake.read("loans", "features")
    assert kept.has_seen(rows).sum() == len(kept.hashes)
    assert list(kept.features) == ["income", "amount"]


def test_the_card_and_all_plots_are_in_mlflow_and_linked_from_the_ui(bank: Bank) -> None:
    import mlflow

    with bank.project.active(), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["loans", "metrics"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    run = bank.details("trained_model")["mlflow_run_id"]
    assert str(metadata["model_card"].value).endswith(f"/runs/{run}/artifacts/model_card.html")
    assert str(metadata["champion"].value).startswith("alike: not told apart from the champion, version 1")
    slices = {record.data["slice"] for record in metadata["slices"].records}  # type: ignore[union-attr]
    assert {"region = north", "region = south", "region = west"} <= slices
    lines = [record.data for record in metadata["metrics"].records]  # type: ignore[union-attr]
    assert {each["metric"] for each in lines} == {"accuracy", "precision", "recall", "f1", "roc_auc"}
    assert all(each["low"] <= each["value"] <= each["high"] for each in lines)
    folder = mlflow.artifacts.download_artifacts(run_id=run, tracking_uri=bank.project.settings.mlflow_uri)
    page = Path(folder, "model_card.html").read_text()
    for told in ("Approved", "version 1", "region = north", "held_out", "joint 95% interval", "income"):
        assert told in page
    assert page.count("data:image/png;base64,") == 5
    assert "http" not in page.replace("http-equiv", ""), "it needs nothing from elsewhere"


def test_why_and_status_say_what_each_gate_found(bank: Bank) -> None:
    said: list[str] = []
    with bank.project.active():
        tell_why(bank.project.settings, bank.project.model("loans"), 1, said.append)
        about = status_of(bank.project.settings)
    judged = about["models"]["loans"]["judged"]
    assert judged["comparison"]["champion"] == "1"
    gates = [line for line in said if line.startswith("  gate ")]
    assert [line.split()[1:3] for line in gates] == [[each["name"], "passed:"] for each in judged["gates"]]
    assert "not told apart from the champion, version 1" in gates[1]
    tell_status(about, said.append)
    assert any(line.startswith("  beside  alike: ") for line in said)


def test_the_metrics_table_has_all_metrics_and_slices_with_their_intervals(bank: Bank) -> None:
    table = bank.project.lake.read("loans", "metrics")
    whole = table.filter(pl.col("slice") == "all rows")
    assert set(whole["metric"]) == {"accuracy", "precision", "recall", "f1", "roc_auc"}
    assert table.select((pl.col("low") <= pl.col("value")).all() & (pl.col("value") <= pl.col("high")).all()).item()
    assert table.filter(pl.col("slice").str.starts_with("region"))["count"].sum() == whole["count"][0]


def test_an_alias_that_was_moved_asks_for_another_comparison_before_anything_serves(bank: Bank) -> None:
    bank.change(estimator={"class": LOGISTIC, "params": {"C": 0.2}})
    for asset in ("trained_model", "metrics"):
        assert bank.alone(asset) == ""
    client = bank.registry.client
    client.set_registered_model_alias("loans", "champion", "1")
    said = bank.alone("endpoint")
    assert "version 3: it was compared with another champion (version 2) than there is now (version 1)" in said
    assert bank.registry.champion("loans") == "2", "who is champion is what serves, and nobody's word"
    client.set_registered_model_alias("loans", "champion", "1")
    assert bank.alone("metrics") == ""
    assert bank.details("metrics")["comparison"]["champion"] == "1"
    said = bank.alone("endpoint")
    assert "version 3: it was compared" not in said, "the alias is put back, and asks for another comparison"
    assert bank.registry.champion("loans") == "2"
    bank.project.materialize("loans")
    assert bank.details("metrics")["comparison"]["champion"] == "2"
    assert bank.registry.champion("loans") == "3"
    assert bank.registry.replaced_by("loans", "3") == "2"
    assert rival_on_record(bank.project.latest("loans"), "3") == "2"
    assert bank.due()[0] == ()


def test_a_swapped_model_is_refused_although_its_verdict_is_good(bank: Bank) -> None:
    import mlflow

    folder = mlflow.artifacts.download_artifacts(bank.registry.client.get_model_version_download_uri("loans", "3"))
    file = Path(folder) / "model.skops"
    honest = file.read_bytes()
    pipeline = bank.registry.load("loans", "3")
    pipeline[-1].coef_.view(np.uint8)[0, 0] ^= 1
    file.write_bytes(skops_store.dump(pipeline))
    assert "its verdict is about another model" in bank.alone("endpoint")
    file.write_bytes(honest)
    assert bank.alone("endpoint") == ""


def test_a_champion_that_is_damaged_is_not_compared(bank: Bank) -> None:
    import mlflow

    folder = mlflow.artifacts.download_artifacts(bank.registry.client.get_model_version_download_uri("loans", "2"))
    file = Path(folder) / "model.skops"
    honest = file.read_bytes()
    file.write_bytes(honest[: len(honest) // 2])
    assert bank.alone("metrics") == ""
    compared = bank.details("metrics")["comparison"]
    assert compared["outcome"] == "inconclusive"
    assert "the champion, version 2, cannot be loaded: ReleaseError" in compared["reason"]
    file.write_bytes(honest)
    assert bank.alone("metrics") == ""
    assert bank.details("metrics")["comparison"]["outcome"] in ("alike", "better")


def test_a_champion_that_reads_another_feature_is_not_compared_and_does_not_block_by_default(bank: Bank) -> None:
    bank.change(FEATURES.replace("pl.col('amount')", "(pl.col('amount') * 2).alias('amount_2')"))
    bank.project.materialize("loans")
    compared = bank.details("metrics")["comparison"]
    assert compared["outcome"] == "inconclusive"
    assert "it needs feature amount, which is no longer made" in compared["reason"]
    assert bank.registry.champion("loans") == "4", "else no change of features could ever serve"
    (gate,) = [each for each in bank.details("metrics")["gates"] if each["name"] == "champion"]
    assert gate["passed"]
    assert gate["reason"].startswith("inconclusive, which passes (gates.inconclusive: pass)")


def test_a_feature_that_is_defined_anew_under_its_name_blocks_if_the_spec_says_so(bank: Bank) -> None:
    anew = FEATURES.replace("pl.col('amount')", "(pl.col('amount') * 3).alias('amount_2')")
    bank.change(anew, gates={"inconclusive": "refuse"})
    with pytest.raises(RunFailedError, match="gate_champion"):
        bank.project.materialize("loans")
    (reason,) = bank.details("metrics")["reasons"]
    assert "feature amount_2 is made in another way than it was trained with" in reason
    assert bank.registry.champion("loans") == "4"


def test_a_record_of_training_rows_that_was_changed_counts_as_none(bank: Bank) -> None:
    kept = bank.registry.trained_on("loans", "5")
    assert kept is not None
    run = bank.registry.client.get_model_version("loans", "5").tags["mlflow_run"]
    bank.registry.log_files(run, {f"{TRAINED_ON}/{ROWS}": replace(kept, hashes=kept.hashes[1:]).files[ROWS]})
    assert bank.registry.trained_on("loans", "5") is None
    bank.alone("metrics")
    assert any("no record of the rows that it was trained on" in each for each in bank.details("metrics")["reasons"])
