"""The owner's routes: on the loopback, with the token that lies in the seller's folder."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import cast, get_args

from aiohttp import web

from computeswarm.core.errors import BadRequest, Forbidden, Unauthorized, Unprocessable
from computeswarm.core.signing import Document
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.earnings_rows import MAX_DAYS, By, EarningsReport
from computeswarm.seller.owner import Hold, OwnerStatus, PriceChange, Rejection, Wish
from computeswarm.server.routes import Route
from computeswarm.server.web import json_reply, read_model

_TOKEN = {"Authorization": "Bearer and the owner's token"}
_DIGITS = len(str(MAX_DAYS))
_REJECT, _HOLD = "/owner/jobs/{id}/reject", "/owner/gpus/{index}/hold"
_BODIES: dict[str, type[Document]] = {"/owner/price": PriceChange, _REJECT: Rejection, _HOLD: Hold}
_INDEX = re.compile(r"\d{1,3}", re.ASCII)
_Action = Callable[[web.Request], Awaitable[None]]


def owner_routes(agent: SellerAgent, token: str) -> list[Route]:
    """The routes below /owner."""
    handlers = _OwnerHandlers(agent, token)

    def post(path: str, action: _Action, summary: str) -> Route:
        async def handler(request: web.Request) -> web.StreamResponse:
            handlers.check(request)
            await action(request)
            return json_reply(agent.status())

        body = _BODIES.get(path)
        return Route(
            "POST",
            path,
            handler,
            summary,
            body=body,
            replies={200: OwnerStatus},
            headers=_TOKEN,
        )

    return [
        Route(
            "GET",
            "/owner/status",
            handlers.status,
            "Everything the owner sees",
            replies={200: OwnerStatus},
            headers=_TOKEN,
        ),
        Route(
            "GET",
            "/owner/earnings",
            handlers.earnings,
            "What selling brought and cost",
            replies={200: EarningsReport},
            query={"days": "so many of the owner's days, 7 by default", "by": "day, gpu or job"},
            headers=_TOKEN,
        ),
        post("/owner/pause", handlers.pause, "Take no new jobs"),
        post("/owner/drain", handlers.drain, "Take no new jobs and finish those that are paid"),
        post("/owner/resume", handlers.resume, "Take jobs again"),
        post("/owner/price", handlers.price, "Ask another price from now on"),
        post("/owner/jobs/{id}/evict", handlers.evict, "End a job and refund it"),
        post("/owner/jobs/{id}/accept", handlers.accept, "Let a job in that asks"),
        post(_REJECT, handlers.reject, "Turn a job away that asks, and refund it"),
        post(_HOLD, handlers.hold, "Keep a GPU from new jobs, or release it"),
        post("/owner/stop", handlers.stop, "Hand jobs back and end"),
    ]


def check_owner(request: web.Request, owner_token: str) -> None:
    """Raises Forbidden, Unauthorized: not the owner, or not at his own machine."""
    if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
        raise Forbidden("The owner's routes are not served through a proxy.")
    if not _loopback(request):
        raise Forbidden("The owner's routes are for this machine only.")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = token.strip().encode("utf-8", "replace")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, owner_token.encode()):
        raise Unauthorized("The owner's token is missing or wrong.")


class _OwnerHandlers:
    def __init__(self, agent: SellerAgent, token: str) -> None:
        self._agent = agent
        self._token = token

    def check(self, request: web.Request) -> None:
        """Raises Forbidden, Unauthorized: not the owner."""
        check_owner(request, self._token)

    async def status(self, request: web.Request) -> web.StreamResponse:
        self.check(request)
        return json_reply(self._agent.status(), headers={"Cache-Control": "no-store"})

    async def earnings(self, request: web.Request) -> web.StreamResponse:
        self.check(request)
        days, by = request.query.get("days", "7"), request.query.get("by", "day")
        fits = days.isascii() and days.isdigit() and len(days) <= _DIGITS
        if not (fits and 1 <= int(days) <= MAX_DAYS):
            raise BadRequest(f"days is from 1 to {MAX_DAYS}.")
        if by not in get_args(By):
            raise BadRequest("by is day, gpu or job.")
        found = await self._agent.bookkeeper.report(int(days), cast("By", by))
        return json_reply(found, headers={"Cache-Control": "no-store"})

    async def pause(self, request: web.Request) -> None:
        self._agent.pause(True, (await _wish(request)).reason)

    async def drain(self, request: web.Request) -> None:
        wish = await _wish(request)
        self._agent.drain(wish.reason, then_stop=wish.then_stop)

    async def resume(self, _: web.Request) -> None:
        self._agent.pause(False)

    async def price(self, request: web.Request) -> None:
        price = (await read_model(request, PriceChange)).price_per_hour
        if price == 0:
            raise Unprocessable("The price is 0; set a price above 0 USDC an hour.")
        self._agent.set_price(price)

    async def evict(self, request: web.Request) -> None:
        await self._agent.evict(request.match_info["id"])

    async def accept(self, request: web.Request) -> None:
        self._agent.asking.accept(request.match_info["id"])

    async def reject(self, request: web.Request) -> None:
        said = await read_model(request, Rejection) if request.can_read_body else Rejection()
        await self._agent.asking.reject(request.match_info["id"], said.reason)

    async def hold(self, request: web.Request) -> None:
        index = request.match_info["index"]
        if not _INDEX.fullmatch(index):
            raise BadRequest("A GPU is named by its number, such as 0.")
        self._agent.holds.hold(int(index), (await read_model(request, Hold)).held)

    async def stop(self, _: web.Request) -> None:
        self._agent.stop_requested.set()


async def _wish(request: web.Request) -> Wish:
    """What was asked for; nothing in particular where there is no body."""
    return await read_model(request, Wish) if request.can_read_body else Wish()


def _loopback(request: web.Request) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    try:
        address = ipaddress.ip_address(str(peer[0])) if peer else None
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address is not None and address.is_loopback
