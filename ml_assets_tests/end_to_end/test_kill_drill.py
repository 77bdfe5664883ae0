"""The short form of `make drill`: four days arrive under the daemon, and each kind of process is killed once."""

from collections.abc import Callable

from ml_assets_tests.drills.kill import drill, prepare
from ml_assets_tests.project import Project


def test_kills_at_random_moments_change_nothing_in_the_end(make_project: Callable[..., Project]) -> None:
    calm, killed = make_project("calm"), make_project("killed")
    prepare(calm)
    calm.land(4)
    calm.materialize()
    drill(calm, killed, days=4, kills=4, seed=3, pause=4, every=2)
