"""A model's Feast repository: written from its side tables and groups, and applied to Feast's registry.

The folder is an ordinary repository, `feature_store.yaml` and `repo.py`; `feast -c <folder>` works on it. Feast is
imported only where it is used, because that takes 5 s.
"""

import contextlib
import fcntl
import json
import os
import re
import runpy
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import polars as pl

from ml_assets.errors import SettingsError
from ml_assets.feature_store.types import AVAILABLE_AT_US, stored_type
from ml_assets.lake import Lake
from ml_assets.ml.joins import AVAILABLE_AT, Join
from ml_assets.model import Model

if TYPE_CHECKING:
    from feast import FeatureStore

OFFLINE_STORE = "ml_assets.feature_store.offline.LakeOfflineStore"
WRITTEN = "Written by ml-assets from defs.yaml of the model {model}: change that, not this file."
_TYPES = {pl.Int64: "Int64", pl.Float64: "Float64", pl.Boolean: "Bool", pl.String: "String"}  # in feast.types


def write_repository(folder: Path, model: Model, lake: Lake, online: Path | str) -> None:
    """Write `feature_store.yaml` and `repo.py`, each only if it changes.

    `feature_store.yaml` may hold Redis' password, so only its owner can read it. (Feast would take it from the
    environment too, but then whoever calls `feast` had to set it there first, in Feast's own form.)

    Args:
        folder: made if it is not there. Feast reads every Python file in it.
        online: file of the online store in SQLite, or address of a Redis, `redis://` or `rediss://`.

    Raises:
        SettingsError: if Feast cannot be told the address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "feature_store.yaml", _configuration(model, online), 0o600)
    _write(folder / "repo.py", _definitions(model, lake), 0o644)


def apply(folder: Path) -> "FeatureStore":
    """Bring Feast's registry and its online tables to what `repo.py` says, as `feast apply` does.

    Views and entities that are no longer there go. What they left in Redis goes with `online.bring_up_to_date`, because
    Feast would take values of other models too. Applied twice, nothing changes. Processes wait for each other.
    """
    with warnings.catch_warnings():  # Feast's import shows every deprecation warning of every package from then on
        from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource

    # Not by Feast's own way of reading it: that keeps one module `repo` in a process, whichever model's it is.
    objects = runpy.run_path(str(folder / "repo.py")).values()
    kinds = (FileSource, Entity, FeatureView, FeatureService)
    with _alone(folder):
        store = FeatureStore(str(folder), fs_yaml_file=folder / "feature_store.yaml")  # whatever the environment says
        declared = [each for each in objects if isinstance(each, kinds)]
        names = {(type(each), each.name) for each in declared}
        there = [
            *store.list_data_sources(),
            *store.list_entities(),
            *store.list_feature_views(),
            *store.list_feature_services(),
        ]
        gone = [each for each in there if (type(each), each.name) not in names]
        store.apply(declared, objects_to_delete=gone, partial=False)
    return store


def entity_names(views: Mapping[str, Join]) -> dict[str, dict[str, str]]:
    """For each view and column of its key the name of the entity in Feast: the column's, alone if every view has it in
    the same type.
    """
    kinds = defaultdict(set)
    for join in views.values():
        for key in join.by.values():
            kinds[key].add(stored_type(join.types[key]))
    return {
        name: {key: key if len(kinds[key]) == 1 else f"{name}_{key}" for key in join.by.values()}
        for name, join in views.items()
    }


def _configuration(model: Model, online: Path | str) -> str:
    if isinstance(online, Path):
        online.parent.mkdir(parents=True, exist_ok=True)
        store = ["type: sqlite", f"path: {_yaml(str(online.resolve()))}"]
    else:
        # Our writer decides what is newest: a corrected value is as old as the one whose place it takes.
        store = ["type: redis", f"connection_string: {_yaml(_redis(online))}", "skip_dedup: true"]
        # Feast finds a removed view's values by a pattern that also fits a model whose name ends alike.
        store.append("full_scan_for_deletion: false")
    return "\n".join(
        [
            f"# {WRITTEN.format(model=model.name)}",
            f"project: {model.name}",
            "provider: local",
            "registry: registry.db",
            "entity_key_serialization_version: 3",
            "offline_store:",
            f"  type: {OFFLINE_STORE}",
            "online_store:",
            *(f"  {line}" for line in store),
            "materialization:",
            "  pull_latest_features: true  # without it Feast writes any row of a view without entities",
            "",
        ]
    )


def _definitions(model: Model, lake: Lake) -> str:
    """The text of `repo.py`."""
    views, entities = model.views, entity_names(model.views)
    owner = ", ".join(model.spec.owners)
    variables = _variables({each for by in entities.values() for each in by.values()})
    kinds = {
        entities[name][key]: (key, _kind(join.types[key])) for name, join in views.items() for key in join.by.values()
    }
    used = {"Int64", *(kind for _, kind in kinds.values())}
    used |= {_kind(join.types[column]) for join in views.values() for column in join.columns}
    lines = [f'"""Features of {model.name} as Feast knows them.', "", WRITTEN.format(model=model.name), '"""', ""]
    if views:
        lines += ["from datetime import timedelta", ""]
        lines += [f"from feast import {'Entity, ' * bool(kinds)}FeatureService, FeatureView, Field, FileSource"]
        lines += ["from feast.data_format import DeltaFormat", f"from feast.types import {', '.join(sorted(used))}"]
        lines += ["from feast.value_type import ValueType"] * bool(kinds) + [""]
    for entity, (key, kind) in sorted(kinds.items()):
        value = f"ValueType.{kind.upper()}"
        arguments = {"name": repr(entity), "join_keys": f"[{key!r}]", "value_type": value, "owner": repr(owner)}
        lines += _call(variables[entity], "Entity", arguments)
    for name, join in views.items():
        source = {
            "name": repr(name),
            "path": repr(str(lake.path(model.name, name).resolve())),
            "file_format": "DeltaFormat()",
            "timestamp_field": repr(AVAILABLE_AT),
        }
        if created := _created(model, name):
            source["created_timestamp_column"] = repr(created)
        view = {
            "name": repr(name),
            "entities": f"[{', '.join(variables[each] for each in entities[name].values())}]",
            "ttl": _ttl(join),
            "schema": _schema(join),
            "source": f"{name}_source",
            "description": repr(_description(model, name)),
            "owner": repr(owner),
            "tags": repr({"asset": f"{model.name}/{name}", "kind": "group" if name in model.groups else "lookup"}),
        }
        lines += _call(f"{name}_source", "FileSource", source)
        lines += _call(f"{name}_view", "FeatureView", view)
    if views:
        service = {
            "name": repr(model.name),
            "features": _lines(_of_rows(name, join) for name, join in views.items()),
            "description": repr(model.spec.description or f"What features of {model.name} read beside the rows."),
            "owner": repr(owner),
        }
        lines += _call(f"{model.name}_service", "FeatureService", service)
    return "\n".join(lines)


def _call(variable: str, function: str, arguments: Mapping[str, str]) -> list[str]:
    return [f"{variable} = {function}(", *(f"    {name}={value}," for name, value in arguments.items()), ")", ""]


def _kind(kind: pl.DataType) -> str:
    return _TYPES[type(stored_type(kind))]


def _ttl(join: Join) -> str:
    """Without a limit it is zero in Feast."""
    return repr(join.freshness or timedelta(0)).removeprefix("datetime.")


def _schema(join: Join) -> str:
    """Key and features, with their names in the table; the names that features.py knows are their descriptions."""
    fields = [f"Field(name={key!r}, dtype={_kind(join.types[key])})" for key in join.by.values()]
    fields += [
        f"Field(name={name!r}, dtype={_kind(join.types[name])}, description={beside!r})"
        for name, beside in join.columns.items()
    ]
    fields.append(f"Field(name={AVAILABLE_AT_US!r}, dtype=Int64, description='{AVAILABLE_AT}, in microseconds')")
    return _lines(fields)


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(["[", *(f"        {each}," for each in parts), "    ]"])


def _of_rows(name: str, join: Join) -> str:
    """The view as the model's rows ask for it, whose columns may have other names than those of its key."""
    if all(own == theirs for own, theirs in join.by.items()):
        return f"{name}_view"
    keys = {theirs: own for own, theirs in join.by.items()}  # all of them: Feast's join forgets what is not named
    return f"{name}_view.with_join_key_map({keys!r})"


