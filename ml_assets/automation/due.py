"""Which data are due: a comparison of what is with what the records say was used. No instance or event log is asked.

No answer depends on having seen an earlier state, so a crash, a lost run or a restart heals by itself.
"""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from ml_assets.assets import data_assets
from ml_assets.assets.arriving import arriving_basis
from ml_assets.assets.cleaned_data import cleaned_basis
from ml_assets.assets.features import features_basis
from ml_assets.assets.groups import group_basis, group_days
from ml_assets.assets.joined import joined_used
from ml_assets.assets.online_features import ASSET as ONLINE
from ml_assets.assets.online_features import is_behind, online_basis
from ml_assets.assets.outcomes import outcomes_basis
from ml_assets.assets.raw_data import raw_basis
from ml_assets.digests import digest_of
from ml_assets.errors import OnlineStoreError
from ml_assets.lake import WHOLE, Lake
from ml_assets.model import Model
from ml_assets.records import Basis, Latest, Problem, State, problem_of, read_latest
from ml_assets.serving.online import OnlineStore
from ml_assets.sources.feed import Feed, Survey, survey

Terms = list[Basis | str]  # what decides about a partition; most is never asked for


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
        order: the data assets, in the order in which data flows.
        needs: for each due partition what is to be made.
        terms: what decides about each due partition; two attempts on the same terms are the same attempt.
        problems: what cannot be made, by batch, or by asset and partition.
    """

    order: list[str] = field(default_factory=list)
    needs: dict[str, Need] = field(default_factory=dict)
    terms: dict[str, Terms] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)

    def stretches(self) -> list[Stretch]:
        """Due partitions as contiguous stretches."""
        return [self._stretch(days) for days in contiguous(self.needs)]

    def _stretch(self, days: list[str]) -> Stretch:
        needs = [self.needs[each] for each in days]
        assets = [each for each in self.order if any(each in need.assets for need in needs)]
        reason = "; ".join(sorted({need.reason for need in needs}))
        terms = [[each, [on.terms if isinstance(on, Basis) else on for on in self.terms[each]]] for each in days]
        return Stretch(days, assets, reason, digest_of(terms))


def due_data(
    model: Model, lake: Lake, online: OnlineStore | None = None, *, certain: bool = True, now: datetime | None = None
) -> DueData:
    """Compare the sources with the records, level by level.

    Args:
        online: the model's online store; None leaves it out.
        certain: ask the sources for all that is there. Otherwise their last listings will do, while they say that
            nothing changed; whoever starts work asks again for certainty.

    Raises:
        SourceError: if a source cannot be listed.
    """
    latest, now = read_latest(lake, model.name), now or datetime.now(UTC)
    rows = survey(model.rows_feed, lake, certain=certain)
    arriving = survey(model.outcomes_feed, lake, certain=certain) if model.outcomes_feed else None
    side = {name: survey(feed, lake, certain=certain) for name, feed in model.lookup_feeds.items()}
    return _compared(model, latest, rows, arriving, side, online, now)


def due_on_record(model: Model, lake: Lake, now: datetime | None = None) -> DueData:
    """What is due by the records alone, whatever has arrived since. No source is asked: that may take long, and takes a
    queue's messages away from the sensor.
    """
    latest = read_latest(lake, model.name)

    def unasked(feed: Feed) -> Survey:
        return Survey(feed.key, blocked=dict.fromkeys(latest.partitions(feed.name), "not asked"))

    arriving = unasked(model.outcomes_feed) if model.outcomes_feed else None
    side = {name: unasked(feed) for name, feed in model.lookup_feeds.items()}
    return _compared(model, latest, unasked(model.rows_feed), arriving, side, None, now or datetime.now(UTC))


def _compared(
    model: Model,
    latest: Latest,
    rows: Survey,
    arriving: Survey | None,
    side: dict[str, Survey],
    online: OnlineStore | None,
    now: datetime,
) -> DueData:
    """What was found in the sources beside what the records say."""
    due = DueData(data_assets(model))
    for found in (rows, arriving, *side.values()):
        for batch, reason in found.unreadable.items() if found else ():
            due.problems[batch.id] = Problem(reason, "The days that it touched before keep what they hold")
    states = _States(latest, due, now)
    joined = {name: _due_lookup(model, name, found, states) for name, found in side.items()}
    partitions = set(rows.partitions) | latest.partitions("raw_data")
    if arriving is not None:
        partitions |= set(arriving.partitions) | latest.partitions("outcomes")
    levels = [_Levels(model, states, joined, each) for each in sorted(partitions)]
    for each in levels:
        each.look_at_rows(rows, arriving)
    joined |= {name: _due_group(model, name, states) for name in model.groups}
    for each in levels:
        each.look_at_features()
    for name, terms in joined.items():
        for partition, decided in terms.items():
            _add_joined(due, name, partition, decided)
    if model.views and online is not None:
        _look_at_online(model, states, online)
    return due


def _add_joined(due: DueData, name: str, partition: str, terms: Terms) -> None:
    """A side table or group goes with the rows of its day. One without days goes with all that take values from it: the
    run that comes first makes it, and the others find it done.
    """
    users = [day for day, need in due.needs.items() if "features" in need.assets] if partition == WHOLE else []
    for each in users or [partition]:
        due.needs[each] = _more(due.needs.get(each), name, f"{name} changed")
        due.terms[each] = [*due.terms.get(each, []), *terms]


@dataclass
class _States:
    """What the records say of partitions, with a note of each that cannot be made."""

    latest: Latest
    due: DueData
    now: datetime

    def is_due(self, asset: str, partition: str, basis: Basis, terms: Terms) -> bool:
        """Whether it is to be made; what decides about it is added to `terms`."""
        state = self.latest.state(asset, partition, basis, self.now)
        held = self.latest.held(asset, partition)
        if state in (State.REFUSED, State.WAITING) and held is not None:
            self.due.problems[f"{asset} {partition}"] = problem_of(held)
        terms.append(basis)
        if held is not None and held.inputs == basis.terms:
            # The waits between these attempts are the record's; to the count of failed runs each is another attempt.
            terms.append(str(held.details["failures"]))
        return state is State.DUE


def _due_lookup(model: Model, name: str, found: Survey, states: _States) -> dict[str, Terms]:
    """Due partitions of a side table, each with what decides about it."""
    feed, due = model.lookup_feeds[name], {}
    for each in set(found.partitions) | states.latest.partitions(name):
        terms: Terms = []
        basis = arriving_basis(feed, found.fingerprint(each), model.lookup_digest(name))
        if each not in found.blocked and states.is_due(name, each, basis, terms):
            due[each] = terms
    return due


def _due_group(model: Model, name: str, states: _States) -> dict[str, Terms]:
    """Due days of a group, each with what decides about it. It has the days that `cleaned_data` has.

    A day that reaches one whose rows or outcomes are due goes with them: it is made if they did change.
    """
    upstream = {"raw_data", "cleaned_data", "outcomes"}
    changing = {day: states.due.terms[day] for day, need in states.due.needs.items() if need.assets & upstream}
    found = {}
    for each in sorted({*states.latest.finished("cleaned_data"), *changing}):
        terms: Terms = []
        due = states.is_due(name, each, group_basis(model, name, states.latest, each), terms)
        reached = [changing[day] for day in (group_days(model, name, each) if changing else ()) if day in changing]
        if due or reached:
            found[each] = [*terms, *itertools.chain(*reached)]
    return found


def _look_at_online(model: Model, states: _States, online: OnlineStore) -> None:
    """The online store follows the side tables and groups, with the last run that makes any of them, or alone."""
    due, record = states.due, states.latest.get(ONLINE, WHOLE)
    changing = [day for day, need in due.needs.items() if need.assets & set(model.views)]
    basis = online_basis(model, states.latest, states.now)
    terms: Terms = [basis]
    try:
        if changing:
            reason = "its views change"
        elif record is None and not any(states.latest.of(name) for name in model.views):
            return  # nothing has arrived yet
        elif record is None or record.inputs != basis.inputs:
            reason = "the online store was not filled from these side tables and groups"
        elif is_behind(record, online, states.now):
            reason = "the online store was lost, or values have become available"
            terms.append(record.details["next"] or "lost")
        else:
            return
    except OnlineStoreError as error:
        due.problems[ONLINE] = Problem(str(error), "It is asked again at the next tick")
        return
    day = max(changing, default=WHOLE)
    due.needs[day] = _more(due.needs.get(day), ONLINE, reason)
    due.terms[day] = [*due.terms.get(day, []), *terms]


@dataclass
class _Levels:
    """The data assets of one partition, from the first to the last.

    Attributes:
        joined: for each side table and group its due partitions, each with what decides about it.
    """

    model: Model
    states: _States
    joined: dict[str, dict[str, Terms]]
    partition: str
    terms: Terms = field(default_factory=list)

    def look_at_rows(self, rows: Survey, arriving: Survey | None) -> None:
        """Everything before the groups and features."""
        found = self._rows(rows, own_outcomes=arriving is None)
        if (
            arriving is not None
            and self.partition not in arriving.blocked
            and self._is_due("outcomes", outcomes_basis(self.model, arriving.fingerprint(self.partition)))
        ):
            found = _more(found, "outcomes", "its outcomes changed")
        if found is not None:
            self.states.due.needs[self.partition] = found
            self.states.due.terms[self.partition] = self.terms

    def _rows(self, rows: Survey, *, own_outcomes: bool) -> Need | None:
        """What is due of the assets that hang on the raw rows."""
        model, partition, latest = self.model, self.partition, self.states.latest
        downstream = ["cleaned_data", "rejected_rows", "features", *model.groups]
        downstream += ["outcomes"] if own_outcomes else []
        raw = latest.get("raw_data", partition)
        basis = raw_basis(model, rows.fingerprint(partition))
        if partition not in rows.blocked and self._is_due("raw_data", basis):
            return Need(frozenset(["raw_data", *downstream]), "its batches changed" if raw else "new")
        if raw is None:
            return None
        cleaned = latest.get("cleaned_data", partition)
        basis = cleaned_basis(model, raw.content)
        rejected = latest.state("rejected_rows", partition, basis)
        half = cleaned is not None and cleaned.inputs == basis.inputs and rejected is not State.FRESH
        if self._is_due("cleaned_data", basis) or half:
            return Need(frozenset(downstream), "cleaned_data was not made from this raw_data and contract")
        if cleaned is None:
            return None
        if own_outcomes and self._is_due("outcomes", outcomes_basis(model, cleaned.content)):
            return Need(frozenset(["outcomes"]), "its outcomes changed")
        return None

    def look_at_features(self) -> None:
        model, partition, due = self.model, self.partition, self.states.due
        need, cleaned = due.needs.get(partition), self.states.latest.get("cleaned_data", partition)
        if cleaned is None or (need is not None and "features" in need.assets):
            return
        used = joined_used(model, self.states.latest, partition)
        if self._is_due("features", features_basis(model, cleaned.content, used)):
            need = _more(need, "features", "features were not made from this cleaned_data and these expressions")
        elif changed := [name for name, found in self.joined.items() if self._takes_from(name, found)]:
            need = _more(need, "features", f"{' and '.join(changed)} changed")
        if need is not None:
            due.needs[partition] = need
            due.terms[partition] = self.terms

    def _takes_from(self, name: str, due: Collection[str]) -> bool:
        return bool(due) and any(each in due for each in self.model.joined_partitions(name, self.partition))

    def _is_due(self, asset: str, basis: Basis) -> bool:
        return self.states.is_due(asset, self.partition, basis, self.terms)


def _more(need: Need | None, asset: str, reason: str) -> Need:
    """What is needed already, and one more asset."""
    return Need(need.assets | {asset}, need.reason) if need else Need(frozenset([asset]), reason)


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
