import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_assets.ml.features import Features
from ml_assets.ml.purity import Possible, generated_rows
from ml_assets.model import possible
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.project import Project
from ml_assets_tests.shop import add_shop

LOOKUP = {
    "name": "town",
    "contract": "contract.Town",
    "source": {"kind": "files", "uri": "town.csv"},
    "by": {"zone": "zone"},
}
TOWN = (
    "class Orders(",
    """class Town(pa.DataFrameModel):
    zone: str
    people: int
    since: UtcTime = pa.Field(nullable=True{role})


class Orders(""",
)
TIMED = ', metadata={"role": "event_time"}'


def said_of(project: Project, contract: tuple[str, str], *lookups: dict[str, object]) -> str:
    """What is said when the demo's model is loaded with these lookups."""
    folder = project.add_demo_model(lookups=list(lookups))
    file = folder / "contract.py"
    file.write_text(file.read_text().replace(*contract))
    return project.refusal()


@pytest.mark.parametrize(
    ("change", "role", "message"),
    [
        ({"by": {"district": "zone"}}, "", r"lookup town: `by` names 'district'.* there are order_id"),
        ({"by": {"minutes_late": "people"}}, "", r"`by` names 'minutes_late', which is not known when"),
        ({"by": {"zone": "district"}}, "", r"`by` names 'district'; .*contract\.py has zone, people, since"),
        ({"by": {"items": "zone"}}, "", r"'items' is a Int64 and 'zone' a String; give them one type"),
        ({"by": {"zone": "zone", "vehicle": "zone"}}, "", r"names a column of the side table twice"),
        ({"by": {}}, "", r"say which columns are to be equal \(`by`\), or give a column of contract\.Town the role"),
        ({"lag": "1h"}, "", r"lag need a column of contract\.Town with the role event_time"),
        ({"lag": "2h", "tolerance": "2h"}, TIMED, r"every row is too old once it is known; set tolerance higher"),
        ({"contract": "contract.Village"}, "", r"contract\.py defines no Village"),
        ({"name": "features"}, "", r"'features' has the name of a table of the platform"),
        ({"name": "rejected_town"}, "", r"has the name of a table of the platform"),
        ({}, ', metadata={"role": "target"}', r"column 'since' has the role 'target'; in a side table only event_time"),
        ({"source": LOOKUP["source"] | {"limits": {"columns": {"size": 0.1}}}}, "", r"names 'size', which is not in"),  # type: ignore[operator]
        ({"name": "order"}, "", r"column 'order_zone' is in the contract of the rows already"),
        ({}, ")\n    available_at: int = pa.Field(nullable=True", r"'available_at' is a column of every side table"),
    ],
)
def test_a_lookup_that_cannot_be_joined_is_refused_when_definitions_load(
    project: Project, change: dict[str, object], role: str, message: str
) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", role))
    if change == {"name": "order"}:
        contract = (contract[0], contract[1].replace("people: int", "value: float"))
        message = message.replace("order_zone", "order_value")
    assert re.search(message, said_of(project, contract, LOOKUP | change))


def test_two_lookups_with_one_name_are_refused(project: Project) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", ""))
    assert "several lookups or groups are called town" in said_of(project, contract, LOOKUP, LOOKUP)


def test_times_with_and_without_a_zone_cannot_be_compared(project: Project) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", TIMED).replace("UtcTime", "pl.Datetime"))
    assert "either both with a time zone or both without" in said_of(project, contract, LOOKUP)


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (
            '(pl.col("minutes_late") * 2).alias("doubled")',
            "feature 'doubled' reads 'minutes_late', which is known only",
        ),
        ("pl.all()", "wildcard or selector; name each column.*minutes_late"),
        ('pl.col("items").shift().alias("before")', r"feature 'before' looks at other rows \(shift\)"),
        ('pl.col("zone").hash().alias("number")', "feature 'number' uses hash, which is not among the operations"),
        (
            'pl.col("zone").is_in(pl.col("weather")).alias("x")',
            r"feature 'x' looks at other rows \(is_in with a column\)",
        ),
    ],
)
def test_a_feature_that_is_no_function_of_its_row_is_refused_with_model_file_and_feature(
    project: Project, feature: str, said: str
) -> None:
    folder = project.add_demo_model()
    (folder / "features.py").write_text(f"import polars as pl\n\nFEATURES = [{feature}]\n")
    assert re.search(rf"late_deliveries: .*features\.py: .*{said}", project.refusal())


@pytest.mark.parametrize(
    ("models", "name"),
    [
        ("ml_assets/defs", "late_deliveries"),
        ("examples", "adult"),
        ("examples", "flights"),
        ("examples", "flight_delays"),
    ],
)
def test_the_features_of_demo_and_examples_are_the_same_after_they_were_stored(
    make_project: Callable[..., Project], tmp_path: Path, models: str, name: str
) -> None:
    model = make_project(name, models=PROJECT_ROOT / models, landing=str(tmp_path)).model(name)
    again = Features.from_json(json.loads(json.dumps(model.features.to_json())))
    rows = generated_rows(model.inputs, possible(model.contract, model.lookups))
    assert again.compute(rows).equals(model.features.compute(rows))
    assert again.digest == model.features.digest
    assert again.lineage == model.features.lineage


