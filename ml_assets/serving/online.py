"""Feast's online store, read without Feast, whose import takes five seconds: the formats of Feast 0.67.

SQLite: a table `<project>_<view>` with a row per entity and feature. Redis: a hash per entity with a field per feature
(https://docs.feast.dev, "Redis online store format"). A test compares the answers with Feast's own.

Beside them stands for each view a mark, which says which content was written to its end.
"""

import contextlib
import re
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ml_assets.errors import OnlineStoreError
from ml_assets.feature_store.types import AVAILABLE_AT_US

Value = int | float | str | bool | None
SECONDS = 2.0  # to wait for a store that does not answer
NO_ENTITY = ("__dummy_id", "")  # Feast's key of a view without entities
_AT_ONCE = 500  # keys in one question to SQLite, which takes 32,766 at most


class Found(NamedTuple):
    """What the store holds of one entity. `at` is its `available_at`, in microseconds since 1970."""

    at: int
    values: dict[str, Value]


class Ask(NamedTuple):
    """Which columns of a view are wanted, and of which entities; None stands for an entity with a null in its key."""

    view: str
    columns: Sequence[str]
    keys: Sequence[bytes | None]


class OnlineStore(Protocol):
    """The online store of one model."""

    def read(self, asks: Sequence[Ask]) -> list[list[Found | None]]:
        """For each ask what there is of each of its entities; of a column that is not there, nothing.

        Raises:
            OnlineStoreError: if the store does not answer.
        """

    def marks(self) -> dict[str, str]:
        """The mark of each view that was written to its end; none if there is no store yet."""

    def mark(self, view: str, mark: str | None) -> None:
        """Set the mark of a view, or remove it."""

    def remove(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        """Remove entities from a view."""

    def drop(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        """Remove a view that the model has no more, of which these columns and entities were written, and its mark."""

    def keep_only(
        self, view: str, columns: Sequence[str], gone: Sequence[str], names: Iterable[str], keys: Iterable[bytes]
    ) -> None:
        """Remove what a view holds beside these columns and entities.

        Args:
            gone: columns that it had before, as far as they are known.
            names: of the columns of the entity key.
        """


def open_online(place: str, model: str) -> OnlineStore:
    """The online store of a model.

    Args:
        place: address of a Redis server (`redis://host:port/db`), or a folder with a SQLite file per model.
    """
    return RedisStore(place, model) if place.startswith(REDIS) else SqliteStore(sqlite_path(place, model), model)


REDIS = ("redis://", "rediss://")


def sqlite_path(folder: str, model: str) -> Path:
    """Where a model's online store lies below a folder."""
    return Path(folder) / model / "online.db"


def entity_key(entity: Iterable[tuple[str, str | int]]) -> bytes:
    """Feast's serialised key, version 3: number of columns, their sorted names, their values."""
    columns = sorted(entity) or [NO_ENTITY]
    parts = [struct.pack("<I", len(columns))]
    parts.extend(struct.pack("<II", _STRING, len(name.encode())) + name.encode() for name, _ in columns)
    for _, value in columns:
        kind, content = (_STRING, value.encode()) if isinstance(value, str) else (_INT64, struct.pack("<q", value))
        parts.append(struct.pack("<II", kind, len(content)) + content)
    return b"".join(parts)


_STRING, _INT64 = 2, 4  # of Feast's ValueType


def decode(content: bytes) -> Value:
    """A value as Feast writes it: a protocol buffer with one field, or none for null."""
    match content[0] if content else None:
        case 0x20 | 0x18:  # int64, int32
            number = _varint(content, 1)[0]
            return number - (1 << 64) if number >> 63 else number
        case 0x29:
            return float(struct.unpack_from("<d", content, 1)[0])
        case 0x12:
            size, start = _varint(content, 1)
            return content[start : start + size].decode()
        case 0x38:
            return content[1] == 1
        case None:
            return None
    raise OnlineStoreError(f"the online store holds a value that is none of ours: {content[:20]!r}")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def _found(columns: Sequence[str], values: Mapping[str, bytes]) -> Found | None:
    """What the store holds of an entity, of the values by column."""
    at = decode(values.get(AVAILABLE_AT_US, b""))
    if not isinstance(at, int):
        return None
    return Found(at, {name: decode(values[name]) for name in columns if name in values})


class SqliteStore:
    """A SQLite file. Each thread has a connection of its own, and opens a file that was put in its place."""

    def __init__(self, path: Path, project: str) -> None:
        self._path, self._project = path, project
        self._local = threading.local()

    def read(self, asks: Sequence[Ask]) -> list[list[Found | None]]:
        try:
            return [self._read(self._connection(), each) for each in asks]
        except (OSError, sqlite3.Error) as error:
            raise OnlineStoreError(f"the online store {self._path} cannot be read: {error}") from None

    def _read(self, connection: sqlite3.Connection, ask: Ask) -> list[Found | None]:
        there = list({each for each in ask.keys if each is not None})
        found: dict[bytes, dict[str, bytes]] = {}
        for first in range(0, len(there), _AT_ONCE):
            some = there[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            # The columns that count are picked below: SQLite finds an entity by its key alone fastest.
            question = f"SELECT entity_key, feature_name, value FROM {self._table(ask.view)} WHERE entity_key"
            try:
                rows = connection.execute(f"{question} IN ({marks})", some).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return [None] * len(ask.keys)
                raise
            for key, name, value in rows:
                found.setdefault(key, {})[name] = value
        return [_found(ask.columns, found.get(each, {})) if each is not None else None for each in ask.keys]

    def marks(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        with self._writing() as connection:
            return dict(connection.execute("SELECT view, mark FROM ml_assets_marks").fetchall())

    def mark(self, view: str, mark: str | None) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM ml_assets_marks WHERE view = ?", [view])
            if mark is not None:
                connection.execute("INSERT INTO ml_assets_marks VALUES (?, ?)", [view, mark])

    def remove(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        with self._writing() as connection:
            connection.executemany(f"DELETE FROM {self._table(view)} WHERE entity_key = ?", [(each,) for each in keys])

    def drop(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        with self._writing() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {self._table(view)}")
        self.mark(view, None)

    def keep_only(
        self, view: str, columns: Sequence[str], gone: Sequence[str], names: Iterable[str], keys: Iterable[bytes]
    ) -> None:
        wanted = set(keys)
        kept = [AVAILABLE_AT_US, *columns]
        marks = ",".join("?" * len(kept))
        with self._writing() as connection:
            connection.execute(f"DELETE FROM {self._table(view)} WHERE feature_name NOT IN ({marks})", kept)
            there = connection.execute(f"SELECT DISTINCT entity_key FROM {self._table(view)}").fetchall()
        self.remove(view, columns, [key for (key,) in there if key not in wanted])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # whoever reads does not wait for whoever writes
                connection.execute(_MARKS)
                with connection:
                    yield connection
        except sqlite3.Error as error:
            raise OnlineStoreError(f"the online store {self._path} cannot be used: {error}") from None

    def _table(self, view: str) -> str:
        return f'"{self._project}_{view}"'

    def _connection(self) -> sqlite3.Connection:
        file = self._path.stat().st_ino
        if getattr(self._local, "file", None) != file:
            self._local.connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=SECONDS)
            self._local.file = file
        connection: sqlite3.Connection = self._local.connection
        return connection


_MARKS = "CREATE TABLE IF NOT EXISTS ml_assets_marks (view TEXT PRIMARY KEY, mark TEXT)"


class RedisStore:
    """A Redis server, which is asked for everything of a request at once."""

    def __init__(self, url: str, project: str) -> None:
        import redis

        self._client = redis.Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
        self._project = project.encode()
        self._marks = f"ml_assets:marks:{project}"
        address = self._client.connection_pool.connection_kwargs
        self._where = f"Redis at {address.get('host')}:{address.get('port')}"  # the address may hold a password

    def read(self, asks: Sequence[Ask]) -> list[list[Found | None]]:
        pipe: Any = self._client.pipeline(transaction=False)
        for ask in asks:
            fields = self._fields(ask.view, ask.columns)
            for key in ask.keys:
                if key is not None:
                    pipe.hmget(key + self._project, fields)
        answers = iter(self._run(pipe))
        found: list[list[Found | None]] = []
        for ask in asks:
            names = [None, AVAILABLE_AT_US, *ask.columns]  # of the fields; the first is Feast's own time
            held: list[Found | None] = []
            for key in ask.keys:
                values = {} if key is None else dict(zip(names, next(answers), strict=True))
                there = {name: value for name, value in values.items() if name and value is not None}
                held.append(_found(ask.columns, there))
            found.append(held)
        return found

    def marks(self) -> dict[str, str]:
        [found] = self._run(self._client.pipeline(transaction=False).hgetall(self._marks))
        return {view.decode(): mark.decode() for view, mark in found.items()}

    def mark(self, view: str, mark: str | None) -> None:
        pipe = self._client.pipeline(transaction=False)
        self._run(pipe.hdel(self._marks, view) if mark is None else pipe.hset(self._marks, view, mark))

    def remove(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        fields = self._fields(view, columns)
        for key in keys:
            pipe.hdel(key + self._project, *fields)
        self._run(pipe)

    def drop(self, view: str, columns: Iterable[str], keys: Sequence[bytes]) -> None:
        self.remove(view, columns, keys)
        self.mark(view, None)

    def keep_only(
        self, view: str, columns: Sequence[str], gone: Sequence[str], names: Iterable[str], keys: Iterable[bytes]
    ) -> None:
        wanted = {key + self._project for key in keys}
        names = list(names)
        pattern = _escaped(_prefix(names)) + b"*" + _escaped(self._project)
        try:
            found = list(self._client.scan_iter(pattern, count=1000))
        except Exception as error:
            raise self._unreachable(error) from None
        ends = len(self._project)
        there = [key for key in found if _is_entity(key[:-ends], names)]
        self.remove(view, [*columns, *gone], [key[:-ends] for key in there if key not in wanted])
        if gone:
            pipe: Any = self._client.pipeline(transaction=False)
            for key in wanted:
                pipe.hdel(key, *self._fields(view, gone)[2:])
            self._run(pipe)

    def _fields(self, view: str, columns: Iterable[str]) -> list[bytes]:
        import mmh3

        names = (AVAILABLE_AT_US, *columns)
        return [
            f"_ts:{view}".encode(),
            *(struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)) for name in names),
        ]

    def _run(self, pipe: Any) -> list[Any]:
        try:
            return list(pipe.execute())
        except Exception as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> OnlineStoreError:
        return OnlineStoreError(f"the online store, {self._where}, does not answer: {error}")


def _prefix(names: Iterable[str]) -> bytes:
    """What the keys of all entities with these columns begin with."""
    columns = sorted(names) or [NO_ENTITY[0]]
    parts = [struct.pack("<II", _STRING, len(name.encode())) + name.encode() for name in columns]
    return struct.pack("<I", len(columns)) + b"".join(parts)


def _is_entity(key: bytes, names: Sequence[str]) -> bool:
    """Whether this is the key of an entity with these columns, to its last byte: a project may end like another."""
    position = len(_prefix(names))
    for _ in names or NO_ENTITY[:1]:
        if len(key) < position + 8:
            return False
        position += 8 + int(struct.unpack_from("<I", key, position + 4)[0])
    return position == len(key)


def _escaped(text: bytes) -> bytes:
    """As a pattern of Redis that stands for itself."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)
