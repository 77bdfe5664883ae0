"""Side tables and feature groups."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from ml_assets.durations import Duration, parse_duration
from ml_assets.spec.base import TABLES, Name, PythonName, Share, Spec
from ml_assets.spec.sources import SideSource


class LookupSpec(Spec):
    """A side table, an asset of its own. Its columns join the rows as `<name>_<column>`, null where no row matches.

    With an event time in its contract the latest row counts that was known at the event; else the row with the key.
    """

    name: Name
    contract: PythonName = Field(description="`module.Class` of its pandera model; no role is needed but event_time.")
    source: SideSource
    by: dict[str, str] = Field({}, description="Column of the rows: column of the side table that must be equal.")
    lag: Duration = Field("0s", description="With an event time: how long after it a row is known.")
    tolerance: Duration = Field("1d", description="With an event time: how old a row may be, at most, at the event.")
    max_unmatched: Share = Field(1.0, description="A partition with a larger share of unmatched rows is refused.")

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name in TABLES or self.name.startswith("rejected_"):
            raise ValueError(f"lookup {self.name!r} has the name of a table of the platform; choose another one")
        return self

    @model_validator(mode="after")
    def _joins_each_column_once(self) -> Self:
        if len(set(self.by.values())) < len(self.by):
            raise ValueError(f"lookup {self.name!r}: `by` names a column of the side table twice: {self.by}")
        return self

    @model_validator(mode="after")
    def _is_known_before_it_is_too_old(self) -> Self:
        if parse_duration(self.lag) >= parse_duration(self.tolerance):
            raise ValueError(
                f"lookup {self.name!r}: with lag {self.lag} and tolerance {self.tolerance} every row is too old once "
                "it is known; set tolerance higher"
            )
        return self


Aggregate = Literal["count", "sum", "mean", "min", "max", "std", "share", "days_since_last"]


class GroupSpec(Spec):
    """A feature group, an asset of its own: aggregates of an entity's past rows over windows of whole days.

    Its columns join the rows as `<name>_<column>_<aggregate>_<window>`, null where nothing is known of the entity.
    """

    name: Name
    entity: str | list[str] = Field(description="Columns known beforehand that say whose past it is.")
    aggregates: dict[str, list[Aggregate]] = Field(
        min_length=1, description="For each column what is computed of it; `share` is of a truth value."
    )
    windows: list[Duration] = Field(["7d", "28d"], min_length=1, description="Whole days up to the end of a day.")
    delay: Duration = Field("1h", description="How long after the end of a day its values can be used.")
    freshness: Duration = Field("3d", description="How old values may be at an event, at most.")
    within: Duration = Field(
        "28d", description="Of outcomes in files of their own: one that arrives later after its event does not count."
    )

    @property
    def entities(self) -> list[str]:
        return [self.entity] if isinstance(self.entity, str) else self.entity

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name in TABLES or self.name.startswith("rejected_"):
            raise ValueError(f"group {self.name!r} has the name of a table of the platform; choose another one")
        return self

    @model_validator(mode="after")
    def _has_whole_windows(self) -> Self:
        for window in self.windows:
            if not window.endswith("d") or parse_duration(window).days < 1:
                raise ValueError(f"group {self.name!r}: window {window!r} is no whole number of days, such as 7d")
        for name, values in (("windows", self.windows), ("entity", self.entities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"group {self.name!r}: {name} are to be different ones, at least one: {values}")
        for column, aggregates in self.aggregates.items():
            if not aggregates or len(set(aggregates)) < len(aggregates):
                raise ValueError(
                    f"group {self.name!r}: aggregates of {column!r} are to be different ones: {aggregates}"
                )
        return self

    @model_validator(mode="after")
    def _can_be_used_before_it_is_too_old(self) -> Self:
        if parse_duration(self.freshness) < timedelta(days=1):
            raise ValueError(
                f"group {self.name!r}: its values change once a day, and with freshness {self.freshness} they would be "
                "missing for the rest of it; set it to 1d at least"
            )
        return self
