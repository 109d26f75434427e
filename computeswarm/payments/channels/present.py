"""Reading a channel payment, and the checks that need neither chain nor record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import (
    MAX_WITHDRAW_DELAY,
    MIN_WITHDRAW_DELAY,
    SCHEME,
    ZERO_ADDRESS,
    ChannelConfig,
    channel_id,
    deposit_nonce,
    voucher_digest,
)
from computeswarm.core.crypto import recover_address, same_address
from computeswarm.core.errors import BadRequest
from computeswarm.core.money import MAX_ATOMS
from computeswarm.core.signing import describe_validation
from computeswarm.core.x402 import HEADER_PAYMENT_V2, Reason, decode_header
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.terms import (
    ChannelOffer,
    channel_requirements,
    without_correction,
)
from computeswarm.payments.channels.wire import ChannelPayload, ChannelPayment
from computeswarm.payments.present import refused
from computeswarm.payments.terms import Terms

Kind = Literal["deposit", "voucher", "refund"]
_MAX_UINT256 = 2**256
_MALFORMED = {
    "deposit": ChannelReason.DEPOSIT_PAYLOAD,
    "voucher": ChannelReason.VOUCHER_PAYLOAD,
    "refund": ChannelReason.REFUND_PAYLOAD,
}


@dataclass(frozen=True, slots=True)
class DepositGiven:
    """An EIP-3009 deposit: ``amount`` in atoms, times in unix seconds, ``nonce`` 0x hex."""

    amount: int
    valid_after: int
    valid_before: int
    salt: int
    nonce: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class PresentedChannel:
    """A well-formed channel payment on our terms; no signature is checked yet.

    ``max_claimable`` in atoms: all that the buyer allows to be claimed from the channel.
    ``refund_amount`` is what a refund asks for (None: all that is left).
    """

    kind: Kind
    config: ChannelConfig
    channel_id: str
    max_claimable: int
    signature: bytes
    deposit: DepositGiven | None = None
    refund_amount: int | None = None

    @property
    def payer(self) -> str:
        """Whose money it is."""
        return self.config.payer

    @property
    def name(self) -> str:
        """What tells this payment from all others."""
        if self.deposit is not None:
            return f"{self.payer}:{self.deposit.nonce}"
        return f"{self.channel_id}:{self.max_claimable}"


def signed_voucher(
    config: ChannelConfig, channel: str, max_claimable: int, signature: bytes, chain: ChainInfo
) -> bool:
    """Whether the channel's voucher key signed for exactly this sum."""
    found = recover_address(voucher_digest(channel, max_claimable, chain), signature)
    return found is not None and same_address(found, config.payer_authorizer)


