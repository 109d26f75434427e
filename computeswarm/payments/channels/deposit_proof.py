"""What proves a deposit, and where it is found if somebody else submitted it."""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.chain.nonce_use import used_in
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Authorization, Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.channels import DEPOSIT_COLLECTOR
from computeswarm.payments.channels.records import DepositRow

_CLOCK_SECONDS = 900
"""By so much a chain's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class DepositSearch:
    """Asks one chain.

    The proof is USDC's own pair of events: the authorization's nonce was used, and its sum went
    from the payer to the pinned collector. The nonce is a hash of the channel's id, only the
    collector can have submitted it, and the collector serves only the settlement contract: so the
    sum was credited to this channel, whoever sent the transaction.
    """

    rpc: RpcClient
    usdc: Usdc

    def proves(self, receipt: Receipt, row: DepositRow) -> bool:
        """Whether this receipt put the deposit into its channel."""
        return self.usdc.payment_proof(receipt, _authorization(row))

    async def find(self, row: DepositRow) -> Receipt | None:
        """The receipt of the transaction that brought the deposit, if there is one.

        Raises:
            RpcUnavailable: the chain doesn't say.
        """
        back_to = row.created_at - _CLOCK_SECONDS
        for tx in await used_in(self.rpc, self.usdc, row.payer, row.nonce, back_to=back_to):
            receipt = await self.rpc.receipt(tx)
            if receipt is not None and self.proves(receipt, row):
                return receipt
        return None


def _authorization(row: DepositRow) -> Authorization:
    return Authorization(row.payer, DEPOSIT_COLLECTOR, row.amount, 0, row.valid_before, row.nonce)
