"""A model's folder, loaded: what its spec names is imported and checked to fit together."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandera.polars as pa
import polars as pl

from ml_assets.access import Access
from ml_assets.contract import Contract
from ml_assets.durations import parse_duration
from ml_assets.errors import ModelDefinitionError
from ml_assets.feature_store.types import AVAILABLE_AT_US
from ml_assets.ml.compute import missing_packages
from ml_assets.ml.estimators import problems
from ml_assets.ml.features import Features
from ml_assets.ml.groups import Group
from ml_assets.ml.joins import AVAILABLE_AT
from ml_assets.ml.lookups import Lookup
from ml_assets.model import Model, possible, readable
from ml_assets.spec.model import ModelSpec
from ml_assets.spec.sources import AnySource
from ml_assets.spec.tables import GroupSpec, LookupSpec


def load_model(spec: ModelSpec, folder: Path, access: Access | None = None) -> Model:
    """Load what `spec` names from the model's folder and check that it fits together.

    Raises:
        ModelDefinitionError: naming model, file and cause.
    """
    place = f"{spec.name}: {_file(folder, spec.contract)}"
    contract = Contract.read(_load_contract(spec, folder, spec.contract, "contract"), place)
    _check_roles(spec, contract, place)
    _check_estimator(spec, folder)
    if spec.compute == "ray" and (absent := missing_packages()):
        raise ModelDefinitionError(f"{spec.name}: {folder / 'defs.yaml'}: {absent}")
    _check_weights(spec, contract, place)
    for key, part in (("source", spec.source), ("outcomes", spec.outcomes)):
        _check_limits(spec, key, part, contract, place)
    lookups = {each.name: _load_lookup(spec, each, folder, contract) for each in spec.lookups}
    groups = {each.name: _load_group(spec, each, contract, lookups) for each in spec.groups}
    allowed = readable(contract, lookups, groups)
    expressions = (
        [pl.col(name) for name in contract.having("request") if name != spec.training.sample_weights]
        if spec.features is None
        else _load(spec, folder, spec.features, "features")
    )
    if groups and isinstance(expressions, list | tuple):
        expressions = [*expressions, *_not_read_yet(expressions, groups)]
    file = place if spec.features is None else f"{spec.name}: {_file(folder, spec.features)}"
    features = Features.check(expressions, allowed, contract.afterwards, file, possible(contract, lookups))
    _check_names(features, contract, spec.training.sample_weights, file)
    _check_slices(spec, contract, features)
    hook = _load(spec, folder, spec.clean, "clean") if spec.clean else None
    if hook is not None and not callable(hook):
        raise ModelDefinitionError(f"{spec.name}: clean {spec.clean} is no function")
    return Model(spec, contract, features, hook, access or Access(), lookups, groups, folder)


def _load_contract(spec: ModelSpec, folder: Path, dotted: str, key: str) -> type[pa.DataFrameModel]:
    loaded = _load(spec, folder, dotted, key)
    if not (isinstance(loaded, type) and issubclass(loaded, pa.DataFrameModel)):
        raise ModelDefinitionError(f"{spec.name}: {key} {dotted} is no pandera.polars.DataFrameModel")
    return loaded


def _load_lookup(spec: ModelSpec, declared: LookupSpec, folder: Path, rows: Contract) -> Lookup:
    """A side table whose columns fit those of the rows."""
    key = f"lookup {declared.name}"
    place = f"{spec.name}: {_file(folder, declared.contract)}"
    contract = Contract.read_lookup(_load_contract(spec, folder, declared.contract, f"{key}: contract"), place)
    time = contract.event_time
    for own, theirs in declared.by.items():
        if own not in rows.beforehand:
            raise ModelDefinitionError(
                f"{spec.name}: {key}: `by` names {own!r}, which is not known when a prediction is asked for; "
                f"there are {', '.join(rows.beforehand)}"
            )
        if theirs not in contract.types or theirs == time:
            others = ", ".join(name for name in contract.types if name != time)
            raise ModelDefinitionError(f"{spec.name}: {key}: `by` names {theirs!r}; {place} has {others}")
        _refuse_odd_key(f"{spec.name}: {key}: `by` names", own, rows.types[own])
        if rows.types[own] != contract.types[theirs]:
            raise ModelDefinitionError(
                f"{spec.name}: {key}: {own!r} is a {rows.types[own]} and {theirs!r} a {contract.types[theirs]}; give "
                "them one type"
            )
    if time is None:
        _refuse_times(spec, declared)
    elif rows.event_time is None or _zoned(contract.types[time]) != _zoned(rows.types[rows.event_time]):
        raise ModelDefinitionError(
            f"{place}: event time {time!r} is to be compared with the event time of the rows, {rows.event_time!r}; "
            "both need one, either both with a time zone or both without"
        )
    if time is not None and rows.event_time is not None:
        _refuse_odd_clock(spec, f"{spec.name}: {key}", rows.types[rows.event_time])
    lookup = Lookup(declared, contract.with_key([*declared.by.values(), *([time] if time else [])]))
    if taken := sorted({AVAILABLE_AT, AVAILABLE_AT_US} & set(contract.types)):
        raise ModelDefinitionError(f"{place}: {taken[0]!r} is a column of every side table; give yours another name")
    if taken := [name for name in lookup.types if name in rows.types]:
        raise ModelDefinitionError(f"{spec.name}: {key}: column {taken[0]!r} is in the contract of the rows already")
    _check_limits(spec, f"{key}: source", declared.source, contract, place)
    return lookup


def _load_group(spec: ModelSpec, declared: GroupSpec, contract: Contract, lookups: Mapping[str, Lookup]) -> Group:
    """A feature group whose columns fit those of the rows."""
    place = f"{spec.name}: group {declared.name}"
    for name in declared.entities:
        if name not in contract.beforehand:
            raise ModelDefinitionError(
                f"{place}: entity {name!r} is not known when a prediction is asked for; there are "
                f"{', '.join(contract.beforehand)}"
            )
        _refuse_odd_key(f"{place}: entity", name, contract.types[name])
    for name, aggregates in declared.aggregates.items():
        if name not in contract.types or name == contract.known_at:
            raise ModelDefinitionError(
                f"{place}: aggregates name {name!r}; the contract has {', '.join(contract.types)}"
            )
        kind = contract.types[name]
        if kind != pl.Boolean and (not kind.is_numeric() or "share" in aggregates):
            wanted = (
                "share is of a truth value" if "share" in aggregates else "aggregates are of numbers and truth values"
            )
            raise ModelDefinitionError(f"{place}: {name!r} is a {kind}, and {wanted}")
    if spec.outcomes is None and contract.known_at and any(name in contract.afterwards for name in declared.aggregates):
        raise ModelDefinitionError(
            f"{place}: outcomes in the same rows as the event count from the end of its day, but by "
            f"{contract.known_at!r} they are known at other times; give them a source of their own (`outcomes`)"
        )
    _refuse_odd_clock(spec, place, contract.types[str(contract.event_time)])
    group = Group(declared, contract)
    others = [*contract.types, *(name for each in lookups.values() for name in each.types)]
    if taken := [name for name in group.types if name in others]:
        raise ModelDefinitionError(f"{place}: column {taken[0]!r} exists already; give the group another name")
    return group


def _refuse_odd_key(place: str, name: str, kind: pl.DataType) -> None:
    """Feast finds entities by texts and whole numbers of 64 bits."""
    if kind.is_float() or kind in (pl.Boolean, pl.UInt64):
        raise ModelDefinitionError(
            f"{place} {name!r}, a {kind}; an entity is found by a text, a whole number, a time or a date"
        )


def _refuse_odd_clock(spec: ModelSpec, place: str, kind: pl.DataType) -> None:
    """What is available at an event is looked up by its moment: a date has none, nor has a local clock."""
    if kind == pl.Date or (not _zoned(kind) and spec.source.timezone != "UTC"):
        raise ModelDefinitionError(
            f"{place} needs to know the moment of an event, and the event time is a {kind} in "
            f'{spec.source.timezone}; make it Annotated[pl.Datetime, "us", "UTC"]'
        )


def _not_read_yet(expressions: Sequence[Any], groups: Mapping[str, Group]) -> list[pl.Expr]:
    """Columns of groups are features as they are, but for those that an expression makes something of."""
    read = {name for each in expressions if isinstance(each, pl.Expr) for name in each.meta.root_names()}
    return [pl.col(name) for group in groups.values() for name in group.types if name not in read]


def _refuse_times(spec: ModelSpec, declared: LookupSpec) -> None:
    """What only means something in a side table with an event time."""
    if not declared.by:
        raise ModelDefinitionError(
            f"{spec.name}: lookup {declared.name}: say which columns are to be equal (`by`), or give a column of "
            f"{declared.contract} the role event_time"
        )
    if odd := sorted(declared.model_fields_set & {"lag", "tolerance"}):
        raise ModelDefinitionError(
            f"{spec.name}: lookup {declared.name}: {', '.join(odd)} need a column of {declared.contract} with the "
            "role event_time"
        )


def _zoned(kind: pl.DataType) -> bool:
    return getattr(kind, "time_zone", None) is not None


def _check_roles(spec: ModelSpec, contract: Contract, place: str) -> None:
    if spec.source.batch == "day":
        if contract.event_time is None:
            raise ModelDefinitionError(f"{place}: `batch: day` needs a column with the role event_time")
        if contract.having("key") and contract.event_time not in contract.key:
            raise ModelDefinitionError(
                f"{place}: with `batch: day` the event time {contract.event_time!r} belongs to the key too "
                '(role ["key", "event_time"]): then duplicates lie in one day'
            )
    if spec.feedback.train and spec.outcomes is None:
        raise ModelDefinitionError(
            f"{place}: `feedback.train: true` is for outcomes in files of their own (`outcomes`): where they come in "
            "the source's rows, no outcome is without its row. Leave it out"
        )
    if spec.training.window and contract.event_time is None:
        raise ModelDefinitionError(
            f"{place}: `training.window: {spec.training.window}` needs a column with the role event_time: without one "
            "nobody knows how old a row is. Give it to a column, or leave the window out"
        )
    if spec.training.window and spec.split.gap and _as_long(spec.split.gap, spec.training.window):
        raise ModelDefinitionError(
            f"{spec.name}: training.window {spec.training.window} is not longer than split.gap {spec.split.gap}, which "
            "leaves no rows to train on; make it longer"
        )
    if spec.split.by == "time" and contract.event_time is None:
        raise ModelDefinitionError(f"{place}: `split: {{by: time}}` needs a column with the role event_time")
    possible_entities = contract.having("entity", "key")
    if odd := [name for name in spec.split.entities if name not in possible_entities]:
        raise ModelDefinitionError(
            f"{place}: split.entity names {odd[0]!r}, which has neither the role entity nor key; there are "
            f"{', '.join(possible_entities) or 'none'}"
        )
    derived = [name for name in contract.types if name not in contract.arriving.types]
    if derived and (spec.clean is None or spec.outcomes is not None or derived != [contract.target]):
        raise ModelDefinitionError(
            f"{place}: column {derived[0]!r} is marked derived: that is for a target that `clean` sets from outcomes "
            "in the same rows"
        )
    if spec.outcomes is not None:
        if contract.known_at is None:
            raise ModelDefinitionError(
                f"{place}: outcomes in files of their own need a column with the role known_at: when each was known"
            )
        unknown = [name for name in spec.outcomes.key if name not in contract.beforehand]
        if unknown:
            raise ModelDefinitionError(f"{place}: outcomes.key {unknown} is not among {contract.beforehand}")


def _as_long(duration: str, other: str) -> bool:
    return parse_duration(duration) >= parse_duration(other)


def _check_limits(spec: ModelSpec, key: str, source: AnySource | None, contract: Contract, place: str) -> None:
    """A limit on a column that does not exist would never hold anything back."""
    for name in source.limits.columns if source else ():
        if name not in contract.types:
            raise ModelDefinitionError(
                f"{spec.name}: {key}.limits.columns names {name!r}, which is not in {place}; it has "
                f"{', '.join(contract.types)}"
            )


def _check_estimator(spec: ModelSpec, folder: Path) -> None:
    dotted, params = spec.estimator.resolve(spec.task)
    if found := list(problems(dotted, params, spec.task, spec.search)):
        raise ModelDefinitionError(f"{spec.name}: {folder / 'defs.yaml'}: {'; '.join(found)}")


def _check_weights(spec: ModelSpec, contract: Contract, place: str) -> None:
    name = spec.training.sample_weights
    if name is None:
        return
    if name not in contract.beforehand:
        raise ModelDefinitionError(
            f"{place}: training.sample_weights names {name!r}, which is not known when a prediction is asked for; "
            f"there are {', '.join(contract.beforehand)}"
        )
    if not contract.types[name].is_numeric():
        raise ModelDefinitionError(
            f"{place}: training.sample_weights names {name!r}, a {contract.types[name]}; a weight is a number"
        )


def _check_slices(spec: ModelSpec, contract: Contract, features: Features) -> None:
    """Held-out rows have features, entities and keys beside them; a moment has no values that come again."""
    there = {name: contract.types[name] for name in contract.having("key", "entity")} | features.types
    for name in spec.metrics.slices:
        kind = there.get(name)
        if kind is None or not (kind.is_numeric() or kind in (pl.String, pl.Boolean)):
            usable = [each for each, of in there.items() if of.is_numeric() or of in (pl.String, pl.Boolean)]
            raise ModelDefinitionError(
                f"{spec.name}: metrics.slices names {name!r}, which is no feature, entity or key with numbers, texts "
                f"or truth values; there are {', '.join(usable)}"
            )


def _check_names(features: Features, contract: Contract, weights: str | None, place: str) -> None:
    """A feature may have the name of a column beside it in a table only if it is that column, unchanged."""
    for expression in features.expressions:
        name = expression.meta.output_name()
        beside = name in contract.carried_with(weights) or name in contract.afterwards
        unchanged = expression.meta.is_column() and features.types[name] == contract.types.get(name)
        if beside and not unchanged:
            raise ModelDefinitionError(
                f"{place}: feature {name!r} has the name of a column that identifies, labels or weighs rows; "
                f'give it one of its own with .alias("{name}_feature")'
            )


def _file(folder: Path, dotted: str) -> Path:
    return folder / f"{dotted.split('.', maxsplit=1)[0]}.py"


def _load(spec: ModelSpec, folder: Path, dotted: str, field: str) -> Any:
    """The object `module.NAME` of the model's folder."""
    path = _file(folder, dotted)
    name = dotted.split(".")[1]
    if not path.is_file():
        raise ModelDefinitionError(f"{spec.name}: {field}: {dotted} is to be found in {path}, which does not exist")
    module = _import(path, spec.name)
    if not hasattr(module, name):
        raise ModelDefinitionError(f"{spec.name}: {field}: {path} defines no {name}")
    return getattr(module, name)


def _import(path: Path, model: str) -> ModuleType:
    """Import a file of a model's folder, which need not be a package, under a name of its own."""
    tag = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module_name = f"ml_assets_model_{model}_{path.stem}_{tag}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # dataclasses, pandera and inspect look their module up
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f":{lines[-1]}" if lines else ""
        raise ModelDefinitionError(
            f"{model}: {path}{line} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module
