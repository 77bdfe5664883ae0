from collections.abc import Callable

import pytest

from ml_assets.model import Model
from ml_assets_tests.project import Project

CLEAN = """
import polars as pl

FEATURES = [pl.col("distance_km")]


def limit():
    return {limit}


def clean(df):
    return df[df["items"] < limit()]
"""


@pytest.fixture(scope="module")
def load(make_project: Callable[..., Project]) -> Callable[..., Model]:
    """Load a model of one day's source with a hook, changed as asked."""
    project = make_project("model")

    def make(*, limit: int = 9, contract: tuple[str, str] = ("", ""), **changes: object) -> Model:
        folder = project.add_demo_model(**({"clean": "features.clean", "outcomes": None, "groups": []} | changes))
        (folder / "features.py").write_text(CLEAN.replace("{limit}", str(limit)))
        text = (folder / "contract.py").read_text()
        (folder / "contract.py").write_text(text.replace(*contract) if contract[0] else text)
        return project.model()

    return make


def digests(model: Model) -> tuple[str, str, str, str]:
    return model.cleaning_digest, model.features.digest, model.training_digest, model.gates_digest


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({}, (False, False, False, False)),
        ({"limit": 8}, (True, False, False, False)),
        ({"contract": ("le=100", "le=90")}, (True, False, False, False)),
        ({"estimator": {"params": {"n_estimators": 7}}}, (False, False, True, False)),
        ({"training": {"folds": 3}}, (False, False, True, False)),
        ({"split": {"by": "time", "test": 0.3}}, (False, False, True, False)),
        ({"training": {"class_weights": {True: 2.0}}}, (False, False, True, False)),
        ({"training": {"sample_weights": "order_value"}}, (False, False, True, False)),
        ({"training": {"calibration": "sigmoid"}}, (False, False, True, False)),
        ({"threshold": 0.3}, (False, False, True, False)),
        ({"split": {"by": "time", "gap": "0s"}}, (False, False, True, False)),
        ({"split": {"by": "entity", "entity": "courier_id"}}, (False, False, True, False)),
        ({"gates": {"f1": 0.7}}, (False, False, False, True)),
        ({"metrics": {"slices": ["distance_km"]}}, (False, False, False, True)),
        ({"description": "Another one", "owners": ["team:other"]}, (False, False, False, False)),
    ],
)
def test_each_digest_follows_exactly_what_it_stands_for(
    load: Callable[..., Model], change: dict[str, object], changed: tuple[bool, ...]
) -> None:
    before, after = digests(load()), digests(load(**change))
    assert tuple(one != other for one, other in zip(before, after, strict=True)) == changed


SIDE = """class Town(pa.DataFrameModel):
    zone: str
    since: UtcTime = pa.Field(metadata={"role": "event_time"})


class Orders("""


def test_how_a_side_table_is_joined_belongs_to_the_code(load: Callable[..., Model]) -> None:
    town = {"name": "town", "contract": "contract.Town", "by": {"zone": "zone"}}
    lookup = town | {"source": {"kind": "files", "uri": "town.csv"}}
    one = load(contract=("class Orders(", SIDE), lookups=[lookup])
    other = load(contract=("class Orders(", SIDE), lookups=[lookup | {"lag": "1h"}])
    assert one.code_digest != other.code_digest
    assert one.cleaning_digest == other.cleaning_digest


def test_a_feature_is_made_in_another_way_when_its_expression_its_column_or_its_group_is(
    load: Callable[..., Model],
) -> None:
    group = {"name": "past", "entity": "courier_id", "aggregates": {"items": ["mean"]}}
    before = load(groups=[group]).feature_definitions
    assert set(before) == {"distance_km", "past_items_mean_7d", "past_items_mean_28d"}

    def changed(**changes: object) -> set[str]:
        now = load(**({"groups": [group]} | changes)).feature_definitions
        return {name for name, digest in before.items() if now.get(name) != digest}

    of_group = {"past_items_mean_7d", "past_items_mean_28d"}
    assert changed() == set()
    assert changed(description="Another one", estimator={"params": {"n_estimators": 7}}) == set()
    assert changed(groups=[group | {"delay": "2h"}]) == of_group
    assert changed(limit=8) == of_group, "a hook changes no column of a request, but which rows an aggregate counts"
    source = {"kind": "files", "uri": "x/*.csv", "batch": "day", "start": "2025-01-01", "null_values": ["", "?"]}
    assert changed(source=source) == {"distance_km"} | of_group
