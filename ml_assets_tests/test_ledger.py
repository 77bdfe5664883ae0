from pathlib import Path

from ml_assets.lake import Lake
from ml_assets.ledger import Decision, decisions, note
from ml_assets_tests.project import Project


def test_a_decision_is_written_once_until_another_is_taken(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for decision in (
        Decision("training", "waits", "3 rows"),
        Decision("training", "waits", "3 rows"),
        Decision("data", "waits", "3 rows"),
        Decision("training", "asked for", "500 rows", ["trained_model"]),
        Decision("training", "asked for", "500 rows", ["trained_model"]),
        Decision("training", "waits", "3 rows"),
    ):
        note(lake, "demo", decision)
    assert [(each.subject, each.decision, each.assets) for each in decisions(lake, "demo")] == [
        ("training", "waits", []),
        ("data", "waits", []),
        ("training", "asked for", ["trained_model"]),
        ("training", "asked for", ["trained_model"]),
        ("training", "waits", []),
    ]


def test_why_tells_what_was_retrained_and_what_is_due(small: Project) -> None:
    done = small.run("ml-assets", "why", "late_deliveries")
    assert done.returncode == 0, done.stderr
    assert "training  asked for trained_model, metrics, endpoint: first training" in done.stdout
    assert "data      up to date" in done.stdout
    assert "training  version 1 is up to date and serves" in done.stdout
    unknown = small.run("ml-assets", "why", "lateness")
    assert unknown.returncode == 1
    assert "holds no model 'lateness'; it has late_deliveries" in unknown.stderr
