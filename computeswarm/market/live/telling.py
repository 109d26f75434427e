"""A batch as its readers are told of it, put together in steps that leave the loop to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from itertools import chain

import numpy as np

from computeswarm.core.changes import JobChanged, PriceChanged, Topic
from computeswarm.market.live.nodes import Nodes
from computeswarm.market.live.ring import Batch
from computeswarm.market.live.subscription import event
from computeswarm.market.live.views import Documents, View, gone

STEP_SECONDS = 0.005
"""After so long others have their turn."""
PIECE_BYTES = 64 * 1024
"""What is put together at once."""


class Teller:
    """Tells one batch to any number of groups; what they share is encoded once.

    Args:
        now: unix seconds, for what documents say.
    """

    def __init__(self, nodes: Nodes, batch: Batch, now: float) -> None:
        self._nodes, self._batch = nodes, batch
        self._made = Documents(nodes, now)
        slots = [slot for slot in batch.full | batch.hot if not nodes.gone(slot)]
        self._slots = np.array(slots, np.int64)
        self._full = np.fromiter((slot in batch.full for slot in slots), np.bool_, len(slots))
        self._until = time.perf_counter() + STEP_SECONDS

    async def told(self, topics: frozenset[Topic], view: View | None) -> bytes:
        """Its nodes and prices, as far as they are among the topics."""
        return b"".join([piece async for piece in self._pieces(topics, view)])

    async def told_once(self, topics: frozenset[Topic], view: View | None) -> AsyncIterator[bytes]:
        """The same to one reader, made as he takes it and kept for nobody else: what he has missed
        may be much, and he may be in no hurry."""
        async for piece in self._pieces(topics, view):
            self._made.forget()
            yield piece

    async def _pieces(self, topics: frozenset[Topic], view: View | None) -> AsyncIterator[bytes]:
        events: list[bytes] = []
        size = 0
        for told in self._events(topics, view):
            events.append(told)
            size += len(told)
            if time.perf_counter() > self._until:
                await self._pause()
            if size > PIECE_BYTES:
                yield b"".join(events)
                events, size = [], 0
        if time.perf_counter() > self._until:
            await self._pause()
        yield b"".join(events)

    def _events(self, topics: frozenset[Topic], view: View | None) -> Iterable[bytes]:
        if Topic.NODES in topics:
            yield from (gone("left", node_id) for node_id in self._batch.left)
            yield from self._nodes_told(view)
        if Topic.PRICES in topics:
            yield from map(_event, self._batch.prices.values())

    def jobs_of(self, wallet: str) -> bytes:
        """The jobs that a wallet (in lower case) bought or sold."""
        return b"".join(self._by_wallet.get(wallet, ()))

    @cached_property
    def _by_wallet(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for job in self._batch.jobs.values():
            told = _event(JobChanged(job=job))
            for wallet in {job.buyer.lower(), job.seller.lower()}:
                found.setdefault(wallet, []).append(told)
        return found

    def _nodes_told(self, view: View | None) -> Iterable[bytes]:
        if view is not None:
            return view.events(self._slots, self._full, self._nodes, self._made)
        whole, pulse = self._slots[self._full], self._slots[~self._full]
        made = self._made
        return chain(map(made.listed, whole.tolist()), map(made.pulse, pulse.tolist()))

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        self._until = time.perf_counter() + STEP_SECONDS


def _event(change: PriceChanged | JobChanged) -> bytes:
    return event(change.type, change.model_dump_json().encode())
