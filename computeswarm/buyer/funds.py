"""What the wallet holds, as the chain says."""

from __future__ import annotations

import asyncio
import contextlib

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import ChainInfo
from computeswarm.core.errors import ConfigError, InsufficientFunds, Unavailable
from computeswarm.core.money import format_usdc
from computeswarm.payments.ledger.refunds import RefundBook

_LOOK_SECONDS = 3.0


class Funds:
    """The chain through its RPC addresses; without one nothing can be said."""

    def __init__(self, rpc_urls: tuple[str, ...], chain: ChainInfo) -> None:
        self.chain = chain
        self.rpc = RpcClient(rpc_urls, chain_id=chain.chain_id) if rpc_urls else None
        self.usdc = Usdc(self.rpc, chain) if self.rpc else None
        self.channels = BatchSettlement(self.rpc, chain) if self.rpc else None

    async def close(self) -> None:
        """Close the connections."""
        if self.rpc is not None:
            await self.rpc.close()

    async def balance(self, address: str) -> tuple[int, int]:
        """USDC in atoms and the chain's own coin in wei.

        Raises:
            ConfigError: no RPC address is set.
            ChainUnavailable: the chain doesn't answer.
        """
        if self.rpc is None or self.usdc is None:
            raise ConfigError("No chain is set; give --rpc or COMPUTESWARM_RPC its address.")
        return await asyncio.gather(self.usdc.balance_of(address), self.rpc.native_balance(address))

    async def prove(self, refunds: RefundBook, now: float) -> None:
        """Look for the refunds that sellers tell of; a chain that is down leaves them as told."""
        if self.rpc is None or self.usdc is None or not refunds.unproven(self.chain.chain_id):
            return
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_LOOK_SECONDS):
                await refunds.prove(self.rpc, self.usdc, now)

    async def check(self, address: str, amount: int) -> None:
        """Say early and kindly what the seller would say later.

        A chain that doesn't answer says nothing: the seller settles on his own view of it.

        Raises:
            InsufficientFunds: the wallet holds less than ``amount`` atoms.
        """
        if self.usdc is None:
            return
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                held = await self.usdc.balance_of(address)
        except (TimeoutError, Unavailable):
            return
        if held < amount:
            raise InsufficientFunds(
                f"The wallet {address} holds {format_usdc(held)} USDC on {self.chain.title}, "
                f"{format_usdc(amount)} are to be paid now; send it USDC and try again."
            )
