"""What asks for a retraining and what holds it back, by records that were made by hand: no model is trained here."""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.assets.endpoint import endpoint_inputs
from ml_assets.assets.episodes import Kind, episode, known_to
from ml_assets.assets.metrics import metrics_inputs
from ml_assets.assets.trained_model import training_inputs
from ml_assets.automation.causes import Answer, Situation, answers, budget, drift, quality
from ml_assets.automation.due_training import DueTraining, due_by
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE
from ml_assets.model import Model
from ml_assets.records import Latest, Record
from ml_assets.spec.operating import Feedback, Retrain
from ml_assets_tests.rides import Place

FIRST = date(2026, 3, 1)


def day(number: int) -> str:
    return str(FIRST + timedelta(days=number))


@dataclass
class Life:
    """The records of a model as they come in, day after day; every day has 40 rows."""

    model: Model
    latest: Latest = field(default_factory=Latest)
    today: int = 0
    hours: int = 12
    versions: int = 0

    @classmethod
    def of(cls, model: Model, delay: str = "2d", **retrain: Any) -> "Life":
        stated = {"retrain": Retrain.model_validate(retrain), "feedback": Feedback(delay=delay)}
        return cls(replace(model, spec=model.spec.model_copy(update=stated)))

    @property
    def now(self) -> datetime:
        return datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(days=self.today, hours=self.hours)

    @property
    def newest(self) -> Record:
        trained = self.latest.get("trained_model", WHOLE)
        assert trained is not None
        return trained

    def record(
        self, asset: str, partition: str, content: str, rows: int = 40, inputs: str = "", **details: Any
    ) -> None:
        self.latest.add([Record(asset, partition, inputs, content, rows, "run", details=details, recorded_at=self.now)])

    def rows(self, number: int, content: str = "as they came") -> None:
        self.record("features", day(number), content)

    def labels(self, number: int, count: int = 40) -> None:
        """So many outcomes of a day's predictions came in today."""
        self.record("outcomes", day(self.today), f"of {number}", count)
        self.record("feedback", day(number), f"{count}", joined=count)

    def monitored(self, number: int, by: str = "", beside: str = "", final: str = "yes", **alarms: list[str]) -> None:
        """What the asset says of a day on which one version answered, with these alarms, and perhaps one beside it."""
        versions = {each: {"rows": 20, "alarms": said} for each, said in ((by, alarms), (beside, {})) if each}
        self.record("monitoring", day(number), "", alarms=alarms, versions=versions, rows=40, over="yes", final=final)

    def due(self) -> DueTraining:
        return due_by(self.model, self.latest, self.now)

    def trains(self, cause: str = "code", code: str | None = None, labelled: dict[str, int] | None = None) -> None:
        """As the asset records it."""
        self.versions += 1
        before = self.latest.get("trained_model", WHOLE)
        contents = {
            asset: {each: [one.content, one.rows] for each, one in self.latest.of(asset).items()}
            for asset in ("features", "outcomes")
        }
        known = known_to(self.model, self.latest, before, cause, self.now, labelled or {})
        inputs, name = training_inputs(self.model, self.latest), f"{self.versions}"
        code = self.model.code_digest if code is None else code
        details = {"version": name, "code_digest": code, "contents": contents, **known}
        self.record("trained_model", WHOLE, f"model {name}", inputs=inputs, **details)

    def judges(self, approved: bool = True) -> None:
        inputs, name = metrics_inputs(self.model, self.newest, None), self.newest.details["version"]
        details = {"version": name, "approved": approved, "reasons": [] if approved else ["it is worse"]}
        self.record("metrics", WHOLE, f"verdict {name}", inputs=inputs, **details)

    def serves(self, version: str | None = None, phase: str | None = "promoted") -> None:
        judged = self.latest.get("metrics", WHOLE)
        assert judged is not None
        name = version or judged.details["version"]
        details = {"version": name, "release": name, "phase": phase, "challenger": f"{self.versions}-ab", "waits": ""}
        self.record("endpoint", WHOLE, "", inputs=endpoint_inputs(self.model, judged), **details)

    def released(self, cause: str = "code") -> None:
        self.trains(cause)
        self.judges()
        self.serves()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Place(tmp_path_factory.mktemp("causes") / "rides", own_outcomes=True).model


def served(model: Model, **retrain: Any) -> Life:
    """A version that serves since day 0, and nothing due."""
    life = Life.of(model, **retrain)
    life.rows(-1)
    life.labels(-1)
    life.released()
    assert (life.due().assets, life.due().wanted) == ((), False)
    return life


