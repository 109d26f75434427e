"""Which nodes a page shows, and the cursor to the next one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from computeswarm.core.errors import BadRequest
from computeswarm.market.columns import Array
from computeswarm.market.index.keys import Place, Sort
from computeswarm.market.index.orders import Order
from computeswarm.market.index.plan import Candidates
from computeswarm.market.table import NodeTable

MAX_PAGE = 200
MAX_CURSOR = 2_000
_FEW_NUMBERS, _FEW_TEXTS = 2_000, 300
"""So many are sorted on the spot; a text costs a few times as much as a number."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it goes out; ``etag`` is quoted as the header wants it."""

    body: bytes
    etag: str
    version: int
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Listing:
    """Nodes found, in order, with their slots."""

    nodes: list[tuple[Place, int]]
    total: int
    exact: bool
    """Whether ``total`` is how many match in all; otherwise at least so many do."""


def read_cursor(text: str, sort: Sort) -> Place:
    """The place a cursor names: that of the last node of the page before.

    So nodes that come and go shift nothing: none is shown twice, and none that was there all along
    is left out.

    Raises:
        BadRequest: a cursor that is not ours, or was made for another order.
    """
    try:
        raw = base64.urlsafe_b64decode(text[:MAX_CURSOR] + "=" * (-len(text) % 4))
        name, key, number = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        name, key, number = None, None, None
    fits = isinstance(key, str) if sort.text else type(key) is int and abs(key) < 2**63
    if name != sort.name or not fits or type(number) is not int or not 0 <= number < 2**48:
        raise BadRequest("The cursor does not fit this search; start again without it.")
    return key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key, number


def write_cursor(place: Place, sort: Sort) -> str:
    """A cursor behind a place, safe in a URL."""
    key: Any = place[0]
    if isinstance(key, bytes):
        key = key.decode("utf-8", "surrogatepass")
    raw = json.dumps([sort.name, key, place[1]], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def needs_order(sort: Sort, count: int) -> bool:
    """Whether so many nodes are too many to be sorted for one page."""
    return count > (_FEW_TEXTS if sort.text else _FEW_NUMBERS)


def select(
    table: NodeTable,
    sort: Sort,
    order: Order | None,
    found: Array,
    count: int,
    after: Place | None,
    limit: int,
) -> list[tuple[Place, int]]:
    """The first ``limit`` nodes behind a place, with their slots.

    Args:
        found: for each slot whether its node was found; ``count`` of them were.
        order: needed where ``needs_order`` says so.
    """
    if order is None or not needs_order(sort, count):
        few = np.flatnonzero(found)
    else:
        start = order.after(table, after) if after is not None else 0
        aside = order.aside()
        aside = aside[aside < len(found)]
        aside = _first(table, sort, aside[found[aside]], after, limit)
        few = np.concatenate((order.first(found, count, start, limit), aside))
    listed = sort.sorted(table, _first(table, sort, few, after, limit))
    return _behind(sort, listed, after)[:limit]


def walk(
    table: NodeTable,
    sort: Sort,
    order: Order,
    accepts: Callable[[Array], Array],
    after: Place | None,
    limit: int,
    most: int,
    where: Candidates | None,
) -> Listing | None:
    """The same from the first ``most`` nodes of an order, where ``limit`` are found there or there
    are no more.

    Args:
        accepts: says of some slots which are found.
        where: where all nodes are that can be found, if that is known.
    """
    start = order.after(table, after) if after is not None else 0
    positions = order.of_models(table, where.models) if where is not None else None
    found = order.walk(accepts, start, limit, most, positions)
    all_seen = positions is not None and len(positions) <= most
    if len(found) < limit and not all_seen:
        return None
    aside = order.aside()
    if where is not None and positions is not None and len(where.others):
        aside = np.concatenate((aside, where.others[order.in_order(where.others)]))
    aside = aside[accepts(aside)] if len(aside) else aside
    few = np.concatenate((found[:limit], _first(table, sort, aside, after, limit)))
    listed = _behind(sort, sort.sorted(table, few), after)
    exact = len(found) < limit and after is None
    return Listing(listed[:limit], len(found) + len(aside), exact)


def _behind(
    sort: Sort, listed: list[tuple[Place, int]], after: Place | None
) -> list[tuple[Place, int]]:
    if after is None:
        return listed
    return [item for item in listed if sort.before(after, item[0])]


def _first(table: NodeTable, sort: Sort, slots: Array, after: Place | None, limit: int) -> Array:
    """Some of ``slots``, among them the first ``limit`` behind a place."""
    if sort.text or len(slots) <= 2 * limit:
        return slots
    keys = sort.integers(table, slots)
    if after is not None:
        ids = table.columns.id[slots]
        behind = (keys > after[0]) | ((keys == after[0]) & (ids > after[1]))
        slots, keys = slots[behind], keys[behind]
    if len(slots) <= limit:
        return slots
    slots = slots[keys <= np.partition(keys, limit - 1)[limit - 1]]
    if len(slots) > 2 * limit:  # many ask the same
        ids = table.columns.id[slots]
        slots = slots[np.lexsort((ids, sort.integers(table, slots)))[:limit]]
    return slots


def render(
    table: NodeTable, found: Listing, sort: Sort, limit: int, *, now: float, fresh_until: float
) -> Page:
    """The first ``limit`` nodes found as a page: mostly the records as they came."""
    shown, total = found.nodes[:limit], found.total
    more = len(found.nodes) > limit
    following = json.dumps(write_cursor(shown[-1][0], sort)) if more else "null"
    nodes = b",".join([table.json(slot, now) for _, slot in shown])
    exact = b"true" if found.exact else b"false"
    body = b'{"nodes":[%b],"next":%b,"total":%d,"total_exact":%b}' % (
        *(nodes, following.encode()),
        *(total, exact),
    )
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    return Page(body, etag, table.version, fresh_until)
