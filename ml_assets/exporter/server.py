"""`ml-assets exporter`: the pipeline's metrics over HTTP, and files that tell Prometheus where both servers are."""

import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dagster as dg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ml_assets.errors import SettingsError
from ml_assets.exporter.pipeline import pipeline_metrics
from ml_assets.exporter.runs import Runs
from ml_assets.materialize import models_of
from ml_assets.serving.bundle import write_atomically
from ml_assets.settings import Settings

FRESH = 5.0  # seconds in which what was read is told again

_log = logging.getLogger("ml_assets.exporter")


class Pipeline(Collector):
    """The metrics of all models. What cannot be read is left out and said so, and the rest goes on.

    Raises:
        MlAssetsError: if the models cannot be loaded at first.
    """

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self._settings = settings
        self._models, self._files = models_of(settings), _files(settings.models)
        self._runs = Runs(instance, self._models.values())
        self._lock = threading.Lock()
        self._read: tuple[float, list[Metric]] = (0.0, [])

    def describe(self) -> Iterable[Metric]:
        return ()  # else everything would be read when this is registered

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            at, metrics = self._read
            if time.monotonic() - at > FRESH or not metrics:
                metrics = list(self._now())
                self._read = time.monotonic(), metrics
        yield from metrics

    def _now(self) -> Iterator[Metric]:
        failed = GaugeMetricFamily(
            "ml_assets_exporter_failed", "1 for what could not be read; see the exporter's log.", labels=["subject"]
        )
        found: dict[str, Metric] = {}

        def tried(subject: str, read: Callable[[], Iterable[Metric]]) -> None:
            try:
                read_here = list(read())
            except Exception:  # whatever is wrong with one of them, the others are told
                _log.exception("%s could not be read", subject)
                failed.add_metric([subject], 1)
                return
            failed.add_metric([subject], 0)
            for each in read_here:
                if each.name in found:  # Prometheus wants each metric once, with the samples of all models
                    found[each.name].samples.extend(each.samples)
                else:
                    found[each.name] = each

        tried("models", self._reload)
        for name, model in self._models.items():
            tried(name, functools.partial(pipeline_metrics, self._settings, model))
        tried("runs", self._runs.metrics)
        write_targets(self._settings)
        yield from found.values()
        yield failed

    def _reload(self) -> Iterable[Metric]:
        """Take up models that were changed: by those of before, everything would look due."""
        if (files := _files(self._settings.models)) != self._files:
            self._models, self._files = models_of(self._settings), files
        return ()


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything that models are loaded from."""
    found = (each for pattern in ("*/**/*.py", "*/**/*.yaml") for each in folder.glob(pattern))
    return {each: (stat.st_mtime_ns, stat.st_size) for each in found for stat in [each.stat()]}


def write_targets(settings: Settings, exporter_port: int | None = None) -> None:
    """Write where Prometheus finds the servers, as it reads it with `file_sd_configs`.

    A server that is gone stays there: that nobody answers where somebody did is what is to be noticed.
    """
    folder = settings.home / "monitoring"
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = folder / "endpoint.json"
    try:
        port = json.loads((settings.home / "endpoint.json").read_bytes())["port"]
    except (FileNotFoundError, ValueError, KeyError):
        port = None if endpoint.exists() else settings.endpoint_port
    for file, at in ((endpoint, port), (folder / "exporter.json", exporter_port)):
        said = json.dumps([{"targets": [f"127.0.0.1:{at}"]}]).encode()
        if at is not None and (not file.exists() or file.read_bytes() != said):
            write_atomically(file, said)


def serve(settings: Settings, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Raises:
        SettingsError: if the port is taken.
    """
    with dg.DagsterInstance.get() as instance:
        registry = CollectorRegistry()
        registry.register(Pipeline(settings, instance))
        try:
            server, thread = start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            raise SettingsError(
                f"port {port} cannot be had ({error.strerror}); choose another one with --port"
            ) from None
        write_targets(settings, port)
        tell(f"Metrics of the pipeline: http://127.0.0.1:{port}/metrics   Ctrl-C stops")
        try:
            thread.join()
        finally:
            server.shutdown()
            server.server_close()
