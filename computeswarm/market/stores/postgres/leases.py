"""Leases written behind: one statement for thousands, and one packed entry in the change log."""

from __future__ import annotations

from computeswarm.market.stores.postgres.line import Connection
from computeswarm.market.stores.postgres.log import Entry, append
from computeswarm.market.stores.protocol import Kind, Leases

_LOCK = 7_226_931_041
# one of another registration counts for nothing
_TOUCH = (
    "UPDATE leases AS l SET counter=greatest(l.counter, g.counter),"
    " last_seen=greatest(l.last_seen, g.last_seen),"
    " lease_until=greatest(l.lease_until, g.lease_until),"
    " alive_seconds=greatest(l.alive_seconds, g.alive_seconds),"
    " queued=CASE WHEN l.last_seen <= g.last_seen THEN g.queued ELSE l.queued END,"
    " running=CASE WHEN l.last_seen <= g.last_seen THEN g.running ELSE l.running END,"
    " status=CASE WHEN l.last_seen <= g.last_seen THEN g.status ELSE l.status END"
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::float8[], $5::float8[],"
    " $6::float8[], $7::int[], $8::int[], $9::smallint[]) AS g (number, seq, counter, last_seen,"
    " lease_until, alive_seconds, queued, running, status)"
    " WHERE l.number = g.number AND l.seq = g.seq"
)


async def lock_leases(connection: Connection) -> None:
    """Be the only one to change leases until the transaction ends.

    Two that change many at once, each in an order of the planner's choice, could otherwise come to
    wait for each other.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def write_leases(connection: Connection, instance: str, leases: Leases) -> None:
    """Write what the same registrations' leases have become, and tell the other instances."""
    await lock_leases(connection)
    columns = [leases[name].tolist() for name in leases.dtype.names or ()]
    await connection.execute(_TOUCH, *columns)
    await append(connection, instance, [Entry(Kind.LEASES, "", leases.tobytes())])
