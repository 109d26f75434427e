"""Whatever happens to nodes and readers: a view kept by the stream is what a search gives."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_rig import Fleet, Reader

from computeswarm.core.nodes import NodeStatus
from computeswarm.core.query import Query, parse
from computeswarm.market.live import views
from computeswarm.market.live.ring import Ring

NAMES = ("a", "b", "c")
QUERIES = (
    None,
    parse("gpu:4090"),
    parse("gpu:4090 idle"),
    parse("price<0.5 queue<2"),
    parse("status:offline|busy"),
    parse("cpu"),
)
names, readers = st.sampled_from(NAMES), st.integers(0, 2)
steps = st.one_of(
    st.tuples(
        st.just("register"),
        names,
        st.sampled_from(("RTX 4090", "A100", "")),
        st.sampled_from((100_000, 700_000)),
    ),
    st.tuples(
        st.just("beat"),
        names,
        st.sampled_from((NodeStatus.IDLE, NodeStatus.BUSY)),
        st.integers(0, 3),
    ),
    st.tuples(st.just("expire"), names),
    st.tuples(st.just("leave"), names, st.booleans()),
    st.just(("flush",)),
    st.just(("flush",)),
    st.tuples(st.just("open"), readers),
    st.tuples(st.just("search"), readers),
    st.tuples(st.just("drop"), readers, st.integers(0, 2)),
    st.tuples(st.just("read"), readers),
)


scripts = st.lists(steps, min_size=20, max_size=80)
Script = list[tuple[Any, ...]]


async def play(script: Script, query: Query | None, *, batches: int = 1_000) -> None:
    fleet = Fleet(options={"ring": Ring(batches=batches)})
    all_readers = [Reader(fleet, query) for _ in range(3)]
    there: dict[str, str] = {}
    for what, *args in script:
        if what == "register":
            there[args[0]] = fleet.register(*args)
        elif what == "flush":
            await fleet.feed.flush()
        elif what in ("beat", "expire", "leave"):
            if args[0] in there:
                node_id = there[args[0]]
                if what == "leave":
                    fleet.leave(there.pop(args[0]), forget=args[1])
                else:
                    getattr(fleet, what)(node_id, *args[1:])
        else:
            reader = all_readers[args[0]]
            if what == "open" and reader.stream is None:
                await reader.open()
            elif reader.stream is not None:
                if what == "search":  # may come later than the stream, and again at any time
                    reader.load()
                else:
                    await reader.read(args[1] if what == "drop" else 10**6)
                    if what == "drop":
                        reader.close()
    for reader in all_readers:
        if reader.stream is None:
            await reader.open()
    await fleet.feed.flush()
    for reader in all_readers:
        await reader.read()
        found = {node.node_id: node for node in fleet.search(reader.query)}
        assert reader.view.nodes == found, (reader.query, reader.changes)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts, st.sampled_from(QUERIES), st.sampled_from((3, 1_000)))
def test_a_view_kept_by_the_stream_is_what_a_search_gives(
    script: Script, query: Query | None, batches: int
) -> None:
    asyncio.run(play(script, query, batches=batches))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts, st.sampled_from(QUERIES))
def test_views_without_a_memory_are_right_too(script: Script, query: Query | None) -> None:
    remembered, views.MAX_REMEMBERED = views.MAX_REMEMBERED, 0
    try:
        asyncio.run(play(script, query))
    finally:
        views.MAX_REMEMBERED = remembered


async def test_a_node_that_blinks_while_somebody_searches_is_told_of() -> None:
    fleet = Fleet()
    first, late = Reader(fleet, parse("idle")), Reader(fleet, parse("idle"))
    await first.open()
    node_id = fleet.register("a")
    for start, blink in ((NodeStatus.IDLE, NodeStatus.BUSY), (NodeStatus.BUSY, NodeStatus.IDLE)):
        fleet.beat(node_id, start)
        await fleet.feed.flush()
        fleet.beat(node_id, blink)
        await late.open()  # and it searches, in a moment in which the node is not as it was
        fleet.beat(node_id, start)
        await fleet.feed.flush()
        await late.read()
        assert late.view.nodes.keys() == ({node_id} if start is NodeStatus.IDLE else set())
        late.close()
        late.cursor = ""
