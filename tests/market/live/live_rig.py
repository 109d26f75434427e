"""A table of nodes, a feed on it that flushes when told, and readers that keep a view of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from market_fixtures import FakeClock
from node_records import START, node_record

from computeswarm.buyer.watching import NodeView
from computeswarm.core.changes import CHANGE, Change, Topic
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import (
    RECORD_KIND,
    ComputeNode,
    GPUInfo,
    NodeRecord,
    NodeStatus,
)
from computeswarm.core.query import Query
from computeswarm.core.signing import Signed
from computeswarm.market.index import matching
from computeswarm.market.live import LiveFeed, Subscription, TableNodes
from computeswarm.market.rows import STATUSES, Lease, NodeRow
from computeswarm.market.table import NodeTable

KEY = PrivateKey(bytes(31) + b"\x07")
ALL = frozenset({Topic.NODES, Topic.PRICES})


@cache
def record(name: str, model: str, price: int) -> NodeRecord:
    gpus = (GPUInfo(vendor="nvidia", model=model, memory_bytes=24 * 2**30),) if model else ()
    return node_record(KEY.address, name, gpus=gpus, price_per_hour=price)


@cache
def signed(name: str, model: str, price: int) -> bytes:
    made = Signed.make(KEY, RECORD_KIND, 84532, record(name, model, price))
    return made.model_dump_json().encode()


@dataclass
class Fleet:
    """What a market does to its table, and what it tells the feed of it."""

    clock: FakeClock = field(default_factory=FakeClock)
    table: NodeTable = field(default_factory=NodeTable)
    options: dict[str, Any] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    counter: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.feed = LiveFeed(
            TableNodes(self.table, matching),
            clock=self.clock,
            stats=lambda: b'{"time":1}',
            **self.options,
        )

    def register(self, name: str, model: str = "RTX 4090", price: int = 300_000) -> str:
        node_id = record(name, model, price).node_id
        slot = self.table.slot(node_id)
        known = slot is not None and not self.table.gone(slot)
        old_price = self.table.hot.price[slot] if slot is not None and known else None
        row = NodeRow(
            node_id=node_id,
            wallet=KEY.address,
            record=signed(name, model, price),
            facts=b"",
            words="",
            seq=next(self.counter),
            session_key=bytes(32),
            session_until=START + 86_400,
            registered_at=START,
            lease=Lease(last_seen=START, lease_until=START + 90),
            number=self.table.hot.number[slot] if slot is not None else next(self.numbers),
        )
        self.feed.node_changed(self.table.put(row), "registered", old_price=old_price)
        return node_id

    def slot(self, node_id: str) -> int:
        slot = self.table.slot(node_id)
        assert slot is not None
        return slot

    def beat(self, node_id: str, status: NodeStatus = NodeStatus.IDLE, queued: int = 0) -> None:
        slot = self.slot(node_id)
        changed = self.table.beat(
            slot,
            counter=next(self.counter),
            now=self.clock.now(),
            lease_until=self.clock.now() + 90,
            status=STATUSES.index(status),
            queued=queued,
            running=int(status is NodeStatus.BUSY),
        )
        if changed:
            self.feed.node_changed(slot, "status")

    def expire(self, *node_ids: str) -> None:
        slots = np.array([self.slot(node_id) for node_id in node_ids])
        self.table.expire(slots)
        self.feed.nodes_changed(slots)

    def leave(self, node_id: str, *, forget: bool = False) -> None:
        slot = self.slot(node_id)
        self.table.put(replace(self.table.row(slot), gone=True))
        self.feed.node_changed(slot, "left")
        if forget:
            self.table.remove(slot)

    def search(self, query: Query | None) -> list[ComputeNode]:
        """As a search gives it now, through its JSON."""
        found = []
        for slot in range(self.table.size):
            if not self.table.gone(slot) and (
                query is None or query.accepts(self.table.facts(slot, START))
            ):
                found.append(ComputeNode.model_validate_json(self.table.json(slot, START)))
        return found


@dataclass
class Reader:
    """A client: a view that its stream keeps right, and the place where it would go on."""

    fleet: Fleet
    query: Query | None = None
    topics: frozenset[Topic] = ALL
    wallet: str = ""
    view: NodeView = field(default_factory=NodeView)
    changes: list[Change] = field(default_factory=list)
    cursor: str = ""
    stream: Subscription | None = None

    async def open(self, fleet: Fleet | None = None) -> None:
        """Connect, with the cursor if there is one; a first time and after a reset: search."""
        self.fleet = fleet or self.fleet
        self.stream = await self.fleet.feed.subscribe(
            self.topics, self.query, since=self.cursor, wallet=self.wallet, address="here"
        )
        if not self.cursor:
            self.load()

    def load(self) -> None:
        self.view.load(self.fleet.search(self.query))

    def close(self) -> None:
        assert self.stream is not None
        self.fleet.feed.unsubscribe(self.stream)
        self.stream = None

    async def read(self, frames: int = 10**6) -> list[Change]:
        """What waits; it is applied to the view."""
        assert self.stream is not None
        got: list[Change] = []
        while frames and (frame := await self.stream.next(0.0)) is not None:
            if frame.startswith(b": still here"):
                break
            frames -= 1
            for change, cursor in blocks(frame):
                self.cursor = cursor or self.cursor
                if change is not None:
                    got.append(change)
                    self.view.apply(change)
                    if change.type == "reset":
                        self.load()
        self.changes += got
        return got


def blocks(frame: bytes) -> list[tuple[Change | None, str]]:
    """Each block's change and cursor."""
    found: list[tuple[Change | None, str]] = []
    for block in frame.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        change = CHANGE.validate_json(lines["data"]) if "data" in lines else None
        if change is not None:
            assert lines["event"] == change.type
        found.append((change, lines.get("id", "")))
    return found


def kinds(changes: list[Change]) -> list[str]:
    return [change.type for change in changes]
