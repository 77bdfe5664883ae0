"""`monitoring` from what was logged and came true: each day by itself, by version, and only where something changed."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import hypothesis.strategies as st
import msgspec
import polars as pl
import pytest
from hypothesis import given, settings

from ml_assets.assets import SERVED
from ml_assets.assets.monitoring import PROBES, monitoring
from ml_assets.assets.trained_model import training_rows
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.demo.business import FIRST_DAY
from ml_assets.deployment.release import as_request
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ml.training import KNOWN_AT
from ml_assets.model import Model
from ml_assets.monitored import ASSET, monitored
from ml_assets.records import Record, append_records, read_latest, writing
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.serving.journal import Entry
from ml_assets.serving.prediction_log import PredictionLog
from ml_assets.serving.scorer import Scorer
from ml_assets.settings import JOURNAL
from ml_assets.spec.operating import Monitoring
from ml_assets_tests.assets.test_feedback import DAYS, Business
from ml_assets_tests.project import SMALL, Project
from ml_assets_tests.rides import noon
from ml_assets_tests.steps import refresh_feedback

MODEL = "late_deliveries"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
CALM, STORM, NOW = (str((TODAY - timedelta(days=each)).date()) for each in (30, 20, 0))
ORDERS = 400
LATER = "2025-02-01"  # when outcomes of more orders than the small project has arrived
Checks = dict[str, dg.AssetCheckResult]


class Watched:
    """The small project's model, with a log of its own: real orders, answered by its release."""

    def __init__(self, small: Project, root: Path) -> None:
        self.root, self.lake, model = root, Lake(root / "lake"), small.model()
        # A day of these orders has all weekdays.
        self.model = replace(model, spec=model.spec.model_copy(update={"monitoring": Monitoring()}))
        shutil.copytree(small.settings.lake, self.lake.root)
        shutil.copytree(small.settings.releases, root / "releases")
        record = small.latest().get("endpoint", WHOLE)
        assert record is not None
        self.release = str(record.details["release"])
        self.scorer = Scorer.load(root / "releases" / MODEL / self.release)
        self.orders = _fresh_orders(self.model, self.lake)

    def asks(self, day: str, orders: pl.DataFrame, failing: int = 0, refused: int = 0, given: Any = None) -> None:
        """A server's life on a day: each order is a request of its own; some more fail or are refused."""
        log = PredictionLog(self.root / JOURNAL)
        begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
        rows = as_request(orders, self.scorer.manifest)
        ids = orders.get_column("order_id").to_list()
        answers = given or self.scorer.predict(rows, None)
        entries = [
            {"body": msgspec.json.encode({"rows": [row], "ids": [name]}), "answer": _answer(answer), "status": 200}
            for row, name, answer in zip(rows, ids, answers, strict=True)
        ]
        entries += [{"status": 500, "reason": "KeyError"}] * failing
        entries += [{"status": 422, "reason": "RequestError", "column": "items"}] * refused
        for number, each in enumerate(entries):
            at = int((begin + timedelta(seconds=number)).timestamp() * 1e6)
            said: dict[str, Any] = {"at": at, "id": f"{day}-{number}", "version": "1", "release": self.release}
            log.append(MODEL, Entry(**said, seconds=0.002, **each))
        log.start()
        log.close()

    def catch_up(self) -> dict[str, list[str]]:
        return refresh_feedback(self.model, self.lake, self.root)

    def findings(self, day: str, subject: str) -> dict[str, dict[str, Any]]:
        rows = self.lake.read(MODEL, ASSET, [day]).filter(pl.col("subject") == subject)
        return {each["name"]: each for each in rows.to_dicts()}

    def details(self, day: str) -> dict[str, Any]:
        return read_latest(self.lake, MODEL).of(ASSET)[day].details

    def by_hand(self, day: str) -> tuple[dict[str, dg.MetadataValue], Checks]:
        """A person materialises a day: its metadata, and the checks."""
        with dg.DagsterInstance.ephemeral() as instance:
            serving = ServingResource(home=str(self.root), releases=str(self.root / "releases"), port=1)
            done = dg.materialize(
                [monitoring(self.model)],
                partition_key=day,
                instance=instance,
                resources={"lake": LakeResource(root=str(self.lake.root)), "serving": serving},
                raise_on_error=True,
            )
        [made] = done.asset_materializations_for_node(done.get_asset_materialization_events()[0].step_key)
        return dict(made.metadata), {each.check_name: each for each in done.get_asset_check_evaluations()}


