"""The nodes in PostgreSQL: reading, and writing many at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from computeswarm.market.rows import NodeColumns, NodeRow
from computeswarm.market.stores.loading import columns
from computeswarm.market.stores.postgres.line import Connection
from computeswarm.market.stores.rules import Known

_ROWS = (
    "SELECT n.node_id, n.wallet, n.record, n.facts, n.words, n.session_key, n.session_until,"
    " n.registered_at, n.succeeded, n.failed, n.gone, n.number, n.seq,"
    " greatest(l.counter, n.call_counter), l.last_seen, l.lease_until, l.alive_seconds, l.queued,"
    " l.running, l.status FROM nodes AS n JOIN leases AS l USING (number)"
)
_LOCK = (
    "SELECT n.number, n.node_id, n.wallet, n.seq, n.session_key, n.call_counter,"
    " n.registered_at, n.succeeded, n.failed, n.gone, l.alive_seconds"
    " FROM nodes AS n JOIN leases AS l USING (number)"
    " WHERE n.node_id = ANY($1::text[]) ORDER BY n.node_id FOR UPDATE OF n"
)
_NUMBERS = (
    "SELECT nextval(pg_get_serial_sequence('nodes', 'number')) FROM generate_series(1, $1::int)"
)
_WIDE = (
    "unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::text[],"
    " $7::bigint[], $8::bytea[], $9::float8[], $10::float8[], $11::bigint[], $12::bigint[],"
    " $13::boolean[]) AS g (number, node_id, wallet, record, facts, words, seq, session_key,"
    " session_until, registered_at, succeeded, failed, gone)"
)
_INSERT = (
    "INSERT INTO nodes (number, node_id, wallet, record,"  # noqa: S608 - only our own words
    " facts, words, seq, session_key, session_until, registered_at, succeeded, failed, gone,"
    " call_counter)"
    f" SELECT g.*, 0 FROM {_WIDE} ORDER BY g.node_id"
    " ON CONFLICT (node_id) DO NOTHING RETURNING number"
)
_RENEW = (
    "UPDATE nodes AS n SET wallet=g.wallet,"  # noqa: S608 - only our own words
    " record=g.record, facts=g.facts, words=g.words,"
    " seq=g.seq, session_key=g.session_key, session_until=g.session_until, call_counter=0,"
    " succeeded=g.succeeded, failed=g.failed, gone=g.gone"
    f" FROM {_WIDE} WHERE n.number = g.number"
)
_LEASES = (
    "INSERT INTO leases (number, seq, counter, last_seen, lease_until, alive_seconds, queued,"
    " running, status) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[],"
    " $4::float8[], $5::float8[], $6::float8[], $7::int[], $8::int[], $9::smallint[]) AS g (number,"
    " seq, counter, last_seen, lease_until, alive_seconds, queued, running, status)"
    " ORDER BY number ON CONFLICT (number) DO UPDATE SET seq=excluded.seq,"
    " counter=excluded.counter, last_seen=excluded.last_seen, lease_until=excluded.lease_until,"
    " alive_seconds=greatest(leases.alive_seconds, excluded.alive_seconds),"
    " queued=excluded.queued, running=excluded.running, status=excluded.status"
)
_CHANGE = (
    "UPDATE nodes AS n SET seq=g.seq, session_key=g.session_key, call_counter=g.call_counter,"
    " succeeded=g.succeeded, failed=g.failed, gone=g.gone FROM unnest($1::bigint[], $2::bigint[],"
    " $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[]) AS g (number, seq,"
    " session_key, call_counter, succeeded, failed, gone) WHERE n.number = g.number"
)

_LONG_GONE = (
    "SELECT n.node_id FROM nodes AS n JOIN leases AS l USING (number)"
    " WHERE l.last_seen < CASE WHEN n.succeeded > 0 THEN $1::float8 ELSE $2::float8 END LIMIT $3"
)
# asked once more, since somebody may have come back before he was locked
_FORGET = (
    "WITH old AS (DELETE FROM leases AS l USING nodes AS n"
    " WHERE l.number = n.number AND n.node_id = ANY($3::text[])"
    " AND l.last_seen < CASE WHEN n.succeeded > 0 THEN $1::float8 ELSE $2::float8 END"
    " RETURNING l.number)"
    " DELETE FROM nodes AS n USING old WHERE n.number = old.number RETURNING n.node_id"
)


async def load(connection: Connection, after: int, limit: int) -> NodeColumns:
    """Nodes above a number, by number."""
    sql = f"{_ROWS} WHERE n.number > $1 ORDER BY n.number LIMIT $2"
    return columns(await connection.fetch(sql, after, limit))


async def get(connection: Connection, node_ids: Collection[str]) -> dict[str, NodeRow]:
    """Those of them that there are."""
    sql = f"{_ROWS} WHERE n.node_id = ANY($1::text[])"
    found = columns(await connection.fetch(sql, list(node_ids))).rows()
    return {row.node_id: row for row in found}


async def lock(connection: Connection, node_ids: Collection[str]) -> dict[str, Known]:
    """Those of them that there are; they stay as they are until the transaction ends."""
    # in one order for all instances, so that none waits for another that waits for it
    found = [Known(*values) for values in await connection.fetch(_LOCK, sorted(node_ids))]
    return {known.node_id: known for known in found}


async def numbers(connection: Connection, count: int) -> list[int]:
    """Numbers nobody else gets."""
    return [number for (number,) in await connection.fetch(_NUMBERS, count)]


async def insert(connection: Connection, rows: Sequence[NodeRow]) -> bool:
    """Add new nodes; False where another instance was faster with one of them."""
    made = await connection.fetch(_INSERT, *_wide(rows))
    return len(made) == len(rows)


async def renew(connection: Connection, rows: Sequence[NodeRow]) -> None:
    """Replace nodes that register again; they are locked."""
    await connection.execute(_RENEW, *_wide(rows))


async def begin_leases(connection: Connection, rows: Sequence[NodeRow]) -> None:
    """Give each node the lease it registered with."""
    columns = zip(
        *(
            (
                *(r.number, r.seq, r.lease.counter, r.lease.last_seen, r.lease.lease_until),
                *(r.lease.alive_seconds, r.lease.queued, r.lease.running, r.lease.status),
            )
            for r in rows
        ),
        strict=True,
    )
    await connection.execute(_LEASES, *columns)


async def change(connection: Connection, known: Sequence[Known]) -> None:
    """Write what calls changed of nodes; they are locked."""
    columns = zip(
        *(
            (k.number, k.seq, k.session_key, k.call_counter, k.succeeded, k.failed, k.gone)
            for k in known
        ),
        strict=True,
    )
    await connection.execute(_CHANGE, *columns)


async def long_gone(
    connection: Connection, before: float, proven_before: float, limit: int
) -> list[str]:
    """Who seems to be due, see ``Store.forget_nodes``; nobody is locked."""
    found = await connection.fetch(_LONG_GONE, proven_before, before, limit)
    return [node_id for (node_id,) in found]


async def forget(
    connection: Connection, before: float, proven_before: float, node_ids: Collection[str]
) -> list[str]:
    """Delete those of them that are due; they and all leases are locked."""
    found = await connection.fetch(_FORGET, proven_before, before, list(node_ids))
    return [node_id for (node_id,) in found]


def _wide(rows: Sequence[NodeRow]) -> zip[tuple[Any, ...]]:
    return zip(
        *(
            (
                *(r.number, r.node_id, r.wallet, r.record, r.facts, r.words, r.seq),
                *(r.session_key, r.session_until, r.registered_at, r.succeeded, r.failed, r.gone),
            )
            for r in rows
        ),
        strict=True,
    )
