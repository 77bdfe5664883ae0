"""Where trainings run their fits: here, or on a Ray cluster through dagster-ray, which is imported only for that."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ml_assets.errors import TrainingError
from ml_assets.ml.compute import Compute, Local, OnRay, missing_packages
from ml_assets.ml.search import Memory

LOOPBACK = "127.0.0.2"  # where nobody else reaches Ray; it replaces 127.0.0.1 by the machine's own address


class ComputeResource(dg.ConfigurableResource):
    """This machine or a Ray cluster, and what searches that were not finished had found.

    Attributes:
        ray: `host:port` of a Ray cluster of which this machine is a node; empty: one is started for each training.
        searches: folder of the trials of trainings that have not ended well yet.
    """

    ray: str
    searches: str

    @contextmanager
    def open(self, kind: Literal["local", "ray"], context: dg.AssetExecutionContext, place: str) -> Iterator[Compute]:
        """Where the fits of a training run, until the block ends.

        Raises:
            TrainingError: if Ray is missing, or no cluster is at its address.
        """
        if kind == "local":
            yield Local()
            return
        if absent := missing_packages():
            raise TrainingError(f"{place}: {absent}")
        with self._connected(context, place):
            on_ray = OnRay(place, context.log.warning)
            try:
                yield on_ray
            finally:
                on_ray.close()

    def memory(self, model: str, digest: str) -> Memory:
        """What a search of a model has found so far, known by all that decides its result; others' are removed."""
        folder = Path(self.searches) / model
        path = folder / f"{digest}.jsonl"
        for other in folder.glob("*.jsonl"):
            if other != path:
                other.unlink(missing_ok=True)
        return Memory(path)

    @contextmanager
    def _connected(self, context: dg.AssetExecutionContext, place: str) -> Iterator[None]:
        """This process as a driver of the cluster; one that was started for it ends with the block."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import joblib
        from dagster_ray import LocalRay
        from dagster_ray.configs import RayDataExecutionOptions

        class NoData(RayDataExecutionOptions):
            """Ray Data is not used, and takes seconds to import, here and on a worker."""

            def apply(self) -> None: ...

            def apply_remote(self) -> None: ...

        address = self.ray or "local"

        class Ray(LocalRay):
            """dagster-ray's resource for a cluster that is there, or for one of this process's own."""

            @property
            def ray_address(self) -> str:
                return address

            @property
            def name(self) -> str:
                return f"the Ray cluster at {address}"

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
        # Ray's sockets lie in it, and their paths must be short.
        folder = None if self.ray else tempfile.mkdtemp(prefix="ray-")
        if folder:
            options |= {"num_cpus": joblib.cpu_count(), "include_dashboard": False}
            options |= {"_temp_dir": folder} | ({"_node_ip_address": LOOPBACK} if sys.platform == "linux" else {})
        resource = Ray(ray_init_options=options, data_execution_options=NoData())
        opened = resource.yield_for_execution(context)  # type: ignore[arg-type]  # of the context it needs the log alone
        try:
            try:
                opened.__enter__()
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise TrainingError(
                    f"{place}: no Ray cluster can be used at {address}: {error}. Set ML_ASSETS_RAY_ADDRESS to one, or "
                    "leave it empty to start one here"
                ) from error
            try:
                yield
            finally:
                opened.__exit__(None, None, None)
        finally:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