def _created(model: Model, name: str) -> str | None:
    """Column that says which of two rows of a second is the later one. None where there are no two, and where a
    feature reads it, because Feast cannot have it in both roles.
    """
    time = model.lookups[name].contract.event_time if name in model.lookups else None
    return None if time in model.views[name].columns else time


def _description(model: Model, name: str) -> str:
    if name in model.groups:
        spec = model.groups[name].spec
        return f"Past of {', '.join(spec.entities)} over {', '.join(spec.windows)}, as known at the end of each day"
    lookup = model.lookups[name]
    how = f"usable {lookup.spec.lag} after its time" if lookup.timed else "usable at any time"
    return f"Side table from {lookup.spec.source.where}, {how}"


def _variables(names: set[str]) -> dict[str, str]:
    """A Python name for each entity, whose own name may be anything."""
    found: dict[str, str] = {}
    for name in sorted(names):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = f"_{plain}" if plain[:1].isdigit() else plain
        while f"{plain}_entity" in found.values():
            plain += "_"
        found[name] = f"{plain}_entity"
    return found


def _yaml(text: str) -> str:
    """Text in YAML. Feast puts variables of the environment where a dollar sign is."""
    return json.dumps(text).replace("$", "\\x24")


def _redis(address: str) -> str:
    """Feast's form of an address, `host:port,db=0,ssl=true,password="..."`."""
    parts = urlsplit(address)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.query or ":" in parts.hostname:
        raise SettingsError(
            "online store: Feast is told a Redis as redis://[user:password@]host[:port][/db], or rediss:// with TLS, "
            "and nothing else"
        )
    said = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    said += ["ssl=true"] if parts.scheme == "rediss" else []
    secrets = {"username": parts.username, "password": parts.password}
    return ",".join([*said, *(f"{name}={_inert(unquote(each))}" for name, each in secrets.items() if each)])


def _inert(text: str) -> str:
    """Text as JSON without a comma or anything else that Feast's form has a meaning for."""
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Feast replaces its registry without looking whether somebody else did."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file as a whole, or leave it alone if it says the same."""
    if path.is_file() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".new")  # only its owner can read it
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
