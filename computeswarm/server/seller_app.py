"""The seller over HTTP: what it is, quotes, and buying a job."""

from __future__ import annotations

from aiohttp import hdrs, web

import computeswarm
from computeswarm.core.errors import Unavailable
from computeswarm.core.jobs import ExecuteReply, ExecuteRequest, QuoteRequest
from computeswarm.core.signing import Signed, parse_json
from computeswarm.core.x402 import (
    HEADER_PAYMENT_V1,
    HEADER_PAYMENT_V2,
    PaymentRequiredV1,
)
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.checkout import Answer
from computeswarm.seller.manifest import manifest
from computeswarm.server.assembly import build_app
from computeswarm.server.routes import Route
from computeswarm.server.seller_app_jobs import job_routes
from computeswarm.server.seller_app_owner import owner_routes
from computeswarm.server.seller_app_watch import watch_routes
from computeswarm.server.web import (
    JSON_CONTENT_TYPE,
    JSON_LIMIT,
    bytes_reply,
    json_reply,
    read_body,
)

EXECUTE_LIMIT = 10 * 1024 * 1024
"""1 MiB of inline inputs in base64, a thousand inputs, and 6 MiB of environment."""
LARGE_BODIES = 24
"""Bodies beyond the usual limit that are read at the same time."""
_NO_STORE = {"Cache-Control": "no-store"}


def build_seller_app(agent: SellerAgent, owner_token: str) -> web.Application:
    """The seller's application; starting and stopping the agent is the caller's."""
    handlers = _Handlers(agent)
    return build_app(
        [
            *handlers.routes(),
            *job_routes(agent),
            *owner_routes(agent, owner_token),
            *watch_routes(agent, owner_token),
        ],
        title="ComputeSwarm seller",
        description="Runs jobs on this machine, paid by the second in USDC with x402.",
    )


def paid_reply(answer: Answer) -> web.Response:
    """An answer of the intake."""
    return bytes_reply(answer.body, status=answer.status, headers={**answer.headers, **_NO_STORE})


class _Handlers:
    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._large = 0

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/", self.index, "What this is", replies={200: JSON_CONTENT_TYPE}),
            Route(
                "GET",
                "/x402.json",
                self.manifest,
                "What can be bought here, and how",
                replies={200: JSON_CONTENT_TYPE},
            ),
            Route(
                "POST",
                "/quotes",
                self.quote,
                "A signed offer for a job",
                body=QuoteRequest,
                replies={200: Signed},
            ),
            Route(
                "POST",
                "/execute",
                self.execute,
                f"Buy a job (x402: {HEADER_PAYMENT_V2} or {HEADER_PAYMENT_V1})",
                body=ExecuteRequest,
                replies={202: ExecuteReply, 402: PaymentRequiredV1},
            ),
        ]

    async def index(self, _: web.Request) -> web.StreamResponse:
        agent = self._agent
        return json_reply(
            {
                "name": "ComputeSwarm seller",
                "version": computeswarm.__version__,
                "node_id": agent.node_id,
                "wallet": agent.wallet,
                "record": agent.offers.record().model_dump(mode="json"),
                "documentation": "/openapi.json",
                "x402": "/x402.json",
            }
        )

    async def manifest(self, _: web.Request) -> web.StreamResponse:
        return json_reply(manifest(self._agent))

    async def quote(self, request: web.Request) -> web.StreamResponse:
        asked = parse_json(QuoteRequest, await self._body(request))
        self._agent.check_accepting(asked.spec)
        offers = self._agent.offers
        quote = offers.quote(asked.spec, asked.scheme, asked.offer_per_hour)
        return json_reply(offers.sign(quote), headers=_NO_STORE)

    async def execute(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        asked = parse_json(ExecuteRequest, body)
        self._agent.check_started()
        return paid_reply(await self._agent.intake.execute(request.headers, body, asked))

    async def _body(self, request: web.Request) -> bytes:
        """A job's description. Few large ones at a time: nobody has paid for their memory yet.

        Raises:
            Unavailable: many are under way.
        """
        length = request.content_length
        if (
            length is not None
            and length <= JSON_LIMIT
            and hdrs.CONTENT_ENCODING not in request.headers
        ):
            return await read_body(request)
        if self._large >= LARGE_BODIES:
            raise Unavailable("The seller reads many large requests just now; try again soon.")
        self._large += 1
        try:
            return await read_body(request, limit=EXECUTE_LIMIT)
        finally:
            self._large -= 1
