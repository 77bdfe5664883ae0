"""A model's contract: the pandera model of its raw rows, read as column types and roles.

The pandera class is what a person writes; everything else in the package asks this reading of it.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandera.polars as pa
import polars as pl

from ml_assets.digests import digest_of
from ml_assets.errors import ModelDefinitionError
from ml_assets.ml.purity import Possible
from ml_assets.serving.frames import SERVED_TYPES

SURROGATE_KEY = "_key"  # identifies a row of a contract that has no column with the role key
ROLES = ("key", "entity", "event_time", "request", "outcome", "target", "known_at")
AFTERWARDS = frozenset({"outcome", "target", "known_at"})


@dataclass(frozen=True)
class Contract:
    """Columns of the raw rows: pandera schema, Polars types and roles.

    Attributes:
        schema: the pandera schema, whose checks decide which rows are kept.
        roles: for each column its roles, a subset of `ROLES`.
    """

    schema: pa.DataFrameSchema
    roles: dict[str, frozenset[str]]

    @classmethod
    def read(cls, model: type[pa.DataFrameModel], place: str) -> "Contract":
        """Read a pandera model.

        Raises:
            ModelDefinitionError: if a column has no type that Polars knows, an unknown role or none.
        """
        schema = model.to_schema()
        roles = {}
        for name, column in schema.columns.items():
            given = (column.metadata or {}).get("role")
            named = frozenset([given] if isinstance(given, str) else given or ())
            if not named or not named <= set(ROLES):
                raise ModelDefinitionError(
                    f"{place}: column {name!r} has the role {given!r}; "
                    f'write metadata={{"role": ...}} with one or more of {", ".join(ROLES)}'
                )
            roles[name] = named
        contract = cls(schema, roles)
        contract._refuse_nonsense(place)
        return contract

    @classmethod
    def read_lookup(cls, model: type[pa.DataFrameModel], place: str) -> "Contract":
        """Read the pandera model of a side table, whose columns have no role but for one that may be the event time.

        Raises:
            ModelDefinitionError: if a column has another role, or the event time is no time.
        """
        schema = model.to_schema()
        roles: dict[str, frozenset[str]] = {}
        for name, column in schema.columns.items():
            role = (column.metadata or {}).get("role")
            if role not in (None, "event_time"):
                raise ModelDefinitionError(
                    f"{place}: column {name!r} has the role {role!r}; in a side table only event_time has a meaning"
                )
            roles[name] = frozenset([role] if role else ())
        contract = cls(schema, roles)
        contract._refuse_odd_times(place)
        contract._refuse_unserved_types(place)
        return contract

    def _refuse_unserved_types(self, place: str) -> None:
        """What is known beforehand is sent with a request or looked up for it."""
        for name in self.beforehand:
            if type(self.types[name]) not in SERVED_TYPES:
                raise ModelDefinitionError(
                    f"{place}: column {name!r} is a {self.types[name]}, which no request can carry; declare it as one "
                    f"of {', '.join(each.__name__ for each in SERVED_TYPES)}"
                )

    def _refuse_odd_times(self, place: str) -> None:
        for role in ("event_time", "known_at"):
            columns = self.having(role)
            if len(columns) > 1:
                raise ModelDefinitionError(f"{place}: {len(columns)} columns have the role {role}: {columns}")
        if self.event_time and not isinstance(self.types[self.event_time], pl.Datetime | pl.Date):
            raise ModelDefinitionError(f"{place}: event time {self.event_time!r} is a {self.types[self.event_time]}")
        for name, kind in self.types.items():
            if isinstance(kind, pl.Datetime) and (kind.time_unit != "us" or kind.time_zone not in (None, "UTC")):
                # Delta gives it back in microseconds and UTC: training would see another hour than the endpoint.
                raise ModelDefinitionError(
                    f"{place}: column {name!r} is a {kind}, and tables hold times in microseconds and UTC; write "
                    'Annotated[pl.Datetime, "us", "UTC"], and where a feature needs local time dt.convert_time_zone'
                )

    def _refuse_nonsense(self, place: str) -> None:
        self._refuse_odd_times(place)
        self._refuse_unserved_types(place)
        if len(targets := self.having("target")) > 1:
            raise ModelDefinitionError(f"{place}: {len(targets)} columns have the role target: {targets}")
        if not self.having("target"):
            raise ModelDefinitionError(f"{place}: no column has the role target; mark the one that is to be predicted")
        for name, roles in self.roles.items():
            if roles & AFTERWARDS and roles - AFTERWARDS:
                raise ModelDefinitionError(
                    f"{place}: column {name!r} is both known at the request and afterwards: {sorted(roles)}"
                )

    @cached_property
    def types(self) -> dict[str, pl.DataType]:
        """Polars type of each column, in the contract's order."""
        declared = {name: column.dtype.type for name, column in self.schema.columns.items()}
        return {name: kind() if isinstance(kind, type) else kind for name, kind in declared.items()}

    def having(self, *roles: str) -> list[str]:
        """Columns that have any of the roles, in the contract's order."""
        return [name for name in self.types if self.roles[name] & set(roles)]

    @cached_property
    def arriving(self) -> "Contract":
        """The columns that the source carries: all but a target marked `derived`, which the user's `clean(df)` sets."""
        derived = {name for name, column in self.schema.columns.items() if (column.metadata or {}).get("derived")}
        return self.select(name for name in self.types if name not in derived)

    @property
    def possible(self) -> dict[str, Possible]:
        """For each column what its checks say plainly about its values: a list of them, or limits."""
        return {name: _possible(column.checks) for name, column in self.schema.columns.items()}

    @property
    def key(self) -> list[str]:
        """Columns that identify a cleaned row: those with the role, or `_key`, which cleaning adds."""
        return self.having("key") or [SURROGATE_KEY]

    @property
    def carried(self) -> dict[str, pl.DataType]:
        """Columns that go with a row's features to identify it, with their types: key, entities, event time."""
        own = {} if self.having("key") else {SURROGATE_KEY: pl.String()}
        return own | {name: self.types[name] for name in self.having("key", "entity", "event_time")}

    def carried_with(self, weights: str | None) -> dict[str, pl.DataType]:
        """The same, with the column that says how much each row counts in a training."""
        return self.carried | ({weights: self.types[weights]} if weights else {})

    @property
    def target(self) -> str:
        return self.having("target")[0]

    @property
    def event_time(self) -> str | None:
        return next(iter(self.having("event_time")), None)

    @property
    def known_at(self) -> str | None:
        return next(iter(self.having("known_at")), None)

    @property
    def afterwards(self) -> list[str]:
        """Columns that are known only after a prediction was asked for; no feature may read them."""
        return self.having(*AFTERWARDS)

    @property
    def beforehand(self) -> list[str]:
        """Columns that are known when a prediction is asked for."""
        return [name for name in self.types if name not in self.afterwards]

    def select(self, columns: Iterable[str]) -> "Contract":
        """The contract of some of the columns. Checks over the whole frame stay only if all columns do."""
        wanted = set(columns)
        dropped = [name for name in self.types if name not in wanted]
        if not dropped:
            return self
        schema = self.schema.remove_columns(dropped)
        schema.checks = []
        return Contract(schema, {name: self.roles[name] for name in self.types if name in wanted})

    def with_key(self, key: Iterable[str]) -> "Contract":
        """The same columns, identified by `key`."""
        wanted = set(key)
        roles = {
            name: (given - {"key"}) | (frozenset({"key"}) if name in wanted else frozenset())
            for name, given in self.roles.items()
        }
        return Contract(self.schema, roles)

    @cached_property
    def digest(self) -> str:
        """Changes when a type, role, nullability or check changes; not when a description does."""
        columns = {
            name: [
                str(column.dtype),
                column.nullable,
                column.unique,
                sorted(self.roles[name]),
                [_check_identity(check) for check in column.checks],
            ]
            for name, column in self.schema.columns.items()
        }
        return digest_of([columns, [_check_identity(check) for check in self.schema.checks]])


