"""A table that follows a shared store, of which some things come late, twice, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from market_fixtures import START, FakeClock, Seller

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Unavailable
from computeswarm.core.jobs import MarketJob
from computeswarm.market import replica as room
from computeswarm.market.columns import Array
from computeswarm.market.replica import ASKED_PER_SECOND, BLIND_SECONDS, Replica
from computeswarm.market.rows import Lease, NodeColumns, NodeRow, lease_array
from computeswarm.market.stores.protocol import Change, Kind, Position
from computeswarm.market.table import NodeTable

SELLER = Seller(None, key=PrivateKey(bytes(31) + b"\x08"))  # type: ignore[arg-type]


def row(
    seq: int, *, name: str = "rig", number: int = 1, price: int = 360_000, **more: Any
) -> NodeRow:
    record = SELLER.signed(name=name, price_per_hour=price, seq=seq)
    values: dict[str, Any] = {
        "node_id": SELLER.record(name=name, seq=0).node_id,
        "wallet": SELLER.key.address,
        "record": record.model_dump_json().encode(),
        "facts": b"",
        "words": "",
        "seq": seq,
        "session_key": bytes([seq]) * 32,
        "session_until": START + 86_400,
        "registered_at": START,
        "lease": Lease(last_seen=START, lease_until=START + 90),
        "number": number,
    }
    return NodeRow(**(values | more))


@dataclass
class Told:
    """Who is told."""

    nodes: list[tuple[str, int | None]] = field(default_factory=list)
    leases: list[int] = field(default_factory=list)
    jobs: list[MarketJob] = field(default_factory=list)
    positions: list[str] = field(default_factory=list)
    anew: int = 0

    def node_changed(self, slot: int, what: str, *, old_price: int | None = None) -> None:
        self.nodes.append((what, old_price))

    def nodes_changed(self, slots: Array) -> None:
        self.leases += slots.tolist()

    def reached(self, position: Position) -> None:
        self.positions.append(position)

    def start_over(self) -> None:
        self.anew += 1

    def changed_elsewhere(self, job: MarketJob) -> None:
        self.jobs.append(job)


@dataclass
class Shared:
    """A shared store of which a test holds the strings."""

    shared: bool = True
    instance: str = "us"
    rows: list[NodeRow] = field(default_factory=list)
    log: list[Change] = field(default_factory=list)
    pruned: int = 0
    asked: list[str] = field(default_factory=list)
    away: bool = False
    broken: bool = False

    async def position(self) -> Position:
        self._check()
        return Position(str(len(self.log)))

    async def load_nodes(self, batch: int = 10_000) -> AsyncIterator[NodeColumns]:
        self._check()
        if self.rows:
            yield NodeColumns.of(self.rows)

    async def node(self, node_id: str) -> NodeRow | None:
        self.asked.append(node_id)
        await asyncio.sleep(0)
        self._check()
        return next((row for row in self.rows if row.node_id == node_id), None)

    async def changes(self, after: Position, limit: int = 1_000) -> Sequence[Change] | None:
        self._check()
        if self.broken:
            self.broken = False
            raise ValueError("nobody foresaw this")
        return None if int(after) < self.pruned else self.log[int(after) : int(after) + limit]

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(0.001)

    def say(self, kind: Kind, *, instance: str = "them", **what: Any) -> None:
        position = Position(str(len(self.log) + 1))
        self.log.append(Change(position, instance, kind, **what))

    def _check(self) -> None:
        if self.away:
            raise Unavailable("The database is away.", retry_after=1)


@dataclass
class Stage:
    store: Shared = field(default_factory=Shared)
    table: NodeTable = field(default_factory=NodeTable)
    told: Told = field(default_factory=Told)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.replica = Replica(
            self.store,  # type: ignore[arg-type]
            self.table,
            audience=self.told,
            book=self.told,
            clock=self.clock,
        )

    @property
    def slot(self) -> int:
        found = self.table.slot(row(0).node_id)
        assert found is not None
        return found

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        await self.replica.load()
        task = asyncio.create_task(self.replica.follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not what():  # noqa: ASYNC110 - there is nobody who could say so
                await asyncio.sleep(0.001)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.001)
    return Stage()


async def test_what_others_write_is_taken_over_and_told_in_order(stage: Stage) -> None:
    store, told = stage.store, stage.told
    async with stage.following():
        store.say(Kind.NODE, row=row(1))
        store.say(Kind.NODE, row=row(2, price=500_000))
        late = lease_array(
            [
                row(
                    2,
                    lease=Lease(counter=7, last_seen=START + 30, lease_until=START + 120, status=1),
                )
            ]
        )
        store.say(Kind.LEASES, leases=late)
        await stage.until(lambda: len(told.positions) == 3)
        assert told.nodes == [("registered", None), ("registered", 360_000)]
        assert told.leases == [stage.slot]
        hot = stage.table.hot
        assert (hot.counter[stage.slot], hot.status[stage.slot]) == (7, 1)
        assert hot.price[stage.slot] == 500_000
        store.say(Kind.NODE, row=row(2, succeeded=4))
        store.say(Kind.NODE, row=row(2, succeeded=4, gone=True))
        store.say(Kind.NODE, row=row(3, gone=True, session_key=b""))
        await stage.until(lambda: len(told.positions) == 6)
        assert told.nodes[2:] == [("counts", None), ("left", 500_000), ("revoked", None)]
        assert told.positions == [str(n) for n in range(1, 7)]


async def test_what_comes_late_or_twice_undoes_nothing(stage: Stage) -> None:
    replica, table, told = stage.replica, stage.table, stage.told
    replica.take(row(5))
    table.beat(
        stage.slot,
        counter=9,
        now=START + 40,
        lease_until=START + 130,
        status=1,
        queued=0,
        running=1,
    )
    before = table.row(stage.slot)
    for stale in (row(4), row(4, gone=True), row(5)):
        replica.take(stale)
    assert table.row(stage.slot) == before
    replica.take(row(5, gone=True))
    replica.take(row(5))  # read before it left
    assert table.gone(stage.slot)
    replica.take_off(stage.slot, revoked=5)
    assert table.session_key(stage.slot) == b""
    assert [what for what, _ in told.nodes] == ["registered", "left", "revoked"]
    replica.take(row(6))
    assert not table.gone(stage.slot)
    # a lease that was sent under the old registration comes after the new one
    stage.store.say(
        Kind.LEASES, leases=lease_array([row(5, lease=Lease(counter=99, last_seen=START + 50))])
    )
    async with stage.following():
        stage.store.say(
            Kind.LEASES, leases=lease_array([row(5, lease=Lease(counter=99, last_seen=START + 50))])
        )
        await stage.until(lambda: bool(told.positions))
    assert table.hot.counter[stage.slot] == 0


async def test_a_log_that_was_pruned_means_to_load_anew(stage: Stage) -> None:
    store = stage.store
    async with stage.following():
        store.say(Kind.NODE, row=row(1))
        await stage.until(lambda: stage.table.live() == 1)
        store.away = True
        await asyncio.sleep(0.01)
        gone_by = row(
            1, lease=Lease(counter=3, last_seen=START + 60, lease_until=START + 150, running=2)
        )
        store.rows = [gone_by, row(1, name="other", number=2)]
        for _ in range(5):
            store.say(Kind.NODE, row=None)
        store.pruned = 5
        store.away = False
        await stage.until(lambda: stage.told.anew == 1)
        assert stage.table.live() == 2
        assert stage.table.hot.running[stage.slot] == 2
        store.say(Kind.NODE, row=row(1, name="third", number=3))
        await stage.until(lambda: stage.table.live() == 3)


async def test_an_error_that_nobody_foresaw_ends_nothing(stage: Stage) -> None:
    async with stage.following():
        stage.store.broken = True
        stage.store.rows = [row(1)]
        await stage.until(lambda: stage.replica.reloads == 1)
        stage.store.say(Kind.NODE, row=row(2))
        await stage.until(lambda: stage.table.live() == 1 and stage.table.hot.seq[stage.slot] == 2)


async def test_it_tells_how_far_behind_it_is_and_when_it_can_not_hear(stage: Stage) -> None:
    clock, replica = stage.clock, stage.replica
    async with stage.following():
        await stage.until(lambda: replica.lag_seconds == 0)
        stage.store.away = True
        await asyncio.sleep(0.01)
        clock.time += BLIND_SECONDS + 1
        assert replica.lag_seconds == BLIND_SECONDS + 1
        assert replica.blind
        stage.store.away = False
        await stage.until(lambda: replica.lag_seconds == 0)
        assert replica.blind, "the others' heartbeats of that time are still to come"
        clock.time += BLIND_SECONDS
        await stage.until(lambda: not replica.blind)


async def test_strangers_calls_become_few_questions(stage: Stage) -> None:
    store, replica = stage.store, stage.replica
    store.rows = [row(1)]
    await asyncio.gather(*(replica.ask(row(1).node_id) for _ in range(50)))
    assert len(store.asked) == 1
    assert stage.table.live() == 1
    calls = [replica.ask(f"nd-{number:012x}") for number in range(3 * ASKED_PER_SECOND)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert len(store.asked) == ASKED_PER_SECOND
    refused = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert len(refused) == 2 * ASKED_PER_SECOND + 1, "nobody is told that he is a stranger unasked"
    stage.clock.time += 1
    await replica.ask("nd-ffffffffffff")
    assert len(store.asked) == ASKED_PER_SECOND + 1
    store.away = True
    with pytest.raises(Unavailable):
        await replica.ask("nd-fffffffffffe")
    store.away, store.shared = False, False
    await replica.ask("nd-fffffffffffd")
    assert len(store.asked) == ASKED_PER_SECOND + 2


async def test_a_flood_of_changes_leaves_others_their_turn(stage: Stage) -> None:
    await stage.replica.load()
    many = [replace(row(1), node_id=f"nd-{n:012x}", number=n) for n in range(1, 1_001)]
    for each in many:
        stage.store.say(Kind.NODE, row=each)
    longest, last = 0.0, asyncio.get_running_loop().time()
    done = asyncio.create_task(stage.replica._catch_up())
    while not done.done():
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        longest, last = max(longest, now - last), now
    assert stage.table.live() == 1_000
    assert np.count_nonzero(stage.table.columns.status[:1_000] == 0) == 1_000
    assert longest < 0.5, "the loop stood still"
