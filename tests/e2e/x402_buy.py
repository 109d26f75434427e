"""Buys one job with the PyPI package's own client, which knows nothing of ComputeSwarm.

    python x402_buy.py 1|2 SELLER_URL   with the private key in X402_KEY, the request on stdin

Prints one JSON object: status, body and the decoded settlement header.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys

import httpx
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.exact.v1 import ExactEvmSchemeV1


class OnlyBody(httpx.AsyncHTTPTransport):
    """Hides version 2's header, so that the client sees a server of version 1."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await super().handle_async_request(request)
        reply.headers.pop("PAYMENT-REQUIRED", None)
        return reply


async def main(version: str, url: str) -> None:
    """Buy, and say what came of it."""
    signer = EthAccountSigner(Account.from_key(os.environ["X402_KEY"]))
    client, below = x402Client(), httpx.AsyncHTTPTransport()
    if version == "2":
        client.register("eip155:84532", ExactEvmScheme(signer))
    else:
        client.register_v1("base-sepolia", ExactEvmSchemeV1(signer))
        below = OnlyBody()
    paying = x402AsyncTransport(client, below)
    async with httpx.AsyncClient(transport=paying, timeout=60) as http:
        reply = await http.post(f"{url}/execute", json=json.load(sys.stdin))
    receipt = reply.headers["PAYMENT-RESPONSE" if version == "2" else "X-PAYMENT-RESPONSE"]
    told = {
        "status": reply.status_code,
        "body": reply.json(),
        "settled": json.loads(base64.b64decode(receipt)),
    }
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
