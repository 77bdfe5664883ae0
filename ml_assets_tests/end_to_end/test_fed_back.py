"""Orders that only the endpoint ever saw: once their outcomes come, a training learns from them, and is made again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_assets.assets.facts import row_sets
from ml_assets.assets.trained_model import TrainingRows, training_rows
from ml_assets.demo.business import FIRST_DAY
from ml_assets.digests import digest_of_frame
from ml_assets.lake import WHOLE
from ml_assets.materialize import materialize_feedback
from ml_assets.ml.fed_back import SCORED_BY
from ml_assets.registry import Registry
from ml_assets.reproduction import retrain
from ml_assets_tests.project import SMALL_MODEL, Project, wait_until
from ml_assets_tests.steps import refresh

NAME = "late_deliveries"
SEEN = str(FIRST_DAY + timedelta(days=5))


@dataclass
class Shop:
    """A project whose source lacks some orders of a day.

    Attributes:
        lost: those of them whose outcomes came, in the order of their ids.
    """

    project: Project
    lost: pl.DataFrame

    @property
    def trained(self) -> dict[str, Any]:
        record = self.project.latest().get("trained_model", WHOLE)
        assert record is not None
        return record.details

    def rows(self, **versions: int) -> TrainingRows:
        """Those that the newest version was trained on, or as other versions of the tables give them."""
        details = self.trained
        cut_off = datetime.fromisoformat(details["cut_off"])
        return training_rows(self.project.model(), self.project.lake, details["table_versions"] | versions, cut_off)


def without(folder: Path, ids: pl.Series) -> pl.DataFrame:
    """Take rows out of all files of a folder."""
    taken = []
    for path in sorted(folder.glob("*.parquet")):
        rows = pl.read_parquet(path)
        taken.append(rows.filter(pl.col("order_id").is_in(ids.implode())))
        rows.filter(~pl.col("order_id").is_in(ids.implode())).write_parquet(path)
    return pl.concat(taken)


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project]) -> Shop:
    project = make_project("fed_back")
    small = SMALL_MODEL | {"training": SMALL_MODEL["training"] | {"window": "5d"}, "metrics": {"slices": ["zone"]}}
    project.add_demo_model(**small, feedback={"train": True, "delay": "1h"}, retrain={"min_new_rows": 30, "budget": 2})
    paths = project.land(8)
    folder = paths[0].parents[1]
    orders = pl.read_parquet(folder / "orders" / f"{SEEN}.parquet")
    ids = orders["order_id"].gather_every(4)
    lost, outcomes = without(folder / "orders", ids), without(folder / "outcomes", ids)
    lost = lost.unique("order_id", keep="first").sort("order_id")
    project.materialize()
    made = Shop(project, lost.join(outcomes, on="order_id", how="semi", maintain_order="left"))
    known = orders.filter(~pl.col("order_id").is_in(ids.implode())).head(3)
    with project.active():
        url = project.target.url()
        for order in pl.concat([lost, known, lost.head(5)]).to_dicts():  # some are asked about again
            row = {name: value for name, value in order.items() if name != "order_id"}
            row["ordered_at"] = row["ordered_at"].isoformat()
            project.target.ask(NAME, [row], url, ids=[order["order_id"]])
        wait_until(lambda: project.target.health()["prediction_log"]["waiting"] == 0, 10, "all is logged")  # type: ignore[index]
        materialize_feedback(project.settings, project.model(), lambda line: None)
    assert made.trained["counts"]["from_feedback"] == 0
    outcomes.write_parquet(folder / "outcomes" / "late.parquet")
    project.materialize()
    return made


def test_orders_that_never_arrived_are_trained_on_once_their_outcomes_come(shop: Shop) -> None:
    trained, rows, lost = shop.trained, shop.rows(), shop.lost
    assert trained["version"] == "2"
    assert trained["counts"] == rows.counts
    assert rows.from_feedback == lost.height > 30
    assert rows.counts["cleaned"] == rows.counts["labelled"] - lost.height + rows.counts["not_yet_labelled"] + (
        rows.before_window
    )
    frame = rows.frame.filter(pl.col("order_id").is_in(lost["order_id"].implode())).sort("order_id")
    assert frame.height == lost.height, "each of them once, however often it was asked about"
    assert frame["ordered_at"].to_list() == lost["ordered_at"].to_list()
    features = shop.project.model().features
    assert frame.select(features.names).equals(features.compute(lost)), "to the last bit what a row of the source gives"
    marked = rows.frame.filter(pl.col(SCORED_BY).is_not_null())
    assert marked[SCORED_BY].unique().to_list() == ["1"]
    assert marked.height == lost.height + 3, "orders of the source that were predicted are marked too"
    sides = [set(rows.frame[getattr(rows.sides, each)]["order_id"]) for each in ("train", "validation", "test", "gap")]
    assert sum(map(len, sides)) == len(set().union(*sides)) == rows.frame.height
    before = shop.project.lake.read(NAME, "predictions")
    assert not {"label", "score", "version", SCORED_BY} & set(features.names)
    assert set(rows.frame.columns) & set(before.columns) == set(), "no column of a prediction is one of a training"


def test_nothing_is_trained_on_that_is_older_than_the_window(shop: Shop) -> None:
    rows = shop.rows()
    times = rows.frame["ordered_at"]
    newest = times.max()
    assert isinstance(newest, datetime)
    assert times.min() > newest - timedelta(days=5)  # type: ignore[operator]
    assert rows.before_window > 100
    assert shop.trained["window_from"] == str((newest - timedelta(days=5)).astimezone(UTC).date())


def test_what_asked_for_it_is_in_record_mlflow_and_ui(shop: Shop) -> None:
    trained = shop.trained
    assert trained["cause"] == "data"
    assert trained["reason"].endswith("rows in new or changed days")
    assert len(trained["automatic"]) == 1, "the first training does not count"
    client = Registry(shop.project.settings.mlflow_uri).client
    tags = client.get_run(trained["mlflow_run_id"]).data.tags
    assert (tags["ml_assets.cause"], tags["ml_assets.reason"]) == ("data", trained["reason"])
    with shop.project.active(), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey([NAME, "trained_model"]))
    assert event is not None
    assert event.asset_materialization is not None
    shown = {name: each.value for name, each in event.asset_materialization.metadata.items()}
    assert (shown["cause"], shown["reason"]) == ("data", trained["reason"])
    assert (shown["from_feedback"], shown["feedback_not_remade"]) == (shop.lost.height, 0)


def test_such_a_version_is_made_again_from_the_versions_of_its_tables(shop: Shop) -> None:
    registry = Registry(shop.project.settings.mlflow_uri)
    registry.reach()
    facts = registry.facts(NAME, "2")
    assert set(facts["table_versions"]) == {"features", "outcomes", "predictions"}
    with shop.project.active():
        found = retrain(shop.project.settings, facts)
        assert (found["problems"], found["model_digest"]) == ([], facts["model_digest"])
        assert found["rows"] == facts["rows"] == row_sets(shop.rows())
        gone = facts | {"table_versions": facts["table_versions"] | {"predictions": 99}}
        wrong = retrain(shop.project.settings, gone)
    assert "predictions version 99: it cannot be read any more" in wrong["problems"][0]


def test_a_row_that_arrives_after_all_takes_the_place_of_its_prediction(shop: Shop) -> None:
    before = shop.rows()
    folder = shop.project.landing / NAME / "orders"
    shop.lost.head(2).write_parquet(folder / "after_all.parquet")
    with shop.project.active():
        refresh(shop.project.model(), shop.project.lake)
    version = shop.project.lake.version(NAME, "features")
    assert version is not None
    after = shop.rows(features=version)
    assert (after.from_feedback, after.cleaned) == (before.from_feedback - 2, before.cleaned + 2)
    entities = shop.project.model().contract.having("entity")  # which the model is not asked with
    known, came = before.frame.drop(entities), after.frame.drop(entities)
    assert digest_of_frame(known) == digest_of_frame(came), "it is the same row, on the same side"
    assert row_sets(replace(before, frame=known)) == row_sets(replace(after, frame=came))
