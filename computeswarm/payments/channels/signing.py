"""What a buyer signs for a channel, and how it travels. Whether it may be signed is not asked here.

The channel's salt follows from key and job, so that the key alone finds a channel again.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import (
    SCHEME,
    ChannelConfig,
    channel_id,
    deposit_digest,
    deposit_nonce,
    voucher_digest,
)
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PolicyRefused
from computeswarm.core.x402 import HEADER_PAYMENT_V2, encode_header
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.channels.correction import distrusted
from computeswarm.payments.channels.journal import BuyerChannel
from computeswarm.payments.guard import MAX_WINDOW_SECONDS, Purpose
from computeswarm.payments.journal import CLOCK_JUMP_SECONDS

_SALT = b"computeswarm payment channel\n"


@dataclass(frozen=True, slots=True)
class SignedVoucher:
    """A stored voucher and how it travels: ``amount`` atoms for this slice, ``cumulative`` in all.

    ``answered`` tells whether the seller has served what it is for.
    """

    job_id: str
    slice: int
    channel_id: str
    amount: int
    cumulative: int
    answered: bool
    payload: dict[str, Any]

    def headers(self) -> dict[str, str]:
        """The header that presents it."""
        return {HEADER_PAYMENT_V2: encode_header(self.payload)}


@dataclass(frozen=True, slots=True)
class SignedDeposit:
    """A deposit's payload with its voucher's signature; ``valid_before`` in unix seconds."""

    payload: dict[str, Any]
    nonce: str
    valid_before: int
    voucher_signature: bytes


class ChannelSigner:
    """One wallet's signatures on one chain."""

    def __init__(self, key: PrivateKey, chain: ChainInfo) -> None:
        self._key = key
        self.chain = chain
        self.address = key.address

    def config(self, purpose: Purpose, challenge: Challenge) -> ChannelConfig:
        """The channel that a job's payments use.

        Raises:
            PolicyRefused: the server takes no channel, or one that makes no sense.
        """
        option = channel_option(challenge, self.chain)
        salt = hmac.digest(self._key.secret, _SALT + purpose.job_id.encode(), "sha256")
        wire = {
            "payer": self.address,
            "payerAuthorizer": self.address,
            "receiver": purpose.pay_to,
            "receiverAuthorizer": option.extra.get("receiverAuthorizer"),
            "token": self.chain.usdc.address,
            "withdrawDelay": option.extra.get("withdrawDelay"),
            "salt": "0x" + salt.hex(),
        }
        try:
            return ChannelConfig.parse(wire)
        except ValueError as error:
            raise distrusted(f"the seller's channel makes no sense ({error})") from None

    def voucher(self, channel: str, total: int) -> bytes:
        """The signature that lets ``total`` atoms in all be claimed from a channel."""
        return self._key.sign_digest(voucher_digest(channel, total, self.chain))

    def deposit(
        self, config: ChannelConfig, option: Option, amount: int, now: float
    ) -> SignedDeposit:
        """``amount`` atoms into a channel, with the voucher for the first payment from it."""
        channel, salt = channel_id(config, self.chain), secrets.randbits(256)
        after = int(now) - CLOCK_JUMP_SECONDS
        before = int(now) + min(option.max_timeout_seconds, MAX_WINDOW_SECONDS)
        signed = self._key.sign_digest(
            deposit_digest(
                config,
                self.chain,
                amount=amount,
                valid_after=after,
                valid_before=before,
                salt=salt,
            )
        )
        voucher = self.voucher(channel, option.amount)
        authorization = {
            "validAfter": str(after),
            "validBefore": str(before),
            "salt": f"0x{salt:064x}",
            "signature": "0x" + signed.hex(),
        }
        payload = {
            "type": "deposit",
            "channelConfig": config.wire(),
            "voucher": _voucher(channel, option.amount, voucher),
            "deposit": {
                "amount": str(amount),
                "authorization": {"erc3009Authorization": authorization},
            },
        }
        return SignedDeposit(payload, deposit_nonce(channel, salt), before, voucher)


def channel_option(challenge: Challenge, chain: ChainInfo) -> Option:
    """The first way to pay by a channel on a chain; nothing of it is trusted yet.

    Raises:
        PolicyRefused: there is none.
    """
    for option in challenge.options:
        if option.scheme == SCHEME and option.network == chain.caip2:
            return option
    raise PolicyRefused(
        f"Nothing was signed: the server takes no payment channel on {chain.title}; pay by slices.",
        rule="scheme",
    )


def as_signed(channel: BuyerChannel) -> SignedVoucher:
    """A channel's newest voucher; its ``accepted`` is the first payment's at the slice's price."""
    payload = voucher_payload(channel, "voucher", channel.voucher, channel.signature)
    accepted = {**channel.accepted, "amount": str(channel.amount)}
    return SignedVoucher(
        job_id=channel.job_id,
        slice=channel.slice,
        channel_id=channel.channel_id,
        amount=channel.amount,
        cumulative=channel.voucher,
        answered=channel.answered,
        payload=envelope(accepted, channel.resource, payload),
    )


def voucher_payload(
    channel: BuyerChannel, kind: str, total: int, signature: bytes
) -> dict[str, Any]:
    """``payload`` of a voucher, or of a refund."""
    return {
        "type": kind,
        "channelConfig": channel.config.wire(),
        "voucher": _voucher(channel.channel_id, total, signature),
    }


def envelope(
    accepted: dict[str, Any], resource: dict[str, Any] | None, payload: dict[str, Any]
) -> dict[str, Any]:
    """A version 2 payment; only version 2 knows channels."""
    made = {"x402Version": 2, "payload": payload, "accepted": accepted}
    return made if resource is None else {**made, "resource": resource}


def _voucher(channel: str, total: int, signature: bytes) -> dict[str, str]:
    return {
        "channelId": channel,
        "maxClaimableAmount": str(total),
        "signature": "0x" + signature.hex(),
    }
