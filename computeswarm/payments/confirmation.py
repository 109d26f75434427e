"""How sure a payment has to be before it buys anything: the more it is, the deeper its block.

Small sums count with their receipt, larger ones once their block is ``safe``, the largest once it
is ``finalized``. A second RPC, where there is one, has to have seen the same.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.wire import Receipt, parse_block
from computeswarm.core.money import ATOMS_PER_USDC

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class Level(StrEnum):
    """What has to be true of a payment's block. The values are the RPC's names of blocks."""

    RECEIPT = "latest"
    SAFE = "safe"
    FINALIZED = "finalized"


DEPTH = {Level.SAFE: 150, Level.FINALIZED: 900}
"""Blocks that stand for it where a chain knows neither: 5 and 30 minutes on Base, which is longer
than it takes there."""


@dataclass(frozen=True, slots=True)
class ConfirmationPolicy:
    """Sums in atoms above which a receipt alone, or a safe block, is not enough."""

    safe_above: int = 5 * ATOMS_PER_USDC
    finalized_above: int = 100 * ATOMS_PER_USDC

    def level(self, amount: int) -> Level:
        """What a payment of so many atoms has to wait for."""
        if amount > self.finalized_above:
            return Level.FINALIZED
        return Level.SAFE if amount > self.safe_above else Level.RECEIPT


class Confirmations:
    """Waits for what the policy asks.

    Args:
        second: another node, which must agree; its chain is checked by whoever opens it.
    """

    def __init__(
        self, rpc: RpcClient, policy: ConfirmationPolicy, second: RpcClient | None = None
    ) -> None:
        self._rpc = rpc
        self._policy = policy
        self._second = second

    async def confirm(self, receipt: Receipt, amount: int) -> Receipt:
        """Return when this receipt is as sure as a payment of ``amount`` atoms has to be.

        Raises:
            RpcUnavailable: it is no longer there, or nobody says; look again from the start.
        """
        level = self._policy.level(amount)
        if level is Level.RECEIPT and self._second is None:
            return receipt
        nodes = [self._rpc] if self._second is None else [self._rpc, self._second]
        while True:
            if all([await self._agrees(node, level, receipt) for node in nodes]):
                return receipt
            await asyncio.sleep(_POLL_SECONDS)

    async def _agrees(self, node: RpcClient, level: Level, receipt: Receipt) -> bool:
        if level is not Level.RECEIPT:
            if await block_of(node, level) < receipt.block_number:
                await self._check_still_there(receipt)
                return False
        elif node is self._rpc:
            return True
        found = await node.receipt(receipt.tx_hash)
        if found is not None and _same(found, receipt):
            return True
        await self._check_still_there(receipt)
        if found is not None:
            _log.warning("the two RPCs disagree about %s; waiting", receipt.tx_hash)
        return False

    async def _check_still_there(self, receipt: Receipt) -> None:
        found = await self._rpc.receipt(receipt.tx_hash)
        if found is None or not _same(found, receipt):
            raise RpcUnavailable("The chain took a payment's block back; looking for it again.")


async def block_of(rpc: RpcClient, level: Level) -> int:
    """The number of the newest block that is so sure; by depth where the chain has no such name.

    Raises:
        RpcUnavailable: no answer.
    """
    try:
        block = parse_block(await rpc.call("eth_getBlockByNumber", [level.value, False]))
    except RpcError:
        block = None
    if block is not None:
        return block.number
    return await rpc.block_number() - DEPTH.get(level, 0)


def _same(one: Receipt, other: Receipt) -> bool:
    """Nodes may differ in what a transaction paid per gas, but not in these."""
    return (one.block_hash, one.succeeded, one.logs) == (
        other.block_hash,
        other.succeeded,
        other.logs,
    )