def _fresh_orders(model: Model, lake: Lake) -> pl.DataFrame:
    """Orders that no model has seen, on the dates of those that it was trained on, with their outcomes in the lake."""
    days = [FIRST_DAY + timedelta(days=each) for each in range(20, 27)]
    business = replace(SMALL, broken=0.0, repeated=0.0)
    orders = pl.concat([business.orders(day) for day in days]).sample(fraction=1.0, shuffle=True, seed=1)
    told = pl.concat(
        [business.outcomes(day) for day in [*days, *(days[-1] + timedelta(days=each) for each in (1, 2, 3))]]
    )
    told = told.join(orders, on="order_id", how="semi").rename({"reported_at": KNOWN_AT})
    lake.replace(MODEL, "outcomes", told.with_columns(pl.lit(LATER).alias(PARTITION)), [LATER])
    append_records(lake, MODEL, [Record("outcomes", LATER, "", "told", told.height, "of-a-test")])
    orders = orders.join(told, on="order_id", how="semi")
    trained = read_latest(lake, MODEL).get("trained_model", WHOLE)
    assert trained is not None
    rows = training_rows(model, lake, trained.details["table_versions"], None)
    dates = rows.frame[rows.sides.train].get_column("ordered_at").dt.date()
    dates = dates.sample(orders.height, with_replacement=True, seed=1)
    at = pl.lit(dates).dt.combine(pl.col("ordered_at").dt.time()).dt.replace_time_zone("UTC")
    return orders.with_columns(at.alias("ordered_at"))


def _answer(answer: Any) -> bytes:
    return msgspec.json.encode({"predictions": [answer]})


