"""Pages and facets of a million nodes, without holding up the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, perf_counter
from typing import TypeVar

import numpy as np

from computeswarm.core.errors import BadRequest, Unavailable
from computeswarm.core.logs import get_logger
from computeswarm.core.metrics import Histogram
from computeswarm.core.query import DEFAULT_SORT, Query
from computeswarm.core.threads import give_way
from computeswarm.market.columns import Array
from computeswarm.market.index import facets as counting
from computeswarm.market.index.keys import Place, Sort
from computeswarm.market.index.masks import mask, narrow, some
from computeswarm.market.index.orders import Order
from computeswarm.market.index.pages import (
    MAX_PAGE,
    Listing,
    Page,
    needs_order,
    read_cursor,
    render,
    select,
    walk,
)
from computeswarm.market.index.plan import Plan, candidates, generation, plan
from computeswarm.market.index.shelf import Shelf
from computeswarm.market.table import NodeTable
from computeswarm.market.texts import CACHED, Texts

STALE_SECONDS = 1.0
"""How old a page, facets, or the figures that move with time may be."""
_BUSY_SECONDS = 0.5
"""How long a page of a large market holds though something changed: something always does."""
_AT_ONCE = 20_000
"""Nodes up to which everything is made where it is asked for, in a few milliseconds."""
_CHUNK = 64 * 1024
_LOOP_BYTES = 160 * 2**20
"""What a query may read on the loop, a few milliseconds' worth; more is read in a thread."""
_READ_AT_ONCE = 8_000
"""Names times words that are read on the loop; for more, all names are gone through in a thread."""
MOST_UNREAD = CACHED // 2
"""Words that one query may have looked for in all names of a large market."""
_SORTED_AT_ONCE = 200_000
"""Nodes whose keys are compared on the loop while there is no order of all yet."""
_COUNTED = 200_000
"""Nodes up to which every page says how many match in all."""
_WALKED, _WALKED_READING = 32_000, 2_000
"""Nodes in order that are looked at for a page, before all are; fewer where names are read."""
_WAITING = 32
"""Searches that may wait for a thread before others are refused."""
_TRIES = 3
_CACHED_BYTES = 32 * 2**20
_PAGE_OVERHEAD = 10_000  # a key may be as long as a request line

T = TypeVar("T")
_log = get_logger("market")


