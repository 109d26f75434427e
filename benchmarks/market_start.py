"""A market's start with stored nodes, against only reading the tables they lie in.

    python -m benchmarks.market_start [--nodes 100000] [--rounds 3]

Both read the same database turn by turn, in one process: the bare reader joins the two tables and
fetches every row as a tuple. "Ready" is when ``Market.start`` returns: nodes, index and facets are
in memory. Goal: at most twice the reading.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import asyncpg

from benchmarks.fleet.model import Fleet
from benchmarks.fleet.rows import RowMaker
from benchmarks.postgres import server
from computeswarm.market import open_market
from computeswarm.market.stores import open_store

_READ = "SELECT * FROM nodes JOIN leases USING (number)"
_BATCH = 10_000


async def fill(where: Path | str, nodes: int) -> None:
    store = open_store(where)
    await store.open()
    for rows in RowMaker(Fleet(nodes), time.time()).batches(_BATCH):
        await asyncio.gather(*map(store.save_node, rows))
    await store.close()


async def read_sqlite(where: Path | str) -> int:
    count = 0
    with closing(sqlite3.connect(where)) as db:
        cursor = db.execute(_READ)
        while rows := cursor.fetchmany(_BATCH):
            count += len(rows)
    return count


async def read_postgres(where: Path | str) -> int:
    count = 0
    connection = await asyncpg.connect(str(where))
    async with connection.transaction():
        cursor = await connection.cursor(_READ)
        while rows := await cursor.fetch(_BATCH):
            count += len(rows)
    await connection.close()
    return count


async def start(where: Path | str) -> float:
    market = open_market(where)
    began = time.perf_counter()
    await market.start()
    took = time.perf_counter() - began
    await market.close()
    return took


async def compare(
    name: str,
    where: Path | str,
    read: Callable[[Path | str], Awaitable[int]],
    *,
    nodes: int,
    rounds: int,
) -> None:
    await fill(where, nodes)
    reads, starts = [], []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        assert await read(where) == nodes
        reads.append(time.perf_counter() - began)
        gc.collect()
        starts.append(await start(where))
    ratio = median(s / r for s, r in zip(starts, reads, strict=True))
    print(
        f"{name:10}  read {median(reads):6.2f} s   ready {median(starts):6.2f} s   "
        f"{ratio:.2f} × reading",
        flush=True,
    )


async def measure(nodes: int, rounds: int) -> None:
    print(f"{nodes:,} nodes")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.db"
        await compare("SQLite", path, read_sqlite, nodes=nodes, rounds=rounds)
    with server() as url:
        await compare("PostgreSQL", url, read_postgres, nodes=nodes, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    asyncio.run(measure(args.nodes, args.rounds))


if __name__ == "__main__":
    main()
