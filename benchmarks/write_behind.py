"""Leases through the store against a bare loop of ``UPDATE … FROM unnest`` on the same server.

    python -m benchmarks.write_behind [--nodes 200000] [--beats 33000] [--rounds 7]

Both write the same heartbeats in batches of the same length, durably, turn by turn. The store also
guards each lease against newer ones, and tells the other instances in the same transaction. Goal:
at least 0.8 of the bare loop's rate. SQLite's is printed for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import asyncpg
import numpy as np

from benchmarks.postgres import server
from computeswarm.market.rows import LEASE, NodeRow
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Leases, Store
from computeswarm.market.stores.write_behind import LEASES_A_COMMIT

_FILL = (
    "INSERT INTO nodes SELECT n, 'nd-' || n, '0x', '{{}}', '', '', 1, '', 0, 0, 0, 0, 0, false"
    " FROM generate_series(1, {nodes}) AS n",
    "INSERT INTO leases SELECT n, 1, 0, 0, 0, 0, 0, 0, 0 FROM generate_series(1, {nodes}) AS n",
    "CREATE TABLE bare (LIKE leases INCLUDING ALL) WITH (fillfactor = 50)",
    "INSERT INTO bare SELECT * FROM leases",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)
_BARE = (
    "UPDATE bare AS l SET counter=g.counter, last_seen=g.last_seen, lease_until=g.lease_until,"
    " alive_seconds=g.alive_seconds, queued=g.queued, running=g.running, status=g.status"
    " FROM unnest($1::bigint[], $2::bigint[], $3::float8[], $4::float8[], $5::float8[], $6::int[],"
    " $7::int[], $8::smallint[]) AS g (number, counter, last_seen, lease_until, alive_seconds,"
    " queued, running, status) WHERE l.number = g.number"
)
_BARE_COLUMNS = [name for name in LEASE.names or () if name != "seq"]


def heartbeats(dice: np.random.Generator, nodes: int, beats: int, turn: int) -> Leases:
    """A second's worth: each from another node."""
    made = np.zeros(beats, LEASE)
    made["number"] = dice.choice(nodes, beats, replace=False) + 1
    made["seq"] = 1
    made["counter"] = turn
    made["last_seen"] = 1_000.0 + turn
    made["lease_until"] = 1_090.0 + turn
    made["alive_seconds"] = turn
    made["status"] = dice.integers(0, 2, beats)
    return made


async def through_store(store: Store, leases: Leases) -> float:
    began = time.perf_counter()
    store.touch(leases)
    await store.flush()
    return len(leases) / (time.perf_counter() - began)


async def bare_loop(connection: asyncpg.Connection, leases: Leases) -> float:
    began = time.perf_counter()
    for at in range(0, len(leases), LEASES_A_COMMIT):
        part = leases[at : at + LEASES_A_COMMIT]
        await connection.execute(_BARE, *(part[name].tolist() for name in _BARE_COLUMNS))
    return len(leases) / (time.perf_counter() - began)


async def on_postgres(url: str, nodes: int, beats: int, rounds: int) -> None:
    store = open_store(url)
    await store.open()
    connection = await asyncpg.connect(url)
    for statement in _FILL:
        await connection.execute(statement.format(nodes=nodes))
    dice = np.random.default_rng(7)
    ours, bare, ratios = [], [], []
    for turn in range(1, rounds + 2):
        leases = heartbeats(dice, nodes, beats, turn)
        rates = await through_store(store, leases), await bare_loop(connection, leases)
        if turn > 1:  # the first fills caches and plans
            ours.append(rates[0])
            bare.append(rates[1])
            ratios.append(rates[0] / rates[1])
    print(f"bare unnest loop   {median(bare):>10,.0f} leases/s")
    print(f"store, PostgreSQL  {median(ours):>10,.0f} leases/s   {median(ratios):.2f} of bare")
    await connection.close()
    await store.close()


async def on_sqlite(path: Path, nodes: int, beats: int, rounds: int) -> None:
    store = open_store(path)
    await store.open()
    some = min(nodes, 100_000)
    row = NodeRow("", "0x", b"{}", b"", "", 1, b"", 0.0, 0.0)
    ids = [f"nd-{n}" for n in range(some)]
    for at in range(0, some, 5_000):
        part = (replace(row, node_id=made) for made in ids[at : at + 5_000])
        await asyncio.gather(*map(store.save_node, part))
    dice = np.random.default_rng(7)
    rates = [
        await through_store(store, heartbeats(dice, some, min(beats, some), turn))
        for turn in range(1, rounds + 2)
    ]
    print(f"store, SQLite      {median(rates[1:]):>10,.0f} leases/s   ({some:,} nodes)")
    await store.close()


async def measure(nodes: int, beats: int, rounds: int) -> None:
    print(f"{nodes:,} nodes, {beats:,} leases a turn, {LEASES_A_COMMIT:,} a commit")
    with server() as url:
        await on_postgres(url, nodes, beats, rounds)
    with tempfile.TemporaryDirectory() as folder:
        await on_sqlite(Path(folder) / "market.db", nodes, beats, rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--beats", type=int, default=33_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    asyncio.run(measure(args.nodes, min(args.beats, args.nodes), args.rounds))


if __name__ == "__main__":
    main()