@pytest.fixture(scope="module")
def watched(small: Project, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A calm day, a day on which much is wrong, and today."""
    made = Watched(small, tmp_path_factory.mktemp("watched"))
    calm, storm = made.orders.head(ORDERS), made.orders.slice(ORDERS, ORDERS)
    made.asks(CALM, calm, failing=1, refused=3)
    far = storm.with_columns(distance_km=pl.col("distance_km") * 3, vehicle=pl.lit("bike"))
    contrary = [_contrary(each) for each in made.scorer.predict(as_request(far, made.scorer.manifest), None)]
    made.asks(STORM, far, failing=40, refused=60, given=contrary)
    made.asks(NOW, far.head(60), failing=30)
    made.lake.append(MODEL, PROBES, probes(CALM, good=2880))
    made.lake.append(MODEL, PROBES, probes(STORM, good=2000))
    made.lake.append(MODEL, PROBES, probes(NOW, good=0))
    return made


def _contrary(answer: dict[str, Any]) -> dict[str, Any]:
    return {"label": not answer["label"], "score": 1 - answer["score"]}


def probes(day: str, good: int, all_: int = 2880) -> pl.DataFrame:
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    counts = {"probes": all_, "good": good, "dead": all_ - good, "hanging": 0, "wrong": 0, "slow": 0}
    times = {"from": [begin], "to": [begin + timedelta(hours=23)], "p50_ms": [1.0], "max_ms": [9.0], "reason": [""]}
    return pl.DataFrame(times | {name: [count] for name, count in counts.items()}).with_columns(
        pl.col("from", "to").cast(pl.Datetime("us", "UTC"))
    )


@pytest.fixture(scope="module")
def caught_up(watched: Watched) -> Watched:
    made = watched.catch_up()
    assert made == {day: sorted(SERVED) for day in (CALM, STORM, NOW)}
    assert watched.catch_up() == {}, "nothing is due any more"
    return watched


def test_a_day_like_those_before_is_no_alarm(caught_up: Watched) -> None:
    said = caught_up.details(CALM)
    assert (said["alarms"], said["wrong"]) == ({}, "nothing is wrong")
    assert said["versions"] == {"1": {"rows": ORDERS, "alarms": {}}}
    assert said["rows"] == ORDERS
    drift = caught_up.findings(CALM, "drift")
    assert "20 are needed" in drift.pop("all")["note"], "its release knows few days"
    assert set(drift) == set(caught_up.model.features.names)
    assert all(each["version"] == "1" and each["rows"] == ORDERS and each["limit"] == 0.1 for each in drift.values())
    assert {name: each["value"] for name, each in caught_up.findings(CALM, "requests").items()} == {
        "answered": ORDERS,
        "failed": 1,
        "failed_share": 1 / (ORDERS + 4),
        "lost": 0,
        "refused": 3,
    }
    assert caught_up.findings(CALM, "latency")["p50_ms"]["value"] == 2.0
    assert caught_up.findings(CALM, "availability")["probe"]["value"] == 1.0
    assert caught_up.findings(CALM, "coverage")["outcomes"]["value"] == 1.0


def test_quality_is_held_against_what_the_release_promised(caught_up: Watched) -> None:
    judged = read_latest(caught_up.lake, MODEL).get("metrics", WHOLE)
    assert judged is not None
    calm = caught_up.findings(CALM, "quality")
    assert {name: each["limit"] for name, each in calm.items()} == pytest.approx(judged.details["values"])
    assert all(each["lower"] <= each["value"] <= each["upper"] for each in calm.values())
    assert not any(each["alarm"] for each in calm.values())
    storm = caught_up.findings(STORM, "quality")
    assert [name for name, each in storm.items() if each["alarm"]] == ["roc_auc"], "only the primary metric is judged"
    assert "worse than the promised" in storm["roc_auc"]["note"]


def test_everything_that_is_wrong_is_named(caught_up: Watched) -> None:
    alarms = caught_up.details(STORM)["alarms"]
    assert set(alarms) == {"requests", "availability", "drift", "scores", "rejected", "quality"}
    assert {"distance_km", "vehicle", "speed_needed"} <= set(alarms["drift"])
    assert not {"zone", "weather", "items", "order_value", "hour"} & set(alarms["drift"]), "these did not drift"
    assert (alarms["scores"], alarms["rejected"], alarms["requests"]) == (["score"], ["all"], ["failed_share"])
    assert set(caught_up.details(STORM)["versions"]["1"]["alarms"]) == {"drift", "scores", "quality"}
    assert caught_up.findings(STORM, "rejected")["RequestError"]["value"] == 60 / (ORDERS + 100)


def test_today_is_shown_and_not_judged(caught_up: Watched) -> None:
    said = caught_up.details(NOW)
    assert (said["alarms"], said["over"]) == ({}, "no")
    failed = caught_up.findings(NOW, "requests")["failed_share"]
    assert (failed["value"], failed["alarm"], failed["note"]) == (1 / 3, False, "the day is not over")
    assert caught_up.findings(NOW, "availability") == {}, "its probes grow by the minute"
    later = TODAY + timedelta(days=1)
    due = due_feedback(caught_up.model, caught_up.lake, caught_up.root / JOURNAL, now=later)
    assert {day: sorted(need.assets) for day, need in due.needs.items()} == {NOW: ["monitoring"]}


def test_the_checks_are_over_the_latest_day_that_can_be_judged(caught_up: Watched) -> None:
    metadata, checks = caught_up.by_hand(CALM)
    severe = {name: each.severity.value for name, each in checks.items() if not each.passed}
    assert severe == {
        "requests": "ERROR",
        "availability": "ERROR",
        "drift": "WARN",
        "scores": "WARN",
        "rejected": "WARN",
        "quality": "ERROR",
    }
    assert not any(each.blocking for name, each in checks.items() if name in severe)
    assert checks["quality"].metadata["day"].value == STORM
    findings = str(checks["drift"].metadata["findings"].value)
    assert findings.splitlines()[0].startswith("| version | name | value |")
    assert "| distance_km |" in findings
    assert "**alarm** distance_km drifted" in findings
    assert "not judged" in str(checks["stale"].description), "the model looks nothing up"
    assert str(metadata["latest_day"].value).startswith(f"{STORM} ")
    assert str(metadata["latest_quality"].value).startswith(f"{STORM} roc_auc of version 1 is ")
    for name in ("requests", "latency", "drift", "quality"):
        assert str(metadata[f"{name}_by_day"].value).startswith("![plot](data:image/png;base64,")
    known = monitored(read_latest(caught_up.lake, MODEL))
    assert known is not None
    assert (known["day"], known["quality_day"]) == (STORM, STORM)


def test_what_stays_the_same_is_not_written_and_a_killed_run_is_finished(caught_up: Watched) -> None:
    before = {day: each.version for day, each in read_latest(caught_up.lake, MODEL).of(ASSET).items()}
    content = caught_up.lake.read(MODEL, ASSET, [CALM]).sort("subject", "name")
    caught_up.by_hand(CALM)
    assert read_latest(caught_up.lake, MODEL).of(ASSET)[CALM].version == before[CALM]
    append_records(caught_up.lake, MODEL, [writing(ASSET, CALM, "killed")])
    caught_up.lake.replace(MODEL, ASSET, caught_up.lake.read(MODEL, ASSET).clear(), [CALM])
    assert caught_up.catch_up() == {CALM: ["monitoring"]}
    assert caught_up.lake.read(MODEL, ASSET, [CALM]).sort("subject", "name").equals(content)


def test_probes_that_are_told_later_change_their_day_alone(caught_up: Watched) -> None:
    silent = str((TODAY - timedelta(days=25)).date())
    caught_up.lake.append(MODEL, PROBES, probes(silent, good=0))
    assert caught_up.catch_up() == {silent: ["monitoring"]}, "nobody asked it anything"
    assert caught_up.details(silent)["alarms"] == {"availability": ["probe"]}
    assert caught_up.findings(silent, "drift") == {}


CORRECTIONS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 9), st.sampled_from([True, False, None])), min_size=1, max_size=3
)


@settings(max_examples=2, deadline=None)
@given(corrections=CORRECTIONS)
def test_late_corrections_touch_only_the_day_of_their_prediction(
    corrections: list[tuple[str, int, bool | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    business = Business(tmp_path_factory.mktemp("business"), own_outcomes=True)
    business.put("rides/1.parquet", [{"ride": each, "at": noon(1), "km": 1.0} for each in "abcd"])
    days = {"a": DAYS[0], "b": DAYS[0], "c": DAYS[1], "d": DAYS[2]}
    business.asks(*((day, ride) for ride, day in days.items()))
    business.reports("0", ("a", 1, True))
    business.catch_up()
    for number, (ride, moment, late) in enumerate(corrections):
        before = read_latest(business.lake, "rides").of(ASSET)
        business.reports(str(number + 1), (ride, moment, late))
        business.catch_up()
        after = read_latest(business.lake, "rides").of(ASSET)
        written = {day for day in after if after[day].recorded_at != before[day].recorded_at}
        assert written <= {days[ride]}, "other days are not even looked at"
        assert {day for day in after if after[day].content != before[day].content} <= written
    whole = Business(tmp_path_factory.mktemp("business"), own_outcomes=True)
    whole.put("rides/1.parquet", [{"ride": each, "at": noon(1), "km": 1.0} for each in "abcd"])
    whole.reports("0", ("a", 1, True))
    for number, each in enumerate(corrections):
        whole.reports(str(number + 1), each)
    whole.asks(*((day, ride) for ride, day in days.items()))
    whole.catch_up()
    contents = [
        {day: record.content for day, record in read_latest(each.lake, "rides").of(ASSET).items()}
        for each in (business, whole)
    ]
    assert contents[0] == contents[1], "as if all had been known at once"
