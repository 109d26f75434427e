"""The live feed under 10,000 changes a second and 100 readers, against a bare fan-out by queues.

    python -m benchmarks.live [--nodes 20000] [--readers 100] [--seconds 5]

The bare one encodes each change once and puts it into an ``asyncio.Queue`` a reader: what one would
write in ten lines. Both run in this process, one after the other, with the same nodes and changes.
CPU is counted for each change that somebody made, all its readers together; the wait is how late a
timer of 5 ms comes meanwhile, which is how long any heartbeat would have waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Sequence

from benchmarks.fleet.model import Fleet
from benchmarks.fleet.rows import RowMaker
from computeswarm.core.changes import Topic
from computeswarm.core.clock import SystemClock
from computeswarm.core.query import Query, parse
from computeswarm.market.index import matching
from computeswarm.market.live import LiveFeed, TableNodes
from computeswarm.market.live.readers import Readers
from computeswarm.market.table import NodeTable

CHANGES_PER_SECOND = 10_000
_TICK = 0.01
_TIMER = 0.005
_TOPICS = frozenset({Topic.NODES})
_MODELS = ("4090", "3090", "a100", "h100", "l40s")


class Lateness:
    """How late a timer comes, while something else has the loop."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + _TIMER
            await asyncio.sleep(_TIMER)
            self.late.append(time.perf_counter() - due)

    def at(self, share: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.late)
        return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def busier(table: NodeTable, slot: int, number: int) -> None:
    """One visible change."""
    now = time.time()
    table.beat(
        slot,
        counter=number,
        now=now,
        lease_until=now + 90,
        status=number % 2,
        queued=number % 7,
        running=number % 2,
    )


async def ours(table: NodeTable, queries: Sequence[Query | None], seconds: float) -> str:
    feed = LiveFeed(
        TableNodes(table, matching),
        clock=SystemClock(),
        stats=lambda: b"{}",
        readers=Readers(per_address=10**6),
    )
    feed.start()
    got = [0] * len(queries)

    async def read(place: int) -> None:
        stream = await feed.subscribe(_TOPICS, queries[place])
        while (frame := await stream.next(15.0)) is not None:
            got[place] += len(frame)

    readers = [asyncio.create_task(read(place)) for place in range(len(queries))]
    await asyncio.sleep(0.5)
    lateness = Lateness()
    watch = asyncio.create_task(lateness.run())
    begun, cpu, made = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        while made < passed * CHANGES_PER_SECOND:
            slot = made * 7919 % table.size
            busier(table, slot, made)
            feed.node_changed(slot, "status")
            made += 1
        await asyncio.sleep(_TICK)
    await feed.flush()
    await asyncio.sleep(0.1)
    cpu = time.process_time() - cpu
    watch.cancel()
    await feed.close()
    await asyncio.gather(*readers)
    each = 1e6 * cpu / made
    print(
        f"{len(set(queries)):>4} kinds of readers: {made / seconds:8,.0f} changes/s, "
        f"{sum(got) / 1e6:8,.1f} MB, {each:7.1f} µs CPU a change, resets {feed.resets}, "
        f"timer late p99 {lateness.at(0.99):.1f} ms, worst {lateness.at(1):.1f} ms"
    )
    return f"{each:.1f}"


async def bare(table: NodeTable, readers: int, changes: int) -> str:
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue() for _ in range(readers)]
    nodes = TableNodes(table, matching)

    async def read(queue: asyncio.Queue[bytes | None]) -> int:
        got = 0
        while (frame := await queue.get()) is not None:
            got += len(frame)
        return got

    tasks = [asyncio.create_task(read(queue)) for queue in queues]
    await asyncio.sleep(0)
    cpu = time.process_time()
    for number in range(changes):
        slot = number * 7919 % table.size
        busier(table, slot, number)
        frame = b"event: changed\ndata: " + nodes.pulse(slot, time.time()) + b"\n\n"
        for queue in queues:
            queue.put_nowait(frame)
        if number % 100 == 99:
            await asyncio.sleep(0)
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*tasks)
    each = 1e6 * (time.process_time() - cpu) / changes
    print(f"bare queues, {readers} readers:{'':24}{each:25.1f} µs CPU a change")
    return f"{each:.1f}"


async def measure(nodes: int, readers: int, seconds: float) -> None:
    table = NodeTable()
    for batch in RowMaker(Fleet(nodes), time.time()).batches():
        table.put_many(batch)
    table.refresh(time.time())
    queries: list[Query | None] = [
        parse(f"gpu:{_MODELS[n % 5]} price<{1 + n % 10} queue<{1 + n // 10}")
        for n in range(readers)
    ]
    changes = int(CHANGES_PER_SECOND * seconds / 5)
    plain = float(await bare(table, readers, changes))
    for kinds in ([None] * readers, queries):
        mine = float(await ours(table, kinds, seconds))
        print(f"{'':>26}{mine / plain:.2f}× of bare queues")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The live feed, as ratios.")
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(measure(given.nodes, given.readers, given.seconds))
