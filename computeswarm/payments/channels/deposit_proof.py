"""What proves a deposit, and where it is found if somebody else submitted it."""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.chain.abi import address_word
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, Authorization, Usdc
from computeswarm.chain.wire import Receipt, parse_hash
from computeswarm.core.channels import DEPOSIT_COLLECTOR
from computeswarm.payments.channels.records import DepositRow

_SEARCH_BLOCKS = 5_000
"""Almost three hours on Base, which is longer than any authorization that we take is valid."""


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
        head = await self.rpc.block_number()
        query = {
            "address": self.usdc.address,
            "topics": [
                AUTHORIZATION_USED_TOPIC,
                "0x" + address_word(row.payer).hex(),
                row.nonce,
            ],
            "fromBlock": hex(max(0, head - _SEARCH_BLOCKS)),
            "toBlock": "latest",
        }
        logs = await self.rpc.call("eth_getLogs", [query])
        for log in logs if isinstance(logs, list) else []:
            if not isinstance(log, dict):
                raise RpcUnavailable("The RPC's answer makes no sense (events); try another.")
            tx = parse_hash(log.get("transactionHash"))
            receipt = await self.rpc.receipt(tx)
            if receipt is not None and self.proves(receipt, row):
                return receipt
        return None


def _authorization(row: DepositRow) -> Authorization:
    return Authorization(row.payer, DEPOSIT_COLLECTOR, row.amount, 0, row.valid_before, row.nonce)
