"""What holds now that a person should know of, by what was recorded. Pure: nothing is asked, sent or remembered here.

A condition holds or does not; when that became so, and who was told, is the outbox's business. Kinds:

| kind | holds |
|---|---|
| `availability` | from two bad probes in a row (dead, hanging, wrong, slow) until two good ones |
| `unknown`, `stale`, `rejected`, `requests`, `latency` | while the latest day that is over has alarms |
| `drift`, `scores`, `quality` | while one of the latest three days that were judged has alarms |
| `refused` | from a version that its gates refused until one that they approve |
| `rollback` | from a rollout that ended without promotion, unless a person ended it, until the next one begins |
| `data_refused` | while a batch is refused, or out of reach for so long that it is a case for a person |
| `quiet_source` | from twice the longest pause between arrivals until the next one |
| `check_failed` | while the latest evaluation of another check failed |
| `run_failed` | from a run that failed, and that none of these explains, until what it was to make is made |
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ml_assets.deployment.rollout import Phase
from ml_assets.deployment.rollout import State as Rollout
from ml_assets.lake import WHOLE
from ml_assets.monitored import ASSET as MONITORING
from ml_assets.monitored import CALM_DAYS
from ml_assets.probes import State as Probed
from ml_assets.records import Latest
from ml_assets.spec.operating import Monitoring, Severity

FEWEST_ARRIVALS = 5  # days on which something arrived, before a pause can be too long
METRICS = "metrics"
ACCEPTANCE = "raw_data:every_batch_is_accepted"


@dataclass(frozen=True)
class Condition:
    """Something that holds.

    Attributes:
        thing: which one of its kind; everything of one model and kind becomes one alert.
        text: what is so, in a sentence for people.
        since: when it began, if that is known.
        place: where to look, below the address of Dagster's UI.
        run_id: of the run that found it, so that its failure needs no alert of its own.
    """

    model: str
    kind: str
    thing: str
    severity: Severity
    text: str
    place: str
    since: datetime | None = None
    run_id: str = ""

    @property
    def key(self) -> str:
        return "/".join(filter(None, (self.model, self.kind, self.thing)))


@dataclass(frozen=True)
class FailedRun:
    """A run that failed, and that nothing made good since, as far as Dagster knows.

    Attributes:
        what: of its assets, those that it was to make and did not.
    """

    run_id: str
    at: datetime
    what: Sequence[str]
    reason: str = ""


@dataclass(frozen=True)
class FailedCheck:
    """A check whose latest evaluation failed.

    Attributes:
        name: `<asset>:<check>`.
        said: what its metadata says, by name, for people.
    """

    name: str
    severity: Severity
    at: datetime
    run_id: str
    said: Mapping[str, str]


def of_probes(model: str, state: Probed | None, severity: Severity) -> list[Condition]:
    """Whether what serves is there and answers as it should."""
    if state is None or state.good:
        return []
    text = f"The endpoint is {_ADJECTIVES.get(state.found, state.found)}: {state.reason}"
    return [Condition(model, "availability", "", severity, text, f"assets/{model}/endpoint", state.since)]


_ADJECTIVES = {"wrong": "answering wrongly"}


def of_monitoring(model: str, latest: Latest, watched: Monitoring, today: date) -> list[Condition]:
    """The alarms of the latest day (UTC) that was judged. Of drift and quality also those of the days just before it: a
    drift that goes on may miss a day, and is over only when it missed several.
    """
    records = {day: each for day, each in latest.of(MONITORING).items() if day < today.isoformat()}
    severities = _severities(watched)
    found: list[Condition] = []
    for subject, text in _SAID.items():
        said = "final" if subject == "quality" else "over"  # outcomes have to have had their time
        judged = [day for day, each in records.items() if each.details[said] == "yes"]
        alarmed = {day: records[day].details["alarms"].get(subject, []) for day in judged}
        calm = CALM_DAYS if subject in ("drift", "scores", "quality") else 1
        last = {name: day for day in judged[-calm:] for name in alarmed[day]}
        begun = _begun([day for day, names in alarmed.items() if names], judged, calm) if last else None
        for name, day in sorted(last.items()):
            sentence = f"{text.format(name=name)} on {day}"
            place = f"assets/{model}/{MONITORING}?partition={day}"
            found.append(Condition(model, subject, name, severities[subject], sentence, place, begun))
    return found


def _begun(alarmed: Sequence[str], judged: Sequence[str], calm: int) -> datetime:
    """When the first of the days with alarms began that lie fewer than so many calm days before the next one."""
    position = {day: number for number, day in enumerate(judged)}
    first = alarmed[-1]
    for before, day in reversed(list(itertools.pairwise(alarmed))):
        if position[day] - position[before] > calm:
            break
        first = before
    return datetime.fromisoformat(f"{first}T00:00:00+00:00")


_SAID = {
    "drift": "{name} has drifted",
    "scores": "the scores ({name}) have drifted",
    "quality": "{name} is worse than the release promised",
    "unknown": "{name} has too many unknown categories",
    "stale": "values of {name} are too often stale or missing",
    "rejected": "too many requests are refused ({name})",
    "requests": "too many requests fail ({name})",
    "latency": "the endpoint is slow ({name})",
}


def _severities(watched: Monitoring) -> dict[str, Severity]:
    said: dict[str, Severity] = {
        name: getattr(watched, name).severity
        for name in ("drift", "quality", "unknown", "stale", "rejected", "requests")
    }
    return said | {"scores": watched.drift.severity, "latency": watched.requests.severity}


def of_verdict(model: str, latest: Latest, *, serves: bool) -> list[Condition]:
    """Whether the newest version was refused: an error if nothing serves instead of it."""
    judged = latest.get(METRICS, WHOLE)
    if judged is None or judged.details.get("approved", True):
        return []
    reasons = "; ".join(judged.details.get("reasons") or ["see its metadata"])
    goes_on = "what served before goes on" if serves else "nothing serves"
    text = f"version {judged.details.get('version')} was refused, and {goes_on}: {reasons}"
    severity: Severity = "warn" if serves else "error"
    place = f"assets/{model}/{METRICS}"
    return [Condition(model, "refused", "", severity, text, place, judged.recorded_at, judged.run_id)]


def of_rollouts(model: str, states: Sequence[Rollout]) -> list[Condition]:
    """Whether the last rollout ended without promotion, and nobody asked for that."""
    last = states[-1] if states else None
    if last is None or not last.phase.over or last.phase is Phase.PROMOTED or last.by_hand:
        return []
    if last.cause in ("superseded", "by hand"):
        return []
    goes_on = f"; {last.champion.name} serves on" if last.champion else "; nothing serves"
    severity: Severity = "error" if last.phase is Phase.ROLLED_BACK else "warn"
    text = f"the rollout of {last.challenger.name} was {last.phase.value}: {last.reason}{goes_on}"
    return [Condition(model, "rollback", "", severity, text, f"assets/{model}/endpoint", last.at)]


def of_arrivals(model: str, arrived: Collection[datetime], now: datetime) -> list[Condition]:
    """Whether nothing arrives any more: for twice as long as the longest of the last ten pauses.

    Args:
        arrived: when new content was taken in.
    """
    days = sorted({each.date() for each in arrived})[-11:]
    if len(days) < FEWEST_ARRIVALS:
        return []
    longest = max(later - earlier for earlier, later in itertools.pairwise(days))
    last = max(arrived)
    if now - last <= 2 * longest:
        return []
    text = f"nothing new has arrived since {last:%Y-%m-%d %H:%M} UTC; before, {longest.days} day(s) were the longest"
    return [Condition(model, "quiet_source", "", "warn", f"{text} pause", f"assets/{model}/raw_data", last)]


def of_checks(model: str, failed: Iterable[FailedCheck]) -> list[Condition]:
    """Checks that failed. Those of `monitoring` and `metrics` are told by what these record."""
    found = []
    for each in failed:
        asset = each.name.partition(":")[0]
        place = f"assets/{model}/{asset}?view=checks"
        if asset in (MONITORING, METRICS):
            continue
        if asset == "raw_data" and each.severity == "warn" and each.name != ACCEPTANCE:
            continue  # some rows break the contract and lie in quarantine; where they are too many, the day is refused
        said = "".join(f"; {name}: {value}" for name, value in each.said.items())
        if each.name == ACCEPTANCE:
            if each.severity == "error":  # what may pass by itself is no case for a person
                text = f"data is refused or out of reach{said}"
                found.append(Condition(model, "data_refused", "", "error", text, place, each.at, each.run_id))
            continue
        text = f"check {each.name} failed{said}"
        found.append(Condition(model, "check_failed", each.name, each.severity, text, place, each.at, each.run_id))
    return found


def of_runs(model: str, failed: Iterable[FailedRun], explained: Collection[str]) -> list[Condition]:
    """Runs that failed.

    Args:
        explained: runs whose failure is told as something else: data or a version that was refused, a failed check.
    """
    return [
        Condition(
            model,
            "run_failed",
            each.run_id[:8],
            "error",
            f"run {each.run_id[:8]} failed, {', '.join(each.what) or 'its work'} is to be made"
            + (f": {each.reason}" if each.reason else ""),
            f"runs/{each.run_id}",
            each.at,
            each.run_id,
        )
        for each in failed
        if each.run_id not in explained
    ]
