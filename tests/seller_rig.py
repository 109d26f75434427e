"""A seller, a market and a buyer's hands for the tests of the seller."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Authorization, Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.events import EVENTS, EndEvent, JobEvent, MeterEvent, OutputEvent
from computeswarm.core.jobs import ExecuteReply, JobView
from computeswarm.core.quotes import Quote
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.signing import Signed
from computeswarm.core.x402 import encode_header
from computeswarm.market import open_market
from computeswarm.seller.agent import SellerAgent
from computeswarm.server.market_app import build_market_app
from computeswarm.server.seller_build import RunningSeller, open_seller
from computeswarm.server.serving import Server

PRICE = 3_600_000
"""Atoms an hour: 1,000 a second."""


def sign(key: PrivateKey, given: Authorization) -> bytes:
    """The payer's own signature."""
    return key.sign_digest(
        transfer_authorization_digest(
            BASE_SEPOLIA,
            from_=given.from_,
            to=given.to,
            value=given.value,
            valid_after=given.valid_after,
            valid_before=given.valid_before,
            nonce=given.nonce,
        )
    )


def script(code: str) -> list[str]:
    """A command that runs this Python."""
    return ["python", "-u", "-c", code]


def spec(code: str = "print('hello')", **changes: Any) -> dict[str, Any]:
    """A small job."""
    made: dict[str, Any] = {
        "command": script(code),
        "max_seconds": 60,
        "memory_bytes": 128 * 2**20,
        "disk_bytes": 16 * 2**20,
    }
    return made | changes


def input_file(path: str, data: bytes) -> dict[str, Any]:
    """An input that is uploaded."""
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass
class Reply:
    """A response, read whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def text(self) -> str:
        return self.body.decode()


@dataclass
class Bought:
    """A job and what opens it."""

    rig: Rig
    job_id: str
    key: str
    quote: Quote | None = None

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def call(self, method: str, path: str = "", **options: Any) -> Reply:
        headers = self.auth | options.pop("headers", {})
        return await self.rig.call(method, f"/jobs/{self.job_id}{path}", headers=headers, **options)

    async def view(self) -> JobView:
        reply = await self.call("GET")
        assert reply.status == 200, reply.body
        return JobView.model_validate_json(reply.body)

    async def ended(self) -> JobView:
        """Follows the stream to its end."""
        events = [event async for event in self.follow()]
        assert isinstance(events[-1], EndEvent)
        return await self.view()

    async def follow(self, since: int = 0) -> AsyncIterator[JobEvent]:
        url = f"{self.rig.url}/jobs/{self.job_id}/stream?since={since}"
        async with self.rig.session.ws_connect(url, headers=self.auth) as socket:
            async for message in socket:
                for event in EVENTS.validate_json(message.data):
                    yield event
            assert socket.close_code == 1000

    async def first_output(self) -> OutputEvent:
        async for event in self.follow():
            if isinstance(event, OutputEvent):
                return event
        raise AssertionError("no output")

    async def pay(self, index: int, **changes: Any) -> Reply:
        assert self.quote is not None
        amount = self.quote.slice_amount(index)
        payment = self.rig.payment(amount, **changes)
        return await self.call("POST", "/payments", json={"slice": index}, headers=payment)

    async def until(self, condition: Any) -> JobView:
        async with asyncio.timeout(30):
            while not condition(view := await self.view()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return view


@dataclass
class Rig:
    """What runs, and a buyer's wallet."""

    seller: RunningSeller
    session: aiohttp.ClientSession
    usdc: Usdc
    buyer: PrivateKey
    market_url: str
    paths: Paths
    payments: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.seller.url

    @property
    def agent(self) -> SellerAgent:
        return self.seller.agent

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        url = path if path.startswith("http") else self.url + path
        async with self.session.request(method, url, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    def payment(
        self, amount: int, *, key: PrivateKey | None = None, to: str | None = None
    ) -> dict[str, str]:
        """Headers of a good payment of version 1."""
        key, now = key or self.buyer, int(time.time())
        nonce = "0x" + secrets.token_hex(32)
        to = to or self.agent.wallet
        given = Authorization(key.address, to, amount, now - 60, now + 60, nonce)
        payload = {
            "signature": "0x" + sign(key, given).hex(),
            "authorization": {
                "from": given.from_,
                "to": given.to,
                "value": str(given.value),
                "validAfter": str(given.valid_after),
                "validBefore": str(given.valid_before),
                "nonce": given.nonce,
            },
        }
        document = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}
        return {"X-PAYMENT": encode_header(document | {"payload": payload})}

    async def quote(self, job: dict[str, Any]) -> Signed:
        reply = await self.call("POST", "/quotes", json={"spec": job})
        assert reply.status == 200, reply.body
        return Signed.model_validate_json(reply.body)

    async def buy(self, job: dict[str, Any], *, job_id: str | None = None) -> Bought:
        """A job with its first slice paid."""
        signed = await self.quote(job)
        quote = Quote.model_validate(signed.document)
        body = {
            "spec": job,
            "quote": signed.model_dump(mode="json"),
            "job_id": job_id or f"job-{secrets.token_hex(10)}",
            "access_key": secrets.token_hex(32),
        }
        payment = self.payment(quote.slice_amount(0))
        reply = await self.call("POST", "/execute", json=body, headers=payment)
        assert reply.status == 202, reply.body
        made = ExecuteReply.model_validate_json(reply.body)
        assert made.access_key == body["access_key"]
        return Bought(self, made.job.job_id, made.access_key, quote)

    async def balance(self) -> int:
        return await self.usdc.balance_of(self.buyer.address)

    async def refunded(self, bought: Bought) -> JobView:
        """Waits until the refund is on the chain."""
        return await bought.until(
            lambda view: view.refund is not None and view.refund.transaction != ""
        )


def output_of(events: list[JobEvent], stream: str = "stdout") -> bytes:
    """All that a job printed."""
    return b"".join(e.raw() for e in events if isinstance(e, OutputEvent) and e.stream == stream)


def stored(events: list[JobEvent]) -> list[JobEvent]:
    """Events with numbers of their own."""
    return [event for event in events if not isinstance(event, MeterEvent)]


def settings_for(devnet: Devnet, market_url: str, **changes: Any) -> Settings:
    """A seller's settings on this chain; ``price`` makes a second cost 1,000 atoms."""
    made = Settings(
        market=market_url,
        rpc=devnet.url,
        node_name="rig",
        price="3.60",
        executor="process",
        slice_seconds=10,
        max_job_seconds=3600,
    )
    return replace(made, **changes)


@asynccontextmanager
async def open_rig(
    devnet: Devnet,
    folder: Path,
    *,
    trusted: Sequence[str] = (),
    key: PrivateKey | None = None,
    grace: float = 0.0,
    config: dict[str, Any] | None = None,
    market_url: str | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """A market (unless there is one) and a seller with its state below ``folder``."""
    paths = Paths.find({"COMPUTESWARM_HOME": str(folder / "seller-home")})
    buyer = devnet.keys[0]
    market = Server(build_market_app(open_market(folder / "market.db")))
    async with market, aiohttp.ClientSession() as session, RpcClient(devnet.url) as rpc:
        url = market_url or await market.start("127.0.0.1", 0)
        wallets = list(trusted) or [buyer.address]
        opening = open_seller(
            settings_for(devnet, url, **changes),
            paths,
            key or devnet.keys[1],
            trusted=wallets,
            grace=grace,
            default_port=0,
            tune=config or {},
        )
        async with opening as seller:
            yield Rig(seller, session, Usdc(rpc, BASE_SEPOLIA), buyer, url, paths)