def _possible(checks: Iterable[pa.Check]) -> Possible:
    said: dict[str, Any] = {}
    for check in checks:
        given = check.statistics or {}
        if check.name == "isin":
            said["allowed"] = tuple(given["allowed_values"])
        elif check.name == "equal_to":
            said["allowed"] = (given["value"],)
        elif check.name == "in_range":
            said["least" if given["include_min"] else "above"] = given["min_value"]
            said["most" if given["include_max"] else "below"] = given["max_value"]
        elif check.name in _LIMITS:
            limit, value = _LIMITS[check.name]
            said[limit] = given[value]
    return Possible(**said)


_LIMITS = {  # pandera's names
    "greater_than": ("above", "min_value"),
    "greater_than_or_equal_to": ("least", "min_value"),
    "less_than": ("below", "max_value"),
    "less_than_or_equal_to": ("most", "max_value"),
}


def _check_identity(check: pa.Check) -> list[Any]:
    return [check.name, check.statistics, None if check.statistics else _source_of(check._check_fn)]


def _source_of(function: Any) -> str:
    """A check's source text, or its name where there is none to be had."""
    for cell in getattr(function, "__closure__", None) or ():
        # pandera wraps what a model's class defines with @pa.check.
        function = getattr(cell.cell_contents, "check_fn", function)
    try:
        return inspect.getsource(getattr(function, "__func__", function))
    except (OSError, TypeError):
        return repr(getattr(function, "__qualname__", type(function)))