def drifting(model: Model, **retrain: Any) -> Life:
    """Alarms on days 1 to 4, and labels of day 1 and 2 on day 5: 80."""
    life = served(model, **retrain)
    for number in range(1, 5):
        life.today = number + 1
        life.rows(number)
        life.monitored(number, drift=["km"], scores=["score"])
        if number > 2:
            life.labels(number - 2)
    return life


ALARMED = ["drift", "quality"]


@pytest.mark.parametrize(
    ("retrain", "cause", "said"),
    [
        ({"causes": ALARMED, "min_new_labels": 80}, "drift", "80 labels are known of what happened since 2026-03-02"),
        ({"causes": ALARMED, "min_new_labels": 81}, "", "80 labels are known of what happened since 2026-03-02, and "
         "retrain.min_new_labels is 81"),
        ({"causes": ["quality"], "min_new_labels": 80}, "", ""),
        ({"min_new_labels": 80}, "drift", "drift alarms from 2026-03-02 to 2026-03-05 (km, score)"),
        ({"min_new_labels": 81}, "data", "160 rows in new or changed days"),
        ({"min_new_labels": 81, "min_new_rows": 161}, "", "retrain.min_new_rows is 161"),
        ({"causes": ["data"]}, "data", "160 rows in new or changed days"),
        ({"causes": ALARMED, "min_new_labels": 80, "cooldown": "5d"}, "drift", "80 labels"),
        ({"causes": ALARMED, "min_new_labels": 80, "cooldown": "6d"}, "", "retrain.cooldown is 6d, which is until "
         "2026-03-07 12:00 UTC"),
        ({"causes": ["data"], "cooldown": "6d"}, "", "retrain.cooldown is 6d"),
    ],
)  # fmt: skip
def test_each_cause_asks_and_each_guard_holds_back(
    model: Model, retrain: dict[str, Any], cause: str, said: str
) -> None:
    due = drifting(model, **retrain).due()
    assert (due.cause, due.assets) == (cause, ("trained_model", "metrics", "endpoint") if cause else ())
    assert said in due.reason
    assert due.wanted == bool(not cause and said), "what is held back waits; what is not wanted does not"


def test_drift_without_labels_says_how_many_are_missing_and_asks_once_they_come(model: Model) -> None:
    life = served(model, causes=ALARMED)
    for number in (1, 2, 3):
        life.today = number + 1
        life.rows(number)
        life.monitored(number, drift=["km"])
        due = life.due()
        assert (due.assets, due.wanted) == ((), True)
        assert "; 0 labels are known" in due.reason
        assert "retrain.min_new_labels is 100" in due.reason
    for number, asks in ((1, False), (2, False), (3, True)):
        life.today = number + 3
        life.labels(number)
        assert (life.due().cause == "drift") == asks


def test_a_first_training_and_a_changed_one_ask_whatever_holds_back(model: Model) -> None:
    life = Life.of(model, budget=1, cooldown="9d", causes=[])
    life.model = replace(
        life.model,
        spec=life.model.spec.model_copy(
            update={"training": life.model.spec.training.model_copy(update={"min_rows": 40})}
        ),
    )
    life.rows(0)
    assert (life.due().assets, life.due().wanted) == ((), True), "no labels yet"
    life.labels(0)
    assert life.due().cause == "first"
    life.trains("first", code="of another time")
    assert (life.due().cause, life.due().reason) == ("code", "code or parameters changed")
    life.released("code")
    assert life.newest.details["automatic"] == []


def test_alarms_that_the_version_was_trained_for_do_not_ask_again_and_new_ones_do(model: Model) -> None:
    life = drifting(model, causes=ALARMED, min_new_labels=80)
    assert life.due().cause == "drift"
    life.released("drift")
    for number in range(5, 10):  # the drift goes on: most of what the new version was trained on is older
        life.today = number + 1
        life.rows(number)
        life.monitored(number, drift=["km", "zone"] if number != 7 else [])
        life.labels(number - 2)
        due = life.due()
        assert (due.assets, due.wanted, due.reason) == ((), False, "version 2 is up to date and serves")
    situation = Situation(life.model, life.latest, life.newest, life.now)
    assert drift(situation).reason.endswith("the version that serves was trained for them")
    for number in range(10, 13):  # calm
        life.monitored(number)
    for number in (13, 14, 15):
        life.today = number + 1
        life.monitored(number, drift=["km"])
    assert (life.due().wanted, "0 labels" in life.due().reason) == (True, True)
    life.today = 17
    life.rows(13)
    life.labels(13, 80)
    assert life.due().cause == "drift"


