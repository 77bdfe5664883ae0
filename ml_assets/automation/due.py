"""What is due: a comparison of what is with what the records say was used. No instance or event log is asked.

No answer depends on having seen an earlier state, so a crash, a lost run or a restart heals by itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ml_assets.assets import DATA
from ml_assets.assets.cleaned_data import cleaned_basis
from ml_assets.assets.endpoint import endpoint_inputs
from ml_assets.assets.features import features_basis
from ml_assets.assets.metrics import metrics_inputs
from ml_assets.assets.outcomes import outcomes_basis
from ml_assets.assets.raw_data import raw_basis
from ml_assets.assets.trained_model import training_inputs
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Problem, Record, State, problem_of, read_latest
from ml_assets.sources.feed import Survey, survey


@dataclass(frozen=True)
class Need:
    """Why a partition is due, and which of its assets."""

    assets: frozenset[str]
    reason: str


@dataclass(frozen=True)
class Stretch:
    """Contiguous due partitions, which one run makes; each step of it makes those of its own that are due."""

    partitions: list[str]
    assets: list[str]
    reason: str
    digest: str


@dataclass
class DueData:
    """Partitions whose data assets do not hold what they should.

    Attributes:
        needs: for each due partition what is to be made.
        terms: digest of what decides about each due partition; two attempts on the same terms are the same attempt.
        problems: what cannot be made, by batch, or by asset and partition.
    """

    needs: dict[str, Need] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)

    def stretches(self) -> list[Stretch]:
        """Due partitions as contiguous stretches."""
        return [self._stretch(days) for days in contiguous(self.needs)]

    def _stretch(self, days: list[str]) -> Stretch:
        needs = [self.needs[each] for each in days]
        assets = [each for each in DATA if any(each in need.assets for need in needs)]
        reason = "; ".join(sorted({need.reason for need in needs}))
        return Stretch(days, assets, reason, digest_of([[each, self.terms[each]] for each in days]))


def due_data(model: Model, lake: Lake, *, certain: bool = True, now: datetime | None = None) -> DueData:
    """Compare the sources with the records, level by level.

    Args:
        certain: ask the sources for all that is there. Otherwise their last listings will do, while they say that
            nothing changed; whoever starts work asks again for certainty.

    Raises:
        SourceError: if a source cannot be listed.
    """
    latest = read_latest(lake, model.name)
    rows = survey(model.rows_feed, lake, certain=certain)
    arriving = survey(model.outcomes_feed, lake, certain=certain) if model.outcomes_feed else None
    due = DueData()
    partitions = set(rows.partitions) | set(latest.of("raw_data"))
    if arriving is not None:
        partitions |= set(arriving.partitions) | set(latest.of("outcomes"))
    for found in (rows, arriving):
        for batch, reason in found.unreadable.items() if found else ():
            due.problems[batch.id] = Problem(reason, "The days that it touched before keep what they hold")
    for each in sorted(partitions):
        _Levels(model, latest, due, each, now or datetime.now(UTC)).look(rows, arriving)
    return due


@dataclass
class _Levels:
    """The data assets of one partition, from the first to the last."""

    model: Model
    latest: Latest
    due: DueData
    partition: str
    now: datetime
    terms: list[str] = field(default_factory=list)

    def look(self, rows: Survey, arriving: Survey | None) -> None:
        found = self._rows(rows, own_outcomes=arriving is None)
        if arriving is not None and self.partition not in arriving.blocked:
            basis = outcomes_basis(self.model, fingerprint=arriving.fingerprint(self.partition))
            if self._is_due("outcomes", basis):
                found = found or Need(frozenset(["outcomes"]), "its outcomes changed")
                found = Need(found.assets | {"outcomes"}, found.reason)
        if found is not None:
            self.due.needs[self.partition] = found
            self.due.terms[self.partition] = digest_of(self.terms)

    def _rows(self, rows: Survey, *, own_outcomes: bool) -> Need | None:
        """What is due of the assets that hang on the raw rows."""
        model, partition = self.model, self.partition
        downstream = ["cleaned_data", "rejected_rows", "features", *(["outcomes"] if own_outcomes else [])]
        raw = self.latest.get("raw_data", partition)
        basis = raw_basis(model, rows.fingerprint(partition))
        if partition not in rows.blocked and self._is_due("raw_data", basis):
            return Need(frozenset(["raw_data", *downstream]), "its batches changed" if raw else "new")
        if raw is None:
            return None
        cleaned = self.latest.get("cleaned_data", partition)
        basis = cleaned_basis(model, raw.content)
        rejected = self.latest.state("rejected_rows", partition, basis)
        half = cleaned is not None and cleaned.inputs == basis.inputs and rejected is not State.FRESH
        if self._is_due("cleaned_data", basis) or half:
            return Need(frozenset(downstream), "cleaned_data was not made from this raw_data and contract")
        if cleaned is None:
            return None
        needs: dict[str, str] = {}
        if self._is_due("features", features_basis(model, cleaned.content)):
            needs["features"] = "features were not made from this cleaned_data and these expressions"
        if own_outcomes and self._is_due("outcomes", outcomes_basis(model, cleaned_content=cleaned.content)):
            needs["outcomes"] = "its outcomes changed"
        return Need(frozenset(needs), next(iter(needs.values()))) if needs else None

    def _is_due(self, asset: str, basis: Basis) -> bool:
        state = self.latest.state(asset, self.partition, basis, self.now)
        held = self.latest.held(asset, self.partition)
        if state in (State.REFUSED, State.WAITING) and held is not None:
            self.due.problems[f"{asset} {self.partition}"] = problem_of(held)
        self.terms.append(basis.terms)
        if held is not None and held.inputs == basis.terms:
            # The waits between these attempts are the record's; to the count of failed runs each is another attempt.
            self.terms.append(str(held.details["failures"]))
        return state is State.DUE


@dataclass(frozen=True)
class DueTraining:
    """Which of `trained_model`, `metrics` and `endpoint` are to be made, and why; or why not.

    Attributes:
        digest: of what they would use; two attempts with the same digest are the same attempt.
        wanted: whether something did change and a guard holds it back.
    """

    assets: tuple[str, ...]
    reason: str
    digest: str = ""
    wanted: bool = False


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
        return DueTraining(
            (), f"{known:,} rows, and training.min_rows is {model.spec.training.min_rows:,}", wanted=True
        )
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
            (),
            f"{rows:,} rows in new or changed days; retrain.min_new_rows is {retrain.min_new_rows:,}",
            wanted=rows > 0,
        )
    ready = trained.recorded_at + parse_duration(retrain.cooldown)
    if now < ready:
        return DueTraining(
            (),
            f"the last training was at {trained.recorded_at:%Y-%m-%d %H:%M} UTC; "
            f"retrain.cooldown is {retrain.cooldown}",
            wanted=True,
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
