"""A Ray cluster of several nodes on this machine, each with a raylet and workers of its own."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ml_assets.resources.compute import LOOPBACK

HERE = {"node_ip_address": LOOPBACK}
POOL_WORKER = "ray::PoolActor"


@dataclass
class RayCluster:
    """A head and nodes with one CPU each."""

    cluster: Any

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add_node(self) -> Any:
        return self.cluster.add_node(**HERE, num_cpus=1)

    def workers(self, node: Any | None = None) -> list[psutil.Process]:
        """Processes that do joblib's work, of all nodes or of one."""
        nodes = self.cluster.list_all_nodes() if node is None else [node]
        raylets = [each.all_processes["raylet"][0].process.pid for each in nodes]
        found = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
        return [each for each in found if _says(each, POOL_WORKER)]

    def _at_work(self, node: Any | None = None) -> list[psutil.Process]:
        return [each for each in self.workers(node) if _says(each, f"{POOL_WORKER}.run_batch")]

    def kill_a_worker(self) -> None:
        """SIGKILL for a worker that is at work."""

        _soon(lambda: next(iter(self._at_work()), None)).kill()

    def kill_a_node(self) -> None:
        """SIGKILL for a node, other than the head, one of whose workers is at work."""

        node = _soon(lambda: next((node for node in self.cluster.worker_nodes if self._at_work(node)), None))
        self.cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """A head and `nodes` others; no process and no file is left behind."""
    folder = tempfile.mkdtemp(prefix="ray-")  # the paths of Ray's sockets must be short
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
    (Path(folder) / "ray").mkdir()
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args=HERE | {"num_cpus": 1, "include_dashboard": False, "temp_dir": folder}
    )
    try:
        made = RayCluster(cluster)
        for _ in range(nodes):
            made.add_node()
        yield made
    finally:
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(folder, ignore_errors=True)


def _says(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _soon(find: Callable[[], Any]) -> Any:
    """What is found, looked for often: work may last for less than a second."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.02)
    raise AssertionError("no worker was at work")
