"""A market in a process of its own, loaded from a file with very many nodes, and their heartbeats.

    python -m benchmarks.fleet.hosting --nodes 1000000 --on-sockets 20000 --folder DIR

It prints a line of JSON once it is ready, and one for each line on its standard input: ``figures``,
``silence SHARE`` (so many fall silent for good), ``expiry`` (how those went offline), ``static
BYTES`` (a bare handler beside the market, on the same loop).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web

from benchmarks.fleet.leases import LEASE_BEATS, LeaseTraffic
from benchmarks.fleet.model import Fleet
from benchmarks.fleet.rows import RowMaker
from computeswarm.market import open_market
from computeswarm.market.leases import OFFLINE
from computeswarm.market.market import Market
from computeswarm.market.stores.sqlite_file import open_file
from computeswarm.market.stores.sqlite_nodes import save
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server, run

TICK_SECONDS = 0.02
WRITE_SECONDS = 0.1
_LOOK_SECONDS = 0.1


def fill(path: Path, fleet: Fleet) -> None:
    """A market's file with a whole fleet in it, by the store's own statements."""
    db = open_file(path)
    db.execute("BEGIN")
    for rows in RowMaker(fleet, time.time()).batches():
        for row in rows:
            save(db, row)
    db.execute("COMMIT")
    db.close()


class Beside:
    """Heartbeats straight into the table, as another instance's come, and written behind."""

    def __init__(self, market: Market, fleet: Fleet, *, first: int) -> None:
        table = market.table
        slots = table.slots_of(np.arange(first + 1, fleet.nodes + 1))
        self._market = market
        self._traffic = LeaseTraffic(
            table.columns.number[slots].copy(),
            table.columns.seq[slots].copy(),
            now=time.time(),
            interval=market.leases.interval_seconds,
            seed=fleet.seed,
        )
        self._silent: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._offline_at: npt.NDArray[np.float64] = np.zeros(0)

    @property
    def beats(self) -> int:
        """How many were taken so far."""
        return self._traffic.beats

    async def go_on(self) -> None:
        """Until cancelled."""
        table, store = self._market.table, self._market.store
        touched: list[npt.NDArray[np.int64]] = []
        written = perf_counter()
        while True:
            started = perf_counter()
            touched.append(table.apply(self._traffic.due(time.time())))
            if started - written >= WRITE_SECONDS:
                store.touch(table.lease_rows(np.unique(np.concatenate(touched))))
                touched, written = [], started
            await asyncio.sleep(max(0.001, TICK_SECONDS - (perf_counter() - started)))

    async def watch(self) -> None:
        """Note when those that fell silent go offline, until cancelled."""
        table = self._market.table
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now, slots = time.time(), self._silent
            gone = (table.columns.status[slots] == OFFLINE) & (self._offline_at == 0)
            self._offline_at[gone] = now

    def silence(self, share: float) -> int:
        """Let a share of the nodes fall silent for good; how many."""
        numbers = self._traffic.silence(share)
        self._silent = self._market.table.slots_of(numbers)
        self._offline_at = np.zeros(len(numbers))
        return len(numbers)

    def expiry(self) -> dict[str, Any]:
        """When those went offline, as shares of the lease that each was told."""
        columns = self._market.table.columns
        seen, until = columns.last_seen[self._silent], columns.lease_until[self._silent]
        gone = self._offline_at > 0
        ratios = (self._offline_at[gone] - seen[gone]) / (until[gone] - seen[gone])
        return {
            "silent": len(self._silent),
            "offline": int(np.count_nonzero(gone)),
            "least": float(ratios.min(initial=9.0)),
            "most": float(ratios.max(initial=0.0)),
            "seconds": float((until - seen).max(initial=0.0)) * (1 + 1 / LEASE_BEATS),
        }


def figures(market: Market, beside: Beside) -> dict[str, Any]:
    """How things stand."""
    return {
        "cpu": process_time(),
        "time": time.time(),
        "table_beats": beside.beats,
        "socket_beats": market.heartbeats,
        "refused": market.refused_calls,
        "online": market.leases.online,
        "interval": market.leases.interval_seconds,
        "braked": market.leases.braked,
        "backlog": market.store.backlog,
        "flush_p99": market.store.flush_seconds.quantile(0.99),
        "scan_p99": market.search.scan_seconds.quantile(0.99),
        "bytes_a_node": market.table.memory_bytes / max(1, market.table.live()),
        "index_bytes": market.search.memory_bytes,
    }


def static_app(size: int) -> web.Application:
    """What answers ``GET /api/v1/nodes`` with so many ready bytes."""
    page = b"x" * size

    async def nodes(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="application/json")

    app = web.Application()
    app.router.add_get("/api/v1/nodes", nodes)
    return app


async def host(fleet: Fleet, folder: Path, *, on_sockets: int, heartbeat_seconds: int) -> None:
    path, began = folder / "market.db", perf_counter()
    if not path.exists():
        fill(path, fleet)
    filled = perf_counter()
    # one address asks for everything here: its limits would be measured, not the market
    market = open_market(path, limits={}, heartbeat_seconds=heartbeat_seconds)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(build_market_app(market)))
        url = await server.start("127.0.0.1", 0)
        loaded = perf_counter()
        beside = Beside(market, fleet, first=on_sockets)
        tasks = [asyncio.create_task(beside.go_on()), asyncio.create_task(beside.watch())]
        _say({"url": url, "fill_seconds": filled - began, "load_seconds": loaded - filled})
        while words := (await asyncio.to_thread(sys.stdin.readline)).split():
            for task in tasks:
                if task.done():
                    task.result()  # a fault of ours
            if words[0] == "figures":
                _say(figures(market, beside))
            elif words[0] == "static":
                bare = await stack.enter_async_context(Server(static_app(int(words[1]))))
                _say({"url": await bare.start("127.0.0.1", 0)})
            elif words[0] == "silence":
                _say({"silent": beside.silence(float(words[1]))})
            else:
                _say(beside.expiry())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--on-sockets", type=int, default=0)
    parser.add_argument("--heartbeat-seconds", type=int, default=30)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    run(
        host(
            Fleet(options.nodes),
            options.folder,
            on_sockets=options.on_sockets,
            heartbeat_seconds=options.heartbeat_seconds,
        )
    )
