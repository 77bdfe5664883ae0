"""Ray's backend of joblib, with one pool of workers for all that a training does, and rows sent to it once."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import ray
from joblib._parallel_backends import FallbackToBackend, SequentialBackend
from joblib.parallel import register_parallel_backend
from ray.util.joblib import register_ray
from ray.util.joblib.ray_backend import RayBackend
from ray.util.multiprocessing import Pool

NAME = "ml_assets-ray"
_SMALL = 10_000  # bytes; smaller arrays travel with the call


class SharingRayBackend(RayBackend):
    """Ray's own, but for two things.

    Ray starts workers for each `Parallel` anew, and each takes seconds to import scikit-learn: here all share a pool.
    And joblib of today does not let Ray see what calls have in common, so that Ray would send all rows with each tree:
    here a frame or a large array is put into Ray's object store when it is first seen.
    """

    pool: Pool | None = None  # of the cluster that this process is connected to
    _sent: dict[int, tuple[Any, ray.ObjectRef]]

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return max(1, n_jobs or 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, *_: Any, **__: Any) -> int:
        if self.effective_n_jobs(n_jobs) == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if SharingRayBackend.pool is None:
            SharingRayBackend.pool = Pool(ray_remote_args={"scheduling_strategy": "SPREAD"})
        self.parallel, self._pool, self._sent = parallel, SharingRayBackend.pool, {}
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Any], Any]) -> Any:
        func.items = [
            (call, [self._put(each) for each in args], {name: self._put(each) for name, each in options.items()})
            for call, args, options in func.items
        ]
        return super().submit(_Batch(func), callback)

    def terminate(self) -> None:
        self._pool, self._sent = None, {}
        self.reset_batch_stats()

    def _put(self, value: Any) -> Any:
        if not isinstance(value, pd.DataFrame) and not (isinstance(value, np.ndarray) and value.nbytes > _SMALL):
            return value
        if id(value) not in self._sent:
            self._sent[id(value)] = value, ray.put(value)
        return self._sent[id(value)][1]


class _Batch:
    """A batch of joblib's calls, whose rows a worker takes from the object store."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __call__(self) -> Any:
        self._batch.items = [
            (call, [_get(each) for each in args], {name: _get(each) for name, each in options.items()})
            for call, args, options in self._batch.items
        ]
        return self._batch()


def _get(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value


def register() -> str:
    """Make the backend known to joblib; returns its name."""
    register_ray()
    register_parallel_backend(NAME, SharingRayBackend)
    return NAME


def close_pool() -> None:
    """Let the workers go, whatever they do."""
    pool, SharingRayBackend.pool = SharingRayBackend.pool, None
    if pool is not None:
        pool.terminate()
        # A handle that Python frees later would take away a worker of the next cluster, to which Ray gives equal ids.
        pool._actor_pool.clear()
        gc.collect()
