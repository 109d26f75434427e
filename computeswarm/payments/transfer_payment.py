"""Payment by a transfer that the buyer broadcast himself: what the chain has to show for it.

Only the plainest transaction counts: the buyer's own call of ``transfer(payee, exact amount)`` on
the pinned USDC, mined while the challenge stood. Nothing else names him, the payee and the price
at once; a transfer inside some other call may have been another's, or for something else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Authorization, Usdc, transfer_calldata
from computeswarm.chain.wire import Receipt, parse_bytes
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import ComputeSwarmError, PaymentPending, PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim
from computeswarm.payments.present import refused
from computeswarm.payments.terms import Terms
from computeswarm.payments.transfer_proof import TransferProof
from computeswarm.payments.way import BeforeBroadcast, Way

EARLY_SECONDS = 5
"""By which the chain's clock may be behind ours."""
LATE_SECONDS = 60
"""Within which a transfer that was sent in time may still be mined."""
_WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.25
_MOST_WAITING = 16


def described(proof: TransferProof, terms: Terms) -> Authorization:
    """The transfer in the claims' form: the hash for a nonce, the challenge's times as window."""
    return Authorization(
        from_=proof.payer,
        to=terms.pay_to,
        value=terms.amount,
        valid_after=proof.issued_at - EARLY_SECONDS,
        valid_before=proof.expires_at + LATE_SECONDS,
        nonce=proof.transaction_hash,
    )


@dataclass(slots=True)
class TransferPayments:
    """Judges reserved claims of such transfers.

    Args:
        waiting: proofs of transactions that are looked for at this moment.
    """

    rpc: RpcClient
    usdc: Usdc
    way: Way
    waiting: int = 0

    async def check_sent(self, given: Authorization) -> None:
        """Whether the payer himself has sent this, before anything is written down for it: a
        stranger who has seen the hash must not get in the way of whoever paid.

        Raises:
            PaymentRequired: it is no payment of his for this.
            PaymentPending: nobody has heard of it yet.
            RpcUnavailable: the chain doesn't say.
        """

        async def heard() -> bool:
            sent = await self.rpc.call("eth_getTransactionByHash", [given.nonce])
            if sent is not None:
                _check_call(sent, given, self.usdc.address)
            return sent is not None

        # a stranger's random hash is in no block for ever, so few of them are waited for
        waits = self.waiting < _MOST_WAITING
        self.waiting += 1
        try:
            if not await _within(_WAIT_SECONDS if waits else 0, heard):
                raise _pending()
        finally:
            self.waiting -= 1

    async def run(self, claim: Claim, before_broadcast: BeforeBroadcast) -> Claim:
        """From a reserved claim to the end; as ``Way.run``."""
        found: list[Receipt] = []

        async def proven() -> bool:
            receipt = await self._proven(claim.authorization)
            found.extend([receipt] if receipt is not None else [])
            return receipt is not None

        try:
            await _within(_WAIT_SECONDS, proven)
        finally:
            if not found:  # nobody took anything, and it may yet pay for what it was sent for
                with contextlib.suppress(ComputeSwarmError):
                    self.way.store.forget(claim)
        if not found:
            raise _pending()
        with self.way.none_left_reserved(claim):
            return await self.way.accept(claim, found[0], before_broadcast)

    async def _proven(self, given: Authorization) -> Receipt | None:
        """The receipt; None while it is in no block.

        Raises:
            PaymentRequired: it is no payment for this.
            RpcUnavailable: the chain doesn't say.
        """
        receipt = await self.rpc.receipt(given.nonce)
        if receipt is None:
            return None
        if not self.usdc.transfer_proof(receipt, given.from_, given.to, given.value):
            raise _no_payment("failed on the chain")
        mined = (await self.rpc.head(hex(receipt.block_number))).timestamp
        if not given.valid_after <= mined <= given.valid_before:
            raise _no_payment("was not mined while its challenge stood")
        return receipt


async def _within(seconds: float, done: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it is done once, or comes to be within so many seconds."""
    if await done():
        return True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await asyncio.sleep(_POLL_SECONDS)
                if await done():
                    return True
    return False


def _pending() -> PaymentPending:
    return PaymentPending(
        "The transfer is in no block yet; present the same proof again.",
        reason=Reason.SETTLEMENT_PENDING,
    )


def _check_call(sent: Any, given: Authorization, token: str) -> None:
    if not isinstance(sent, dict):
        raise RpcUnavailable("The RPC's answer makes no sense (a transaction); try another.")
    payer, to = sent.get("from"), sent.get("to")
    if not isinstance(payer, str) or not same_address(payer, given.from_):
        raise _no_payment("was sent by another wallet")
    if not isinstance(to, str) or not same_address(to, token):
        raise _no_payment("is no call of USDC")
    if parse_bytes(sent.get("input")) != transfer_calldata(given.to, given.value):
        raise _no_payment(f"is no plain transfer of {given.value} atoms to {given.to}")


def _no_payment(what: str) -> PaymentRequired:
    return refused(Reason.SETTLEMENT_FAILED, f"The transaction {what}; send a new transfer.")
