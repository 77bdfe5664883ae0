import subprocess
import sys
from collections.abc import Callable

import dagster as dg
import pytest

from ml_assets.definitions import resources_of
from ml_assets_tests.project import Project

HEAVY = ("mlflow", "sklearn", "feast", "ray", "dagster_ray", "optuna", "onnx", "onnxruntime", "deltalake")


@pytest.mark.parametrize(
    ("written", "mistaken", "key"),
    [
        ("gates:", "gatez:", "gatez"),
        ("task: binary", "task: binray", "task"),
        ("by: time", "by: tide", "split.by"),
    ],
)
def test_a_mistake_in_the_yaml_is_reported_with_file_line_and_key(
    project: Project, written: str, mistaken: str, key: str
) -> None:
    file = project.add_demo_model() / "defs.yaml"
    text = file.read_text().replace(written, mistaken)
    file.write_text(text)
    line = next(
        number for number, each in enumerate(text.splitlines(), start=1) if mistaken.splitlines()[0].strip() in each
    )
    said = project.refusal()
    assert key in said
    assert f"{file}:{line}" in said


@pytest.mark.parametrize(
    ("file", "written", "mistaken", "said"),
    [
        ("contract.py", "class Orders", "class Orderz", ["late_deliveries", "contract.py", "defines no Orders"]),
        ("contract.py", "items: int", "items: intt", ["late_deliveries", "contract.py:", "intt"]),
        ("contract.py", '{"role": "target"}', '{"role": "goal"}', ["contract.py", "'late'", "goal"]),
        ("contract.py", '["key", "event_time"]', '"event_time"', ["contract.py", "ordered_at", "belongs to the key"]),
        ("contract.py", '["key", "event_time"]', '"key"', ["contract.py", "needs a column with the role event_time"]),
        ("features.py", 'pl.col("zone"),', 'pl.col("late"),', ["features.py", "late", "leak"]),
        ("features.py", 'pl.col("zone"),', 'pl.col("minutes_late") + 1,', ["minutes_late", "leak"]),
        ("features.py", 'pl.col("zone"),', "pl.all(),", ["features.py", "wildcard"]),
        ("features.py", 'pl.col("zone"),', 'pl.col("zoen"),', ["zoen", "not in the contract"]),
        ("features.py", 'pl.col("zone"),', 'pl.col("ordered_at"),', ["ordered_at", ".dt.hour()"]),
    ],
)
def test_a_mistake_in_the_python_files_is_reported_with_model_file_and_name(
    project: Project, file: str, written: str, mistaken: str, said: list[str]
) -> None:
    path = project.add_demo_model() / file
    path.write_text(path.read_text().replace(written, mistaken))
    message = project.refusal()
    for part in said:
        assert part in message


def test_a_limit_on_a_column_that_does_not_exist_is_refused(project: Project) -> None:
    source = {"kind": "files", "uri": "/nowhere/*.csv", "batch": "day", "start": "2025-01-01"}
    project.add_demo_model(source=source | {"limits": {"columns": {"distance": 0.1}}})
    message = project.refusal()
    assert "source.limits.columns names 'distance'" in message
    assert "distance_km" in message


def test_a_model_is_a_graph_of_assets_with_checks_jobs_sensors_and_schedules(project: Project) -> None:
    project.add_demo_model()
    definitions = project.definitions()
    graph = definitions.resolve_asset_graph()
    names = {key.path[-1] for key in graph.get_all_asset_keys()}
    assert names == {
        *("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features", "trained_model", "metrics", "endpoint"),
        *("restaurant_history", "courier_history", "online_features", "predictions", "feedback"),
        "monitoring",
    }
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.group_name == "late_deliveries"
        assert node.owners
        assert node.kinds
        assert node.code_version
        assert node.metadata["dagster/column_schema"].schema.columns
        assert any(check.asset_key == key for check in graph.asset_check_keys)
    repository = definitions.get_repository_def()
    assert repository.has_job("late_deliveries")
    assert repository.has_job("late_deliveries_feedback")
    sensors = {f"late_deliveries_{each}" for each in ("arrivals", "retraining", "rollout", "feedback", "probe")}
    assert {each.name for each in repository.sensor_defs} == sensors | {"alerts"}
    schedules = {"late_deliveries_daily", "late_deliveries_feedback_daily"}
    assert {each.name for each in repository.schedule_defs} == schedules
    running = [each.default_status.value for each in (*repository.sensor_defs, *repository.schedule_defs)]
    assert running == ["RUNNING"] * 8


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        (["minutes_late"], "metrics.slices names 'minutes_late', which is no feature, entity or key"),
        (["ordered_at"], "metrics.slices names 'ordered_at'"),
        (["zoon"], "there are order_id, restaurant_id, courier_id, zone"),
    ],
)
def test_a_slice_by_what_held_out_rows_do_not_have_is_refused(project: Project, slices: list[str], said: str) -> None:
    project.add_demo_model(metrics={"slices": slices})
    assert said in project.refusal()


DEFAULT_GATES = ("prior", "champion", "min_rows", "held_out")


def test_two_models_in_one_code_location_share_nothing(make_project: Callable[..., Project]) -> None:
    project = make_project("two")
    project.add_demo_model("late_deliveries")
    project.add_demo_model("very_late", gates={"accuracy": 0.6})
    graph = project.definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        assert {each.path[0] for each in graph.get(key).parent_keys} <= {key.path[0]}
    gates = {(key.asset_key.path[0], key.name) for key in graph.asset_check_keys if key.name.startswith("gate_")}
    assert gates == {
        *((name, f"gate_{gate}") for name in ("late_deliveries", "very_late") for gate in DEFAULT_GATES),
        ("late_deliveries", "gate_f1"),
        ("very_late", "gate_accuracy"),
    }


def test_dagster_validates_the_code_location(project: Project) -> None:
    del project.variables["ML_ASSETS_MODELS"]
    done = project.run("dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_definitions_loads_none_of_the_heavy_packages(project: Project) -> None:
    project.add_demo_model()
    code = (
        "import sys, ml_assets.definitions as d; d.definitions();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=project.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_endpoint_server_loads_neither_dagster_nor_mlflow() -> None:
    code = (
        "import sys, ml_assets.serving.__main__;"
        "print([name for name in ('dagster', 'mlflow', 'deltalake', 'pandera', 'pandas', 'sklearn', 'joblib', 'onnx')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_users_make_the_same_component_from_a_spec(project: Project) -> None:
    from ml_assets import TabularModel
    from ml_assets.spec.model import ModelSpec

    folder = project.add_demo_model()
    spec = project.model().spec
    with project.active():
        component = TabularModel.from_spec(ModelSpec.model_validate(spec.model_dump(by_alias=True)), folder)
        built = component.build_defs(dg.ComponentTree.for_test().load_context)
        definitions = dg.Definitions.merge(built, resources_of(project.settings))
    assert len(list(definitions.resolve_asset_graph().get_all_asset_keys())) == 14
