"""Discovery at 10,000, 100,000 and 1,000,000 nodes: the query alone, against PostgreSQL.

    python -m benchmarks.discovery [--nodes 10000 100000 1000000] [--asks 400] [--alone]

The same made-up fleet lies in the market's table and in one PostgreSQL table, whose indexes cover
every column that is asked for or sorted by, one for each order with and without a model in front,
and trigrams for words. Both answer the same distinct queries, one at a time:

    35 %  a model below a price                     5 %  a rare conjunction of eight conditions
    20 %  a model with wishes, by expected cost     5 %  a node by its name
    15 %  an idle model behind walls                2 %  two words of model and processor
    10 %  any card of some size, by expected cost
     8 %  several cards in a region

Ours reads the text of the query and makes the page's bytes with 50 signed records. PostgreSQL runs
a prepared statement for 50 rows of numbers. Each query is asked in three variants, which differ in
prices, shares and names, and the quickest counts: both sides lose what others do on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet.model import CARDS, Fleet
from benchmarks.fleet.rows import RowMaker
from computeswarm.core.query import parse, squeeze
from computeswarm.market.index import Search
from computeswarm.market.rows import NodeRow
from computeswarm.market.table import NodeTable

NOW = 1_800_000_000.0
PAGE = 50
VARIANTS = 3
_COLUMNS = (
    *("id", "price", "cost", "vram", "gpus", "rel", "isolation", "status", "cores", "network"),
    *("model", "region", "words"),
)
_COVERED = "id, price, cost, vram, gpus, rel, isolation, status, cores, network, region"
_TABLE = """
CREATE TABLE nodes (
    id bigint, price bigint, cost bigint, vram int, gpus int, rel int, isolation int, status int,
    cores int, network int, model text, region text, words text
)
"""
_WORDS = ("a100", "h100", "a6000", "t4", "mi300x", "7900", "4070", "3060", "5090", "3090", "4090")


@dataclass(frozen=True)
class Ask:
    """One query in both languages; ``args`` of the statement after its parameters' places."""

    kind: str
    text: str
    where: str
    args: tuple[Any, ...]
    sort: str = "price"

    @property
    def sql(self) -> str:
        return (
            f"SELECT {_COVERED} FROM nodes WHERE status < 3 AND {self.where} "
            f"ORDER BY {self.sort}, id LIMIT {PAGE}"
        )


def asks(count: int, nodes: int, seed: int, variant: int = 0) -> Iterator[Ask]:
    """The mix; prices, shares and names make each of them another one, in each variant."""
    rng, other = random.Random(seed), random.Random(f"{seed}/{variant}")
    regions = ("eu-west", "eu-north", "us-east", "us-west", "ap-south")
    for _ in range(count):
        card = rng.choices(CARDS, [card.share for card in CARDS])[0]
        model, found = (
            squeeze(card.model),
            next(w for w in (*_WORDS, "m2") if w in squeeze(card.model)),
        )
        top = round(card.price * (rng.uniform(0.6, 2) + other.uniform(0, 0.02)) / 10**6, 4)
        atoms, region, dice = round(top * 10**6), rng.choice(regions), rng.random()
        if dice < 0.35:
            yield Ask(
                "model", f"gpu:{found} price<={top}", "model = $1 AND price <= $2", (model, atoms)
            )
        elif dice < 0.55:
            gpus, rel = rng.choice((1, 2)), rng.randrange(600, 980) + other.randrange(10)
            yield Ask(
                "wishes",
                f"gpu:{found} gpus>={gpus} region:{region} rel>={rel / 1000} sort:cost",
                "model = $1 AND gpus >= $2 AND region = $3 AND rel >= $4",
                (model, gpus, region, rel * 1000),
                "cost",
            )
        elif dice < 0.7:
            yield Ask(
                "walls",
                f"gpu:{found} isolation>=container idle price<={top}",
                "model = $1 AND isolation >= 3 AND status = 0 AND price <= $2",
                (model, atoms),
            )
        elif dice < 0.8:
            vram = rng.choice((16, 24, 48, 80))
            yield Ask(
                "any card",
                f"vram>={vram} price<={top} idle sort:cost",
                "vram >= $1 AND price <= $2 AND status = 0",
                (vram, atoms),
                "cost",
            )
        elif dice < 0.88:
            yield Ask(
                "several",
                f"region:{region} gpus>=4 price<={top} network",
                "region = $1 AND gpus >= 4 AND price <= $2 AND network = 1",
                (region, atoms),
            )
        elif dice < 0.93:
            rel = rng.randrange(960, 989) + other.randrange(10)
            yield Ask(
                "rare",
                f"gpu:{found} gpus:8 region:{region} isolation>=gvisor rel>={rel / 1000} idle "
                f"network price<={top}",
                "model = $1 AND gpus = 8 AND region = $2 AND isolation >= 4 AND rel >= $3 "
                "AND status = 0 AND network = 1 AND price <= $4",
                (model, region, rel * 1000, atoms),
            )
        elif dice < 0.98:
            name = f"rig{other.randrange(nodes)}"
            yield Ask("name", name, "words LIKE $1", (f"%{name}%",))
        else:
            yield Ask(
                "words",
                f"{found} epyc price<={top}",
                "words LIKE $1 AND words LIKE $2 AND price <= $3",
                (f"%{found}%", "%epyc%", atoms),
            )


