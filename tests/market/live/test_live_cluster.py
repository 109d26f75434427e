"""Readers of one instance go on at another, where the first was killed in mid-traffic."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from market_cluster import Cluster, cluster, until
from market_fixtures import MarketClient, Seller
from stream_hands import Stream, stream

from computeswarm.buyer.watching import NodeView
from computeswarm.core.changes import Reset
from computeswarm.core.nodes import ComputeNode

QUERIES = ("", "idle", "gpu:4090 price<0.36", "queue<2 busy")
ALL = "status:idle|busy|draining|offline"


class Watch:
    """A reader with a view; it reads in the background while it is connected."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.view = NodeView()
        self.cursor = ""
        self.resets = 0
        self._stack = AsyncExitStack()
        self._reading: asyncio.Task[None] | None = None

    async def open(self, client: MarketClient) -> None:
        params: dict[str, Any] = {"topics": "nodes", **({"q": self.query} if self.query else {})}
        made = await self._stack.enter_async_context(stream(client, self.cursor, **params))
        if not self.cursor:
            self.view.load(await self.search(client))
        self._reading = asyncio.create_task(self._read(made))

    async def _read(self, made: Stream) -> None:
        taken = 0
        while True:
            for change in made.changes[taken:]:
                self.view.apply(change)
                self.resets += isinstance(change, Reset)
            taken, self.cursor = len(made.changes), made.cursor
            try:
                if not await made.more():
                    return
            except OSError:
                return  # killed

    async def close(self) -> None:
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._stack.aclose()

    async def search(self, client: MarketClient) -> list[ComputeNode]:
        params = {"q": self.query or ALL, "limit": "100"}
        reply = await client.get("/api/v1/nodes", params=params)
        assert reply.status == 200, reply.body
        return [ComputeNode.model_validate(node) for node in reply.json["nodes"]]

    async def right(self, client: MarketClient) -> bool:
        """Whether the view is what a search gives now."""
        return _shown(await self.search(client)) == _shown(self.view.nodes.values())


def _shown(nodes: Iterable[ComputeNode]) -> dict[str, tuple[object, ...]]:
    return {n.node_id: (n.status, n.queued, n.running, n.record.signature) for n in nodes}


async def shake(sellers: list[Seller], client: MarketClient, rng: random.Random) -> None:
    """A moment's traffic."""
    for _ in range(40):
        seller = rng.choice(sellers)
        seller.client = client
        match rng.randrange(6):
            case 0:
                price = rng.choice((300_000, 400_000))
                assert (await seller.register(price_per_hour=price)).status == 201
            case 1 if seller.session_key:
                assert (await seller.leave()).status == 204
                seller.session_key = b""
            case _ if seller.session_key:
                assert (await seller.beat(rng.choice(("idle", "busy")))).status == 200


async def test_readers_go_on_elsewhere_when_their_instance_is_killed(
    postgres_url: str, tmp_path: Path
) -> None:
    async with cluster(postgres_url, tmp_path, count=2) as made:
        await _play(made, random.Random(7))


async def _play(made: Cluster, rng: random.Random) -> None:
    first, second = made.clients
    now = int(time.time())
    sellers = [Seller(second, name=f"rig-{number}", issued_at=now) for number in range(8)]
    for seller in sellers:
        assert (await seller.register()).status == 201
    watches = [Watch(query) for query in QUERIES for _ in range(2)]
    early, late = watches[::2], watches[1::2]
    for watch in watches:
        await watch.open(first)
    await shake(sellers, second, rng)
    await made.instances[0].end()  # kill -9, with traffic on its way to the readers
    await shake(sellers, second, rng)
    for watch in watches:
        await watch.close()
    for watch in early:
        await watch.open(second)
    await shake(sellers, second, rng)
    for watch in early:
        await until(lambda watch=watch: watch.right(second))
        await watch.close()
    await shake(sellers, second, rng)
    # a new instance has no memory of what its readers had: it goes by the log
    await made.instances[0].start()
    for watch in watches:
        await watch.open(first)
    await shake(sellers, first, rng)
    for watch in [*early, *late]:
        await until(lambda watch=watch: watch.right(first))
        await watch.close()
        assert not watch.resets
