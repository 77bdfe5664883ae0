"""Ray's backend of joblib, with rows sent to the cluster once, and pools no larger than the cluster is now."""

import logging
from collections.abc import Callable
from typing import Any

import ray
from joblib.parallel import register_parallel_backend
from ray.util.joblib import register_ray
from ray.util.joblib.ray_backend import RayBackend
from ray.util.multiprocessing.pool import PoolTaskError

NAME = "ml_assets-ray"


class SharingRayBackend(RayBackend):
    """Ray's own, mended in two places.

    joblib wraps a batch of calls so that Ray no longer sees what they have in common, and would pickle all rows with
    each tree; so batches go to Ray's pool as they are. And a pool that is larger than the cluster is an error to Ray,
    also if a node was lost a moment ago.
    """

    def configure(self, n_jobs: int = 1, *args: Any, **options: Any) -> int:
        there = int(ray.cluster_resources().get("CPU", 0))
        made: int = super().configure(max(1, min(n_jobs, there)), *args, **options)
        return made

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any]) -> Any:
        def done(result: Any) -> Any:
            return callback(result.underlying if isinstance(result, PoolTaskError) else result)

        return self._get_pool().apply_async(func, (), callback=done, error_callback=done)


def register() -> str:
    """Make the backend known to joblib; returns its name."""
    register_ray()
    # It says each time that it does not take the `context` which joblib always gives it.
    logging.getLogger("ray.util.multiprocessing.pool").setLevel(logging.ERROR)
    register_parallel_backend(NAME, SharingRayBackend)
    return NAME
