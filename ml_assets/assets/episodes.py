"""Alarms as the records tell of them: which days belong together, how many labels there are since, who was trained for.

No asset of its own. `trained_model` writes down what a training knew of (`known_to`), and the causes of retraining
(`automation/causes.py`) compare that with what the records say now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, Literal

from ml_assets.deployment.rollout import Phase
from ml_assets.lake import WHOLE
from ml_assets.model import Model
from ml_assets.monitored import CALM_DAYS
from ml_assets.records import Latest, Record

Kind = Literal["quality", "drift"]
SUBJECTS: dict[Kind, tuple[str, ...]] = {"quality": ("quality",), "drift": ("drift", "scores")}
WEEK = timedelta(days=7)
AUTOMATIC = ("quality", "drift", "data")  # causes that count against `retrain.budget`


@dataclass(frozen=True)
class Episode:
    """Alarms of one kind that belong together.

    Attributes:
        since, until: first and last day (UTC, of requests) with one.
        names: what alarmed: features and scores, or metrics.
    """

    kind: Kind
    since: str
    until: str
    names: list[str]

    def __str__(self) -> str:
        days = f"on {self.since}" if self.since == self.until else f"from {self.since} to {self.until}"
        more = f" and {len(self.names) - 3} others" if len(self.names) > 3 else ""
        return f"{self.kind} alarms {days} ({', '.join(self.names[:3])}{more})"


def episode(kind: Kind, model: Model, latest: Latest, now: datetime) -> Episode | None:
    """The alarms of a kind that hold on; None if there are none, or if they are over.

    A day counts once it was judged: of drift, once it is over; of quality, once its outcomes have had their time. Days
    on which nothing could be judged are passed over.
    """
    days: list[str] = []
    names: set[str] = set()
    calm, today = 0, str(now.astimezone(UTC).date())
    for day, record in reversed(latest.of("monitoring").items()):
        alarms = _alarms(kind, record, latest) if day < today else None
        if alarms is None:
            continue
        found = [name for subject in SUBJECTS[kind] for name in alarms.get(subject, ())]
        if found:
            days.append(day)
            names.update(found)
            calm = 0
        elif kind == "drift" or _joined(latest.get("feedback", day)) >= model.spec.monitoring.quality.min_rows:
            calm += 1
        if calm == CALM_DAYS:
            break
    return Episode(kind, days[-1], days[0], sorted(names)) if days else None


def _alarms(kind: Kind, monitored: Record, latest: Latest) -> Mapping[str, list[str]] | None:
    """A day's alarms by subject, None before it was judged. Of quality those of the version that serves, None where it
    answered nothing: what another one did wrong, this one does not.
    """
    if monitored.details["final" if kind == "quality" else "over"] != "yes":
        return None
    versions, served = monitored.details["versions"], latest.get("endpoint", WHOLE)
    if kind == "drift" or not versions or served is None:
        return dict(monitored.details["alarms"])
    answered = versions.get(served.details["version"])
    return dict(answered["alarms"]) if answered else None


@dataclass(frozen=True)
class Labels:
    """How many labels there are, by partition of `outcomes`, and by day of the request of which they are known."""

    outcomes: Mapping[str, int]
    requests: Mapping[str, int]

    @classmethod
    def now(cls, latest: Latest) -> "Labels":
        outcomes = {each: record.details.get("labelled", record.rows) for each, record in latest.of("outcomes").items()}
        return cls(outcomes, {day: _joined(record) for day, record in latest.of("feedback").items()})

    @classmethod
    def then(cls, trained: Record) -> "Labels":
        """As a training knew them."""
        return cls(**trained.details.get("labels", {"outcomes": {}, "requests": {}}))

    def since(self, day: str, model: Model) -> int:
        """Labels of what happened on a day or later, as far as the records are certain of it.

        Outcomes that come with the rows have their days. Of others the days are known by the predictions that they
        belong to; where no prediction has an id to be joined by, those count that came `feedback.delay` after the day,
        because nearly all of these are of it or of later ones.
        """
        of_requests = sum(count for each, count in self.requests.items() if each >= day)
        if model.spec.outcomes is None:
            return max(of_requests, self._came(day))
        if any(self.requests.values()):
            return of_requests
        whole_days = -(-model.spec.outcome_delay // timedelta(days=1))
        return self._came(str(date.fromisoformat(day) + timedelta(days=whole_days)))

    def _came(self, day: str) -> int:
        return sum(count for each, count in self.outcomes.items() if each != WHOLE and each >= day)

    def to_json(self) -> dict[str, dict[str, int]]:
        return {"outcomes": dict(self.outcomes), "requests": dict(self.requests)}


def _joined(feedback: Record | None) -> int:
    return int(feedback.details["joined"]) if feedback else 0


class Standing(Enum):
    """What became of the newest version."""

    UNDECIDED = "is not judged, or not rolled out to its end"
    SERVES = "serves"
    REFUSED = "was refused"


def standing(latest: Latest, trained: Record) -> Standing:
    """By the records of verdict and rollout. One that was taken back, by whomever, counts as refused."""
    version, judged, served = trained.details["version"], latest.get("metrics", WHOLE), latest.get("endpoint", WHOLE)
    if judged is None or judged.details["version"] != version:
        return Standing.UNDECIDED
    if not judged.details["approved"]:
        return Standing.REFUSED
    if served is not None and served.details["version"] == version:
        return Standing.SERVES
    if served is None or served.recorded_at < judged.recorded_at or rolled_out(served):
        return Standing.UNDECIDED
    return Standing.REFUSED


def rolled_out(served: Record | None) -> str:
    """Which release is being rolled out; empty if none is."""
    if served is None or served.details["phase"] is None or Phase(served.details["phase"]).over:
        return ""
    return str(served.details["challenger"] or "a release")


def known_to(
    model: Model,
    latest: Latest,
    before: Record | None,
    cause: str,
    now: datetime,
    labelled: Mapping[str, int],
) -> dict[str, Any]:
    """What the record of a training says of why it was made, so that the same alarms do not ask for it again.

    Args:
        before: the newest training before it.
        cause: one of the causes, or anything else that does not count against the budget.
        labelled: number of its labelled rows by the day on which they happened.

    Returns:
        `automatic`: when trainings were asked for by data, drift or quality in the seven days before, itself included;
        `labels`: those that there were; `answered`: by kind of alarm the last day of the episode that it had enough
        labels of; `champion_answered`: the same of the version that served then.
    """
    times = recent(before, now) + ([now] if cause in AUTOMATIC else [])
    labels, least = Labels.now(latest), model.spec.retrain.min_new_labels
    answered: dict[str, str] = {}
    for kind in SUBJECTS:
        found = episode(kind, model, latest, now)
        if found is None:
            continue
        learnt = sum(count for day, count in labelled.items() if day >= found.since)
        if max(learnt, labels.since(found.since, model)) >= least:
            answered[kind] = found.until
    return {
        "cause": cause,
        "automatic": [each.isoformat() for each in times],
        "labels": labels.to_json(),
        "answered": answered,
        "champion_answered": serving_answered(latest, before) if before is not None else {},
    }


def serving_answered(latest: Latest, trained: Record) -> Mapping[str, str]:
    """By kind of alarm the last day of the episode that the version that serves was trained for."""
    serves = standing(latest, trained) is Standing.SERVES
    return dict(trained.details.get("answered" if serves else "champion_answered", {}))


def recent(trained: Record | None, now: datetime) -> list[datetime]:
    """When trainings counted against the budget in the seven days before a moment."""
    times = [datetime.fromisoformat(each) for each in trained.details.get("automatic", ())] if trained else []
    return [each for each in times if each > now - WEEK]
