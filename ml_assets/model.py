"""One model, loaded: its spec with the contract, features and hook that its folder declares, and their digests."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

import ml_assets
from ml_assets.access import Access
from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.durations import parse_duration
from ml_assets.lake import WHOLE
from ml_assets.ml.cleaning import Hook
from ml_assets.ml.features import Features
from ml_assets.ml.groups import Group
from ml_assets.ml.joins import AVAILABLE_AT, Join
from ml_assets.ml.lookups import Lookup
from ml_assets.ml.purity import Possible
from ml_assets.sources import Calendar, open_source
from ml_assets.sources.feed import Feed
from ml_assets.spec.model import ModelSpec
from ml_assets.spec.sources import AnySource


@dataclass(frozen=True)
class Model:
    """What the assets of one model need to know."""

    spec: ModelSpec
    contract: Contract
    features: Features
    hook: Hook | None
    access: Access = field(default_factory=Access)
    lookups: dict[str, Lookup] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def daily(self) -> bool:
        return self.spec.source.batch == "day"

    @cached_property
    def rows_contract(self) -> Contract:
        """Contract of the source's own rows: without the columns that arrive in files of their own."""
        if self.spec.outcomes is None:
            return self.contract
        return self.contract.select(self.contract.beforehand)

    @cached_property
    def outcomes_contract(self) -> Contract:
        """Contract of outcomes that arrive in files of their own: their key, and what is known afterwards."""
        key = self.outcome_key
        return self.contract.select([*key, *self.contract.afterwards]).with_key(key)

    @property
    def outcome_key(self) -> list[str]:
        """Columns that say to which row an outcome belongs."""
        return self.spec.outcomes.key if self.spec.outcomes else self.contract.key

    @cached_property
    def rows_feed(self) -> Feed:
        return self._feed("raw_data", "source", self.spec.source, self.rows_contract, self.contract.event_time)

    @cached_property
    def outcomes_feed(self) -> Feed | None:
        if self.spec.outcomes is None:
            return None
        return self._feed("outcomes", "outcomes", self.spec.outcomes, self.outcomes_contract, self.contract.known_at)

    @cached_property
    def lookup_feeds(self) -> dict[str, Feed]:
        """Where each side table arrives; by day if both it and the rows have days."""
        return {
            name: self._feed(name, f"lookup {name}", each.spec.source, each.contract, each.contract.event_time)
            for name, each in self.lookups.items()
        }

    def _feed(self, name: str, key: str, spec: AnySource, contract: Contract, time: str | None) -> Feed:
        days, calendar = self.spec.source, None
        if self.daily and time is not None:
            assert days.start is not None
            calendar = Calendar(time, days.timezone, days.start, days.end, clip=name != "raw_data")
        source = open_source(spec, f"{self.name}: {key}", self.access, calendar)
        return Feed(self.name, name, source, contract.arriving, calendar)

    @property
    def joined(self) -> list[str]:
        """Tables whose columns stand beside the rows: side tables and feature groups."""
        return [*self.lookups, *self.groups]

    @cached_property
    def views(self) -> dict[str, Join]:
        """Side tables and groups as the endpoint looks values up: with the columns that features read, by name."""
        read = frozenset(self.features.inputs)
        found = {name: each.join.only(read) for name, each in (self.lookups | self.groups).items()}
        return {name: join for name, join in found.items() if join.columns}

    def delay_of(self, name: str) -> timedelta:
        """How long after it happened a row of a side table, or after its day one of a group, is available."""
        return parse_duration(self.lookups[name].spec.lag if name in self.lookups else self.groups[name].spec.delay)

    def joined_partitions(self, name: str, partition: str) -> list[str]:
        """Partitions of a side table or group that a partition of the rows may take values from."""
        if name in self.groups:
            assert self.spec.source.start is not None
            days = self.groups[name].days(date.fromisoformat(partition), self.spec.source.start)
            return [str(each) for each in days]
        if self.lookup_feeds[name].calendar is None:
            return [WHOLE]
        assert self.spec.source.start is not None
        return self.lookups[name].days(partition, self.spec.source.timezone, self.spec.source.start)

    @property
    def inputs(self) -> dict[str, pl.DataType]:
        """What a feature may read: columns known when a prediction is asked for, of side tables and of groups."""
        return readable(self.contract, self.lookups, self.groups)

    @cached_property
    def cleaning_digest(self) -> str:
        """Changes when the same raw rows could be cleaned differently."""
        return digest_of(
            [
                self.rows_contract.digest,
                asdict(self.rows_feed.reading),
                inspect.getsource(sys.modules[self.hook.__module__])
                if self.hook
                else None,  # it may call its neighbours
                ml_assets.__version__,
            ]
        )

    @cached_property
    def outcomes_digest(self) -> str:
        """Changes when the same outcome rows could be read differently."""
        reading = asdict(self.outcomes_feed.reading) if self.outcomes_feed else None
        return digest_of([self.outcomes_contract.digest, reading, ml_assets.__version__])

    def lookup_digest(self, name: str) -> str:
        """Changes when the same rows of a side table could be read differently."""
        feed, lag = self.lookup_feeds[name], self.lookups[name].spec.lag
        return digest_of([feed.contract.digest, asdict(feed.reading), lag, AVAILABLE_AT, ml_assets.__version__])

    def group_digest(self, name: str) -> str:
        """Changes when the same rows could give another group."""
        return digest_of([self.groups[name].digest, self.spec.source.timezone, ml_assets.__version__])

    @cached_property
    def training_digest(self) -> str:
        """Changes when the same features and outcomes could give another model."""
        estimator = self.spec.estimator.resolve(self.spec.task)
        stated = self.spec.model_dump(include={"task", "split", "threshold", "training", "search"})
        if self.spec.feedback.train:
            stated["feedback"] = {"train": True, "delay": str(self.spec.outcome_delay)}
        return digest_of([stated, estimator, self.features.digest, self.contract.target, ml_assets.__version__])

    @cached_property
    def gates_digest(self) -> str:
        """Changes when the same model could be judged otherwise."""
        return digest_of([self.spec.task, self.spec.metrics.model_dump(), self.spec.gates.model_dump()])

    @cached_property
    def feature_definitions(self) -> dict[str, str]:
        """For each feature a digest that changes when the same row could get another value of it.

        Its expression, and how the columns that it reads are read, joined or aggregated.
        """
        reading = asdict(self.rows_feed.reading)
        made: dict[str, list[object]] = {name: [str(kind), reading] for name, kind in self.contract.types.items()}
        for name, lookup in self.lookups.items():
            made |= {column: [lookup.digest, self.lookup_digest(name)] for column in lookup.types}
        for name, group in self.groups.items():
            counted: list[object] = [self.group_digest(name), self.cleaning_digest, self.outcomes_digest]
            made |= dict.fromkeys(group.types, counted)
        return {
            each["name"]: digest_of([each, [[name, made[name]] for name in read], ml_assets.__version__])
            for each, read in zip(self.features.to_json()["features"], self.features.lineage.values(), strict=True)
        }

    @cached_property
    def code_digest(self) -> str:
        """The model's code: contract, hook, side tables, groups, features, parameters and version of this package."""
        joined = [[each.digest, self.lookup_digest(name)] for name, each in self.lookups.items()]
        joined += [[self.group_digest(name)] for name in self.groups]
        return digest_of([self.cleaning_digest, self.outcomes_digest, joined, self.training_digest])


def readable(contract: Contract, lookups: Mapping[str, Lookup], groups: Mapping[str, Group]) -> dict[str, pl.DataType]:
    """Name and type of each column that a feature may read."""
    types = {name: contract.types[name] for name in contract.beforehand}
    for lookup in lookups.values():
        types |= lookup.types
    for group in groups.values():
        types |= group.types
    return types


def possible(contract: Contract, lookups: Mapping[str, Lookup]) -> dict[str, Possible]:
    """What is said of the values of each column that a feature may read."""
    said = {name: each for name, each in contract.possible.items() if name in contract.beforehand}
    for lookup in lookups.values():
        theirs = lookup.contract.possible
        said |= {renamed: theirs[name] for name, renamed in lookup.columns.items()}
    return said
