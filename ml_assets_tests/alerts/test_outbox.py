"""Alerts: each is told once to each channel, in order, whatever is down; its recovery too; and nothing storms."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.alerts.addresses import Address, read_addresses
from ml_assets.alerts.channels import send
from ml_assets.alerts.conditions import Condition
from ml_assets.alerts.message import Message
from ml_assets.alerts.outbox import Outbox
from ml_assets.lake import Lake
from ml_assets.spec.operating import Severity
from ml_assets_tests.alerts.receivers import Hooks
from ml_assets_tests.project import free_port, wait_until

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def holds(kind: str = "drift", *things: str, severity: Severity = "warn", model: str = "taxis") -> list[Condition]:
    return [
        Condition(model, kind, thing, severity, f"{thing or kind} is not well", f"assets/{model}", START)
        for thing in things or ("",)
    ]


@dataclass
class Office:
    """An outbox with channels and a clock of its own."""

    lake: Lake
    text: str
    now: datetime = START
    sent: list[tuple[str, str]] = field(default_factory=list)

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.lake, "http://ui", clock=lambda: self.now)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return read_addresses(self.text)

    def tick(
        self, conditions: Sequence[Condition], after: timedelta = MINUTE, unknown: Sequence[str] = ()
    ) -> list[str]:
        """What one tick of the sensor has to say, as `event`."""
        self.now += after
        told = self.outbox.update(conditions, self.addresses, unknown=unknown)
        self.outbox.deliver(self.addresses, send)
        return [each.event for each in told]


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks(free_port()).running() as made:
        yield made


@pytest.fixture
def office(tmp_path: Path, hooks: Hooks) -> Office:
    return Office(Lake(tmp_path), hooks.url())


def test_an_alert_is_told_once_and_its_recovery_once(office: Office, hooks: Hooks) -> None:
    assert office.tick([]) == []
    assert office.tick(holds("quality", "f1", severity="error")) == ["opened"]
    assert [office.tick(holds("quality", "f1", severity="error")) for _ in range(3)] == [[], [], []]
    assert office.tick([]) == ["recovered"]
    assert office.tick([]) == []
    opened, recovered = hooks.bodies()
    assert opened == {
        "id": f"{opened['alert']}-1",
        "alert": opened["alert"],
        "event": "opened",
        "status": "firing",
        "model": "taxis",
        "kind": "quality",
        "severity": "error",
        "title": "taxis: f1 is not well",
        "text": "f1 is not well.",
        "url": "http://ui/assets/taxis",
        "since": "2026-11-25T12:00:00+00:00",
        "at": "2026-11-25T12:02:00+00:00",
    }
    assert (recovered["status"], recovered["event"], recovered["id"]) == (
        "resolved",
        "recovered",
        f"{opened['alert']}-2",
    )
    assert recovered["text"] == "It is over. It lasted 0:06:00."
    assert [headers["Idempotency-Key"] for _, headers, _ in hooks.got] == [opened["id"], recovered["id"]]


def test_a_drift_storm_of_forty_features_is_one_alert(office: Office, hooks: Hooks) -> None:
    storm = holds("drift", *(f"feature_{number:02}" for number in range(40)))
    assert office.tick(storm[:7]) == ["opened"]
    assert office.tick(storm) == []
    assert office.tick([]) == ["recovered"]
    assert office.tick(storm, after=timedelta(hours=1)) == ["opened"]
    said = hooks.bodies()[-1]
    assert said["title"] == "taxis: 40 features have drifted (feature_00, feature_01, feature_02 and 37 more)"
    assert said["text"].endswith("feature_19 is not well.\nAnd 20 more.")
    assert len(hooks.got) == 3


def test_kinds_and_models_are_alerts_of_their_own(office: Office) -> None:
    both = [*holds("drift", "a"), *holds("quality", "f1"), *holds("drift", "a", model="bikes")]
    assert office.tick(both) == ["opened"] * 3
    assert office.tick(both[1:]) == ["recovered"]


def test_what_comes_and_goes_is_the_same_alert_and_does_not_storm(office: Office, hooks: Hooks) -> None:
    said = [office.tick(holds() if number % 2 else []) for number in range(120)]
    told = [event for each in said for event in each]
    assert told == ["opened", "recovered", "again"], "in two hours of coming and going every minute"
    assert len({each["alert"] for each in hooks.bodies()}) == 1
    quiet = [office.tick([]) for _ in range(30)]
    assert [event for each in quiet for event in each] == ["recovered"]
    assert 19 <= next(number for number, each in enumerate(quiet) if each) <= 21, "after twenty calm minutes"
    assert office.tick(holds(), after=timedelta(hours=7)) == ["opened"]
    assert len({each["alert"] for each in hooks.bodies()}) == 2


def test_an_error_is_told_once_more_each_day_and_a_warning_is_not(office: Office) -> None:
    both = [*holds("drift", "a"), *holds("quality", "f1", severity="error")]
    said = [office.tick(both, after=timedelta(hours=1)) for _ in range(50)]
    assert [(number, each) for number, each in enumerate(said) if each] == [
        (0, ["opened", "opened"]),
        (24, ["reminded"]),
        (48, ["reminded"]),
    ]


def test_a_channel_that_is_down_loses_nothing_and_holds_up_no_other(tmp_path: Path, hooks: Hooks) -> None:
    """Down, answering 500, then slow; afterwards everything comes, once and in order."""
    down = Hooks(free_port())
    office = Office(Lake(tmp_path), f"{down.url()} {hooks.url()}")
    office.tick(holds("drift", "a"))
    office.tick([])
    with down.running():
        down.status = 500
        office.tick([*holds("quality", "f1")])
        assert down.tries == 1, "the second try is after a minute; nothing goes before what waits"
        assert len(hooks.got) == 3
        office.tick([*holds("quality", "f1")])
        assert down.tries == 1, "the third wait is longer"
        office.tick([*holds("quality", "f1")], after=2 * MINUTE)
        assert (down.tries, down.got) == (2, [])
        channel = office.outbox.known().channels[office.addresses[0].name]
        assert (channel.failures, channel.error) == (4, f"{office.addresses[0].name} answered 500")
        down.status = 204
        office.tick([*holds("quality", "f1")], after=4 * MINUTE)
    assert [each["event"] for each in down.bodies()] == ["opened", "recovered", "opened"]
    assert [each["id"] for each in down.bodies()] == [each["id"] for each in hooks.bodies()]
    assert office.outbox.known().channels[office.addresses[0].name].failures == 0
    assert office.outbox.known().pending(office.addresses[0]) == []


def test_a_slow_channel_is_given_up_in_time(office: Office, hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_assets.alerts.channels.SECONDS", 0.2)
    hooks.delay = 0.4
    office.tick(holds())
    name = office.addresses[0].name
    assert office.outbox.known().channels[name].error == f"{name} gave no answer in 0.2 s"
    hooks.delay = 0
    office.tick(holds())
    wait_until(lambda: len(hooks.got) == 2, 5, "a receiver that answers too late gets it again")
    ids = [each["id"] for each in hooks.bodies()]
    assert len(set(ids)) == 1, "and knows it by its id"


class Killed(BaseException):
    """Ends a tick where it is."""


def test_a_crash_between_sending_and_noting_repeats_one_message_at_most(office: Office, hooks: Hooks) -> None:
    def sends_and_dies(address: Address, message: Message) -> str:
        send(address, message)
        raise Killed

    office.now += MINUTE
    office.outbox.update([*holds("drift", "a"), *holds("quality", "f1")], office.addresses)
    with contextlib.suppress(Killed):
        office.outbox.deliver(office.addresses, sends_and_dies)
    office.tick([*holds("drift", "a"), *holds("quality", "f1")])
    office.tick([*holds("drift", "a"), *holds("quality", "f1")])
    ids = [each["id"] for each in hooks.bodies()]
    assert len(ids) == 3
    assert len(set(ids)) == 2


def test_severity_decides_where_an_alert_goes_and_its_recovery_goes_there_too(tmp_path: Path, hooks: Hooks) -> None:
    office = Office(Lake(tmp_path), f"{hooks.url('/all')} {hooks.url('/errors')}#error")
    office.tick(holds("check_failed", "a"))
    assert hooks.bodies("/errors") == []
    mixed = [*holds("check_failed", "a"), *holds("check_failed", "b", severity="error")]
    assert office.tick(mixed) == ["worse"]
    assert office.tick([]) == ["recovered"]
    assert [each["event"] for each in hooks.bodies("/all")] == ["opened", "worse", "recovered"]
    assert [each["event"] for each in hooks.bodies("/errors")] == ["worse", "recovered"]


def test_a_channel_that_is_added_hears_what_is_open_and_not_what_is_over(tmp_path: Path, hooks: Hooks) -> None:
    office = Office(Lake(tmp_path), "")
    office.tick(holds("drift", "a"))
    office.tick(holds("quality", "f1"))
    office.text = hooks.url()
    office.tick(holds("quality", "f1"))
    assert [(each["event"], each["kind"]) for each in hooks.bodies()] == [("opened", "quality")]
    office.tick([])
    assert [each["event"] for each in hooks.bodies()] == ["opened", "recovered"]


def test_a_channel_that_is_added_when_an_alert_is_just_over_hears_nothing_of_it(tmp_path: Path, hooks: Hooks) -> None:
    office = Office(Lake(tmp_path), "")
    office.tick(holds("drift", "a"))
    office.text = hooks.url()
    assert office.tick([]) == ["recovered"]
    assert hooks.got == []


def test_an_error_that_comes_back_as_a_warning_is_told_where_it_was_told(tmp_path: Path, hooks: Hooks) -> None:
    office = Office(Lake(tmp_path), f"{hooks.url()}#error")
    office.tick(holds("check_failed", "a", severity="error"))
    office.tick([])
    assert office.tick(holds("check_failed", "b")) == ["again"]
    assert [each["event"] for each in hooks.bodies()] == ["opened", "recovered", "again"]


def test_alerts_of_a_model_that_cannot_be_looked_at_stay_as_they_are(office: Office) -> None:
    office.tick([*holds("drift", "a"), *holds("drift", "a", model="bikes")])
    assert office.tick([], unknown=["taxis"]) == ["recovered"]
    assert [each.last.model for each in office.outbox.known().open()] == ["taxis"]
    assert office.tick([]) == ["recovered"]
