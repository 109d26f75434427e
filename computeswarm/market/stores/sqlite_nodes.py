"""The nodes in SQLite: statements, each for use inside one of the writer's transactions."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, replace

from computeswarm.market.rows import NodeColumns, NodeRow
from computeswarm.market.stores.loading import columns
from computeswarm.market.stores.protocol import Leases
from computeswarm.market.stores.rules import Known, may_call, registered

_LOAD = (
    "SELECT n.node_id, n.wallet, n.record, n.facts, n.words, n.session_key, n.session_until,"
    " n.registered_at, n.succeeded, n.failed, n.gone, n.number, n.seq,"
    " max(l.counter, n.call_counter), l.last_seen, l.lease_until, l.alive_seconds, l.queued,"
    " l.running, l.status FROM nodes AS n JOIN leases AS l USING (number)"
)
_KNOWN = (
    "SELECT n.number, n.node_id, n.wallet, n.seq, n.session_key, n.call_counter, n.registered_at,"
    " n.succeeded, n.failed, n.gone, l.alive_seconds"
    " FROM nodes AS n JOIN leases AS l USING (number) WHERE n.node_id=?"
)
_SAVE = (
    "INSERT INTO nodes (number, node_id, wallet, record, facts, words, seq, session_key,"
    " session_until, call_counter, registered_at, succeeded, failed, gone)"
    " VALUES (?,?,?,?,?,?,?,?,?,0,?,?,?,?) ON CONFLICT (number) DO UPDATE SET"
    " wallet=excluded.wallet, record=excluded.record, facts=excluded.facts, words=excluded.words,"
    " seq=excluded.seq, session_key=excluded.session_key, session_until=excluded.session_until,"
    " call_counter=0, gone=excluded.gone RETURNING number"
)
_SAVE_LEASE = "INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?,?,?)"
# one of another registration counts for nothing
_TOUCH = (
    "UPDATE leases SET counter=max(counter, ?3),"
    " queued=iif(last_seen <= ?4, ?7, queued), running=iif(last_seen <= ?4, ?8, running),"
    " status=iif(last_seen <= ?4, ?9, status), last_seen=max(last_seen, ?4),"
    " lease_until=max(lease_until, ?5), alive_seconds=max(alive_seconds, ?6)"
    " WHERE number=?1 AND seq=?2"
)

# the highest number stays, or SQLite would give it away once more
_LONG_GONE = (
    "SELECT n.number, n.node_id FROM nodes AS n JOIN leases AS l USING (number)"
    " WHERE l.last_seen < iif(n.succeeded > 0, ?, ?) AND n.number < (SELECT max(number) FROM nodes)"
    " LIMIT ?"
)


def load(db: sqlite3.Connection, after: int, limit: int) -> NodeColumns:
    """Nodes above a number, by number."""
    sql = f"{_LOAD} WHERE n.number > ? ORDER BY n.number LIMIT ?"
    return columns(db.execute(sql, (after, limit)).fetchall())


def get(db: sqlite3.Connection, node_id: str) -> NodeRow | None:
    """One node."""
    found = columns(db.execute(f"{_LOAD} WHERE n.node_id=?", (node_id,)).fetchall()).rows()
    return found[0] if found else None


def save(db: sqlite3.Connection, row: NodeRow) -> NodeRow:
    """See ``Store.save_node``."""
    known = _known(db, row.node_id)
    row = registered(known, row)
    values = (
        *(known.number if known else None, row.node_id, row.wallet, row.record, row.facts),
        *(row.words, row.seq, row.session_key, row.session_until, row.registered_at),
        *(row.succeeded, row.failed, row.gone),
    )
    ((number,),) = db.execute(_SAVE, values).fetchall()
    db.execute(_SAVE_LEASE, (number, row.seq, *astuple(row.lease)))
    return replace(row, number=number)


def remove(db: sqlite3.Connection, node_id: str, session_key: bytes, counter: int) -> bool:
    """See ``Store.remove_node``."""
    if not may_call(_known(db, node_id), session_key, counter):
        return False
    db.execute("UPDATE nodes SET gone=1, call_counter=? WHERE node_id=?", (counter, node_id))
    return True


def revoke(db: sqlite3.Connection, node_id: str, seq: int) -> bool:
    """See ``Store.revoke_node``."""
    known = _known(db, node_id)
    if known is None or seq < known.seq:
        return False
    sql = "UPDATE nodes SET gone=1, session_key=x'', seq=? WHERE number=?"
    db.execute(sql, (seq, known.number))
    db.execute("UPDATE leases SET seq=? WHERE number=?", (seq, known.number))
    return True


def forget(db: sqlite3.Connection, before: float, proven_before: float, limit: int) -> list[str]:
    """See ``Store.forget_nodes``."""
    found = db.execute(_LONG_GONE, (proven_before, before, limit)).fetchall()
    numbers = [(number,) for number, _ in found]
    db.executemany("DELETE FROM leases WHERE number=?", numbers)
    db.executemany("DELETE FROM nodes WHERE number=?", numbers)
    return [node_id for _, node_id in found]


def called(
    db: sqlite3.Connection,
    node_id: str,
    session_key: bytes,
    counter: int,
    succeeded: int,
    failed: int,
) -> bool:
    """Note a call of the node and add to its counts; False, and nothing done, if it isn't good."""
    if not may_call(_known(db, node_id), session_key, counter):
        return False
    sql = "UPDATE nodes SET call_counter=?, succeeded=succeeded+?, failed=failed+? WHERE node_id=?"
    db.execute(sql, (counter, succeeded, failed, node_id))
    return True


def touch(db: sqlite3.Connection, leases: Leases) -> None:
    """Write what the same registrations' leases have become."""
    db.executemany(_TOUCH, leases.tolist())


def _known(db: sqlite3.Connection, node_id: str) -> Known | None:
    values = db.execute(_KNOWN, (node_id,)).fetchone()
    return None if values is None else Known(*values)
