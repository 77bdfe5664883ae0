"""One model, loaded: its spec with the contract, features and hook that its folder declares, and their digests."""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pandera.polars as pa
import polars as pl

import ml_assets
from ml_assets.access import Access
from ml_assets.contract import Contract
from ml_assets.digests import digest_of
from ml_assets.errors import ModelDefinitionError
from ml_assets.ml.cleaning import Hook
from ml_assets.ml.features import Features
from ml_assets.sources import Calendar, open_source
from ml_assets.sources.feed import Feed
from ml_assets.spec import ModelSpec


@dataclass(frozen=True)
class Model:
    """What the assets of one model need to know."""

    spec: ModelSpec
    contract: Contract
    features: Features
    hook: Hook | None
    access: Access = field(default_factory=Access)

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
        return self._feed("raw_data", self.spec.source, self.rows_contract, self.contract.event_time)

    @cached_property
    def outcomes_feed(self) -> Feed | None:
        if self.spec.outcomes is None:
            return None
        return self._feed("outcomes", self.spec.outcomes, self.outcomes_contract, self.contract.known_at)

    def _feed(self, name: str, spec: Any, contract: Contract, time: str | None) -> Feed:
        key = "source" if name == "raw_data" else "outcomes"
        days, calendar = self.spec.source, None
        if self.daily:
            assert time is not None
            assert days.start is not None
            calendar = Calendar(time, days.timezone, days.start, days.end, clip=name != "raw_data")
        source = open_source(spec, f"{self.name}: {key}", self.access, calendar)
        return Feed(self.name, name, source, contract.arriving, calendar)

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

    @cached_property
    def training_digest(self) -> str:
        """Changes when the same features and outcomes could give another model."""
        estimator = self.spec.estimator.resolve(self.spec.task)
        parts = [self.spec.task, self.spec.split.model_dump(), self.spec.training.model_dump(), estimator]
        return digest_of([parts, self.features.digest, self.contract.target, ml_assets.__version__])

    @cached_property
    def gates_digest(self) -> str:
        return digest_of([self.spec.task, self.spec.gates.model_dump()])

    @cached_property
    def code_digest(self) -> str:
        """The model's code: contract, hook, features, parameters and the version of this package."""
        return digest_of([self.cleaning_digest, self.outcomes_digest, self.training_digest])


def load_model(spec: ModelSpec, folder: Path, access: Access | None = None) -> Model:
    """Load what `spec` names from the model's folder and check that it fits together.

    Raises:
        ModelDefinitionError: naming model, file and cause.
    """
    contract_class = _load(spec, folder, spec.contract, "contract")
    if not (isinstance(contract_class, type) and issubclass(contract_class, pa.DataFrameModel)):
        raise ModelDefinitionError(f"{spec.name}: contract {spec.contract} is no pandera.polars.DataFrameModel")
    place = f"{spec.name}: {_file(folder, spec.contract)}"
    contract = Contract.read(contract_class, place)
    _check_roles(spec, contract, place)
    _check_limits(spec, contract, place)
    allowed: Mapping[str, pl.DataType] = {name: contract.types[name] for name in contract.beforehand}
    expressions = (
        [pl.col(name) for name in contract.having("request")]
        if spec.features is None
        else _load(spec, folder, spec.features, "features")
    )
    file = place if spec.features is None else f"{spec.name}: {_file(folder, spec.features)}"
    features = Features.check(expressions, allowed, contract.afterwards, file)
    _check_names(features, contract, file)
    hook = _load(spec, folder, spec.clean, "clean") if spec.clean else None
    if hook is not None and not callable(hook):
        raise ModelDefinitionError(f"{spec.name}: clean {spec.clean} is no function")
    return Model(spec, contract, features, hook, access or Access())


def _check_roles(spec: ModelSpec, contract: Contract, place: str) -> None:
    if spec.source.batch == "day":
        if contract.event_time is None:
            raise ModelDefinitionError(f"{place}: `batch: day` needs a column with the role event_time")
        if contract.having("key") and contract.event_time not in contract.key:
            raise ModelDefinitionError(
                f"{place}: with `batch: day` the event time {contract.event_time!r} belongs to the key too "
                '(role ["key", "event_time"]): then duplicates lie in one day'
            )
    if spec.split.by == "time" and contract.event_time is None:
        raise ModelDefinitionError(f"{place}: `split: {{by: time}}` needs a column with the role event_time")
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


def _check_limits(spec: ModelSpec, contract: Contract, place: str) -> None:
    """A limit on a column that does not exist would never hold anything back."""
    for key, part in (("source", spec.source), ("outcomes", spec.outcomes)):
        for name in part.limits.columns if part else ():
            if name not in contract.types:
                raise ModelDefinitionError(
                    f"{spec.name}: {key}.limits.columns names {name!r}, which is not in {place}; it has "
                    f"{', '.join(contract.types)}"
                )


def _check_names(features: Features, contract: Contract, place: str) -> None:
    """A feature may have the name of a column beside it in a table only if it is that column, unchanged."""
    for expression in features.expressions:
        name = expression.meta.output_name()
        beside = name in contract.carried or name in contract.afterwards
        unchanged = expression.meta.is_column() and features.types[name] == contract.types.get(name)
        if beside and not unchanged:
            raise ModelDefinitionError(
                f"{place}: feature {name!r} has the name of a column that identifies or labels rows; "
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
