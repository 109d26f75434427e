"""Money's database: every write is on the disk, but for those that say that they need not be."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from computeswarm.payments.storage import connect, transaction

_NORMAL, _FULL = 1, 2


def _level(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA synchronous").fetchone()[0])


def test_a_write_waits_for_the_disk_unless_it_need_not(tmp_path: Path) -> None:
    db = connect(tmp_path / "money.db", "CREATE TABLE IF NOT EXISTS atoms (amount INTEGER)")
    with transaction(db):
        assert _level(db) == _FULL
        db.execute("INSERT INTO atoms VALUES (1)")
    with transaction(db, durable=False):
        assert _level(db) == _NORMAL
        db.execute("INSERT INTO atoms VALUES (2)")
    assert _level(db) == _FULL
    with pytest.raises(ZeroDivisionError), transaction(db, durable=False):
        db.execute("INSERT INTO atoms VALUES (4)")
        raise ZeroDivisionError
    assert _level(db) == _FULL
    with connect(tmp_path / "money.db", "") as other:
        assert other.execute("SELECT sum(amount) FROM atoms").fetchone()[0] == 3
    other.close()
    db.close()
