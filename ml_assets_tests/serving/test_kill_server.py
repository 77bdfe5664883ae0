"""kill -9 of the server under load: the short form of `ml_assets_tests.drills.kill_server`."""

from pathlib import Path

import pytest

from ml_assets_tests.drills.kill_server import drill, most_missing


@pytest.mark.parametrize("way", ["on", "fsync"])
def test_a_killed_server_leaves_a_log_without_damage_and_without_losses_beyond_its_word(
    release: Path, tmp_path: Path, way: str
) -> None:
    left = drill(release, tmp_path, way, rounds=1, seconds=1.5, connections=4)
    assert [said for each in left for said in each.wrong] == []
    assert all(each.answered > 20 for each in left)
    assert max(each.missing for each in left) <= most_missing(way)
