"""What became of a payment that was sent: asked until the chain decides, and never guessed."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, PaymentRequired, Unavailable
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.confirmation import Confirmations
from computeswarm.payments.cover import Cover
from computeswarm.payments.facilitators.base import Facilitator
from computeswarm.payments.present import refused
from computeswarm.payments.shared import Shared
from computeswarm.payments.verify import Verifier

_log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
EXPIRY_MARGIN_SECONDS = 30
"""How long after an authorization's window no reorganisation is expected to bring it any more."""
_RECEIPT_SECONDS = 4.0
_CLOCK_SECONDS = 900
"""By which the chain's clock may be behind ours."""


class Fates:
    """Follows claims that are BROADCAST to their end."""

    def __init__(
        self,
        store: ClaimStore,
        rpc: RpcClient,
        usdc: Usdc,
        sender: TxSender,
        verifier: Verifier,
        facilitator: Facilitator,
        confirmations: Confirmations,
        clock: Clock,
        cover: Cover,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._usdc = usdc
        self._sender = sender
        self._verifier = verifier
        self._facilitator = facilitator
        self._confirmations = confirmations
        self._clock = clock
        self._cover = cover
        self._awaited: Shared[Receipt] = Shared()

    async def follow(self, claim: Claim, *, hint: str = "", look_first: bool = False) -> Claim:
        """The settled claim, however long that takes.

        Args:
            hint: a transaction that is said to bring it.
            look_first: it may never have been sent.

        Raises:
            PaymentRequired, Unavailable: it failed, surely.
        """
        pauses = iter(RETRY_SECONDS)
        while True:
            try:
                if look_first and (decided := await self._reconsider(claim)) is not None:
                    return decided
                if tx := claim.transaction or hint:
                    receipt = await self._receipt(tx)
                    if claim.transaction or self._usdc.payment_proof(receipt, claim.authorization):
                        return await self._judge(claim, receipt)
                    hint = ""
                elif look_first:
                    await asyncio.sleep(next(pauses, RETRY_SECONDS[-1]))
            except (ChainUnavailable, RpcError) as error:  # unknown is not failed
                _log.warning("a payment's fate is not known yet: %s", error.detail)
                await self._unblock(claim)
                await asyncio.sleep(next(pauses, RETRY_SECONDS[-1]))
            except _OnItsOwn:
                _log.info("a payment that its batch did not bring goes alone")
            claim, look_first = self._store.get(claim.id), True

    async def close(self) -> None:
        """Wait for no more receipts."""
        await self._awaited.close()

    async def find_payment(self, claim: Claim) -> Receipt | None:
        """The receipt of whatever transaction brought it.

        Raises:
            RpcUnavailable: the chain doesn't say.
        """
        new = self._facilitator.external and claim.state is ClaimState.RESERVED
        return await self._verifier.find_payment(
            claim.authorization,
            known={claim.transaction, *self._store.sent_for(claim)},
            since=claim.created_at if new else None,
            back_to=claim.created_at - _CLOCK_SECONDS,
        )

    async def outrun(self, claim: Claim) -> bool:
        """Whether our transaction for it can't be mined any more: another took its nonce."""
        signed = claim.signed_tx
        if signed is None:
            return False
        mined = await self._rpc.nonce(self._sender.address, "latest")
        # asked in this order: it may have been mined a moment ago, and took its nonce itself
        return mined > signed.nonce and await self._rpc.receipt(signed.hash) is None

    async def confirm(self, claim: Claim, receipt: Receipt) -> Receipt:
        """Wait until the receipt is as sure as the sum asks; raises as ``Confirmations``."""
        return await self._confirmations.confirm(receipt, claim.amount)

    async def _receipt(self, tx: str) -> Receipt:
        """One poll for all who wait for the same transaction."""
        return await self._awaited.get(
            tx, lambda: self._sender.wait_receipt(tx, timeout=_RECEIPT_SECONDS)
        )

    async def _unblock(self, claim: Claim) -> None:
        """It may wait behind a nonce of ours that was never sent."""
        if claim.signed_tx is not None:
            with contextlib.suppress(RpcError, ChainUnavailable):
                await self._sender.unblock(claim.signed_tx)

    async def _judge(self, claim: Claim, receipt: Receipt) -> Claim:
        """Settled or failed, by the receipt of the transaction that was to bring it."""
        given = claim.authorization
        if self._usdc.payment_proof(receipt, given):
            return await self._settled(claim, receipt)
        used, balance = await asyncio.gather(
            self._verifier.used(given), self._usdc.balance_of(given.from_)
        )
        if used:
            earlier = await self.find_payment(claim)
            if earlier is not None:
                return await self._settled(claim, earlier)
            raise self._failed(claim, Reason.NONCE_USED, receipt)
        if balance < given.value:
            raise self._failed(claim, Reason.INSUFFICIENT_FUNDS, receipt)
        if self._store.shared(claim):  # it may have suffered from the others
            await self._facilitator.anew(claim)
            raise _OnItsOwn
        raise self._failed(claim, Reason.SETTLEMENT_FAILED, receipt)

    async def _reconsider(self, claim: Claim) -> Claim | None:
        """No receipt yet: send the same again, and see whether it can still be mined."""
        given, signed = claim.authorization, claim.signed_tx
        # "nonce too low" and the like are judged below, and to read the chain is enough for that
        with contextlib.suppress(RpcError, ChainUnavailable):
            await self._facilitator.again(claim)
        used, mined, head = await asyncio.gather(
            self._verifier.used(given),
            self._rpc.nonce(self._sender.address, "latest"),
            self._rpc.head(),
        )
        if used:
            earlier = await self.find_payment(claim)
            if earlier is not None:
                return await self._settled(claim, earlier)
        if claim.transaction and (receipt := await self._rpc.receipt(claim.transaction)):
            return await self._judge(claim, receipt)
        if head.timestamp > given.valid_before + EXPIRY_MARGIN_SECONDS:
            raise self._failed(claim, Reason.NONCE_USED if used else Reason.VALID_BEFORE)
        if signed is not None and mined > signed.nonce and not used:
            self._store.fail(claim, Reason.SETTLEMENT_FAILED)
            raise Unavailable("The settlement was lost; nothing was taken, try the same again.")
        return None

    async def _settled(self, claim: Claim, receipt: Receipt) -> Claim:
        self._cover.landed(claim)
        sure = await self.confirm(claim, receipt)
        return self._store.settle(claim, sure.tx_hash, self._clock.now(), sure)

    def _failed(self, claim: Claim, reason: str, receipt: Receipt | None = None) -> PaymentRequired:
        self._store.fail(claim, reason, receipt)
        return refused(reason, "The payment did not go through; nothing was taken.")


class _OnItsOwn(Exception):
    """It was sent again, alone; its fate is open again."""
