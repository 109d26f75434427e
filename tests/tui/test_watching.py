"""A list of nodes that is fetched when the market says that it is another, and not otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from textual.message import Message
from tui_drive import buyer_screen, make_app, settled, until
from tui_fake import FLEET, FakeBuyer
from tui_steps import LIMIT

from computeswarm.buyer.http.changes import Broken, Opened
from computeswarm.core.changes import Change, NodeGone, StatsChanged
from computeswarm.core.errors import MarketUnavailable
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.stats import MarketStats
from computeswarm.tui import feeds
from computeswarm.tui.backends.live_buyer import LiveBuyer
from computeswarm.tui.backends.live_market import LIVELY
from computeswarm.tui.feeds import Poll
from computeswarm.tui.widgets.header import Header

PERIOD = 0.02
SIZE = (120, 40)


async def some(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(PERIOD / 4)


async def test_a_followed_list_is_fetched_when_there_are_news_and_not_otherwise() -> None:
    fetched: list[float] = []

    async def fetch() -> Message:
        fetched.append(time.monotonic())
        return Message()

    poll = Poll("nodes", fetch, lambda _: None, PERIOD)
    running = asyncio.create_task(poll.run())
    await some(lambda: len(fetched) >= 3)  # by the clock
    poll.followed = True
    await asyncio.sleep(5 * PERIOD)
    before = len(fetched)
    await asyncio.sleep(20 * PERIOD)
    assert len(fetched) == before  # nothing is new, so nothing is fetched and nothing drawn
    for _ in range(50):
        poll.tell()
    await some(lambda: len(fetched) > before)
    await asyncio.sleep(5 * PERIOD)
    assert len(fetched) == before + 1
    for _ in range(40):
        poll.tell()
        await asyncio.sleep(PERIOD / 4)
    told = [b - a for a, b in zip(fetched[before:-1], fetched[before + 1 :], strict=True)]
    assert min(told) >= PERIOD * 0.9  # however much there is to tell
    poll.followed = False
    now = len(fetched)
    await some(lambda: len(fetched) >= now + 3)  # by the clock again
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_browser_follows_the_market_and_falls_back_to_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("computeswarm.tui.screens.buyer.NODES_EVERY", PERIOD)
    monkeypatch.setattr(feeds, "AGAIN_SECONDS", PERIOD)
    buyer = FakeBuyer(jobs=[])
    news = buyer.news = asyncio.Queue()
    app = make_app(buyer)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        screen = buyer_screen(pilot)
        news.put_nowait(False)
        await until(pilot, lambda: screen._polls["nodes"].followed)
        await asyncio.sleep(10 * PERIOD)
        before = len(buyer.asked)
        await asyncio.sleep(20 * PERIOD)
        assert len(buyer.asked) == before
        buyer.listed = FLEET[:2]
        news.put_nowait(True)
        await until(pilot, lambda: len(screen.query_one("#nodes").rows) == 2)  # type: ignore[attr-defined]
        app.clock.time += 60  # type: ignore[attr-defined]
        news.put_nowait(False)  # a sign of life is good for the header
        await until(pilot, lambda: screen.query_one(Header).link.since == app.clock.now())
        screen.query_one("#filter-input").value = "gpu:4090"  # type: ignore[attr-defined]
        await until(pilot, lambda: buyer.watched[-1] == "gpu:4090", "another stream")
        buyer.news = None  # nor does the market do so any more
        news.put_nowait(None)
        asked = len(buyer.asked)
        await until(pilot, lambda: len(buyer.asked) > asked + 3, "fetched by the clock")
        assert not screen._polls["nodes"].followed


async def test_what_is_too_lively_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Change | Opened | Broken] = []

    async def changes(topics: object, query: str) -> AsyncIterator[Change | Opened | Broken]:
        assert query == "online"
        for change in sent:
            yield change

    buyer = LiveBuyer(Settings(), Paths(tmp_path, tmp_path, tmp_path))
    monkeypatch.setattr(buyer._buyer, "changes", changes)
    gone = NodeGone(type="left", node_id="nd-" + "0" * 12)
    stats = StatsChanged(
        stats=MarketStats(
            time=1,
            nodes_total=0,
            nodes_online=0,
            nodes_idle=0,
            nodes_busy=0,
            nodes_draining=0,
            jobs_total=0,
        )
    )
    sent += [Opened(False), *[gone] * 60, stats, *[gone] * 60, stats]
    assert [news async for news in buyer.watch("")].count(False) == 2
    sent += [gone] * (2 * LIVELY)
    assert [news async for news in buyer.watch("")].count(True) == 1 + 120 + LIVELY + 1
    sent[:] = [Opened(False), Broken(MarketUnavailable("It is away."), 1.0)]
    with pytest.raises(MarketUnavailable):
        assert [news async for news in buyer.watch("")]
