"""What is due: a comparison of what is with what the records say was used. No instance or event log is asked.

No answer depends on having seen an earlier state, so a crash, a lost run or a restart heals by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ml_assets.assets.cleaned_data import cleaned_inputs
from ml_assets.assets.endpoint import endpoint_inputs
from ml_assets.assets.features import features_inputs
from ml_assets.assets.metrics import metrics_inputs
from ml_assets.assets.outcomes import outcomes_inputs
from ml_assets.assets.trained_model import training_inputs
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import REFUSED, Latest, Record, read_latest
from ml_assets.sources.feed import Survey, survey


@dataclass(frozen=True)
class DueData:
    """Partitions whose data assets do not hold what they should.

    Attributes:
        reasons: for each due partition why.
        expected: digest of what each due partition will use; two attempts with the same digest are the same attempt.
        problems: batches that cannot be read, and days that wait for them.
        refused: due partitions whose last attempt failed for a reason of their own.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def stretches(self) -> list[list[str]]:
        """Due partitions as contiguous stretches, each of which can be one run.

        A partition that was refused is tried alone, after the others, so that it holds up no good one.
        """
        good = [each for each in self.reasons if each not in self.refused]
        return contiguous(good) + [[each] for each in sorted(self.refused)]

    def digest(self, stretch: Iterable[str]) -> str:
        return digest_of([[each, self.expected[each]] for each in stretch])


def due_data(model: Model, lake: Lake) -> DueData:
    """Compare the sources with the records, level by level."""
    latest = read_latest(lake, model.name)
    rows = survey(model.rows_feed, lake)
    arriving = survey(model.outcomes_feed, lake) if model.outcomes_feed else None
    due = DueData()
    for found in (rows, arriving):
        if found is not None:
            due.problems.extend(f"{reason}" for reason in found.unreadable.values())
    partitions = set(rows.partitions) | set(latest.of("raw_data"))
    if arriving is not None:
        partitions |= set(arriving.partitions) | set(latest.of("outcomes"))
    for each in sorted(partitions):
        if each in rows.blocked or (arriving is not None and each in arriving.blocked):
            continue
        if reason := _reason(model, latest, rows, arriving, each):
            due.reasons[each] = reason
            if _was_refused(latest, each):
                due.refused.add(each)
            fingerprints = [rows.fingerprint(each), arriving.fingerprint(each) if arriving is not None else None]
            due.expected[each] = digest_of(
                [fingerprints, model.cleaning_digest, model.outcomes_digest, model.features.digest]
            )
    return due


def _reason(model: Model, latest: Latest, rows: Survey, arriving: Survey | None, partition: str) -> str | None:
    """Why a partition is due; None if each of its assets was made from what is there now."""
    raw = latest.get("raw_data", partition)
    if raw is None:
        return "new"
    if raw.inputs != rows.fingerprint(partition):
        return "its batches changed"
    cleaned = latest.get("cleaned_data", partition)
    inputs = cleaned_inputs(model, raw.content)
    if cleaned is None or cleaned.inputs != inputs or not _made(latest, "rejected_rows", partition, inputs):
        return "cleaned_data was not made from this raw_data and contract"
    if not _made(latest, "features", partition, features_inputs(model, cleaned.content)):
        return "features were not made from this cleaned_data and these expressions"
    expected = (
        outcomes_inputs(model, cleaned_content=cleaned.content)
        if arriving is None
        else outcomes_inputs(model, fingerprint=arriving.fingerprint(partition))
    )
    if not _made(latest, "outcomes", partition, expected):
        return "its outcomes changed"
    return None


def _was_refused(latest: Latest, partition: str) -> bool:
    """Whether the partition was refused after the last time that all its assets could be made."""
    refused, features = latest.get(REFUSED, partition), latest.get("features", partition)
    return refused is not None and (features is None or features.recorded_at < refused.recorded_at)


def _made(latest: Latest, asset: str, partition: str, inputs: str) -> bool:
    record = latest.get(asset, partition)
    return record is not None and record.inputs == inputs