class Search:
    """Searches one table, which its own loop writes."""

    def __init__(self, table: NodeTable) -> None:
        self.scan_seconds = Histogram()
        self.rebuild_seconds = Histogram()
        self._table = table
        self._shelf = Shelf(table)
        self._pages: dict[Hashable, Page] = {}
        self._page_bytes = 0
        self._facets: dict[Hashable, tuple[float, asyncio.Task[bytes]]] = {}
        self._scans = ThreadPoolExecutor(1, thread_name_prefix="market-scan")
        self._builds = ThreadPoolExecutor(
            1, thread_name_prefix="market-order", initializer=give_way
        )
        self._waiting = 0
        self._learning: set[Texts] = set()
        self._built: dict[str, asyncio.Task[None]] = {}
        self._refreshed = float("-inf")
        self._ticker: asyncio.Task[None] | None = None

    def start(self, now: Callable[[], float]) -> None:
        """Keep figures and orders fresh, each second; ``now`` gives unix seconds."""
        self._ticker = asyncio.create_task(self._tick_forever(now))

    async def close(self) -> None:
        """Stop; whoever still waits for a search is cancelled."""
        tasks = [*self._built.values(), *(task for _, task in self._facets.values())]
        if self._ticker is not None:
            tasks.append(self._ticker)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._scans.shutdown(wait=False, cancel_futures=True)
        self._builds.shutdown(wait=False, cancel_futures=True)

    @property
    def memory_bytes(self) -> int:
        """Of the orders that are in use."""
        return self._shelf.nbytes

    # -- pages

    def cached(self, key: Hashable, now: float) -> Page | None:
        """The page kept under ``key``, if it still holds."""
        page = self._pages.get(key)
        if page is None or now >= page.fresh_until:
            return None
        if page.version == self._table.version:
            return page
        holds = self._table.size > _AT_ONCE and now < page.fresh_until - _BUSY_SECONDS
        return page if holds else None

    async def page(
        self, key: Hashable, query: Query, *, now: float, cursor: str, limit: int
    ) -> Page:
        """A page of nodes, kept under ``key``.

        Raises:
            BadRequest: a cursor that is not ours, or was made for another order.
            Unavailable: too many searches wait already.
        """
        began = perf_counter()
        limit = max(1, min(limit, MAX_PAGE))
        sort = Sort(query.sort)
        after = read_cursor(cursor, sort) if cursor else None
        self._refresh_if_due(now)
        found = await self._listing(query, sort, after, limit + 1)
        page = render(self._table, found, sort, limit, now=now, fresh_until=now + STALE_SECONDS)
        self._keep(key, page)
        self.scan_seconds.observe(perf_counter() - began)
        return page

    def _keep(self, key: Hashable, page: Page) -> None:
        size = len(page.body) + _PAGE_OVERHEAD
        if self._page_bytes + size > _CACHED_BYTES:
            self._pages.clear()
            self._page_bytes = 0
        self._page_bytes += size
        self._pages[key] = page

    async def _listing(self, query: Query, sort: Sort, after: Place | None, limit: int) -> Listing:
        table = self._table
        quick = self._quick(query, sort, after, limit) if table.size > _COUNTED else None
        if quick is not None:
            return quick
        for _ in range(_TRIES):
            made, found = await self._found(query)
            total = int(np.count_nonzero(found))
            order = self._shelf.get(sort, monotonic())
            if order is None and needs_order(sort, total):
                if sort.text or total > _SORTED_AT_ONCE or table.size <= _AT_ONCE:
                    await self._order(sort)
                    continue
                self._build(sort)  # for those who come next
            if made.generation != generation(table):
                continue
            if len(found) < table.size:  # nodes that came meanwhile
                found = np.concatenate((found, np.zeros(table.size - len(found), np.bool_)))
            listed = select(table, sort, order, found, total, after, limit)
            return Listing(self._still(made, listed), total, exact=True)
        raise _busy()

    def _quick(self, query: Query, sort: Sort, after: Place | None, limit: int) -> Listing | None:
        """The page from the first nodes in order, where these fill it: then the rest of a large
        market needn't be looked at, nor is it counted."""
        table, order = self._table, self._shelf.get(sort, monotonic())
        if order is None:
            return None
        made, columns = plan(table, query), table.columns
        walked = _WALKED_READING // len(made.unread) if made.late else _WALKED
        if len(order.aside()) > walked:
            return None
        accepts = partial(some, made.all, columns)
        where = candidates(table, made)
        return walk(table, sort, order, accepts, after, limit, walked, where)

    async def _found(self, query: Query) -> tuple[Plan, Array]:
        """For each slot whether its node is found: on the loop where that is quick."""
        table = self._table
        for _ in range(_TRIES):
            made, columns, size = plan(table, query), table.columns, table.size
            if not made.late:
                if made.weight * size <= _LOOP_BYTES:
                    return made, mask(made, columns, size)
                return made, await self._in_thread(partial(mask, made, columns, size))
            unread = made.unread
            if len(unread) > MOST_UNREAD:
                raise BadRequest("So many words take too long to look for; ask for fewer at once.")
            found = mask(made, columns, size)
            few = np.flatnonzero(found)
            if len(few) * len(unread) <= _READ_AT_ONCE:
                narrow(made, columns, found, few)
                return made, found
            await self._in_thread(lambda: [texts.hits(word) for texts, word in unread])  # noqa: B023
            self._learn({texts for texts, _ in unread})
        raise _busy()

    def _learn(self, asked: set[Texts]) -> None:
        """Have the next rare word found sooner."""
        for texts in asked - self._learning:
            self._learning.add(texts)
            work = asyncio.get_running_loop().run_in_executor(self._builds, texts.learn)
            work.add_done_callback(partial(self._learned, texts))

    def _learned(self, texts: Texts, _: object) -> None:
        self._learning.discard(texts)

    def _still(self, made: Plan, listed: list[tuple[Place, int]]) -> list[tuple[Place, int]]:
        """Those that are found now too: a mask from a thread is of some moments ago."""
        slots = np.array([slot for _, slot in listed], np.int64)
        good = some(made.all, self._table.columns, slots).tolist()
        return [item for item, holds in zip(listed, good, strict=True) if holds]

    # -- facets

    async def facets(self, query: Query, *, now: float) -> bytes:
        """``core.pages.Facets`` as JSON, at most a second old.

        Raises:
            Unavailable: too many searches wait already.
        """
        if self._table.size <= _AT_ONCE:
            return await self._counted(query)
        key = query.terms, query.shows_offline
        kept = self._facets.get(key)
        if kept is None or not 0 <= now - kept[0] < STALE_SECONDS:
            self._facets = {k: v for k, v in self._facets.items() if now - v[0] < STALE_SECONDS}
            kept = self._facets[key] = now, asyncio.create_task(self._counted(query))
        return await asyncio.shield(kept[1])

    async def _counted(self, query: Query) -> bytes:
        _, found = await self._found(query)
        columns = self._table.columns

        def work() -> bytes:
            return counting.count(self._table, columns, found).model_dump_json().encode()

        return work() if len(found) <= _AT_ONCE else await self._in_thread(work)

    # -- threads and orders

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= _WAITING:
            raise _busy()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._scans, work)
        finally:
            self._waiting -= 1

    async def _order(self, sort: Sort) -> None:
        """Wait until an order is there."""
        if self._table.size <= _AT_ONCE and not self._shelf.building(sort):
            began = perf_counter()
            self._take(self._shelf.begin(sort)(), began)
            return
        await asyncio.shield(self._build(sort))

    def _build(self, sort: Sort) -> asyncio.Task[None]:
        """The task that makes an order, begun once for all who wait."""
        task = self._built.get(sort.name)
        if task is None:
            task = self._built[sort.name] = asyncio.create_task(self._build_apart(sort))
            task.add_done_callback(lambda _: self._built.pop(sort.name, None))
        return task

    async def _build_apart(self, sort: Sort) -> None:
        build, began = self._shelf.begin(sort), perf_counter()
        try:
            order = await asyncio.get_running_loop().run_in_executor(self._builds, build)
        except BaseException:
            self._shelf.abandon(sort)
            raise
        self._take(order, began)

    def _take(self, order: Order, began: float) -> None:
        took = perf_counter() - began
        self.rebuild_seconds.observe(took)
        self._shelf.end(order, now=monotonic(), took=took)

    async def warm(self) -> None:
        """Make the order that most searches use, before the first of them comes."""
        await self._order(Sort(DEFAULT_SORT))

    # -- each second

    def _refresh_if_due(self, now: float) -> None:
        if self._table.size <= _AT_ONCE and not 0 <= now - self._refreshed < STALE_SECONDS:
            self._refreshed = now
            self._table.refresh(now)

    async def _tick_forever(self, now: Callable[[], float]) -> None:
        while True:
            await asyncio.sleep(STALE_SECONDS)
            try:
                await self._tick(now())
            except Exception as error:  # the next second is another chance
                _log.error("search_tick_failed", exc=error)

    async def _tick(self, now: float) -> None:
        for first in range(0, self._table.size, _CHUNK):
            self._table.refresh(now, first, first + _CHUNK)
            await asyncio.sleep(0)
        for sort in self._shelf.due(monotonic()):
            await self._build(sort)


def _busy() -> Unavailable:
    return Unavailable("The market has too many long searches; try again.", retry_after=1)
