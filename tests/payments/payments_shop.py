"""A seller for the tests, and hand-made payments to him."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Authorization, Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.payments.claims import Claim
from computeswarm.payments.present import Presented
from computeswarm.payments.settlement import Settlements, request_binding
from computeswarm.payments.terms import Terms

PRICE = 4_200
URL = "http://seller.test/execute"
BINDING = request_binding("POST", URL, b"{}")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in the background."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the background has no event to offer
            await asyncio.sleep(0.01)


def sign(key: PrivateKey, authorization: Authorization) -> bytes:
    """The payer's own signature."""
    a = authorization
    return key.sign_digest(
        transfer_authorization_digest(
            BASE_SEPOLIA,
            from_=a.from_,
            to=a.to,
            value=a.value,
            valid_after=a.valid_after,
            valid_before=a.valid_before,
            nonce=a.nonce,
        )
    )


def pay(key: PrivateKey, to: str, value: int = PRICE, **changes: Any) -> Presented:
    """A payment with a good signature; ``changes`` replace members of the authorization."""
    now = int(time.time())
    fields: dict[str, Any] = {
        "from_": key.address,
        "to": to,
        "value": value,
        "valid_after": now - 60,
        "valid_before": now + 60,
        "nonce": "0x" + secrets.token_hex(32),
        **changes,
    }
    authorization = Authorization(**fields)
    return Presented(2, authorization, sign(key, authorization))


@dataclass
class Shop:
    """Settlements of one wallet, and what it was told to start."""

    settlements: Settlements
    terms: Terms
    usdc: Usdc
    sender: TxSender
    started: list[Claim] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    async def open(
        cls,
        devnet: Devnet,
        rpc: RpcClient,
        path: Path,
        *,
        key: PrivateKey | None = None,
        on_settled: Callable[[Claim], Awaitable[None]] | None = None,
        settle_seconds: float = 30.0,
        **options: Any,
    ) -> Self:
        seller = key or devnet.keys[1]
        usdc = Usdc(rpc, BASE_SEPOLIA)
        sender = TxSender(rpc, seller, devnet.chain_id)

        async def start(claim: Claim) -> None:
            if on_settled is not None:
                await on_settled(claim)
            shop.started.append(claim)

        settlements = Settlements(
            *(path, rpc, usdc, sender, SystemClock()),
            on_settled=start,
            settle_seconds=settle_seconds,
            **options,
        )
        terms = Terms(BASE_SEPOLIA, seller.address, PRICE, URL, "a slice of a job")
        shop = cls(settlements, terms, usdc, sender)
        try:
            await settlements.start()
        except BaseException:
            await settlements.close()
            raise
        return shop

    async def settle(
        self, presented: Presented, *, binding: str = BINDING, subject: str = "job-1"
    ) -> Claim:
        """Settle as the seller's server does."""
        return await self.settlements.settle(
            presented,
            self.terms,
            binding=binding,
            subject=subject,
            before_broadcast=lambda: self.asked.append(subject),
        )
