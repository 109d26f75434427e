"""Payment channels on a devnet, from all their parties' hands: for any suite."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from computeswarm.chain.batch_settlement import (
    BatchSettlement,
    VoucherClaim,
    claim_calldata,
    claim_with_signature_calldata,
    deposit_calldata,
)
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import (
    BATCH_SETTLEMENT,
    ChannelConfig,
    channel_id,
    claim_batch_digest,
    deposit_digest,
    voucher_digest,
)
from computeswarm.core.crypto import PrivateKey

CHAIN = BASE_SEPOLIA
DELAY = 900
_GAS = 600_000
_WINDOW = 10**6  # seconds; these chains' clocks are moved


class ChannelRig:
    """``payer`` buys from ``receiver``, who is new; ``relayer`` only has gas."""

    def __init__(self, devnet: Devnet, rpc: RpcClient) -> None:
        self.devnet = devnet
        self.rpc = rpc
        self.contract = BatchSettlement(rpc, CHAIN)
        self.usdc = Usdc(rpc, CHAIN)
        self.payer, self.relayer = devnet.keys[:2]
        self.receiver = PrivateKey.generate()
        self._senders: dict[str, TxSender] = {}

    async def fund(self) -> None:
        """Give the receiver gas."""
        await self.devnet.fund(self.receiver.address, wei=10**20)

    def config(self, **changes: Any) -> ChannelConfig:
        """A new channel: the payer signs its vouchers himself."""
        fields: dict[str, Any] = {
            "payer": self.payer.address,
            "payer_authorizer": self.payer.address,
            "receiver": self.receiver.address,
            "receiver_authorizer": self.receiver.address,
            "token": CHAIN.usdc.address,
            "withdraw_delay": DELAY,
            "salt": "0x" + secrets.token_hex(32),
        }
        return ChannelConfig(**(fields | changes))

    async def deposit_call(
        self, config: ChannelConfig, amount: int, *, key: PrivateKey | None = None
    ) -> bytes:
        """A deposit that the payer (or another ``key``) signed."""
        head = await self.rpc.head()
        salt = secrets.randbits(256)
        window = {"valid_after": 0, "valid_before": head.timestamp + _WINDOW}
        digest = deposit_digest(config, CHAIN, amount=amount, salt=salt, **window)
        signature = (key or self.payer).sign_digest(digest)
        return deposit_calldata(config, amount, salt=salt, signature=signature, **window)

    async def open(self, amount: int, **changes: Any) -> tuple[ChannelConfig, str]:
        """A new channel with a deposit in it, and its id."""
        config = self.config(**changes)
        receipt = await self.send(self.relayer, await self.deposit_call(config, amount))
        assert receipt.succeeded
        return config, channel_id(config, CHAIN)

    def row(
        self,
        config: ChannelConfig,
        ceiling: int,
        total: int | None = None,
        *,
        key: PrivateKey | None = None,
    ) -> VoucherClaim:
        """A claim of ``total`` (or all) of a voucher for ``ceiling``, signed by the payer."""
        digest = voucher_digest(channel_id(config, CHAIN), ceiling, CHAIN)
        signature = (key or self.payer).sign_digest(digest)
        return VoucherClaim(config, ceiling, signature, ceiling if total is None else total)

    def claim(self, *rows: VoucherClaim) -> bytes:
        """For the receiver's own transaction."""
        return claim_calldata(rows)

    def signed_claim(self, rows: Sequence[VoucherClaim], *, key: PrivateKey | None = None) -> bytes:
        """For anybody's, by the receiver's signature."""
        entries = [
            (channel_id(row.config, CHAIN), row.max_claimable, row.total_claimed) for row in rows
        ]
        signature = (key or self.receiver).sign_digest(claim_batch_digest(entries, CHAIN))
        return claim_with_signature_calldata(rows, signature)

    async def send(self, key: PrivateKey, data: bytes, *, to: str = BATCH_SETTLEMENT) -> Receipt:
        """A mined transaction, which may have failed."""
        sender = self._senders.setdefault(
            key.address, TxSender(self.rpc, key, self.devnet.chain_id)
        )
        signed = await sender.prepare(to, data, gas=_GAS)
        await sender.broadcast(signed)
        return await sender.wait_receipt(signed.hash)

    async def done(self, key: PrivateKey, data: bytes) -> Receipt:
        """A mined transaction that succeeded."""
        receipt = await self.send(key, data)
        assert receipt.succeeded
        return receipt

    async def refusal(self, key: PrivateKey, data: bytes) -> str | None:
        """Why the contract would refuse a call; None where it wouldn't."""
        try:
            await self.contract.simulate(data, sender=key.address)
        except RpcError as error:
            return error.reason or error.message
        return None