def test_a_training_that_had_the_labels_of_an_episode_has_seen_it_whatever_it_was_made_for(model: Model) -> None:
    seen, not_seen = (drifting(model, causes=ALARMED, min_new_labels=100) for _ in range(2))
    for life, labelled in ((seen, {day(1): 60, day(2): 40}), (not_seen, {day(0): 900, day(1): 60, day(2): 39})):
        life.trains("code", labelled=labelled)
        life.judges()
        life.serves()
        life.today = 6
        life.rows(5)
        life.labels(3)
    assert seen.due().assets == ()
    assert not_seen.due().cause == "drift"


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_version_that_was_refused_or_taken_back_is_tried_again_only_with_enough_new_labels(
    model: Model, taken_back: bool
) -> None:
    life = drifting(model, causes=ALARMED, min_new_labels=80)
    life.hours = 13
    life.trains("drift")
    life.judges(approved=taken_back)
    life.hours = 14
    life.serves("1", "rolled back")
    for number, known in ((3, 40), (4, 80)):
        life.today = number + 3
        life.labels(number)
        life.rows(number + 2)
        due = life.due()
        assert (due.cause, due.wanted) == (("", True) if known < 80 else ("drift", False))
        assert f"{known} labels are known of what happened since {day(1)}, and since version 2" in due.reason
    life.released("drift")
    life.trains("code")
    life.judges(approved=False)
    life.today = 9
    life.rows(9)
    life.labels(5, 900)
    assert "drift alarms" not in life.due().reason, "the version that serves was trained for them"


def test_an_undecided_version_is_neither_trained_over_for_the_same_alarms_nor_forgotten(model: Model) -> None:
    life = drifting(model, causes=ALARMED, min_new_labels=80)
    life.trains("drift")
    life.today = 6
    life.rows(5)
    life.labels(3, 400)
    assert life.due().assets == ("metrics", "endpoint")
    life.judges()
    assert life.due().assets == ("endpoint",)
    life.serves("1", "baking")
    assert life.due().assets == ()


def test_everything_waits_for_a_rollout_but_code(model: Model) -> None:
    life = drifting(model, min_new_labels=80)
    life.serves("1", "baking")
    due = life.due()
    assert (due.assets, due.wanted) == ((), True)
    assert due.reason.endswith("1-ab is being rolled out; new data wait until that is decided")


def test_what_is_held_back_holds_up_neither_a_verdict_nor_the_endpoint(model: Model) -> None:
    life = drifting(model, causes=ALARMED, min_new_labels=81)
    lost = due_by(life.model, life.latest, life.now, health={})
    assert lost.assets == ("endpoint",), "a server that died while labels are waited for comes back"


def test_quality_is_about_the_version_that_serves(model: Model) -> None:
    life = served(model, causes=ALARMED, min_new_labels=40)
    for number in (1, 2):
        life.monitored(number, quality=["roc_auc"], by="1")
    life.today = 4
    life.rows(2)
    life.labels(1, 30)
    assert (life.due().wanted, "30 labels" in life.due().reason) == (True, True)
    life.labels(2, 30)
    assert life.due().cause == "quality", "it comes before drift"
    life.released("quality")
    life.today = 6
    life.rows(4)
    life.labels(3, 90)
    life.monitored(3, quality=["roc_auc"], by="1")
    life.monitored(4, quality=["roc_auc"], by="1", beside="2")
    assert life.due().assets == (), "what the old version did wrong became known later"
    life.monitored(5, quality=["roc_auc"], by="2")
    life.today = 8
    life.labels(5, 90)
    assert life.due().cause == "quality", "and what the new one does wrong is new"


def test_an_episode_ends_after_calm_days_and_today_does_not_count(model: Model) -> None:
    life = served(model)

    def found(kind: Kind = "drift") -> tuple[str, str] | None:
        made = episode(kind, life.model, life.latest, life.now)
        return (made.since, made.until) if made else None

    life.today = 1
    life.monitored(1, drift=["km"])
    assert found() is None, "the day is not over"
    life.today = 20
    assert found() == (day(1), day(1))
    life.monitored(2)
    life.monitored(3)
    life.monitored(9, scores=["score"])
    assert found() == (day(1), day(9)), "two calm days, and some on which nothing was asked"
    for number in (10, 11, 12):
        life.monitored(number)
    assert found() is None
    life.monitored(13, drift=["km"])
    assert found() == (day(13), day(13))
    life.monitored(14, quality=["f1"])
    for number in (15, 16, 17):
        life.monitored(number)
        life.labels(number, 99)
    assert found("quality") == (day(14), day(14)), "nobody can judge so few"
    for number in (15, 16, 17):
        life.labels(number, 100)
    assert found("quality") is None


