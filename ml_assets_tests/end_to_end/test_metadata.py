"""What a person sees of each asset in the UI: metadata and check results, as they stand in Dagster's event log."""

import base64
import re
from typing import Any

import dagster as dg
import pytest

from ml_assets.assets import SERVED
from ml_assets.checks import LABELS, column_check
from ml_assets.lake import WHOLE
from ml_assets_tests.project import Project

MODEL = "late_deliveries"
ASSETS = (
    *("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features"),
    *("trained_model", "metrics", "endpoint"),
)


@pytest.fixture(scope="module")
def events(small: Project) -> dict[str, dg.AssetMaterialization]:
    """The latest materialisation of each asset."""
    with small.active(), dg.DagsterInstance.get() as instance:
        found = {each: instance.get_latest_materialization_event(dg.AssetKey([MODEL, each])) for each in ASSETS}
    return {each: event.asset_materialization for each, event in found.items() if event and event.asset_materialization}


def value(event: dg.AssetMaterialization, name: str) -> Any:
    return event.metadata[name].value


@pytest.mark.parametrize("asset", ASSETS[:5])
def test_a_table_shows_its_rows_by_day_and_a_preview(
    small: Project, events: dict[str, dg.AssetMaterialization], asset: str
) -> None:
    day = events[asset].partition
    assert day is not None
    record = small.latest().get(asset, day)
    assert record is not None
    assert value(events[asset], "dagster/partition_row_count") == record.rows
    assert value(events[asset], "preview").count("|") > 5


def test_the_model_links_to_its_mlflow_run(small: Project, events: dict[str, dg.AssetMaterialization]) -> None:
    trained = small.latest().get("trained_model", WHOLE)
    assert trained is not None
    link = value(events["trained_model"], "mlflow_run")
    assert link.startswith(small.settings.mlflow_ui)
    assert link.endswith(trained.details["mlflow_run_id"])
    counts = trained.details["counts"]
    assert value(events["trained_model"], "labelled") == counts["labelled"]
    assert value(events["trained_model"], "gap") == counts["gap"] > 0, "reports that came in after the test rows began"
    assert counts["trained_on"] + counts["validation"] + counts["test"] + counts["gap"] == counts["labelled"]


def test_the_metrics_show_plots_as_images_and_the_verdict(events: dict[str, dg.AssetMaterialization]) -> None:
    assert value(events["metrics"], "verdict") == "approved"
    for plot in ("confusion_matrix", "roc_curve", "calibration"):
        prefix, _, encoded = value(events["metrics"], plot).rstrip(")").partition("base64,")
        assert prefix == "![plot](data:image/png;"
        assert base64.b64decode(encoded).startswith(b"\x89PNG")


def test_the_endpoint_shows_what_serves_where_and_since_when(
    small: Project, events: dict[str, dg.AssetMaterialization]
) -> None:
    assert value(events["endpoint"], "serves") == f"{MODEL} version 1"
    assert value(events["endpoint"], "address") == f"{small.target.url()}/models/{MODEL}/predict"
    assert value(events["endpoint"], "since")
    scorer = value(events["endpoint"], "scorer")
    assert re.fullmatch(r"onnx: it answers like scikit-learn on [\d,]+ threshold, 20 golden, \d+ held-out rows", scorer)
    judged = value(events["metrics"], "test_rows")
    assert scorer.endswith(f" {judged} held-out rows"), "all rows that the model was judged on"


def test_every_column_of_every_asset_was_checked_and_only_raw_rows_may_fail(small: Project) -> None:
    graph = small.definitions().resolve_asset_graph()
    with small.active(), dg.DagsterInstance.get() as instance:
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(graph.asset_check_keys))
        evaluations = {key: record.event.dagster_event.asset_check_evaluation_data for key, record in records.items()}  # type: ignore[union-attr]
    asked_for = {key for key in graph.asset_check_keys if key.asset_key.path[-1] in SERVED}
    assert set(evaluations) == set(graph.asset_check_keys) - asked_for, "nobody has asked for a prediction yet"
    failed = {key.asset_key.path[-1] for key, each in evaluations.items() if not each.passed}
    assert failed == {"raw_data"}, "its broken rows are named by a warning, and go to rejected_rows"
    for key in graph.asset_check_keys:
        columns = graph.get(key.asset_key).metadata["dagster/column_schema"].schema.columns
        names = {each.name for each in graph.asset_check_keys if each.asset_key == key.asset_key}
        assert {column_check(column.name) for column in columns} <= names
    labels = evaluations[dg.AssetCheckKey(dg.AssetKey([MODEL, "trained_model"]), LABELS)]
    counts = {name: labels.metadata[name].value for name in ("cleaned", "labelled", "not_yet_labelled")}
    assert counts["cleaned"] == small.lake.read(MODEL, "cleaned_data").height
    assert counts["cleaned"] == counts["labelled"] + counts["not_yet_labelled"]
    rejected = small.lake.read(MODEL, "rejected_rows")
    items = evaluations[dg.AssetCheckKey(dg.AssetKey([MODEL, "raw_data"]), "column_items")]
    assert items.metadata["failing_rows"].value == rejected["reasons"].str.contains('"column": "items"').sum()