class Times:
    """Seconds of each query, by its kind."""

    def __init__(self) -> None:
        self._kinds: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, seconds: float) -> None:
        self._kinds[kind].append(seconds)

    def at(self, share: float, kind: str = "") -> float:
        """Milliseconds below which a share of the queries took."""
        chosen = [self._kinds[kind]] if kind else self._kinds.values()
        times = sorted(time for times in chosen for time in times)
        return times[min(len(times) - 1, int(len(times) * share))] * 1000

    def __str__(self) -> str:
        kinds = (
            f"{kind} {self.at(0.5, kind):.2f}/{self.at(0.99, kind):.2f}" for kind in self._kinds
        )
        return f"p50 {self.at(0.5):.2f} ms   p99 {self.at(0.99):.2f} ms   ({', '.join(kinds)})"


async def ours(table: NodeTable, given: list[tuple[Ask, ...]]) -> Times:
    search, times = Search(table), Times()
    await search.warm()
    for number, variants in enumerate(given):
        if number == len(given) // 4:  # by now all orders are there
            await asyncio.sleep(3)
            times = Times()
        best = math.inf
        for ask in variants:
            start = time.perf_counter()
            await search.page(None, parse(ask.text), now=NOW, cursor="", limit=PAGE)
            best = min(best, time.perf_counter() - start)
        times.add(variants[0].kind, best)
    print(
        f"    in memory: {table.memory_bytes / table.live():.0f} B a node, of which its record "
        f"{sum(map(len, map(table.record, range(1000)))) / 1000:.0f}; orders in use "
        f"{search.memory_bytes / table.live():.0f}"
    )
    await search.close()
    return times


async def theirs(connection: Any, given: list[tuple[Ask, ...]]) -> Times:
    times = Times()
    for number, variants in enumerate(given):
        if number == len(given) // 4:
            times = Times()
        best = math.inf
        for ask in variants:
            prepared = await connection.prepare(ask.sql)
            start = time.perf_counter()
            await prepared.fetch(*ask.args)
            best = min(best, time.perf_counter() - start)
        times.add(variants[0].kind, best)
    return times


@asynccontextmanager
async def postgres() -> AsyncIterator[Any]:
    """A connection to a server of its own, in a temporary folder."""
    import asyncpg

    file = Path(__file__).parent.parent / "tests" / "postgres_server.py"
    spec = importlib.util.spec_from_file_location("postgres_server", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = module.Postgres(Path(folder))
        server.make()
        server.start()
        try:
            connection = await asyncpg.connect(server.url())
            yield connection
            await connection.close()
        finally:
            server.end()


async def fill(connection: Any, table: NodeTable) -> None:
    """The table's columns in PostgreSQL, with every index that could help."""
    columns, size = table.columns, table.size
    labels = {"model": table.gpus, "region": table.regions}
    lists = [getattr(columns, name)[:size].tolist() for name in _COLUMNS[:10]]
    models = [squeeze(labels["model"].label(entry)) for entry in columns.gpu[:size].tolist()]
    regions = [labels["region"].label(entry) for entry in columns.region[:size].tolist()]
    words = [
        f"{models[slot]} {table.names.text(entry).decode()} epyc"
        for slot, entry in enumerate(columns.name[:size].tolist())
    ]
    await connection.execute("DROP TABLE IF EXISTS nodes")
    await connection.execute(_TABLE)
    records = zip(*lists, models, regions, words, strict=True)
    await connection.copy_records_to_table("nodes", records=records, columns=list(_COLUMNS))
    await connection.execute("SET maintenance_work_mem = '1GB'")
    for keys in ("model, price, id", "model, cost, id", "price, id", "cost, id"):
        rest = ", ".join(c for c in _COLUMNS[:-1] if c not in keys.split(", "))
        await connection.execute(f"CREATE INDEX ON nodes ({keys}) INCLUDE ({rest})")
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    await connection.execute("CREATE INDEX ON nodes USING gin (words gin_trgm_ops)")
    await connection.execute("VACUUM ANALYZE nodes")


def load(nodes: int) -> tuple[NodeTable, float]:
    """A table of so many nodes, and the seconds it took to take them in."""
    table, took = NodeTable(), 0.0
    batches: Iterator[list[NodeRow]] = RowMaker(Fleet(nodes), NOW).batches()
    for rows in batches:
        start = time.perf_counter()
        table.put_many(rows)
        took += time.perf_counter() - start
    table.refresh(NOW)
    return table, took


async def measure(sizes: list[int], count: int, *, alone: bool) -> None:
    worst: dict[int, float] = {}
    for nodes in sizes:
        table, took = load(nodes)
        print(f"{nodes:>9,} nodes, taken in at {took / nodes * 1e6:.1f} µs each")
        variants = (asks(count, nodes, nodes, variant) for variant in range(VARIANTS))
        given = list(zip(*variants, strict=True))
        mine = await ours(table, given)
        worst[nodes] = mine.at(0.99)
        print(f"    market      {mine}")
        if alone:
            continue
        try:
            async with postgres() as connection:
                await fill(connection, table)
                other = await theirs(connection, given)
        except pytest.skip.Exception as missing:
            print(f"    PostgreSQL  left out: {missing}")
            continue
        print(f"    PostgreSQL  {other}")
        for share in (0.5, 0.99):
            ratio = other.at(share) / mine.at(share)
            print(f"    p{share * 100:.0f} is 1/{ratio:.1f} of PostgreSQL's")
    if len(worst) > 1:
        few, many = min(worst), max(worst)
        ratio = worst[many] / worst[few]
        print(f"p99 at {many:,} is {ratio:.1f}× that at {few:,} (goal: at most 8×)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Discovery, as ratios.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--asks", type=int, default=300)
    parser.add_argument("--alone", action="store_true", help="without PostgreSQL")
    options = parser.parse_args()
    asyncio.run(measure(options.nodes, options.asks, alone=options.alone))