def test_labels_without_ids_count_once_their_delay_is_over(model: Model) -> None:
    """Predictions that cannot be joined have no feedback: then outcomes that came later than all earlier ones count."""
    life = served(model, causes=ALARMED)
    life.record("feedback", day(-1), "", joined=0)
    life.trains()
    life.judges()
    life.serves()
    life.monitored(1, drift=["km"])
    for number, count in ((2, 0), (3, 300)):
        life.today = number
        life.rows(number)
        life.record("outcomes", day(number), f"of {number}", 300)
        assert f"; {count} labels" in drift(Situation(life.model, life.latest, life.newest, life.now)).reason
    assert life.due().cause == "drift"


def test_the_budget_counts_what_was_asked_for_by_itself_in_any_seven_days(model: Model) -> None:
    life = served(model, causes=["data"], budget=2)

    def ask(number: int, hours: int = 12) -> Answer:
        life.today, life.hours = number, hours
        life.rows(number, f"at {hours}")
        return budget(Situation(life.model, life.latest, life.newest, life.now))

    for number, cause in ((1, "data"), (2, "by hand"), (3, "code"), (4, "drift")):
        assert ask(number).yes
        life.released(cause)
    held = ask(5)
    assert not held.yes
    assert held.reason.endswith("and retrain.budget is 2; it is exhausted until 2026-03-09 12:00 UTC")
    assert (life.due().assets, life.due().wanted, life.due().reason) == ((), True, held.reason)
    assert not ask(8, 11).yes
    assert ask(8, 12).yes, "seven days after the first"
    assert life.due().cause == "data"
    life.released("data")
    assert not ask(9).yes
    assert ask(11).yes
    life.released("data")
    less = Retrain(causes=["data"], budget=1)
    life.model = replace(life.model, spec=life.model.spec.model_copy(update={"retrain": less}))
    assert ask(12).reason.endswith("until 2026-03-19 12:00 UTC"), "two were made when two were allowed"
    unlimited = served(model, causes=["data"])
    unlimited.released("data")
    assert budget(Situation(unlimited.model, unlimited.latest, unlimited.newest, unlimited.now)).yes


def test_changed_days_that_the_window_left_behind_ask_for_nothing(model: Model) -> None:
    life = served(model)
    for number in (5, 6):
        life.rows(number)
        life.labels(number)
    life.released()
    trained = life.newest
    details = trained.details | {"window_from": day(6)}
    life.today = 7
    life.latest.add([replace(trained, details=details, recorded_at=life.now)])
    life.rows(5, "corrected")
    assert life.due().assets == ()
    life.rows(6, "corrected")
    assert life.due().cause == "data"


def test_records_of_before_there_were_causes_are_read(model: Model) -> None:
    life = drifting(model, causes=ALARMED, min_new_labels=80)
    old = {name: life.newest.details[name] for name in ("code_digest", "contents")} | {"version": "2"}
    life.latest.add([replace(life.newest, details=old, recorded_at=life.now)])
    assert life.due().cause == "drift", "also before there is a verdict"
    life.judges()
    life.serves()
    assert life.due().cause == "drift"
    assert {each.name for each in answers(life.model, life.latest)} == {
        *("code", "quality", "drift", "data", "rollout", "cooldown", "budget")
    }


def test_nothing_is_trained_on_the_same_rows_again(model: Model) -> None:
    life = served(model, causes=ALARMED, min_new_labels=40)
    life.today = 3
    life.record("feedback", day(1), "", joined=40)  # of outcomes that were there before
    life.monitored(1, quality=["f1"])
    said = quality(Situation(life.model, life.latest, life.newest, life.now))
    assert (said.yes, said.waits, said.reason.endswith("trained on all that there is")) == (False, False, True)


@dataclass(frozen=True)
class Today:
    """What happens on a day: alarms of the day before, a verdict on what is trained, what people do."""

    alarms: frozenset[str]
    approved: bool
    promoted: bool
    changed: bool
    labelled: int


