"""Following a market's changes: what a buyer does with streams that end, lie, or never come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from node_records import node_record

from computeswarm.buyer.http.base import Peer
from computeswarm.buyer.http.changes import MAX_EVENT, Broken, Opened, follow_changes
from computeswarm.buyer.http.market import MarketClient
from computeswarm.buyer.watching import NodeView
from computeswarm.core.changes import (
    Change,
    NodeChanged,
    NodeGone,
    NodeListed,
    Reset,
    Topic,
)
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import InvalidQuery, MarketUnavailable
from computeswarm.core.nodes import RECORD_KIND, ComputeNode
from computeswarm.core.sessions import PERMIT_HEADER
from computeswarm.core.signing import Signed
from computeswarm.server.serving import Server

CHAIN_ID = 84532
KEY = PrivateKey(bytes(31) + b"\x09")
NODES = frozenset({Topic.NODES})


def listed(name: str, *, key: PrivateKey = KEY, chain_id: int = CHAIN_ID) -> ComputeNode:
    record = node_record(KEY.address, name)
    return ComputeNode(
        node_id=record.node_id,
        status="idle",
        record=Signed.make(key, RECORD_KIND, chain_id, record),
        registered_at=1,
        last_seen=1,
    )


def event(change: Change, cursor: str = "") -> bytes:
    text = f"event: {change.type}\ndata: {change.model_dump_json()}\n\n"
    return (text + (f"id: {cursor}\n\n" if cursor else "")).encode()


def pulse(name: str, status: str = "busy") -> NodeChanged:
    node_id = listed(name).node_id
    return NodeChanged(type="changed", node_id=node_id, status=status, last_seen=7, queued=1)


Step = Callable[[web.Request, web.StreamResponse], Awaitable[None]] | web.Response


@dataclass
class Script:
    """A market that answers each connection as told, and remembers what it was asked."""

    steps: list[Step] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def changes(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.asked.append(
            (
                request.query_string,
                headers.get("Last-Event-ID", ""),
                headers.get(PERMIT_HEADER, ""),
            )
        )
        step = self.steps.pop(0)
        if isinstance(step, web.Response):
            return step
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await step(request, reply)
        return reply

    def send(self, *parts: bytes, cut: bool = False) -> None:
        async def step(request: web.Request, reply: web.StreamResponse) -> None:
            for part in parts:
                await reply.write(part)
            if cut and request.transport is not None:
                request.transport.abort()

        self.steps.append(step)

    def refuse(self, status: int, code: str, **extra: object) -> None:
        problem = {"code": code, "detail": "No.", **extra}
        self.steps.append(web.json_response(problem, status=status))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def peer(script: Script) -> AsyncIterator[Peer]:
    app = web.Application()
    app.router.add_get("/api/v1/changes", script.changes)
    async with Server(app) as server:
        made = Peer(
            await server.start("127.0.0.1", 0), who="The market", unavailable=MarketUnavailable
        )
        yield made
        await made.close()


async def follow(peer: Peer, until: int, **options: object) -> list[Change | Opened | Broken]:
    """What comes until so many connections have ended; none is waited for."""
    client = MarketClient(peer.url, chain_id=CHAIN_ID)
    given = {"check": client._holds, "topics": NODES, "spread": lambda _, __: 0.0} | options
    got: list[Change | Opened | Broken] = []
    async with aclosing(follow_changes(peer, **given)) as events:  # type: ignore[arg-type]
        async for item in events:
            got.append(item)
            until -= isinstance(item, Broken)
            if until == 0:
                break
    await client.close()
    return got


async def test_it_goes_on_after_the_last_event_it_saw(peer: Peer, script: Script) -> None:
    one = event(NodeListed(node=listed("one")), "c-1")
    script.send(b"retry: 1000\n\nid: c-0\n\n", one[:20], one[20:], b"id: half", cut=True)
    script.refuse(503, "unavailable")
    script.send(b": still here\nid: c-2\n\n", event(pulse("one")))
    script.send(event(Reset(reason="long ago"), "c-9"))
    script.send()
    got = await follow(peer, 5, query="gpu:4090")
    assert [cursor for _, cursor, _ in script.asked] == ["", "c-1", "c-1", "c-2", "c-9"]
    assert script.asked[0][0] == "topics=nodes&q=gpu:4090"
    kinds = [type(item) for item in got if not isinstance(item, Broken)]
    assert kinds == [Opened, NodeListed, Opened, NodeChanged, Opened, Reset, Opened]
    opened = [item.resumed for item in got if isinstance(item, Opened)]
    assert opened == [False, True, True, True]


async def test_it_waits_longer_each_time_and_as_long_as_the_market_says(
    peer: Peer, script: Script
) -> None:
    for _ in range(3):
        script.refuse(503, "unavailable")
    script.send(event(pulse("one")))
    script.refuse(429, "too_many_requests", retry_after=0.25)
    spreads: list[float] = []

    def spread(low: float, high: float) -> float:
        assert (low, high) == (0.5, 1.0)
        spreads.append(low)
        return 0.001

    got = await follow(peer, 5, spread=spread)
    waits = [item.seconds for item in got if isinstance(item, Broken)]
    assert waits[:4] == [0.0005, 0.001, 0.002, 0.0005]  # an event shows that the market is well
    assert waits[4] == 0.25
    assert len(spreads) == 5


async def test_what_its_wallet_did_not_sign_is_out_of_view(peer: Peer, script: Script) -> None:
    forged = listed("one", key=PrivateKey(bytes(31) + b"\x0a"))
    script.send(
        event(NodeListed(node=listed("one"))),
        event(NodeListed(node=forged)),
        event(NodeListed(node=listed("two", chain_id=1))),
        event(NodeListed(node=listed("three"))),
        b'event: later\ndata: {"type":"of a later version"}\n\n',
        b"data: no json\n\n",
    )
    got = await follow(peer, 1)
    view = NodeView()
    for item in got:
        if not isinstance(item, (Opened, Broken)):
            view.apply(item)
    kinds: list[type] = [NodeListed, NodeGone, NodeGone, NodeListed]
    assert [type(item) for item in got[1:-1]] == kinds
    assert view.nodes.keys() == {listed("three").node_id}


async def test_an_endless_event_is_cut(peer: Peer, script: Script) -> None:
    script.send(b"data: " + b"x" * (MAX_EVENT + 1))
    script.send()
    got = await follow(peer, 2)
    assert isinstance(got[1], Broken)
    assert "too large" in got[1].error.detail


async def test_what_the_market_refuses_for_good_is_said(peer: Peer, script: Script) -> None:
    script.refuse(400, "invalid_query", position=0)
    with pytest.raises(InvalidQuery):
        await follow(peer, 1)
    script.send(event(pulse("one")))
    script.send()
    permits = iter(("first", "second"))
    await follow(peer, 2, permit=lambda: next(permits))
    assert [permit for _, _, permit in script.asked] == ["", "first", "second"]


def test_a_view_takes_over_what_a_pulse_says_and_nothing_else() -> None:
    view = NodeView([listed("one")])
    assert view.apply(pulse("one"))
    assert not view.apply(pulse("one"))
    assert not view.apply(pulse("two"))
    (node,) = view.nodes.values()
    assert (node.status, node.queued, node.last_seen) == ("busy", 1, 7)
    assert node.info.name == "one"
    gone = NodeGone(type="left", node_id=node.node_id)
    assert view.apply(gone)
    assert not view.apply(gone)
