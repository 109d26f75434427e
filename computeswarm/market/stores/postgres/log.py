"""The change log: what instances tell each other, in the order of their commits.

A number is drawn under a lock that is held until the commit is seen by all, so whoever has read up
to a number has missed nothing below it. NOTIFY serializes commits in the same way, and only wakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from computeswarm.core.jobs import MarketJob
from computeswarm.market.rows import LEASE, NodeRow
from computeswarm.market.stores.postgres import nodes
from computeswarm.market.stores.postgres.line import Connection
from computeswarm.market.stores.protocol import Change, Kind, Position

CHANNEL = "computeswarm_market"
KEEP_SECONDS = 15 * 60
KEEP_LEASES_SECONDS = 5 * 60
_READ_BYTES = 16 * 2**20
_LOCK = 7_226_931_042
_APPEND = (
    "WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock($1)), added AS ("
    "INSERT INTO changes (instance, kind, key, data)"
    " SELECT $2, g.kind, g.key, g.data FROM locked, unnest($3::text[], $4::text[], $5::bytea[])"
    " WITH ORDINALITY AS g (kind, key, data, place) ORDER BY g.place)"
    " SELECT pg_notify($6, $2)"
)
_READ = (
    "SELECT seq, instance, kind, key, data FROM ("
    "SELECT *, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before"
    " FROM (SELECT * FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2) AS c"
    ") AS c WHERE before < $3 ORDER BY seq"
)
_BOUNDS = (
    "SELECT pruned, (SELECT last_value FROM changes_seq_seq),"
    " (SELECT max(seq) FROM changes) FROM change_log"
)
_PRUNE = (
    "WITH old AS (DELETE FROM changes WHERE at < clock_timestamp() - make_interval(secs => $1)"
    " RETURNING seq) UPDATE change_log SET pruned = greatest(pruned, (SELECT max(seq) FROM old))"
)
_PRUNE_LEASES = (
    "DELETE FROM changes WHERE kind='leases' AND at < clock_timestamp() - make_interval(secs => $1)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log, to be."""

    kind: Kind
    key: str
    data: bytes


def node_entry(node_id: str) -> Entry:
    """A node's row changed."""
    return Entry(Kind.NODE, node_id, b"")


def job_entry(job: MarketJob) -> Entry:
    """A job as it stands after a change."""
    return Entry(Kind.JOB, str(job.job_id), job.model_dump_json().encode())


async def append(connection: Connection, instance: str, entries: Sequence[Entry]) -> None:
    """Add entries: the last thing in a transaction, as others' commits wait from here on."""
    kinds = [str(entry.kind) for entry in entries]
    keys = [entry.key for entry in entries]
    data = [entry.data for entry in entries]
    await connection.execute(_APPEND, _LOCK, instance, kinds, keys, data, CHANNEL)


async def end(connection: Connection) -> Position:
    """The log's end: nothing that is committed lies behind it."""
    pruned, _, newest = await connection.fetchrow(_BOUNDS)
    return Position(str(max(pruned, newest or 0)))


async def read(connection: Connection, after: Position, limit: int) -> list[Change] | None:
    """What follows a position; None where that is not in the log any more, or never was."""
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        return None
    start = int(after)
    rows = await connection.fetch(_READ, start, limit, _READ_BYTES)
    # asked after reading: what was pruned before would be missing above
    pruned, drawn, _ = await connection.fetchrow(_BOUNDS)
    if start < pruned or start > drawn:
        return None
    changed = {key for _, _, kind, key, _ in rows if kind == Kind.NODE}
    found = await nodes.get(connection, changed) if changed else {}
    return [_change(row, found) for row in rows]


async def prune(connection: Connection) -> None:
    """Forget what nobody comes back for; leases sooner, as they weigh most and soon come again."""
    await connection.execute(_PRUNE, float(KEEP_SECONDS))
    await connection.execute(_PRUNE_LEASES, float(KEEP_LEASES_SECONDS))


def _change(row: Any, found: dict[str, NodeRow]) -> Change:
    seq, instance, kind, key, data = row
    return Change(
        Position(str(seq)),
        instance,
        Kind(kind),
        key,
        leases=np.frombuffer(data, LEASE) if kind == Kind.LEASES else None,
        job=MarketJob.model_validate_json(data) if kind == Kind.JOB else None,
        row=found.get(key) if kind == Kind.NODE else None,
    )
