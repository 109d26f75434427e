"""What a channel payment bought, and what the seller answers with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from computeswarm.core.chains import ChainInfo
from computeswarm.core.x402 import HEADER_RESPONSE_V2, encode_header
from computeswarm.payments.channels.records import Channel


@dataclass(frozen=True, slots=True)
class Charge:
    """One paid request, in atoms: its price ``amount``, and the channel after it.

    ``deposit`` and ``transaction`` are there where money was put into the channel with it.
    ``reply`` is the answer that it got when it was first presented.
    """

    chain: ChainInfo
    channel: Channel
    subject: str
    amount: int
    cumulative: int
    deposit: int = 0
    transaction: str = ""
    reply: bytes | None = None

    @property
    def channel_id(self) -> str:
        """0x hex of 32 bytes."""
        return self.channel.channel_id

    @property
    def payer(self) -> str:
        """Whose money it is."""
        return self.channel.config.payer

    @property
    def balance(self) -> int:
        """What was put into the channel and not given back."""
        return self.channel.balance

    def receipt_headers(self) -> dict[str, str]:
        """``PAYMENT-RESPONSE`` as the scheme's response contract has it."""
        return settle_headers(
            self.chain,
            payer=self.payer,
            transaction=self.transaction,
            amount=str(self.deposit) if self.transaction else "",
            extra={
                "chargedAmount": str(self.amount),
                "channelState": snapshot(self.channel, charged=self.cumulative),
            },
        )


@dataclass(frozen=True, slots=True)
class ChannelRefund:
    """A refund that a buyer asked for and got; ``amount`` in atoms."""

    chain: ChainInfo
    channel: Channel
    amount: int
    transaction: str

    def receipt_headers(self) -> dict[str, str]:
        """``PAYMENT-RESPONSE``, with the channel as it is after the refund."""
        return settle_headers(
            self.chain,
            payer=self.channel.config.payer,
            transaction=self.transaction,
            amount=str(self.amount),
            extra={"channelState": snapshot(self.channel)},
        )


@dataclass(frozen=True, slots=True)
class JobAccount:
    """What one job cost on its channel, in atoms, and where the money went.

    ``signed`` is all that the buyer allowed to be claimed from the channel, ``claimed`` and
    ``refunded`` what has moved on chain, in the transactions named; empty until a receipt proved
    them.
    """

    job_id: str
    channel_id: str
    payer: str
    state: Literal["open", "closing", "closed"]
    ticks: int
    charged: int
    signed: int
    deposited: int
    deposit_transaction: str
    claimed: int
    claim_transaction: str
    refunded: int
    refund_transaction: str


@dataclass(frozen=True, slots=True)
class Movement:
    """One movement of a channel's money on chain, for the books; ``at`` in unix seconds."""

    kind: Literal["deposit", "claim", "settle", "refund"]
    channel_id: str
    job_id: str
    amount: int
    transaction: str
    at: float


def snapshot(channel: Channel, *, charged: int | None = None) -> dict[str, Any]:
    """``channelState`` of an answer."""
    return {
        "channelId": channel.channel_id,
        "balance": str(channel.balance),
        "totalClaimed": str(channel.total_claimed),
        "withdrawRequestedAt": channel.withdraw_requested_at,
        "refundNonce": str(channel.refund_nonce),
        "chargedCumulativeAmount": str(channel.charged if charged is None else charged),
    }


def correction(channel: Channel) -> dict[str, Any]:
    """What a corrective 402 adds: the sums, and the buyer's own voucher as their proof."""
    found: dict[str, Any] = {"channelState": snapshot(channel)}
    if channel.signature:
        found["voucherState"] = {
            "signedMaxClaimable": str(channel.signed_max),
            "signature": "0x" + channel.signature.hex(),
        }
    return found


def settle_headers(
    chain: ChainInfo, *, payer: str, transaction: str, amount: str, extra: dict[str, Any]
) -> dict[str, str]:
    """The receipt header of a successful channel payment."""
    document = {
        "success": True,
        "payer": payer,
        "transaction": transaction,
        "network": chain.caip2,
        "amount": amount,
        "extra": extra,
    }
    return {HEADER_RESPONSE_V2: encode_header(document)}
