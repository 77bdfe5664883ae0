"""The exporter as a whole: runs, models that change, what cannot be read, and where Prometheus finds it."""

import json
import socket
from collections.abc import Iterator

import dagster as dg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ml_assets.automation.jobs import MODEL_TAG
from ml_assets.errors import SettingsError
from ml_assets.exporter.runs import Runs
from ml_assets.exporter.server import FRESH, Pipeline, serve, write_targets
from ml_assets.lake import WHOLE
from ml_assets.records import TABLE, Record, append_records
from ml_assets_tests.exporter.test_pipeline import values
from ml_assets_tests.project import SMALL_MODEL, Project

JUDGED = {"version": "1", "approved": True, "values": {"f1": 0.9}}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def two(project: Project) -> Project:
    """Two models that were judged."""
    for name in ("late", "later"):
        project.add_demo_model(name, **SMALL_MODEL)
        append_records(project.lake, name, [Record("metrics", WHOLE, "i", "c", 1, "r", details=JUDGED)])
    return project


class Now(Pipeline):
    """The metrics as of now, whenever it is asked."""

    def text(self) -> str:
        registry = CollectorRegistry()
        registry.register(self)
        self._read = (-2 * FRESH, [])
        return generate_latest(registry).decode()


def test_each_run_that_ended_is_counted_once_with_its_result(instance: dg.DagsterInstance) -> None:
    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        if "fails" in context.run.tags:
            raise ValueError("on purpose")

    @dg.job(tags={MODEL_TAG: "late"})
    def job() -> None:
        step()

    def run(**tags: str) -> None:
        job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)

    run()  # before the exporter began
    runs = Runs(instance, [])
    for _ in range(2):
        found = values(runs.metrics())
        assert not any(name.startswith("run_seconds_count") for name in found)
    run()
    run(fails="yes")
    run(fails="yes")
    for _ in range(2):
        found = values(runs.metrics())
        assert found["run_seconds_count job,success"] == 1
        assert found["run_seconds_count job,failure"] == 2
        assert 0 <= found["run_seconds_sum job,failure"] < 60
    assert found["run_ended_timestamp_seconds job,failure"] > found["run_ended_timestamp_seconds job,success"]


def test_how_a_job_last_ended_is_known_after_a_restart(small: Project) -> None:
    with small.active(), dg.DagsterInstance.get() as instance:
        found = values(Runs(instance, [small.model()]).metrics())
        [last] = instance.get_run_records(dg.RunsFilter(job_name="late_deliveries"), limit=1)
    assert found["run_ended_timestamp_seconds late_deliveries,success"] == last.end_time
    assert found["run_seconds_count late_deliveries,success"] == 0
    assert found["run_seconds_count late_deliveries_feedback,failure"] == 0


def test_what_cannot_be_read_of_one_model_hides_nothing_of_others(
    two: Project, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    log = two.lake.path("later", TABLE) / "_delta_log" / f"{0:020}.json"
    content = log.read_bytes()
    with two.active():
        exporter = Now(two.settings, instance)
        log.write_bytes(b"{damaged")
        said = exporter.text()
        assert 'ml_assets_exporter_failed{subject="later"} 1.0' in said
        assert 'ml_assets_exporter_failed{subject="late"} 0.0' in said
        assert 'ml_assets_version_approved{model="late",version="1"} 1.0' in said
        assert 'ml_assets_version_approved{model="later"' not in said
        assert "later could not be read" in caplog.text
        log.write_bytes(content)
        said = exporter.text()
    assert 'ml_assets_exporter_failed{subject="later"} 0.0' in said
    assert 'ml_assets_version_approved{model="later",version="1"} 1.0' in said
    assert len(said.splitlines()) == len(set(said.splitlines())), "nothing is told twice"


def test_a_model_that_changes_is_taken_up_and_a_broken_one_is_told_of(
    two: Project, instance: dg.DagsterInstance
) -> None:
    with two.active():
        exporter = Now(two.settings, instance)
        append_records(two.lake, "new", [Record("metrics", WHOLE, "i", "c", 1, "r", details=JUDGED)])
        assert 'model="new"' not in exporter.text()
        spec = two.add_demo_model("new", **SMALL_MODEL) / "defs.yaml"
        said = exporter.text()
        assert 'ml_assets_version_approved{model="new",version="1"} 1.0' in said
        assert 'ml_assets_exporter_failed{subject="models"} 0.0' in said
        good = spec.read_text()
        spec.write_text(good.replace("task: binary", "task: clairvoyance"))
        for _ in range(2):
            said = exporter.text()
            assert 'ml_assets_exporter_failed{subject="models"} 1.0' in said
            assert 'ml_assets_version_approved{model="new",version="1"} 1.0' in said, "as it was"
        spec.write_text(good)
        assert 'ml_assets_exporter_failed{subject="models"} 0.0' in exporter.text()


def test_prometheus_finds_the_server_where_it_is_or_last_was(project: Project) -> None:
    settings = project.settings

    def found(name: str) -> list[str]:
        [group] = json.loads((settings.home / "monitoring" / f"{name}.json").read_bytes())
        return list(group["targets"])

    write_targets(settings, 9877)
    assert found("exporter") == ["127.0.0.1:9877"]
    assert found("endpoint") == [f"127.0.0.1:{settings.endpoint_port}"], "where it would be"
    address = settings.home / "endpoint.json"
    address.write_text('{"pid": 1, "port": 8093}')
    write_targets(settings)
    assert found("endpoint") == ["127.0.0.1:8093"]
    address.unlink()
    write_targets(settings)
    assert found("endpoint") == ["127.0.0.1:8093"], "nobody answers there, which is to be noticed"
    assert found("exporter") == ["127.0.0.1:9877"]


def test_a_port_that_is_taken_is_refused(two: Project) -> None:
    with socket.socket() as taken, two.active():
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port} cannot be had .*; choose another one with --port"):
            serve(two.settings, port, print)
