"""`predictions` and `feedback` from journal and outcomes: rebuilt by day, settled, and only where something changed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl
import pytest

from ml_assets.assets import SERVED
from ml_assets.assets.feedback import feedback_bases, is_over
from ml_assets.assets.naming import REASON_TAG
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.automation.feedback import feedback_sensor
from ml_assets.automation.jobs import RANGE_END_TAG, RANGE_START_TAG
from ml_assets.records import Record, append_records, read_latest, writing
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.serving.journal import Entry, segments
from ml_assets.serving.prediction_log import PredictionLog
from ml_assets.settings import JOURNAL
from ml_assets_tests.rides import Place, noon
from ml_assets_tests.steps import refresh, refresh_feedback

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = [str((TODAY - timedelta(days=each)).date()) for each in (20, 9, 8, 0)]  # when predictions were asked for

ALL, BESIDE = sorted(SERVED), ["feedback", "monitoring"]  # what is made of a day


class Business(Place):
    """Rides whose predictions are asked for, and whose outcomes come in files of their own."""

    def asks(self, *asked: tuple[str, str | None], status: int = 200) -> None:
        """A server's life: it logs some requests, each with the day and the ride's id, and stops."""
        log = PredictionLog(self.root / JOURNAL)
        for number, (day, ride) in enumerate(asked):
            moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=number)
            body = {"rows": [{"km": 1.0, "at": "2025-01-01T12:00:00Z"}], "ids": [ride]}
            answer = {"predictions": [{"label": ride != "b", "score": 0.75}]}
            log.append(
                "rides",
                Entry(
                    int(moment.timestamp() * 1e6),
                    f"{ride}-{number}",
                    status,
                    "1",
                    "1-gone",
                    0.001 * (number + 1),
                    body=msgspec.json.encode(body),
                    answer=msgspec.json.encode(answer),
                ),
            )
        log.start()
        log.close()

    def reports(self, name: str, *known: tuple[str, int, bool | None]) -> None:
        """A file of outcomes: ride, day of January on which it became known, whether it was late."""
        self.put(
            f"outcomes/{name}.parquet", [{"ride": ride, "known": noon(day), "late": late} for ride, day, late in known]
        )

    def catch_up(self) -> dict[str, list[str]]:
        refresh(self.model, self.lake, {"raw_data", "cleaned_data", "outcomes"})
        return refresh_feedback(self.model, self.lake, self.root)

    def feedback(self) -> list[tuple[Any, ...]]:
        rows = self.lake.read("rides", "feedback").sort("received_at", "request_id")
        return rows.select("_partition", "key_ride", "label", "outcome_late").rows()

    def details(self, asset: str) -> dict[str, dict[str, Any]]:
        return {day: record.details for day, record in read_latest(self.lake, "rides").of(asset).items()}

    def versions(self) -> dict[str, int]:
        """By day the version of the table in which its rows were written."""
        return {day: record.version for day, record in read_latest(self.lake, "rides").of("feedback").items()}


@pytest.fixture
def business(tmp_path: Path) -> Business:
    made = Business(tmp_path, own_outcomes=True)
    made.put("rides/1.parquet", [{"ride": each, "at": noon(1), "km": 1.0} for each in "abcd"])
    return made


def test_predictions_find_their_outcomes_however_these_come(business: Business, tmp_path: Path) -> None:
    asked = [(DAYS[0], "a"), (DAYS[0], "b"), (DAYS[0], None), (DAYS[1], "a"), (DAYS[1], "c"), (DAYS[3], "d")]
    business.asks(*asked)
    business.reports("1", ("a", 1, True), ("b", 1, True))
    assert business.catch_up() == dict.fromkeys((DAYS[0], DAYS[1], DAYS[3]), ALL)
    assert business.catch_up() == {}, "nothing is due any more"
    assert business.feedback() == [
        (DAYS[0], "a", "True", True),
        (DAYS[0], "b", "False", True),
        (DAYS[1], "c", "True", None),
        (DAYS[3], "d", "True", None),
    ]
    day = business.details("feedback")[DAYS[0]]
    assert (day["predicted"], day["not_joinable"], day["repeated"]) == (3, 1, 0)
    assert (day["matured"], day["joined"], day["coverage"], day["final"]) == (2, 2, 1.0, "yes")
    day = business.details("feedback")[DAYS[1]]
    assert (day["repeated"], day["matured"], day["joined"], day["coverage"]) == (1, 1, 0, 0.0), "`a` was asked before"
    day = business.details("feedback")[DAYS[3]]
    assert (day["matured"], day["final"][:5]) == (0, "from "), "seven days have not passed"
    before = business.versions()
    business.reports("2", ("c", 2, False), ("c", 3, True), ("b", 1, True))  # late, corrected, repeated
    assert set(business.catch_up()) == {DAYS[0], DAYS[1], DAYS[3]}
    assert business.feedback()[2] == (DAYS[1], "c", "True", True)
    after = business.versions()
    assert {day for day in after if after[day] != before[day]} == {DAYS[1]}, "only the day that it is about"

    other = Business(tmp_path / "other", own_outcomes=True)
    other.put("rides/1.parquet", [{"ride": each, "at": noon(1), "km": 1.0} for each in "abcd"])
    other.reports("x", ("c", 3, True), ("a", 1, True))
    other.asks(*asked[3:])
    other.catch_up()
    other.asks(*asked[:3])  # logged by another server, and found later
    other.reports("y", ("b", 1, True), ("b", 1, True), ("c", 2, False), ("a", 1, True))
    other.catch_up()
    assert other.feedback() == business.feedback()
    assert [other.details("feedback")[day]["coverage"] for day in DAYS[:2]] == [1.0, 1.0]


def test_an_earlier_prediction_that_is_found_later_is_the_one_that_counts(business: Business) -> None:
    business.asks((DAYS[1], "a"), (DAYS[1], "b"))
    business.catch_up()
    business.asks((DAYS[0], "a"))
    assert business.catch_up() == {DAYS[0]: ALL, DAYS[1]: BESIDE}
    assert [each[:2] for each in business.feedback()] == [(DAYS[0], "a"), (DAYS[1], "b")]
    assert business.catch_up() == {}


def test_a_day_of_predictions_is_rebuilt_whole_from_all_of_its_segments_and_what_was_removed_of_them(
    business: Business,
) -> None:
    business.asks((DAYS[0], "a"), (DAYS[2], "b"))
    business.asks((DAYS[2], "c"), status=422)
    business.catch_up()
    kept = [each.day for each in segments(business.root / JOURNAL / "rides")]
    assert kept == [], "both days are long over, and in the lake"
    assert business.catch_up() == {}, "and they stay there"
    business.asks((DAYS[2], "d"))
    assert business.catch_up()[DAYS[2]] == ALL
    rows = business.lake.read("rides", "predictions").sort("received_at")
    assert rows["key_ride"].to_list() == ["a", "d", "b"]
    assert rows["_partition"].to_list() == [DAYS[0], DAYS[2], DAYS[2]]
    refused = business.lake.read("rides", "rejected_predictions")
    assert refused.select("request_id", "status").rows() == [("c-0", 422)]
    day = business.details("predictions")[DAYS[2]]
    assert (day["requests"], day["refused"], json.loads(day["statuses"])) == (3, 1, {"200": 2, "422": 1})
    assert (day["lost"], day["without_features"], day["p99_ms"]) == (0, 2, "1.990")


def test_a_segment_stays_until_its_day_is_in_the_lake_and_a_damaged_one_is_counted(business: Business) -> None:
    business.asks((DAYS[3], "a"), (DAYS[3], "b"))
    [segment] = segments(business.root / JOURNAL / "rides")
    content = segment.path.read_bytes()
    segment.path.write_bytes(content[:-3])
    business.catch_up()
    day = business.details("predictions")[DAYS[3]]
    assert (day["requests"], day["lost"], day["torn_bytes"]) == (0, 2, len(content) - 3)
    assert segment.path.exists(), "the day is not over"
    segment.path.write_bytes(content)
    assert business.catch_up() == {DAYS[3]: ALL}, "it was put right again"
    assert business.details("predictions")[DAYS[3]]["requests"] == 2


def test_a_run_that_was_killed_while_it_wrote_is_finished(business: Business) -> None:
    business.asks((DAYS[0], "a"))
    business.reports("1", ("a", 1, True))
    business.catch_up()
    append_records(business.lake, "rides", [writing(each, DAYS[0], "killed") for each in ("predictions", "feedback")])
    business.lake.replace("rides", "feedback", business.lake.read("rides", "feedback").clear(), [DAYS[0]])
    assert business.catch_up() == {DAYS[0]: ALL}
    assert business.feedback() == [(DAYS[0], "a", "True", True)], "although its segment was removed"


def test_what_a_server_still_writes_to_is_no_reason_for_a_sensor(business: Business) -> None:
    log = PredictionLog(business.root / JOURNAL)
    log.start()
    log.append("rides", Entry(int(datetime.now(UTC).timestamp() * 1e6), "x", 422, "1", "1-gone", 0.1))
    while not segments(business.root / JOURNAL / "rides") or log.waiting:
        pass
    journal = business.root / JOURNAL
    assert due_feedback(business.model, business.lake, journal, certain=False).needs == {}
    assert len(due_feedback(business.model, business.lake, journal).needs) == 1, "who asks now wants what is there"
    log.close()
    assert len(due_feedback(business.model, business.lake, journal, certain=False).needs) == 1


def test_a_day_becomes_final_once_though_nothing_arrives(business: Business) -> None:
    details = {"segments": {}, "not_joinable": 0}
    append_records(business.lake, "rides", [Record("predictions", "2026-01-01", "", "x", 1, "run", details=details)])
    latest = read_latest(business.lake, "rides")
    ends = datetime(2026, 1, 9, tzinfo=UTC)  # seven days after the end of the day
    moments = [ends - timedelta(days=8), ends - timedelta(seconds=1), ends, ends + timedelta(days=99)]
    inputs = [feedback_bases(business.model, latest, each)["2026-01-01"].inputs for each in moments]
    assert (inputs[0] == inputs[1], inputs[1] == inputs[2], inputs[2] == inputs[3]) == (True, False, True)
    assert [is_over("2026-01-01", timedelta(days=7), each) for each in moments] == [False, False, True, True]


def test_tables_keep_their_types(business: Business) -> None:
    business.asks((DAYS[0], "a"))
    business.catch_up()
    rows = business.lake.read("rides", "feedback")
    assert rows.schema["outcome_late"] == pl.Boolean
    assert rows.schema["key_ride"] == pl.String


def test_the_sensor_asks_for_what_is_due_and_tells_dagster_of_days_that_it_does_not_know(business: Business) -> None:
    business.asks((DAYS[0], "a"), (DAYS[1], "b"), (DAYS[2], "c"))

    def tick() -> Any:
        resources = {
            "lake": LakeResource(root=str(business.lake.root)),
            "serving": ServingResource(home=str(business.root), releases="", port=1),
        }
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, resources=resources) as context,
        ):
            return feedback_sensor(business.model)(context)

    asked = tick()
    assert [each.job_name for each in asked.run_requests] == ["rides_feedback"] * 2, "a run for each stretch of days"
    tags = [each.tags for each in asked.run_requests]
    assert [(each[RANGE_START_TAG], each[RANGE_END_TAG]) for each in tags] == [(DAYS[0], DAYS[0]), (DAYS[1], DAYS[2])]
    assert tags[0][REASON_TAG] == "predictions were logged"
    assert business.lake.read("rides", "ledger")["subject"].to_list() == ["feedback"]
    business.catch_up()
    after = tick()
    assert (after.run_requests, after.skip_reason.skip_message) == ([], "nothing new")
    told = {(each.asset_key.path[-1], each.partition) for each in after.asset_events}
    assert told == {(asset, day) for asset in SERVED for day in DAYS[:3]}
