"""What a database's errors mean: which pass, and what to do about the others. No message holds a password."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL

from ml_assets.errors import SourceError
from ml_assets.sources.retries import TransientError

# SQLSTATE: connection, rollback (serialization, deadlock), resources, operator (shutdown, time-out), lock time-out.
_PASSING = re.compile(r"08|40|53|57|55P03")
# PostgreSQL gives no SQLSTATE where a connection is refused; what is not among these is the network, or passes.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|(database|role) .* does not exist|pg_hba|permission denied"
    r"|not permitted to log in|not currently accepting|does not support SSL|certificate|invalid (port|integer|sslmode)"
)
_SQLITE_BUSY = re.compile(r"locked|busy", re.IGNORECASE)


def secrets_of(url: URL) -> list[str]:
    """Texts of a URL that no message may hold."""
    hidden = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    return [str(each) for each in hidden if each]


@contextmanager
def explained(where: str, variable: str, secrets: Sequence[str]) -> Iterator[None]:
    """Turn what SQLAlchemy and its driver raise into errors with the place and the next step.

    Args:
        where: model, key, database and table.
        variable: where the database's URL is set.

    Raises:
        TransientError: if another try may do.
        SourceError: if it will not.
    """
    try:
        yield
    except sa.exc.NoSuchTableError:
        raise SourceError(f"{where}: no such table or view, or this user may not see it; mend `table`") from None
    except sa.exc.DBAPIError as error:
        cause = _without(str(error.orig), secrets)
        if _passes(error):
            raise TransientError(f"{where}: {cause}") from None
        raise SourceError(f"{where}: {cause}; {_advice(error, variable)}") from None
    except (sa.exc.SQLAlchemyError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{where}: {_without(str(error), secrets)}; mend the table, or read it through a view"
        ) from None


def _passes(error: sa.exc.DBAPIError) -> bool:
    code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
    if code:
        return _PASSING.match(code) is not None
    driver = type(error.orig).__module__
    if driver.startswith("sqlite3"):
        return _SQLITE_BUSY.search(str(error.orig)) is not None
    if driver.startswith("psycopg") and isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return error.connection_invalidated or _REFUSED.search(str(error.orig)) is None
    return error.connection_invalidated


def _advice(error: sa.exc.DBAPIError, variable: str) -> str:
    code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
    if code == "42501":
        return "grant SELECT on it to this user"
    if code or "sqlite3" in type(error.orig).__module__:
        return "see the message of the database"
    return f"mend {variable}"


def _without(text: str, secrets: Sequence[str]) -> str:
    for each in secrets:
        text = text.replace(each, "***")
    return " ".join(text.split())
