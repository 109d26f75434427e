"""Limits on what one address may ask, put round a route's handler."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from computeswarm.core.addresses import address_key
from computeswarm.core.errors import JobNotFound, NodeNotFound, NodeRevoked, Unauthorized
from computeswarm.market.limits import Kind, Limits
from computeswarm.server.proxies import Clients

_FAILED = (Unauthorized, NodeNotFound, NodeRevoked, JobNotFound)
"""A call under a session that isn't there, or of a job, costs a look into the database."""


def limiting(limits: Limits, clients: Clients) -> Callable[[str, Handler], Handler]:
    """What ``build_app`` puts round each route that names a limit.

    ``auth`` is the odd one: a call that is authenticated passes, however many others behind the
    same address are not; only failures are counted, and beyond the limit answered with 429.
    Whatever else a signed request counts under, failing to show who one is counts there too.
    """
    take, address = limits.take, clients.address

    def wrapped(kind: str, handler: Handler) -> Handler:
        counted = Kind(kind)

        async def limited(request: web.Request) -> web.StreamResponse:
            take(counted, address_key(address(request)))
            return await guarded(request)

        async def failing(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except _FAILED:
                take(Kind.AUTH, address_key(address(request)))
                raise

        guarded = handler if counted is Kind.READ else failing
        return failing if counted is Kind.AUTH else limited

    return wrapped
