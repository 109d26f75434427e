"""Pages of nodes: filtered, sorted, cut at a cursor, and remembered while nothing changed."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from computeswarm.core.errors import BadRequest
from computeswarm.core.query import Query
from computeswarm.market.directory import Node

MAX_PAGE = 200
MAX_CURSOR = 2_000
STALE_SECONDS = 1.0
_CACHED_LISTS = 64
_CACHED_BYTES = 32 * 2**20
_PAGE_OVERHEAD = 10_000  # a key may be as long as a request line

Key = tuple[tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it goes out; ``etag`` is quoted as the header wants it."""

    body: bytes
    etag: str
    version: int
    fresh_until: float


class Search:
    """Finds pages. The version it is told rises with every change that a search could see."""

    def __init__(self) -> None:
        self._pages: dict[Hashable, Page] = {}
        self._bytes = 0
        self._lists: dict[str, tuple[int, float, list[tuple[Key, Node]]]] = {}

    def cached(self, key: Hashable, version: int, now: float) -> Page | None:
        """The page kept under ``key``, if it still holds."""
        page = self._pages.get(key)
        if page is None or page.version != version or now >= page.fresh_until:
            return None
        return page

    def page(
        self,
        key: Hashable,
        query: Query,
        *,
        nodes: Iterable[Node],
        version: int,
        now: float,
        cursor: str,
        limit: int,
    ) -> Page:
        """Find a page and keep it under ``key``.

        A cursor names the place *after* the last node of the page before, by what that page was
        sorted by. So nodes that come and go shift nothing: none is shown twice, and none that was
        there all along is left out.

        Raises:
            BadRequest: a cursor that is not ours, or was made for another order.
        """
        until, found = self._sorted(query, nodes, version, now)
        start = bisect_right(found, _read_cursor(cursor, query), key=_key) if cursor else 0
        shown = found[start : start + limit]
        more = start + limit < len(found)
        following = json.dumps(_write_cursor(shown[-1][0], query)) if more else "null"
        listed = ",".join(node.json_at(now) for _, node in shown)
        body = f'{{"nodes":[{listed}],"next":{following},"total":{len(found)}}}'.encode()
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        page = Page(body, etag, version, until)
        self._bytes += len(body) + _PAGE_OVERHEAD
        if self._bytes > _CACHED_BYTES:
            self._pages.clear()
            self._bytes = len(body) + _PAGE_OVERHEAD
        self._pages[key] = page
        return page

    def _sorted(
        self, query: Query, nodes: Iterable[Node], version: int, now: float
    ) -> tuple[float, list[tuple[Key, Node]]]:
        kept = self._lists.get(name := f"{query.sort} {query.text}")
        if kept is not None and kept[0] == version and now < kept[1]:
            return kept[1], kept[2]
        until, found = now + STALE_SECONDS, []
        for node in nodes:
            if now < node.lease_until < until:
                until = node.lease_until  # it goes offline then
            if query.accepts(seen := node.facts_at(now)):
                found.append(((query.sort_key(seen), node.node_id), node))
        found.sort(key=_key)
        if len(self._lists) >= _CACHED_LISTS:
            self._lists.clear()
        self._lists[name] = (version, until, found)
        return until, found


def _key(item: tuple[Key, Node]) -> Key:
    return item[0]


def _write_cursor(key: Key, query: Query) -> str:
    raw = json.dumps([query.sort, list(key[0]), key[1]], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def _read_cursor(text: str, query: Query) -> Key:
    try:
        raw = base64.urlsafe_b64decode(text[:MAX_CURSOR] + "=" * (-len(text) % 4))
        sort, value, node_id = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        sort, value, node_id = None, None, None
    if sort != query.sort or not isinstance(node_id, str) or not _integers(value):
        raise BadRequest("The cursor does not fit this search; start again without it.")
    return tuple(value), node_id


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
