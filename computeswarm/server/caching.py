"""Answers that everybody may have and anybody between may keep: ETags, lifetimes, gzip."""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping

from aiohttp import hdrs, web

from computeswarm.server.web import JSON_CONTENT_TYPE, bytes_reply

STALE_HEADER = "ComputeSwarm-Stale"
"""Seconds that an answer may be old while the database is away."""
HELD_HEADER = "ComputeSwarm-Held"
"""Nodes that stay listed though their lease is over, since too many would go at once."""
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_NEVER = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})
_SMALL = 2_048
"""Bytes that aren't worth compressing."""
_KEPT = 256
_IN_THREAD = 32 * 1024


def entity_tag(body: bytes) -> str:
    """An ETag of ready bytes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def not_modified(request: web.Request, etag: str) -> bool:
    """Whether the client has this version already (RFC 9110, 13.1.2: weak comparison)."""
    given = request.headers.get(hdrs.IF_NONE_MATCH)
    if given is None:
        return False
    given = given[:2_000]
    return given.strip() == "*" or etag.removeprefix("W/") in _ENTITY_TAG.findall(given)


def cache_control(seconds: int) -> str:
    """Kept so long by everybody; a cache between may show an old one while it asks for a new, and
    when it gets none."""
    return (
        f"public, max-age={seconds}, s-maxage={seconds}, stale-while-revalidate={5 * seconds},"
        f" stale-if-error={60 + seconds}"
    )


class Shared:
    """Public answers; bodies that are asked for twice are kept compressed.

    Args:
        kind: their content type.
        seconds: how long they hold.
    """

    def __init__(self, seconds: int, *, kind: str = JSON_CONTENT_TYPE) -> None:
        self._control = cache_control(seconds)
        self._kind = kind
        self._compressed: OrderedDict[str, bytes] = OrderedDict()

    async def reply(
        self,
        request: web.Request,
        body: bytes,
        etag: str = "",
        *,
        stale: float = 0.0,
        held: int = 0,
    ) -> web.Response:
        """Answer with ``body``, or with 304.

        Args:
            etag: its version; made from the bytes where there is none.
            stale: seconds that it may be old, see ``STALE_HEADER``.
            held: see ``HELD_HEADER``.
        """
        etag = etag or entity_tag(body)
        headers: dict[str, str] = {
            hdrs.ETAG: etag,
            hdrs.CACHE_CONTROL: self._control,
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
        }
        if stale:
            headers[STALE_HEADER] = str(max(1, int(stale)))
        if held:
            headers[HELD_HEADER] = str(held)
        if not_modified(request, etag):
            return web.Response(status=304, headers=headers)
        if len(body) > _SMALL and _wants_gzip(request.headers):
            smaller = await self._smaller(etag, body)
            if smaller:
                body = smaller
                headers[hdrs.CONTENT_ENCODING] = "gzip"
                headers[hdrs.ETAG] = etag if etag.startswith("W/") else f"W/{etag}"
        return bytes_reply(body, headers=headers, content_type=self._kind)

    async def _smaller(self, etag: str, body: bytes) -> bytes:
        """Compressed from the second time on: what is asked for once costs more than it saves."""
        found = self._compressed.get(etag)
        if found is None:
            self._compressed[etag] = b""
            if len(self._compressed) > _KEPT:
                self._compressed.popitem(last=False)
            return b""
        if not found:
            if len(body) > _IN_THREAD:
                found = await asyncio.to_thread(_gzip, body)
            else:
                found = _gzip(body)
            if etag in self._compressed:
                self._compressed[etag] = found
        return found


def _gzip(body: bytes) -> bytes:
    made = zlib.compressobj(1, wbits=31)
    return made.compress(body) + made.flush()


def _wants_gzip(headers: Mapping[str, str]) -> bool:
    for entry in headers.get(hdrs.ACCEPT_ENCODING, "")[:200].lower().split(","):
        coding, _, weight = entry.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.strip() not in _NEVER
    return False
