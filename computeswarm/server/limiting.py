"""Limits on what one address may ask, put round a route's handler."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from computeswarm.core.addresses import address_key
from computeswarm.core.errors import (
    JobNotFound,
    NodeNotFound,
    NodeRevoked,
    TooManyRequests,
    Unauthorized,
)
from computeswarm.market.limits import Kind, Limits
from computeswarm.server.proxies import Clients

READS_AT_ONCE = 16
"""Reads of one address under way. Most end where they begin; for those that have to wait, searches
through all names of a large market, there are only so many places, and they are for all."""
_AT_ONCE = "reads at once per address"
_FAILED = (Unauthorized, NodeNotFound, NodeRevoked, JobNotFound)
"""A call under a session that isn't there, or of a job, costs a look into the database."""


def limiting(limits: Limits, clients: Clients) -> Callable[[str, Handler], Handler]:
    """What ``build_app`` puts round each route that names a limit.

    ``auth`` is the odd one: a call that is authenticated passes, however many others behind the
    same address are not; only failures are counted, and beyond the limit answered with 429.
    Whatever else a signed request counts under, failing to show who one is counts there too.
    """
    take, address = limits.take, clients.address
    under_way: dict[str, int] = {}

    def wrapped(kind: str, handler: Handler) -> Handler:
        counted = Kind(kind)

        async def limited(request: web.Request) -> web.StreamResponse:
            take(counted, address_key(address(request)))
            return await failing(request)

        async def reading(request: web.Request) -> web.StreamResponse:
            key = address_key(address(request))
            take(counted, key)
            reads = under_way.get(key, 0)
            if reads >= READS_AT_ONCE:
                limits.refused[_AT_ONCE] = limits.refused.get(_AT_ONCE, 0) + 1
                sentence = f"Your address has {reads} reads under way; wait for their answers."
                raise TooManyRequests(sentence, retry_after=1, limit=_AT_ONCE, amount=READS_AT_ONCE)
            under_way[key] = reads + 1
            try:
                return await handler(request)
            finally:
                if left := under_way[key] - 1:
                    under_way[key] = left
                else:
                    del under_way[key]

        async def failing(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except _FAILED:
                take(Kind.AUTH, address_key(address(request)))
                raise

        if counted is Kind.READ:
            return reading if limits.limited(counted) else handler
        return failing if counted is Kind.AUTH else limited

    return wrapped