def test_what_a_side_table_says_of_its_values_is_known_by_their_names_beside_the_rows(
    make_project: Callable[..., Project], tmp_path: Path
) -> None:
    model = make_project("flights", models=PROJECT_ROOT / "examples", landing=str(tmp_path)).model("flights")
    said = possible(model.contract, model.lookups)
    assert said["weather_humid"] == Possible(least=0, most=101)
    assert said["origin"] == Possible(allowed=("EWR", "JFK", "LGA"))
    assert "dep_time" not in said, "it is an outcome"


GROUP = {"name": "past", "entity": "restaurant_id", "aggregates": {"minutes_late": ["mean"]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entity": "minutes_late"}, r"group past: entity 'minutes_late' is not known when a prediction is asked for"),
        ({"entity": "new_customer"}, r"entity 'new_customer', a Boolean; an entity is found by a text, a whole number"),
        ({"entity": ["zone", "distance_km"]}, r"entity 'distance_km', a Float64; an entity is found by a text"),
        ({"aggregates": {"lateness": ["mean"]}}, r"aggregates name 'lateness'; the contract has order_id"),
        ({"aggregates": {"zone": ["count"]}}, r"'zone' is a String, and aggregates are of numbers"),
        ({"aggregates": {"items": ["share"]}}, r"'items' is a Int64, and share is of a truth value"),
        ({"name": "order", "aggregates": {"items": ["sum"]}, "windows": ["7d", "7d"]}, r"windows are to be different"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused_when_definitions_load(
    project: Project, change: dict[str, object], message: str
) -> None:
    project.add_demo_model(groups=[GROUP | change])
    assert re.search(message, project.refusal())


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("minutes_late", "'minutes_late', which is not known when a prediction is asked for; there are order_id"),
        ("zone", "'zone', a String; a weight is a number"),
    ],
)
def test_a_weight_that_is_no_number_known_beforehand_is_refused(project: Project, column: str, said: str) -> None:
    project.add_demo_model(training={"sample_weights": column})
    assert f"training.sample_weights names {said}" in project.refusal()


def test_a_weight_is_no_feature_unless_one_is_made_of_it(project: Project) -> None:
    project.add_demo_model(training={"sample_weights": "order_value"}, features=None, groups=[])
    features = project.model().features.names
    assert "order_value" not in features
    assert "distance_km" in features


def test_all_mistakes_in_an_estimators_parameters_are_told_with_model_and_file(project: Project) -> None:
    folder = project.add_demo_model(estimator={"params": {"n_estimater": 10, "max_depth": 0}})
    said = project.refusal()
    assert f"late_deliveries: {folder / 'defs.yaml'}: estimator.params.max_depth" in said
    assert "did you mean n_estimators?" in said


def test_a_split_by_what_identifies_nobody_is_refused(project: Project) -> None:
    project.add_demo_model(split={"by": "entity", "entity": ["restaurant_id", "zone"]})
    assert "split.entity names 'zone', which has neither the role entity nor key; there are order_id" in (
        project.refusal()
    )


@pytest.mark.parametrize(("kind", "zone"), [("pl.Date", "UTC"), ("pl.Datetime", "Asia/Tokyo")])
def test_an_event_without_a_moment_cannot_look_up_what_was_available_then(
    project: Project, kind: str, zone: str
) -> None:
    folder = project.add_demo_model(groups=[GROUP])
    for file, old, new in (
        ("contract.py", "    ordered_at: UtcTime", f"    ordered_at: {kind}"),
        ("defs.yaml", "batch: day", f"batch: day\n    timezone: {zone}"),
        (
            "features.py",
            'hour = pl.col("ordered_at").dt.hour() + pl.col("ordered_at").dt.minute() / 60',
            'hour = pl.col("items")',
        ),
    ):
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
    assert re.search(rf"group past needs to know the moment of an event, and .* in {zone}; make it", project.refusal())


def test_outcomes_that_come_with_their_rows_but_are_known_at_another_time_make_no_group(project: Project) -> None:
    project.add_demo_model(groups=[GROUP], outcomes=None)
    assert "give them a source of their own" in project.refusal()


def test_columns_of_groups_are_features_but_for_those_that_an_expression_reads(project: Project) -> None:
    folder = project.add_demo_model(groups=[GROUP])
    file = folder / "features.py"
    made = '(pl.col("past_minutes_late_mean_7d") / 60).alias("hours_late")'
    file.write_text(file.read_text().replace("FEATURES = [", f"FEATURES = [\n    {made},"))
    names = project.model().features.names
    assert "hours_late" in names
    assert "past_minutes_late_mean_28d" in names
    assert "past_minutes_late_mean_7d" not in names


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"window": "7d"}, "split": {"by": "time", "gap": "7d"}},
            r"training\.window 7d is not longer than split\.gap 7d, which leaves no rows to train on",
        ),
        ({"training": {"window": "7 days"}}, r"window"),
    ],
)
def test_a_window_that_holds_nothing_is_refused(project: Project, changes: dict[str, object], said: str) -> None:
    project.add_demo_model(**changes)
    assert re.search(said, project.refusal())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"window": "28d"}}, r"`training\.window: 28d` needs a column with the role event_time"),
        ({"feedback": {"train": True}}, r"`feedback\.train: true` is for outcomes in files of their own"),
    ],
)
def test_what_a_snapshot_cannot_do_is_said_when_definitions_load(
    project: Project, changes: dict[str, object], said: str
) -> None:
    add_shop(project, **changes)
    assert re.search(said, project.refusal())
