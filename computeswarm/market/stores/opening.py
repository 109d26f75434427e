"""Which store a setting means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from computeswarm.core.errors import ConfigError
from computeswarm.market.stores.protocol import Store
from computeswarm.market.stores.sqlite import SqliteStore

_HOW = "give a file's path, sqlite:///path, or postgresql://user@host/database"


def open_store(where: Path | str) -> Store:
    """The store of a path or a URL; nothing is opened before ``await store.open()``.

    Raises:
        ConfigError: no such kind of database.
    """
    text = str(where)
    if isinstance(where, Path) or "://" not in text:
        if not text:
            raise ConfigError(f"The market's database is not named; {_HOW}.")
        return SqliteStore(Path(where))
    scheme = text.partition("://")[0]
    if scheme == "sqlite":
        return SqliteStore(_sqlite_path(text))
    if scheme in ("postgresql", "postgres"):
        return _postgres(text)
    # never the whole URL in a message: there may be a password in it
    raise ConfigError(f"The market knows no database of the kind {scheme[:20]}; {_HOW}.")


def _postgres(url: str) -> Store:
    try:
        from computeswarm.market.stores.postgres.store import PostgresStore
    except ImportError:
        sentence = "PostgreSQL needs asyncpg: pip install 'computeswarm[postgres]'."
        raise ConfigError(sentence) from None
    try:
        urlsplit(url).port  # noqa: B018 - it raises where there is no number
    except ValueError:
        raise ConfigError(f"The database URL's host or port can't be read; {_HOW}.") from None
    return PostgresStore(url)


def _sqlite_path(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path == "/":
        raise ConfigError(f"A SQLite database's URL has three strokes before its path; {_HOW}.")
    return Path(path)
