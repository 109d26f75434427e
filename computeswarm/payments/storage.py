"""SQLite for money: write-ahead log, and every commit on the disk before anyone acts on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from computeswarm.core.errors import ComputeSwarmError, ConfigError, StorageFull

_BUSY_SECONDS = 10.0
_REPAIR = "check who may read it, or restore it from a backup."


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open (and make) a database of ours, mode 0600, with ``synchronous=FULL``.

    Raises:
        StorageFull: there is no room for it.
        ConfigError: it can't be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=True)
        db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(schema)
    except (OSError, sqlite3.Error) as error:
        raise _storage_error(str(path), error) from None
    return db


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database of ours beside its owner: as it stands at the first query, unchangeable.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
        )
        db.row_factory = sqlite3.Row
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise ConfigError(f"{path} can't be read ({error}); {_REPAIR}") from None
    return db


@contextmanager
def transaction(db: sqlite3.Connection, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
    """One atomic write; other processes wait from its first read on.

    Args:
        durable: wait until it is on the disk. Without, a power cut may take it back, which a crash
            of ours can't; what is written durably later takes it along. Only for what nobody has
            acted on yet, or what the next start finds out again.

    Raises:
        StorageFull: there is no room; nothing was written.
    """
    if not durable:
        db.execute("PRAGMA synchronous=NORMAL")
    try:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _roll_back(db)
        raise _storage_error("The payment record", error) from None
    except BaseException:
        _roll_back(db)
        raise
    finally:
        if not durable:
            db.execute("PRAGMA synchronous=FULL")


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _storage_error(name: str, error: Exception) -> ComputeSwarmError:
    if isinstance(error, OSError) or "full" in str(error) or "disk I/O" in str(error):
        return StorageFull(f"{name} can't be written ({error}); free some disk space.")
    if "locked" in str(error):
        return ConfigError(f"{name} can't be used ({error}); try again in a while.")
    return ConfigError(f"{name} can't be used ({error}); {_REPAIR}")
