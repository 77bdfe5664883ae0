"""Rollouts on the real server, under load: a good challenger is promoted, bad ones are taken back, callers see nothing.

The long form, with more requests and a table of them, is `ml_assets_tests.drills.canary`.
"""

from collections.abc import Iterator

import pytest

from ml_assets.deployment.rollout import Phase
from ml_assets_tests.canary import FINDINGS, Canary, Looked, quick
from ml_assets_tests.project import Project


@pytest.fixture(scope="module")
def canary(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    with Canary.running(small, tmp_path_factory.mktemp("canary")) as running:
        yield running


def require_content(rolled: Looked) -> None:
    """No caller got an error, or an answer that is not, to the last bit, that of the version it names."""
    assert rolled.callers.wrong == []
    assert sum(rolled.callers.versions.values()) == len(rolled.callers.seconds)


@pytest.mark.parametrize("name", FINDINGS)
def test_a_bad_challenger_is_taken_back_and_no_caller_notices(canary: Canary, name: str) -> None:
    expected = FINDINGS[name]
    # Against a limit in seconds a few requests suffice; against the champion's p99, that has to be known first.
    enough, limits = (25, {"p99_seconds": 0.09}) if name == "4-slow" else (expected.enough, expected.limits)
    rolled = canary.roll(name, quick(**limits), seconds=60, quality=name == "7-worse")
    assert (rolled.last.phase, rolled.finding) == (Phase.ROLLED_BACK, expected.finding), rolled.last.reason
    assert rolled.undecided < enough, "it was still undecided after so many"
    require_content(rolled)
    version = name.partition("-")[0]
    assert rolled.callers.versions.keys() <= {canary.champion.version, version}
    assert rolled.last.champion == canary.champion


def test_a_good_challenger_is_promoted(canary: Canary) -> None:
    rolled = canary.roll("2-good", quick(), seconds=60)
    assert rolled.last.phase is Phase.PROMOTED, rolled.last.reason
    require_content(rolled)
    assert [each.challenger.errors for each in rolled.last.observed] == [0, 0]
    shares = [
        each.challenger.requests / (each.challenger.requests + each.champion.requests) for each in rolled.last.observed
    ]
    assert shares == [pytest.approx(0.2, abs=0.08), pytest.approx(0.5, abs=0.08)]
