"""A market's SQLite file: opened, brought up to date, and what its errors mean."""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from pathlib import Path

from computeswarm.core.errors import ComputeSwarmError, ConfigError, StorageFull, Unavailable
from computeswarm.market.stores.migrations import scripts

RETRY_SECONDS = 2
_CACHE_KIB = 64 * 1024
"""Holds the leases of a million nodes."""


def connect(path: Path) -> sqlite3.Connection:
    """Write-ahead log, and each commit on the disk before it counts."""
    made = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("PRAGMA synchronous=FULL")
    made.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    return made


def open_file(path: Path) -> sqlite3.Connection:
    """Make the file where there is none, mode 0600, and bring its schema up to date.

    Raises:
        ConfigError: it can't be opened, or a later version of ComputeSwarm wrote it.
        StorageFull: there is no room for it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)  # session keys lie in it
        made = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from None
    try:
        _migrate(made, path)
    except sqlite3.Error as error:
        made.close()
        if "full" in str(error):
            raise meaning(error) from None
        raise _unusable(path, error) from None
    except ConfigError:
        made.close()
        raise
    return made


def meaning(error: sqlite3.Error) -> ComputeSwarmError:
    """What a user can do about it."""
    if "full" in str(error):
        return StorageFull("The market's disk is full; its operator must make room.")
    return Unavailable(
        f"The market's database does not take writes: {error}.", retry_after=RETRY_SECONDS
    )


def _unusable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"The market's database {path} can't be used: {error}.")


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    steps = scripts("sqlite")
    if version > len(steps):
        raise ConfigError(f"{path} was written by a later version; update ComputeSwarm.")
    db.create_function("key_bytes", 1, _key_bytes, deterministic=True)
    for number, script in enumerate(steps[version:], start=version + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # a failed BEGIN has nothing to undo
                db.execute("ROLLBACK")
            raise


def _key_bytes(text: str) -> bytes:
    return bytes.fromhex(text) if re.fullmatch("(?:[0-9a-f]{2})*", text) else b""
