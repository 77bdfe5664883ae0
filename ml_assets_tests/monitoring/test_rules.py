"""The files of `deploy/monitoring`, read by the programs that they are for."""

import json
from pathlib import Path
from typing import Any

import yaml

from ml_assets_tests.prometheus import FOLDER, hurried_route, hurried_rules, hurried_scrapes, run
from ml_assets_tests.promql import names_in


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "grafana" / "dashboard.json").read_text()))


def test_promtool_finds_the_rules_valid_and_each_alert_fires_when_it_should() -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", FOLDER / "rules.yml")
    assert "SUCCESS" in run("promtool", "test", "rules", FOLDER / "rules_test.yml")


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = str([each for test in tests for each in test["promql_expr_test"] if each["exp_samples"]])
    assert [rule["alert"] for rule in alerts() if rule["alert"] not in fired] == []


def test_each_alert_says_how_bad_it_is_whose_it_is_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warn", "error"), rule
        assert rule["labels"]["part"] in ("endpoint", "pipeline"), rule
        assert set(rule["annotations"]) == {"summary", "action"}, rule


def test_prometheus_and_alertmanager_take_their_configuration(tmp_path: Path) -> None:
    assert "is valid prometheus config" in run("promtool", "check", "config", FOLDER / "prometheus.yml")
    said = run("amtool", "check-config", FOLDER / "alertmanager.yml")
    assert "2 inhibit rules" in said
    assert "1 receivers" in said


def test_each_alert_reaches_the_webhook() -> None:
    for severity in {rule["labels"]["severity"] for rule in alerts()}:
        asked = [f"--config.file={FOLDER}/alertmanager.yml", "model=m", f"severity={severity}"]
        assert run("amtool", "config", "routes", "test", *asked).split()[0] == "webhook"


def test_what_runs_in_the_tests_is_in_a_hurry_and_otherwise_the_same(tmp_path: Path) -> None:
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
    hurried = hurried_rules()
    assert names_in(str(rules)) == names_in(str(hurried))
    for file, content in (("rules.yml", hurried), ("prometheus.yml", hurried_scrapes(tmp_path, 1))):
        (tmp_path / file).write_text(yaml.safe_dump(content))
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(hurried_route("http://127.0.0.1:1")))
    run("promtool", "check", "config", tmp_path / "prometheus.yml")
    run("amtool", "check-config", tmp_path / "alertmanager.yml")


def test_the_dashboard_is_whole() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for each in panels:
        at = each["gridPos"]
        assert at["x"] + at["w"] <= 24, each["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{each['title']} lies on another panel"
        taken |= cells
        assert each["type"] == "row" or each["targets"], each["title"]
        assert each["type"] == "row" or each["datasource"]["uid"] == "${datasource}", each["title"]
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "model"]
