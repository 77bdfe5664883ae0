"""A swap between two requests, and between none: the short form of `ml_assets_tests.drills.swaps`."""

from pathlib import Path

from ml_assets_tests.drills.swaps import under_load


def test_no_request_fails_or_gets_another_versions_answer_while_releases_are_swapped(
    release: Path, tmp_path: Path
) -> None:
    calm, swapped, swaps = under_load(release, tmp_path, seconds=3, every=0.6, connections=8)
    assert calm.wrong == swapped.wrong == []
    assert calm.versions.keys() == {"1"}
    assert swaps >= 4
    assert swapped.versions.keys() == {"1", "2"}