@dataclass(frozen=True)
class DueTraining:
    """Which of `trained_model`, `metrics` and `endpoint` are to be made, and why; or why not.

    Attributes:
        digest: of what they would use; two attempts with the same digest are the same attempt.
    """

    assets: tuple[str, ...]
    reason: str
    digest: str = ""


def due_training(
    model: Model, lake: Lake, now: datetime | None = None, health: dict[str, Any] | None = None
) -> DueTraining:
    """Compare features, outcomes, code, parameters and gates with what the newest version records.

    Args:
        health: what the endpoint server says of itself, `{}` if it does not answer; None leaves that out.
    """
    latest = read_latest(lake, model.name)
    if not any(record.rows for record in latest.of("features").values()):
        return DueTraining((), "no features yet")
    trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
    inputs = training_inputs(model, latest)
    if trained is None:
        return _enough(model, latest, inputs)
    if trained.inputs != inputs or trained.details["code_digest"] != model.code_digest:
        return _worth_it(model, latest, trained, inputs, now or datetime.now(UTC))
    expected = metrics_inputs(model, trained)
    if judged is None or judged.inputs != expected:
        return DueTraining(("metrics", "endpoint"), "the newest version was not judged by these gates", expected)
    if not judged.details["approved"]:
        return DueTraining(
            (), f"version {trained.details['version']} was refused: {'; '.join(judged.details['reasons'])}"
        )
    served = latest.get("endpoint", WHOLE)
    expected = endpoint_inputs(model, judged)
    if served is None or served.inputs != expected:
        return DueTraining(
            ("endpoint",), f"version {trained.details['version']} is approved and does not serve", expected
        )
    release = served.details["release"]
    if health is not None and health.get("models", {}).get(model.name, {}).get("release") != release:
        return DueTraining(
            ("endpoint",), f"the endpoint server does not serve {release}", digest_of([expected, "down"])
        )
    return DueTraining((), f"version {trained.details['version']} is up to date and serves")


_ALL = ("trained_model", "metrics", "endpoint")


def _enough(model: Model, latest: Latest, inputs: str) -> DueTraining:
    """The first training waits until there can be enough labelled rows."""
    known = min(sum(each.rows for each in latest.of(asset).values()) for asset in ("features", "outcomes"))
    if known < model.spec.training.min_rows:
        return DueTraining((), f"{known:,} rows, and training.min_rows is {model.spec.training.min_rows:,}")
    return DueTraining(_ALL, "first training", inputs)


def _worth_it(model: Model, latest: Latest, trained: Record, inputs: str, now: datetime) -> DueTraining:
    """Changed code or parameters always train; changed data only if it is enough, and not too soon."""
    if trained.details["code_digest"] != model.code_digest:
        return DueTraining(_ALL, "code or parameters changed", inputs)
    rows = 0
    for asset in ("features", "outcomes"):
        before = trained.details["contents"][asset]
        changed = 0
        for day, each in latest.of(asset).items():
            content, count = before.get(day, (None, 0))
            changed += max(each.rows, count) if each.content != content else 0
        rows = max(rows, changed)
    retrain = model.spec.retrain
    if rows < retrain.min_new_rows:
        return DueTraining(
            (), f"{rows:,} rows in new or changed days; retrain.min_new_rows is {retrain.min_new_rows:,}"
        )
    ready = trained.recorded_at + parse_duration(retrain.cooldown)
    if now < ready:
        return DueTraining(
            (),
            f"the last training was at {trained.recorded_at:%Y-%m-%d %H:%M} UTC; "
            f"retrain.cooldown is {retrain.cooldown}",
        )
    return DueTraining(_ALL, f"{rows:,} rows in new or changed days", inputs)


def contiguous(days: Iterable[str]) -> list[list[str]]:
    """Days as stretches without a gap.

    >>> contiguous(["2025-01-03", "2025-01-01", "2025-01-02", "2025-01-05"])
    [['2025-01-01', '2025-01-02', '2025-01-03'], ['2025-01-05']]
    """
    stretches: list[list[str]] = []
    for day in sorted(days):
        if (
            stretches
            and day != WHOLE
            and date.fromisoformat(day) - date.fromisoformat(stretches[-1][-1]) == timedelta(1)
        ):
            stretches[-1].append(day)
        else:
            stretches.append([day])
    return stretches