def read_channel_payment(
    headers: Mapping[str, str], terms: Terms, offer: ChannelOffer
) -> PresentedChannel | None:
    """The channel payment a request carries; None where it has none, or one of another scheme.

    Raises:
        BadRequest: malformed; ``extra['reason']`` is the scheme's code where it has one.
        PaymentRequired: well-formed, but for another channel or other terms than ours;
            ``extra['reason']`` says which.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    header = lower.get(HEADER_PAYMENT_V2.lower())
    if not header:
        return None
    document = decode_header(header)
    if document.get("x402Version") != 2 or _scheme(document) != SCHEME:
        return None
    payment = _parse(document)
    _check_accepted(payment, terms, offer)
    return _presented(payment.payload, terms, offer)


def _scheme(document: dict[str, Any]) -> object:
    accepted = document.get("accepted")
    return accepted.get("scheme") if isinstance(accepted, dict) else None


def _parse(document: dict[str, Any]) -> ChannelPayment:
    try:
        return ChannelPayment.model_validate(document)
    except ValidationError as error:
        payload = document.get("payload")
        kind = payload.get("type") if isinstance(payload, dict) else None
        known = isinstance(kind, str) and kind in _MALFORMED
        reason = _MALFORMED[kind] if known and isinstance(kind, str) else ChannelReason.PAYLOAD_TYPE
        raise BadRequest(describe_validation(error), reason=reason) from None


def _check_accepted(payment: ChannelPayment, terms: Terms, offer: ChannelOffer) -> None:
    wanted = channel_requirements(terms, offer)
    if payment.accepted.network != wanted.network:
        raise refused(ChannelReason.NETWORK_MISMATCH, f"Only {wanted.network} is taken here.")
    if without_correction(payment.accepted) != wanted:
        raise refused(
            Reason.INVALID_REQUIREMENTS,
            "The payment was made for other terms; ask again and pay what the answer says.",
        )


def _presented(payload: ChannelPayload, terms: Terms, offer: ChannelOffer) -> PresentedChannel:
    config = _config(payload)
    found = channel_id(config, terms.chain)
    if payload.voucher.channel_id.lower() != found:
        raise refused(
            ChannelReason.CHANNEL_ID_MISMATCH, "The channel's id is not that of its members."
        )
    _check_config(config, terms, offer)
    return PresentedChannel(
        kind=payload.type,
        config=config,
        channel_id=found,
        max_claimable=_atoms(payload, payload.voucher.max_claimable_amount),
        signature=bytes.fromhex(payload.voucher.signature[2:]),
        deposit=_deposit(payload, found) if payload.type == "deposit" else None,
        refund_amount=_refund_amount(payload) if payload.type == "refund" else None,
    )


def _config(payload: ChannelPayload) -> ChannelConfig:
    delay = payload.channel_config.get("withdrawDelay")
    if type(delay) is int and not MIN_WITHDRAW_DELAY <= delay <= MAX_WITHDRAW_DELAY:
        raise refused(
            ChannelReason.WITHDRAW_DELAY_OUT_OF_RANGE,
            "A withdrawal has to take between 15 minutes and 30 days.",
        )
    try:
        return ChannelConfig.parse(payload.channel_config)
    except ValueError as error:
        raise BadRequest(f"The payment's {error}.", reason=_MALFORMED[payload.type]) from None


def _check_config(config: ChannelConfig, terms: Terms, offer: ChannelOffer) -> None:
    if not same_address(config.token, terms.chain.usdc.address):
        raise refused(ChannelReason.TOKEN_MISMATCH, "The channel is not in USDC.")
    if not same_address(config.receiver, terms.pay_to):
        raise refused(ChannelReason.RECEIVER_MISMATCH, f"The channel is not to {terms.pay_to}.")
    if not same_address(config.receiver_authorizer, offer.receiver_authorizer):
        raise refused(
            ChannelReason.RECEIVER_AUTHORIZER_MISMATCH,
            f"The channel's receiver authorizer is not {offer.receiver_authorizer}.",
        )
    if config.withdraw_delay != offer.withdraw_delay:
        raise refused(
            ChannelReason.WITHDRAW_DELAY_MISMATCH,
            f"The channel's withdraw delay is not {offer.withdraw_delay} s.",
        )
    if config.payer_authorizer == ZERO_ADDRESS:
        # Its vouchers would be judged by code that the payer may change until they are claimed;
        # even a plain key can get such code (EIP-7702).
        raise refused(
            ChannelReason.VOUCHER_SIGNATURE,
            "Vouchers have to be signed by a key: name one as the channel's payerAuthorizer.",
        )


def _atoms(payload: ChannelPayload, text: str) -> int:
    amount = int(text)
    if amount > MAX_ATOMS:
        raise BadRequest("An amount is larger than any sum of USDC.", reason=_reason(payload))
    return amount


def _reason(payload: ChannelPayload) -> str:
    return _MALFORMED[payload.type]


def _deposit(payload: ChannelPayload, channel: str) -> DepositGiven:
    if payload.deposit is None:
        raise BadRequest("The deposit is missing.", reason=ChannelReason.DEPOSIT_PAYLOAD)
    given = payload.deposit.authorization.erc3009_authorization
    if given is None:
        raise refused(
            ChannelReason.ERC3009_REQUIRED, "Deposits are taken by an EIP-3009 authorization only."
        )
    amount = _atoms(payload, payload.deposit.amount)
    after, before = int(given.valid_after), int(given.valid_before)
    if not amount or max(after, before) >= _MAX_UINT256:
        raise BadRequest("A number of the deposit makes no sense.", reason=_reason(payload))
    salt = int(given.salt, 16)
    return DepositGiven(
        amount,
        after,
        before,
        salt,
        deposit_nonce(channel, salt),
        bytes.fromhex(given.signature[2:]),
    )


def _refund_amount(payload: ChannelPayload) -> int | None:
    if payload.amount is None:
        return None
    text = payload.amount
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= MAX_ATOMS:
        raise refused(
            ChannelReason.REFUND_AMOUNT, "The refund's amount is not a positive number of atoms."
        )
    return int(text)
