"""Sells one answer with the PyPI package's own server and facilitator; see ``sell.mjs``.

    python x402_sell.py PAY_TO RPC_URL

Only the glue between its request adapter and an HTTP server is ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from aiohttp import web
from x402.facilitator import x402Facilitator
from x402.http import x402HTTPResourceServer
from x402.http.types import HTTPRequestContext, PaymentOption, RouteConfig
from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
from x402.mechanisms.evm.exact.server import ExactEvmScheme as ExactEvmServerScheme
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.server import x402ResourceServer

NETWORK = "eip155:84532"


class Adapter:
    """One aiohttp request, as the package wants to see it."""

    def __init__(self, request: web.Request) -> None:
        self._request = request

    def get_header(self, name: str) -> str | None:
        return self._request.headers.get(name)

    def get_method(self) -> str:
        return self._request.method

    def get_path(self) -> str:
        return self._request.path

    def get_url(self) -> str:
        return str(self._request.url)

    def get_accept_header(self) -> str:
        return self._request.headers.get("Accept", "")

    def get_user_agent(self) -> str:
        return self._request.headers.get("User-Agent", "")

    def get_query_params(self) -> dict[str, str | list[str]]:
        return dict(self._request.query)

    def get_query_param(self, name: str) -> str | None:
        return self._request.query.get(name)

    def get_body(self) -> Any:
        return None


class Local:
    """The package's facilitator in this process; it blocks, so off the loop with it."""

    def __init__(self, facilitator: x402Facilitator) -> None:
        self._facilitator = facilitator

    async def verify(self, payload: Any, requirements: Any) -> Any:
        return await self._facilitator.verify(payload, requirements)

    async def settle(self, payload: Any, requirements: Any) -> Any:
        return await self._facilitator.settle(payload, requirements)

    def get_supported(self) -> Any:
        return self._facilitator.get_supported()


def build(pay_to: str, rpc: str) -> web.Application:
    """The application."""
    facilitator = x402Facilitator()
    signer = FacilitatorWeb3Signer(private_key=os.environ["X402_KEY"], rpc_url=rpc)
    facilitator.register([NETWORK], ExactEvmScheme(signer))
    resources = x402ResourceServer(Local(facilitator))
    scheme: Any = ExactEvmServerScheme
    resources.register(NETWORK, scheme())
    way = RouteConfig(
        accepts=PaymentOption(scheme="exact", pay_to=pay_to, price="$0.01", network=NETWORK),
        description="A fact",
    )
    server = x402HTTPResourceServer(resources, {"GET /fact": way, "POST /echo": way})
    server.initialize()

    async def serve(request: web.Request) -> web.Response:
        context = HTTPRequestContext(
            adapter=Adapter(request),
            path=request.path,
            method=request.method,
            payment_header=request.headers.get("PAYMENT-SIGNATURE"),
        )
        result: Any = await server.process_http_request(context)
        if result.type == "payment-error":
            told = result.response
            return web.Response(
                text=json.dumps(told.body), status=told.status, headers=told.headers
            )
        body = await request.read() if request.method == "POST" else b'{"fact": "paid"}'
        settled = await server.process_settlement(
            result.payment_payload, result.payment_requirements
        )
        if not settled.success:
            return web.Response(text="{}", status=402, headers=settled.headers)
        return web.Response(body=body, headers=settled.headers)

    app = web.Application()
    app.router.add_get("/fact", serve)
    app.router.add_post("/echo", serve)
    return app


async def main() -> None:
    """Serve until stdin ends."""
    runner = web.AppRunner(build(*sys.argv[1:3]))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("http://{}:{}".format(*runner.addresses[0]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


asyncio.run(main())
