"""Where the tests kill a seller, and how one is killed while a buyer waits for him."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from crash_child import Child, Point, dying_seller
from seller_rig import settings_for
from threat_rig import ENDPOINT, FUNDS, GAS_WEI, Signed, new_wallet, purchase

from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.states import JobState

_PAY = "computeswarm.payments"
_SELL = "computeswarm.seller"
CLAIMS = f"{_PAY}.claims:ClaimStore"
SENDER = "computeswarm.chain.sender:TxSender"

DONE, LOST = {JobState.SUCCEEDED}, {JobState.SELLER_LOST}
ANY = DONE | LOST  # the job runs beside the reply
STEPS: list[tuple[str, str, int, str, set[JobState], set[JobState]]] = [
    # name, function, which call, with what; how the job ends after a crash before and after it
    ("claim", f"{CLAIMS}.insert", 1, "", DONE, DONE),
    ("verified", f"{_PAY}.verify:Verifier.verify", 1, "", DONE, DONE),
    ("job written", f"{_SELL}.store:JobStore.add", 1, "", DONE, DONE),
    ("signed", f"{SENDER}.prepare", 1, "", DONE, DONE),
    ("transaction kept", f"{CLAIMS}.broadcast_all", 1, "", DONE, DONE),
    ("broadcast", f"{SENDER}.broadcast", 1, "", DONE, DONE),
    ("receipt", f"{SENDER}.wait_receipt", 1, "", DONE, DONE),
    ("settled", f"{CLAIMS}.settle", 1, "", DONE, DONE),
    ("slice written", f"{_SELL}.store:JobStore.pay", 1, "", DONE, DONE),
    ("queued", f"{_SELL}.store:JobStore.advance", 1, "QUEUED", DONE, DONE),
    ("consumed", f"{CLAIMS}.consume", 1, "", ANY, ANY),
    ("reply kept", f"{CLAIMS}.set_reply", 1, "", ANY, ANY),
    ("starting", f"{_SELL}.store:JobStore.advance", 1, "STARTING", DONE, DONE),
    ("workspace", f"{_SELL}.executors.process:ProcessExecutor.prepare", 1, "", DONE, DONE),
    ("started", f"{_SELL}.executors.process:ProcessExecutor.start", 1, "", DONE, DONE),
    ("running", f"{_SELL}.store:JobStore.advance", 1, "RUNNING", DONE, LOST),
    ("outputs", f"{_SELL}.runner:JobRun._collect", 1, "", LOST, LOST),
    ("end", f"{_SELL}.store:JobStore.advance", 1, "SUCCEEDED", LOST, DONE),
    ("refund owed", f"{_PAY}.refunds:RefundQueue.add", 1, "", DONE, DONE),
    ("refund filed", f"{_SELL}.store:JobStore.update", 1, "refund_filed", DONE, DONE),
    ("refund signed", f"{SENDER}.prepare", 2, "", DONE, DONE),
    ("refund kept", f"{_PAY}.refunds:RefundQueue._assign", 1, "", DONE, DONE),
    ("refund sent", f"{SENDER}.broadcast", 2, "", DONE, DONE),
    ("refund proven", f"{_PAY}.refunds:RefundQueue._done", 1, "", DONE, DONE),
]
CASES = [
    pytest.param(
        Point(target, when, nth, given), before if when == "before" else after, id=f"{when} {name}"
    )
    for name, target, nth, given, before, after in STEPS
    for when in ("before", "after")
]


@dataclass
class Victim:
    """A buyer, and a seller who can be started many times on one folder."""

    devnet: Devnet
    folder: Path
    buyer: PrivateKey
    seller: PrivateKey
    body: str
    payment: Signed

    @classmethod
    async def make(cls, devnet: Devnet, folder: Path, body: str = "") -> Victim:
        """Both with new wallets."""
        buyer = await new_wallet(devnet, atoms=FUNDS)
        seller = await new_wallet(devnet, wei=GAS_WEI)
        body = body or purchase("open('outputs/a', 'w').write('x'); print('hello')")
        return cls(devnet, folder, buyer, seller, body, Signed.make(buyer, seller.address))

    @asynccontextmanager
    async def running(self, point: Point | None) -> AsyncIterator[Child]:
        """The seller in a process that dies at ``point``."""
        settings = settings_for(self.devnet, "http://127.0.0.1:9", endpoint=ENDPOINT)
        home, key = self.folder / "seller-home", self.seller.secret.hex()
        async with dying_seller(settings, home, key, [self.buyer.address], point) as child:
            yield child

    async def buy_and_die(self, point: Point) -> bytes | None:
        """Buy from a seller who dies at ``point``; his reply, if one came."""
        async with self.running(point) as child:
            reply = await self.post(child.url)
            assert await child.died(), "the point was never reached"
        return reply

    async def post(self, url: str) -> bytes | None:
        """Present the payment; None where the line broke."""
        async with aiohttp.ClientSession() as session:
            try:
                answer = session.post(
                    f"{url}/execute", data=self.body, headers=self.payment.headers
                )
                async with answer as reply:
                    said = await reply.read()
                    assert reply.status == 202, said
                    return said
            except aiohttp.ClientError:
                return None
