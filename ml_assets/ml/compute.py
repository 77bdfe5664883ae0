"""Where fits run: on the threads of this machine, or on a Ray cluster; both by joblib, with the same results.

A sum that several threads share comes out in another order, and so in other last bits, on another number of cores. So
each fit adds up on one thread, wherever it runs; what runs side by side are folds, and the trees of a forest.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ml_assets.errors import TrainingError


class Compute(Protocol):
    """Runs what a training has to do."""

    def map(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> Iterator[Any]:
        """`function(threads, *call)` of each call, in their order; `threads` is how many it may use for trees."""

    def fit(self, function: Callable[[int], Any]) -> Any:
        """`function(workers)`, which may spread trees over so many workers by joblib."""


def missing_packages() -> str | None:
    """What `compute: ray` needs and does not find, as a sentence."""
    needed = {"ray": "ray", "dagster-ray": "dagster_ray"}
    if absent := [name for name, module in needed.items() if not importlib.util.find_spec(module)]:
        return f"`compute: ray` needs {' and '.join(absent)}, not installed here: .venv/bin/pip install '.[ray]'"
    return None


class Local:
    """The threads of this machine."""

    def map(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> Iterator[Any]:
        import joblib
        from threadpoolctl import threadpool_limits

        cores = joblib.cpu_count()
        workers = min(cores, len(calls))
        # The last ones, which do not fill all cores, share them, or the others would be idle.
        last = len(calls) % workers if workers else 0
        with threadpool_limits(1):
            yield from joblib.Parallel(workers, backend="threading", return_as="generator")(
                joblib.delayed(_alone)(function, cores // (last if left <= last else workers), *call)
                for left, call in zip(range(len(calls), 0, -1), calls, strict=True)
            )

    def fit(self, function: Callable[[int], Any]) -> Any:
        import joblib
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return function(joblib.cpu_count())


class OnRay:
    """The workers of the Ray cluster that this process is connected to, one for each of its CPUs.

    A worker or node may be lost at any time: what it was doing is done again on those that are left.

    Args:
        attempts: how often the same work is begun, while workers are lost.
    """

    def __init__(self, place: str, log: Callable[[str], None], attempts: int = 5) -> None:
        from ml_assets.ml.ray_backend import register

        self._place, self._log, self._attempts = place, log, attempts
        self._backend = register()

    def map(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> Iterator[Any]:
        import joblib

        def attempt() -> list[Any]:
            with joblib.parallel_config(self._backend):
                found: list[Any] = joblib.Parallel(self._workers(), batch_size=1, pre_dispatch="all")(
                    joblib.delayed(_alone)(function, 1, *call) for call in calls
                )
            return found

        yield from self._surviving(attempt)

    def fit(self, function: Callable[[int], Any]) -> Any:
        import joblib
        from threadpoolctl import threadpool_limits

        def attempt() -> Any:
            with threadpool_limits(1), joblib.parallel_config(self._backend):
                return function(self._workers())

        return self._surviving(attempt)

    def close(self) -> None:
        """Let the workers go."""
        from ml_assets.ml.ray_backend import close_pool

        close_pool()

    def _workers(self) -> int:
        import ray

        if workers := int(ray.cluster_resources().get("CPU", 0)):
            return workers
        raise TrainingError(
            f"{self._place}: the Ray cluster has no CPU left; add a node to it, or set compute to local"
        )

    def _surviving(self, attempt: Callable[[], Any]) -> Any:
        from ray.exceptions import RayError, RayTaskError

        for number in range(1, self._attempts + 1):
            try:
                return attempt()
            except RayTaskError:  # raised by what ran on a worker, and not by the loss of one
                raise
            except RayError as error:
                self.close()
                told = str(error).strip().partition("\n")[0]
                if number == self._attempts:
                    raise TrainingError(
                        f"{self._place}: Ray lost a worker {self._attempts} times while it did the same work: {told} "
                        "Look at the memory of the cluster's nodes and at Ray's logs"
                    ) from error
                self._log(f"Ray lost a worker ({told}); what it was doing is done again")
        raise AssertionError


def _alone(function: Callable[..., Any], threads: int, *call: Any) -> Any:
    """One call, whose sums are made on one thread."""
    from threadpoolctl import threadpool_limits

    # Never set back: OpenMP's limit is of this thread, and the others' calls still need that of BLAS.
    threadpool_limits(1)
    return function(threads, *call)
