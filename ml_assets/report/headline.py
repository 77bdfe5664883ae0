"""The first sentence of a report: whether all is well, and what is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from ml_assets.report.history import History, dated

Level = Literal["good", "open", "bad"]
_NAMED = 3  # things of a kind that are named before the others are counted
_WORDS = {
    "requests": "requests fail",
    "latency": "answers are slow",
    "availability": "the endpoint does not always answer rightly",
    "drift": "drift",
    "scores": "the scores drift",
    "unknown": "categories that the training did not have",
    "stale": "values that are not fresh",
    "rejected": "many requests are refused",
    "coverage": "outcomes are missing",
    "quality": "quality is below what was promised",
}


@dataclass(frozen=True)
class Concern:
    """One thing that is not as it should be.

    Attributes:
        where: section of the page that shows it.
    """

    level: Level
    text: str
    where: str


@dataclass(frozen=True)
class Headline:
    """What a person reads first."""

    level: Level
    text: str
    concerns: Sequence[Concern]


def headline(history: History) -> Headline:
    """All is well only where something serves, was judged lately, and nothing was found wrong."""
    concerns = [*_serving(history), *_watched(history), *_data(history)]
    endpoint = history.record("endpoint")
    serves = endpoint.details["version"] if endpoint else None
    bad = sum(each.level == "bad" for each in concerns)
    if bad:
        text = "Something is wrong." if bad == 1 else f"{bad} things are wrong."
        return Headline("bad", text, sorted(concerns, key=lambda each: each.level != "bad"))
    if serves is None:
        return Headline("open", "Nothing serves yet.", concerns)
    if history.findings.is_empty():
        return Headline("open", f"Version {serves} serves, and nobody has asked it yet.", concerns)
    if concerns:
        return Headline("open", f"Version {serves} serves; there is something to know.", concerns)
    return Headline("good", f"All is well. {_promise(history, serves)}", ())


def judged_day(history: History, subject: str) -> str | None:
    """The last day, before today, of which something of this subject was judged: what is not judged has no limit, or
    says why not.
    """
    of_one = subject == "quality"  # of the metrics the primary one alone is judged
    judged = history.about(subject).filter(
        pl.col("day") < history.today,
        pl.col("limit").is_not_null(),
        _plain(),
        pl.col("name") == history.primary if of_one else pl.lit(True),
    )
    return None if judged.is_empty() else str(judged.get_column("day").max())


def _plain() -> pl.Expr:
    """Findings that were judged: an alarm, or without a note that says why they were not."""
    return pl.col("alarm") | (pl.col("note") == "")


def _serving(history: History) -> list[Concern]:
    found = []
    endpoint, judged = history.record("endpoint"), history.record("metrics")
    serves = endpoint.details["version"] if endpoint else None
    if judged is not None and not judged.details["approved"]:
        reasons = "; ".join(judged.details["reasons"])
        stays = f"; version {serves} serves on" if serves else ""
        found.append(
            Concern("open", f"Version {judged.details['version']} was refused: {reasons}{stays}.", "trainings")
        )
    if endpoint is not None and endpoint.details.get("challenger"):
        waits = endpoint.details["waits"]
        found.append(Concern("open", f"{endpoint.details['challenger']} is being rolled out: {waits}.", "rollouts"))
    last = history.states[-1] if history.states else None
    recent = last is not None and history.now - last.at < timedelta(days=7)
    if last is not None and recent and last.phase.value in ("rolled back", "inconclusive"):
        said = f"The rollout of {last.challenger.name} was {last.phase.value}: {last.reason}."
        found.append(Concern("bad" if last.phase.value == "rolled back" else "open", said, "rollouts"))
    return found


def _watched(history: History) -> list[Concern]:
    findings = history.findings
    if findings.is_empty():
        return []
    found = []
    for subject, words in _WORDS.items():
        day = judged_day(history, subject)
        alarms = history.about(subject).filter(pl.col("alarm"), pl.col("day") == (day or ""))
        if alarms.is_empty():
            continue
        names = alarms.sort("value", descending=True).get_column("name").unique(maintain_order=True).to_list()
        notes = [each for each in alarms.get_column("note").unique(maintain_order=True) if each]
        if len(names) == 1 and notes:
            text = notes[0]
        else:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            text = f"{words[:1].upper()}{words[1:]}: {', '.join(names[:_NAMED])}{more}"
        where = {"quality": "quality", "coverage": "quality"}.get(subject, "drift")
        where = "requests" if subject in ("requests", "latency", "availability") else where
        where = "refused" if subject == "rejected" else where
        found.append(Concern("bad", f"{text} ({dated(str(day))}).", where))
    newest = str(findings.get_column("day").max())
    if newest < str(history.now.date() - timedelta(days=1)):
        found.append(Concern("open", f"Nothing was asked and watched since {dated(newest)}.", "requests"))
    return found


def _data(history: History) -> list[Concern]:
    problems = history.latest.problems()
    if not problems:
        return []
    name, first = next(iter(sorted(problems.items())))
    more = f"; and {len(problems) - 1} more like it" if len(problems) > 1 else ""
    lasting = any(each.lasting for each in problems.values())
    return [Concern("bad" if lasting else "open", f"{name} could not be made: {first.reason}{more}.", "freshness")]


def _promise(history: History, serves: str) -> str:
    """What is known of the quality of the version that serves."""
    measured = history.about("quality").filter(
        pl.col("version") == serves, pl.col("name") == history.primary, pl.col("limit").is_not_null(), _plain()
    )
    if measured.is_empty():
        return f"Version {serves} serves; its quality is not known yet."
    last = measured.sort("day").row(-1, named=True)
    within = f" ({last['lower']:.3f} to {last['upper']:.3f})" if last["lower"] is not None else ""
    return (
        f"Version {serves} keeps its promise: {history.primary} {last['value']:.3f}{within} on {dated(last['day'])}, "
        f"promised {last['limit']:.3f}."
    )
