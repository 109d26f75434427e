"""A fleet straight in a market's memory, and in its database where one is named: for a million."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from time import perf_counter

from benchmarks.fleet.buyers import QUERIES
from benchmarks.fleet.leases import LeaseTraffic
from benchmarks.fleet.model import Fleet
from benchmarks.fleet.report import Report
from benchmarks.fleet.rows import RowMaker
from computeswarm.core.query import parse
from computeswarm.market.index import Search
from computeswarm.market.leases import Leases
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store
from computeswarm.market.table import NodeTable

TICK_SECONDS = 0.05
_BATCH = 2_000


async def run_direct(
    fleet: Fleet, *, seconds: float, speed: float = 60.0, buyers: int = 4, database: str = ""
) -> Report:
    """Load a fleet and let its heartbeats, its sessions and its buyers have their way."""
    report, table = Report(), NodeTable()
    async with AsyncExitStack() as stack:
        store = None
        if database:
            store = open_store(database)
            await store.open()
            stack.push_async_callback(store.close)
        await _load(fleet, table, store, report)
        search, leases = Search(table), Leases(table)
        search.start(time.time)
        stack.push_async_callback(search.close)
        await search.warm()
        leases.look(time.time())
        traffic = traffic_of(table, interval=leases.interval_seconds, speed=speed, seed=fleet.seed)
        report.started = perf_counter()
        searching = [
            asyncio.create_task(_search(fleet, search, number, report)) for number in range(buyers)
        ]
        ends = perf_counter() + seconds
        while perf_counter() < ends:
            await _tick(table, traffic, leases, store, report)
        for task in searching:
            task.cancel()
        await asyncio.gather(*searching, return_exceptions=True)
    report.events |= {
        "heartbeats": traffic.beats,
        "crashes": traffic.crashes,
        "expired": leases.expired,
        "online at the end": leases.online,
        "bytes a node": table.memory_bytes // max(1, table.live()),
    }
    return report


def traffic_of(
    table: NodeTable, *, interval: float, speed: float = 1.0, seed: int = 1
) -> LeaseTraffic:
    """Heartbeats of all nodes of a table."""
    columns, size = table.columns, table.size
    return LeaseTraffic(
        columns.number[:size].copy(),
        columns.seq[:size].copy(),
        now=time.time(),
        interval=interval,
        session_seconds=6 * 3_600 / speed,
        seed=seed,
    )


async def _load(fleet: Fleet, table: NodeTable, store: Store | None, report: Report) -> None:
    for rows in RowMaker(fleet, time.time()).batches(_BATCH):
        kept = rows if store is None else await asyncio.gather(*map(store.save_node, rows))
        started = perf_counter()
        table.put_many(kept)
        report.took("load 2k", perf_counter() - started)
        await asyncio.sleep(0)


async def _tick(
    table: NodeTable, traffic: LeaseTraffic, leases: Leases, store: Store | None, report: Report
) -> None:
    started = perf_counter()
    batch = traffic.due(time.time())
    taken = perf_counter()
    slots = table.apply(batch)
    report.took("apply", perf_counter() - taken)
    if store is not None:
        store.touch(table.lease_rows(slots))
    now = time.time()
    if leases.due(now):
        looked = perf_counter()
        leases.look(now)
        report.took("look", perf_counter() - looked)
    await asyncio.sleep(max(0.0, TICK_SECONDS - (perf_counter() - started)))


async def _search(fleet: Fleet, search: Search, number: int, report: Report) -> None:
    dice = fleet.random("buyer", number)
    while True:
        await asyncio.sleep(dice.expovariate(50))
        text, sort = dice.choice(QUERIES)
        started = perf_counter()
        query = parse(text, sort=sort)
        page = await search.page(None, query, now=time.time(), cursor="", limit=50)
        report.took("search", perf_counter() - started)
        assert page.body