DAYS = st.builds(
    Today,
    st.frozensets(st.sampled_from(["drift", "scores", "quality"])),
    st.booleans(),
    st.booleans(),
    st.sampled_from([False] * 5 + [True]),
    st.sampled_from([0, 20, 60]),
)


@settings(max_examples=200, deadline=None)
@given(
    days=st.lists(DAYS, min_size=10, max_size=30),
    budget=st.integers(1, 3),
    cooldown=st.sampled_from(["0s", "9h", "2d", "5d"]),
    causes=st.lists(st.sampled_from(["data", "drift", "quality"]), unique=True),
    lag=st.integers(0, 3),
)
def test_budget_and_cooldown_are_never_broken(
    model: Model, days: list[Today], budget: int, cooldown: str, causes: list[str], lag: int
) -> None:
    life = served(model, budget=budget, cooldown=cooldown, causes=causes, min_new_labels=50)
    before = life.now
    automatic: list[datetime] = []
    for number, today in enumerate(days, start=1):
        life.today = number
        for life.hours in (1, 9, 17):
            if life.hours == 1:
                alarms = {each: ["x"] for each in today.alarms}
                life.monitored(number - 1, life.newest.details["version"], **alarms)
            if life.hours == 9:
                life.rows(number)
                life.labels(number - lag, today.labelled)
            if life.hours == 17 and today.changed:
                life.released("code")
                before = life.now
            cause = life.due().cause
            if not cause:
                continue
            assert cause in causes
            assert life.now - before >= parse_duration(cooldown)
            automatic.append(life.now)
            before = life.now
            life.trains(cause)
            life.judges(today.approved)
            if today.approved and today.promoted:
                life.serves()
            assert sum(each > life.now - timedelta(days=7) for each in automatic) <= budget
            assert life.due().cause == "", "at the same moment nothing asks again"


def test_days_whose_outcomes_have_not_had_their_time_are_not_calm(model: Model) -> None:
    """Most outcomes come early: such a day has labels, and nobody has judged its quality yet."""
    life = served(model, causes=["quality"], min_new_labels=40)
    life.today = 9
    for number in range(1, 9):
        life.rows(number)
        life.labels(number, 120)
        matured = number <= 3
        bad = {"quality": ["f1"]} if number == 3 else {}
        life.monitored(number, by="1", final="yes" if matured else "from tomorrow on", **bad)
    assert life.due().cause == "quality"


@settings(max_examples=200, deadline=None)
@given(
    calm=st.lists(st.sampled_from([False, False, False, True]), min_size=14, max_size=30),
    lag=st.integers(0, 7),
    least=st.integers(1, 150),
    refused=st.integers(0, 2),
)
def test_exactly_one_version_is_made_of_one_episode(
    model: Model, calm: list[bool], lag: int, least: int, refused: int
) -> None:
    """However often the alarm misses a day, and however late the labels come; quality breaks as drift does.

    Every refusal is answered by one more attempt.
    """
    life = served(model, causes=["drift", "quality"], min_new_labels=least)
    started, trained, last = 3, 0, 0
    quiet: list[bool] = []
    for each in calm:  # never as many calm days as end an episode
        quiet.append(each and any(not other for other in quiet[-2:]) and bool(quiet))
    for number in range(1, started + len(quiet) + 8 + lag):
        life.today = number
        life.rows(number)
        alarm = 0 <= number - 1 - started < len(quiet) and not quiet[number - 1 - started]
        last = number - 1 if alarm else last
        served_now = life.latest.get("endpoint", WHOLE)
        assert served_now is not None
        drifted = {"drift": ["km"]} if alarm else {}
        life.monitored(number - 1, served_now.details["version"], final="not yet", **drifted)
        matured = number - 1 - lag
        monitored = life.latest.get("monitoring", day(matured))
        if monitored is not None:
            life.labels(matured)
            bad = started <= matured <= last and "1" in monitored.details["versions"]
            alarms = monitored.details["alarms"] | ({"quality": ["f1"]} if bad else {})
            life.monitored(matured, *monitored.details["versions"], **alarms)
        if due := life.due().cause:
            assert matured >= started, "not before a label is known"
            trained += 1
            life.trains(due)
            life.judges(trained > refused)
            if trained > refused:
                life.serves()
    assert trained <= refused + 1
    in_time = (len(quiet) - lag - 3) * 40 >= (refused + 1) * (least + 40)
    assert trained == refused + 1 or not in_time
