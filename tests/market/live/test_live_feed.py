"""What readers of the stream are told, and in which order."""

from __future__ import annotations

import pytest
from live_rig import ALL, KEY, START, Fleet, Reader, kinds

from computeswarm.core.changes import NodeChanged, NodeListed, PriceChanged, Reset, Topic
from computeswarm.core.errors import TooManyRequests
from computeswarm.core.jobs import MarketJob
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.query import parse
from computeswarm.market.live import subscription
from computeswarm.market.live.readers import Readers
from computeswarm.market.live.ring import Ring
from computeswarm.market.live.subscription import MAX_FRAMES
from computeswarm.market.live.telling import PIECE_BYTES

BUSY, IDLE = NodeStatus.BUSY, NodeStatus.IDLE


def job(buyer: str, **changes: object) -> MarketJob:
    given = {
        "job_id": "job-" + "1" * 20,
        "node_id": "nd-" + "1" * 12,
        "buyer": buyer,
        "seller": "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF",
        "state": "created",
        "spec_hash": "0x" + "ab" * 32,
        "price_per_hour": 1,
        "max_seconds": 60,
        "created_at": 1,
        "updated_at": 1,
    }
    return MarketJob.model_validate(given | changes)


async def test_a_node_from_its_listing_to_its_end() -> None:
    fleet = Fleet()
    reader = Reader(fleet)
    await reader.open()
    node_id = fleet.register("rig")
    await fleet.feed.flush()
    fleet.beat(node_id, BUSY, queued=2)
    await fleet.feed.flush()
    fleet.expire(node_id)
    await fleet.feed.flush()
    fleet.register("rig", price=200_000)
    await fleet.feed.flush()
    fleet.leave(node_id)
    await fleet.feed.flush()
    told = await reader.read()
    assert kinds(told) == ["listed", "changed", "offline", "listed", "price", "left"]
    listed, changed, price = told[0], told[1], told[4]
    assert isinstance(listed, NodeListed)
    assert listed.node.info.name == "rig"
    assert isinstance(changed, NodeChanged)
    assert (changed.status, changed.queued, changed.running) == (BUSY, 2, 1)
    assert isinstance(price, PriceChanged)
    assert (price.model, price.before, price.price_per_hour) == ("RTX 4090", 300_000, 200_000)
    assert not reader.view.nodes


async def test_many_changes_of_one_node_become_one_that_tells_how_it_stands() -> None:
    fleet = Fleet()
    reader = Reader(fleet)
    node_id = fleet.register("rig")
    await fleet.feed.flush()
    await reader.open()
    for queued in range(50):
        fleet.beat(node_id, BUSY, queued=queued)
        fleet.register("rig", price=1_000 + queued)
    await fleet.feed.flush()
    told = await reader.read()
    assert kinds(told) == ["listed", "price"]
    assert isinstance(told[1], PriceChanged)
    assert (told[1].before, told[1].price_per_hour) == (300_000, 1_049)


async def test_who_left_and_came_back_within_a_moment_is_there() -> None:
    fleet = Fleet()
    reader = Reader(fleet)
    gone, back = fleet.register("gone"), fleet.register("back")
    await fleet.feed.flush()
    await reader.open()
    fleet.leave(back)
    fleet.register("back")
    fleet.register("gone", price=5)
    fleet.leave(gone, forget=True)
    third = fleet.register("third")  # in the place of the one that is gone
    await fleet.feed.flush()
    await reader.read()
    assert reader.view.nodes.keys() == {back, third}


async def test_a_query_shows_who_comes_into_view_and_hides_who_goes_out() -> None:
    fleet = Fleet()
    node_id = fleet.register("rig")
    other = fleet.register("other", model="A100")
    await fleet.feed.flush()
    reader = Reader(fleet, parse("gpu:4090 idle"), frozenset({Topic.NODES}))
    await reader.open()
    fleet.beat(node_id, BUSY)
    fleet.beat(other, BUSY)
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["hidden", "hidden"]
    fleet.beat(node_id, BUSY, queued=1)
    fleet.beat(other, BUSY, queued=1)
    await fleet.feed.flush()
    assert not await reader.read()  # both are known to be out of view
    fleet.beat(node_id, IDLE)
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["listed"]
    fleet.beat(node_id, IDLE, queued=3)
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["changed"]
    fleet.expire(node_id)
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["hidden"]


