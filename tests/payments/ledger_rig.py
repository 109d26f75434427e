"""A seller with books, a node that can be made to lie, and an audit of both."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import transfer_calldata
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.settings import Paths
from computeswarm.payments.ledger.audit import Audit, Auditor
from computeswarm.server.serving import Server

Twist = Callable[[str, list[Any], Any], Any]
"""From method, parameters and the honest result to what the node says."""


def home(folder: Path) -> Paths:
    return Paths.find({"COMPUTESWARM_HOME": str(folder / "home")})


async def new_key(devnet: Devnet, *, atoms: int = 1_000_000) -> PrivateKey:
    """A wallet that no other test moves money of."""
    key = PrivateKey.generate()
    await devnet.fund(key.address, wei=10**18, usdc_atoms=atoms)
    return key


async def send(devnet: Devnet, rpc: RpcClient, key: PrivateKey, to: str, atoms: int) -> str:
    """A transfer that no books know; its hash."""
    sender = TxSender(rpc, key, devnet.chain_id)
    signed = await sender.prepare(devnet.usdc, transfer_calldata(to, atoms))
    await sender.broadcast(signed)
    receipt = await sender.wait_receipt(signed.hash)
    assert receipt.succeeded
    return signed.hash


async def sell(devnet: Devnet, rpc: RpcClient, paths: Paths) -> PrivateKey:
    """Three payments, a refund of two debts in one transfer, and a debt that is dust."""
    seller, buyer = await new_key(devnet), await new_key(devnet)
    shop = await Shop.open(devnet, rpc, paths.seller / "payments.db", key=seller)
    try:
        for number in range(3):
            await shop.settle(
                pay(buyer, seller.address, PRICE), binding=str(number), subject=f"job-{number}"
            )
        await shop.settlements.refund("job-1", buyer.address, 900)
        await shop.settlements.refund("job-2", buyer.address, 1_100)
        done = lambda: shop.settlements.refunds("job-2")[0].state == "done"  # noqa: E731
        await until(done)
        await shop.settlements.refund("job-0", buyer.address, 10)
    finally:
        await shop.settlements.close()
    return seller


async def audit(
    paths: Paths, rpc: RpcClient, *, since: float | None = None, **options: Any
) -> Audit:
    return await Auditor(paths, BASE_SEPOLIA, rpc, **options).run(since)


def codes(found: Audit) -> list[str]:
    return sorted(one.code for report in found.reports for one in report.differences)


@contextmanager
def tampered(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as its owner's enemy has it."""
    db = sqlite3.connect(path)
    try:
        yield db
        db.commit()
    finally:
        db.close()


@asynccontextmanager
async def lying_node(devnet: Devnet, twist: Twist) -> AsyncIterator[str]:
    """A node in front of the devnet; ``twist`` changes results, and may raise to be silent."""
    session = aiohttp.ClientSession()

    async def one(call: dict[str, Any]) -> dict[str, Any]:
        async with session.post(devnet.url, json=call) as response:
            reply: dict[str, Any] = await response.json()
        if "result" in reply:
            reply["result"] = twist(call["method"], call["params"], reply["result"])
        return reply

    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        try:
            if isinstance(asked, list):
                return web.json_response([await one(call) for call in asked])
            return web.json_response(await one(asked))
        except ConnectionError:
            return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/", handle)
    async with session, Server(app) as server:
        yield await server.start("127.0.0.1", 0)
