"""What only the chain can tell of a payment: whether it would go through, and whether it did."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.nonce_use import used_in
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import (
    Authorization,
    Usdc,
    authorization_calldata,
)
from computeswarm.chain.wire import Receipt
from computeswarm.core.crypto import same_address
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.errors import PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.present import refused

SETTLEMENT_GAS = 200_000
"""The gas limit of every settlement. A transfer takes half; the rest is for a contract wallet's
check of its signature, whose code is a stranger's and runs at our expense."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Asks one chain. ``sender`` is the account that will submit the authorization."""

    rpc: RpcClient
    usdc: Usdc
    sender: str

    async def verify(
        self, authorization: Authorization, signature: bytes, *, own_key: bool
    ) -> None:
        """Make sure that submitting it now would pay.

        One simulated call covers signature, balance, nonce, window, pause and blacklist, by the
        token's own rules; only where it fails are they asked one by one, for the reason. A
        signature that is not the payer's own key's counts only where the payer has code.

        Args:
            own_key: the payer's own key made the signature.

        Raises:
            PaymentRequired: it would not; ``extra['reason']`` is the standard's.
            RpcUnavailable: the chain doesn't say.
        """
        data = authorization_calldata(authorization, signature)
        simulation = self.usdc.simulate(data, sender=self.sender, gas=SETTLEMENT_GAS)
        if own_key:
            (failure,) = await asyncio.gather(simulation, return_exceptions=True)
        else:
            code = self.rpc.code(authorization.from_)
            failure, found = await asyncio.gather(simulation, code, return_exceptions=True)
            if isinstance(found, BaseException):
                raise found
            if not found:
                raise refused(Reason.BAD_SIGNATURE, "The signature is not the payer's.")
        if isinstance(failure, RpcError):
            raise await self._explain(authorization, signature) from None
        if isinstance(failure, BaseException):
            raise failure

    async def _explain(self, authorization: Authorization, signature: bytes) -> PaymentRequired:
        digest = transfer_authorization_digest(
            self.usdc.chain,
            from_=authorization.from_,
            to=authorization.to,
            value=authorization.value,
            valid_after=authorization.valid_after,
            valid_before=authorization.valid_before,
            nonce=authorization.nonce,
        )
        signed, used, balance = await asyncio.gather(
            self.usdc.is_valid_signature(authorization.from_, digest, signature),
            self.usdc.authorization_state(authorization.from_, authorization.nonce),
            self.usdc.balance_of(authorization.from_),
        )
        if not signed:
            return refused(Reason.BAD_SIGNATURE, "The signature is not the payer's.")
        if used:
            return refused(Reason.NONCE_USED, "The authorization was used or cancelled already.")
        if balance < authorization.value:
            return refused(
                Reason.INSUFFICIENT_FUNDS,
                f"The wallet {authorization.from_} has too little USDC; top it up and try again.",
            )
        return refused(
            Reason.SIMULATION_FAILED,
            "USDC would refuse this payment, or checking its signature takes more than"
            f" {SETTLEMENT_GAS:,} gas; pay from another wallet.",
        )

    async def used(self, authorization: Authorization) -> bool:
        """Whether the nonce is used or cancelled; proves no payment."""
        return await self.usdc.authorization_state(authorization.from_, authorization.nonce)

    async def find_payment(
        self,
        authorization: Authorization,
        *,
        known: Collection[str] = (),
        since: float | None = None,
        back_to: float | None = None,
    ) -> Receipt | None:
        """The receipt of the transaction that brought the authorization to its payee's gain.

        One that our wallet sent, and that isn't one of the ``known`` ones of this claim, was
        another shop's of the same wallet, and bought something there. Whom an external facilitator
        served can't be told from the transaction: then only one mined ``since`` the claim was
        made (unix seconds) is this claim's.

        Args:
            back_to: unix seconds; where it is longer ago than a few hours, so is the search. A
                seller who was away is paid all the same.

        Raises:
            RpcUnavailable: the chain doesn't say.
        """
        payer, nonce = authorization.from_, authorization.nonce
        for tx in await used_in(self.rpc, self.usdc, payer, nonce, back_to=back_to):
            receipt = await self.rpc.receipt(tx)
            if receipt is None or not self.usdc.payment_proof(receipt, authorization):
                continue
            if tx in known:
                return receipt
            if since is not None and await self._mined_at(receipt) < since:
                continue
            if not await self._sent_by_us(tx):
                return receipt
        return None

    async def _mined_at(self, receipt: Receipt) -> int:
        return (await self.rpc.head(hex(receipt.block_number))).timestamp

    async def _sent_by_us(self, tx: str) -> bool:
        found = await self.rpc.call("eth_getTransactionByHash", [tx])
        if not isinstance(found, dict) or not isinstance(found.get("from"), str):
            raise RpcUnavailable("The RPC does not know a transaction it has logs of; try again.")
        return same_address(found["from"], self.sender)