async def test_a_reader_goes_on_where_it_was_and_is_told_nothing_twice() -> None:
    fleet = Fleet()
    reader = Reader(fleet)
    first = fleet.register("first")
    await reader.open()
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["listed"]
    reader.close()
    fleet.beat(first, BUSY)
    second = fleet.register("second")
    await fleet.feed.flush()
    fleet.leave(second)
    fleet.register("third")
    await fleet.feed.flush()
    fleet.beat(first, IDLE)  # not handed on yet
    await reader.open()
    assert sorted(kinds(await reader.read())) == ["changed", "left", "listed"]
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["changed"]
    assert reader.view.nodes == {node.node_id: node for node in fleet.search(None)}
    again = Reader(fleet, view=reader.view, cursor=reader.cursor)
    await again.open()
    assert not await again.read()


@pytest.mark.parametrize(
    "cursor",
    ["x", "-1", "0-0", "ffffffff-1", "9" * 200, "é", "1 2", "a-" + "9" * 30, "\x00", "²"],
)
async def test_a_cursor_that_nobody_knows_is_a_reset(cursor: str) -> None:
    fleet = Fleet()
    fleet.register("rig")
    await fleet.feed.flush()
    reader = Reader(fleet, cursor=cursor)
    await reader.open()
    assert kinds(await reader.read()) == ["reset"]
    assert len(reader.view.nodes) == 1
    fleet.register("more")
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["listed"]  # and goes on from here
    epoch = reader.cursor.partition("-")[0]
    for wrong in (f"{epoch}-{10**15}", f"{epoch}-٣"):
        other = Reader(fleet, cursor=wrong)
        await other.open()
        assert kinds(await other.read()) == ["reset"]


async def test_what_is_too_long_ago_is_a_reset() -> None:
    fleet = Fleet(options={"ring": Ring(batches=3)})
    reader = Reader(fleet)
    await reader.open()
    await reader.read()
    reader.close()
    for number in range(3):
        fleet.register(f"rig-{number}")
        await fleet.feed.flush()
    await reader.open()
    assert kinds(await reader.read()) == ["listed"] * 3
    reader.close()
    for number in range(4):
        fleet.register(f"more-{number}")
        await fleet.feed.flush()
    await reader.open()
    assert kinds(await reader.read()) == ["reset"]


async def test_a_slow_reader_is_reset_and_holds_nobody_up() -> None:
    fleet = Fleet()
    slow, quick = Reader(fleet), Reader(fleet)
    await slow.open()
    await quick.open()
    for number in range(3 * MAX_FRAMES):
        fleet.register("rig", price=number + 1)
        await fleet.feed.flush()
        await quick.read()
    told = await slow.read()
    assert isinstance(told[0], Reset)
    assert len(told) <= 2 * MAX_FRAMES
    assert slow.view.nodes == quick.view.nodes
    assert not any(isinstance(change, Reset) for change in quick.changes)
    assert fleet.feed.resets >= 1


async def test_jobs_are_told_to_their_wallets_only() -> None:
    fleet = Fleet()
    mine = Reader(fleet, topics=frozenset({Topic.JOBS}), wallet=KEY.address)
    other = Reader(fleet, topics=frozenset({Topic.JOBS}), wallet="0x" + "5" * 40)
    nobody = Reader(fleet)
    for reader in (mine, other, nobody):
        await reader.open()
    fleet.feed.job_changed(job(KEY.address))
    fleet.feed.job_changed(job(KEY.address, state="running"))
    await fleet.feed.flush()
    told = await mine.read()
    assert kinds(told) == ["job"]
    assert told[0].job.state == "running"  # type: ignore[union-attr]
    assert not await other.read()
    assert not await nobody.read()
    mine.close()
    fleet.feed.job_changed(job(KEY.address, state="succeeded"))
    await fleet.feed.flush()
    await mine.open()
    assert [change.job.state for change in await mine.read()] == ["succeeded"]  # type: ignore[union-attr]


