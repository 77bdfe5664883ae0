"""Each kind of task, as an unpartitioned CSV of its own in one code location, from data to endpoint."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests

from ml_assets.lake import WHOLE
from ml_assets_tests.project import Project

CONTRACT = """
import pandera.polars as pa


class Rows(pa.DataFrameModel):
    size: float = pa.Field(gt=0, metadata={{"role": "request"}})
    colour: str = pa.Field(nullable=True, metadata={{"role": "request"}})
    {target}: {kind} = pa.Field(nullable=True, metadata={{"role": "target"}})
"""
KEY = "of-the-shop"
TASKS = {"binary": ("sold", "bool"), "multiclass": ("grade", "str"), "regression": ("price", "float")}


def rows(number: int = 900) -> pl.DataFrame:
    random = np.random.default_rng(5)
    size = random.gamma(3.0, 20.0, number).round(6)
    colour = random.choice(["red", "green", ""], number)
    price = 3 * size + 40 * (colour == "red") + random.normal(0, 10, number)
    return pl.DataFrame(
        {
            "size": size,
            "colour": colour.tolist(),
            "sold": np.where(price > 190, "yes", "no").tolist(),
            "grade": [["low", "middle", "high"][each] for each in np.digitize(price, [120, 220])],
            "price": price.round(2),
        }
    )


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project]) -> Project:
    project = make_project("shop")
    project.variables["ML_ASSETS_ENDPOINT_KEYS"] = KEY
    project.landing.mkdir(parents=True)
    # Every tenth label is missing, the third row comes twice, one row is broken.
    frame = rows()
    unlabelled = [
        pl.when(pl.int_range(pl.len()) % 10 == 9).then(pl.lit("")).otherwise(pl.col(name).cast(pl.String)).alias(name)
        for name in ("sold", "grade", "price")
    ]
    text = frame.with_columns(unlabelled).with_columns(pl.col("size").cast(pl.String))
    broken = text.head(1).with_columns(size=pl.lit("huge"))
    pl.concat([text, text[3:4], broken]).write_csv(project.landing / "shop.csv")
    for task, (target, kind) in TASKS.items():
        spec: dict[str, Any] = {
            "task": task,
            "contract": "contract.Rows",
            "source": {"kind": "files", "uri": "{{ landing }}/shop.csv"},
            "training": {"min_rows": 500, "folds": 3},
            "estimator": {"params": {"n_estimators": 20}},
        }
        project.add_model(f"shop_{task}", spec, CONTRACT.format(target=target, kind=kind))
        project.materialize(f"shop_{task}")
    return project


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_trained_judged_and_served(shop: Project, task: str) -> None:
    name = f"shop_{task}"
    latest = shop.latest(name)
    cleaned, trained, judged = (latest.get(each, WHOLE) for each in ("cleaned_data", "trained_model", "metrics"))
    assert cleaned is not None
    assert trained is not None
    assert judged is not None
    assert (cleaned.details["raw"], cleaned.details["rejected"], cleaned.details["duplicates"]) == (902, 1, 1)
    counts = trained.details["counts"]
    assert counts["cleaned"] == counts["labelled"] + counts["not_yet_labelled"] == 900
    assert counts["not_yet_labelled"] == 90
    assert counts["trained_on"] + counts["test"] == counts["labelled"]
    expected = {"binary": "roc_auc", "multiclass": "f1", "regression": "r2"}[task]
    assert judged.details["values"][expected] > 0.8
    answer = shop.target.ask(name, [{"size": 10, "colour": "green"}, {"size": 150.0, "colour": None}])
    small, large = answer["predictions"]
    if task == "binary":
        assert (small["label"], large["label"]) == (False, True)
        assert small["score"] < 0.2 < 0.8 < large["score"]
    elif task == "multiclass":
        assert (small["label"], large["label"]) == ("low", "high")
        assert sum(large["scores"].values()) == pytest.approx(1)
    else:
        assert small["value"] < 100 < 300 < large["value"]


def test_models_of_one_code_location_do_not_interfere(shop: Project) -> None:
    health = requests.get(f"{shop.target.url()}/health", timeout=5).json()
    assert set(health["models"]) == {f"shop_{task}" for task in TASKS}
    url, body = f"{shop.target.url()}/predict", {"rows": [{"size": 1.0}]}
    assert requests.post(url, json=body, timeout=5).status_code == 401, "`endpoint` has a key, and others need one too"
    answer = requests.post(url, json=body, headers={"X-API-Key": KEY}, timeout=5)
    assert answer.status_code == 422
    assert "shop_binary" in answer.json()["error"]
    before = {task: shop.contents(f"shop_{task}") for task in TASKS}
    spec = shop.settings.models / "shop_binary" / "defs.yaml"
    spec.write_text(spec.read_text().replace("n_estimators: 20", "n_estimators: 21"))
    shop.materialize("shop_binary")
    changed = [task for task in TASKS if shop.contents(f"shop_{task}") != before[task]]
    assert changed == ["binary"]
