"""What a seller asks for on a channel: the ``accepts`` entry, and its corrected form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from computeswarm.core.channels import MAX_WITHDRAW_DELAY, MIN_WITHDRAW_DELAY, SCHEME
from computeswarm.core.errors import PaymentRequired
from computeswarm.core.x402 import HEADER_REQUIRED_V2, RequirementsV2, SeedChallenge
from computeswarm.payments.terms import Terms, payment_required

WITHDRAW_DELAY_SECONDS = 3600
"""An hour to claim in, should a buyer take his deposit back: many times what a claim needs."""
CORRECTIVE = ("channelState", "voucherState")
"""Members of ``extra`` that only a corrective 402 has; clients echo them, and they bind nobody."""


@dataclass(frozen=True, slots=True)
class ChannelOffer:
    """A seller's side of every channel with him.

    ``receiver_authorizer`` is the address whose key signs claims and refunds, ``withdraw_delay``
    the seconds a buyer's own withdrawal takes, ``min_deposit`` atoms (0: no wish).
    """

    receiver_authorizer: str
    withdraw_delay: int = WITHDRAW_DELAY_SECONDS
    min_deposit: int = 0

    def __post_init__(self) -> None:
        if not MIN_WITHDRAW_DELAY <= self.withdraw_delay <= MAX_WITHDRAW_DELAY:
            raise ValueError("the withdraw delay is not within 15 minutes and 30 days")


def channel_requirements(terms: Terms, offer: ChannelOffer) -> RequirementsV2:
    """The ``accepts`` entry: the same price as ``exact``, by a voucher."""
    usdc = terms.chain.usdc
    extra: dict[str, Any] = {
        "receiverAuthorizer": offer.receiver_authorizer,
        "withdrawDelay": offer.withdraw_delay,
        "assetTransferMethod": "eip3009",
        "name": usdc.name,
        "version": usdc.version,
    }
    if offer.min_deposit:
        extra["minDeposit"] = str(max(offer.min_deposit, terms.amount))
    return RequirementsV2(
        scheme=SCHEME,
        network=terms.chain.caip2,
        amount=str(terms.amount),
        asset=usdc.address,
        pay_to=terms.pay_to,
        max_timeout_seconds=terms.max_timeout_seconds,
        extra=extra,
    )


def corrective_requirements(
    terms: Terms, offer: ChannelOffer, error: PaymentRequired
) -> RequirementsV2:
    """The entry of the 402 that answers ``error``: with the channel's true state where that is what
    the buyer needs."""
    wanted = channel_requirements(terms, offer)
    found = error.extra.get("corrective")
    if not isinstance(found, Mapping):
        return wanted
    return wanted.model_copy(update={"extra": {**wanted.extra, **found}})


def channel_required(
    terms: Terms,
    offer: ChannelOffer,
    *,
    error: str,
    failure: PaymentRequired | None = None,
    payer: str | None = None,
    exact: bool = True,
    challenge: SeedChallenge | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and JSON body of a 402 that may be paid by a channel, and with ``exact`` by a
    transfer as well.

    Args:
        error: a sentence for people.
        failure: why the payment that was presented is refused, if one was.
        payer: who presented it.
        challenge, extensions: see ``payment_required``.
    """
    wanted = channel_requirements(terms, offer)
    reason = None
    if failure is not None:
        wanted = corrective_requirements(terms, offer, failure)
        reason = str(failure.extra.get("reason") or "") or None
    headers, document = payment_required(
        terms,
        error=error,
        reason=reason,
        payer=payer,
        also=(wanted,),
        exact=exact,
        challenge=challenge,
        extensions=extensions,
    )
    if failure is not None and "corrective" in failure.extra:
        # Nothing was settled or refused for good: published clients correct themselves and try
        # again only where no receipt says otherwise.
        headers = {HEADER_REQUIRED_V2: headers[HEADER_REQUIRED_V2]}
    return headers, document


def without_correction(accepted: RequirementsV2) -> RequirementsV2:
    """What a client accepted, less what only a corrective 402 adds."""
    if not any(name in accepted.extra for name in CORRECTIVE):
        return accepted
    extra = {name: value for name, value in accepted.extra.items() if name not in CORRECTIVE}
    return accepted.model_copy(update={"extra": extra})