async def test_room_is_limited_overall_and_by_address() -> None:
    fleet = Fleet(options={"readers": Readers(most=5, per_address=3)})
    made = [await fleet.feed.subscribe(ALL, address="a") for _ in range(3)]
    with pytest.raises(TooManyRequests, match="Your address has 3 streams"):
        await fleet.feed.subscribe(ALL, address="a")
    made += [await fleet.feed.subscribe(ALL, address="b") for _ in range(2)]
    with pytest.raises(TooManyRequests, match="Too many watch"):
        await fleet.feed.subscribe(ALL, address="c")
    fleet.feed.unsubscribe(made[0])
    fleet.feed.unsubscribe(made[0])
    await fleet.feed.subscribe(ALL, address="a")
    assert (fleet.feed.subscribers, fleet.feed.dropped) == (5, 2)


async def test_a_thousand_readers_are_told_and_let_go() -> None:
    fleet = Fleet(options={"readers": Readers(per_address=2_000)})
    queries = [None, parse("gpu:4090"), parse("gpu:a100"), parse("idle price<1")]
    readers = [Reader(fleet, queries[n % 4]) for n in range(1_000)]
    for reader in readers:
        await reader.open()
    node_id = fleet.register("rig", price=2_000_000)
    await fleet.feed.flush()
    for reader in readers:
        await reader.read()
    assert all((node_id in r.view.nodes) == (n % 4 < 2) for n, r in enumerate(readers))
    await fleet.feed.close()
    for reader in readers:
        assert reader.stream is not None
        assert await reader.stream.next(0) is None
        reader.close()
    assert fleet.feed.subscribers == 0


async def test_after_missed_changes_everybody_loads_anew() -> None:
    fleet = Fleet()
    reader = Reader(fleet)
    await reader.open()
    await reader.read()
    before = reader.cursor
    fleet.register("rig")
    fleet.feed.start_over()
    assert kinds(await reader.read()) == ["reset"]
    after = reader.cursor
    for cursor, expected in ((before, ["reset"]), (after, [])):
        other = Reader(fleet, cursor=cursor)
        await other.open()
        assert kinds(await other.read()) == expected
    fleet.clock.time = START + 1
    fleet.register("more")
    await fleet.feed.flush()
    assert kinds(await reader.read()) == ["listed"]


async def test_what_was_missed_is_made_as_it_is_read() -> None:
    """Readers who come back after long and then read nothing must not fill the memory."""
    fleet = Fleet()
    await fleet.feed.flush()
    begin = await fleet.feed.subscribe(ALL)
    cursor = (await begin.next(1) or b"").removeprefix(b"id: ").decode().strip()
    names = [f"rig {number}" for number in range(500)]
    for name in names:
        fleet.register(name)
    await fleet.feed.flush()
    back = await fleet.feed.subscribe(ALL, since=cursor)
    first = await back.next(1) or b""
    assert 0 < len(first) < 2 * PIECE_BYTES
    late = fleet.register("late", price=1)
    fleet.leave(late)
    await fleet.feed.flush()
    frames = [first]
    while not frames[-1].startswith(b"event: left"):
        frames.append(await back.next(1) or b"")
    assert max(map(len, frames)) < 2 * PIECE_BYTES
    assert b"".join(frames).count(b"event: listed") == len(names)
    # the cursor comes once all was told, and is the one of when it began
    marks = [b"id: " in frame for frame in frames]
    assert marks == [False] * (len(frames) - 2) + [True] * 2


async def test_what_waits_for_all_slow_readers_together_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscription, "MAX_HELD", 50_000)
    fleet = Fleet()
    slow = [await fleet.feed.subscribe(ALL, parse(f"price<{n + 1}")) for n in range(20)]
    reader = Reader(fleet)
    await reader.open()
    for turn in range(30):
        for number in range(5):
            fleet.register(f"rig {number}", price=100 + turn)
        await fleet.feed.flush()
        assert "reset" not in kinds(await reader.read())  # who keeps up is not troubled by others
    frame = 20_000
    held = fleet.feed._held
    assert 10_000 < held.bytes < subscription.MAX_HELD + frame
    assert sum(one.resets for one in slow) >= 20
    for one in slow:
        fleet.feed.unsubscribe(one)
        one.put(b"late")
    reader.close()
    assert held.bytes == 0
