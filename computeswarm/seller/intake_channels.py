"""The intake's till for payment channels: deposits that start jobs, vouchers that pay their ticks.

It reads and presents; what a payment buys, and whether it may be bought, is the intake's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from computeswarm.core.channels import SCHEME, ChannelConfig, channel_id, deposit_nonce
from computeswarm.core.errors import BadRequest, PaymentRequired
from computeswarm.core.quotes import Quote
from computeswarm.core.x402 import (
    HEADER_PAYMENT_V1,
    HEADER_PAYMENT_V2,
    Reason,
    RequirementsV2,
    SeedChallenge,
    decode_header,
)
from computeswarm.payments.channels.present import PresentedChannel, read_channel_payment
from computeswarm.payments.channels.terms import channel_required, channel_requirements
from computeswarm.payments.channels.wire import ChannelPayment
from computeswarm.payments.present import refused
from computeswarm.payments.terms import Terms
from computeswarm.seller.offers import Offers

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import ChannelRefund, Charge, SellerChannels

BeforeCharge = Callable[[str, str, str], None]
"""Gets the payer, the payment's name and the channel's id; raises why it may not be taken."""


class ChannelTill:
    """Takes channel payments, where the chain has the contract (``offers.channels``)."""

    def __init__(self, channels: SellerChannels, offers: Offers) -> None:
        self._channels = channels
        self._offer = channels.offer
        self._offers = offers
        self._taking: Counter[str] = Counter()
        """Subjects of payments that are looked at just now."""

    def named(self, headers: Mapping[str, str]) -> str | None:
        """The name of the channel payment that a request carries; None where none can be read.

        Nothing of it is checked: only good for finding out whether it was presented before.
        """
        try:
            payload = ChannelPayment.model_validate(_document(headers)).payload
            config = ChannelConfig.parse(payload.channel_config)
            channel = channel_id(config, self._offers.config.chain)
        except (BadRequest, ValueError):  # a ValidationError is one too
            return None
        if payload.type != "deposit":
            return f"{channel}:{payload.voucher.max_claimable_amount}"
        given = payload.deposit and payload.deposit.authorization.erc3009_authorization
        return f"{config.payer}:{deposit_nonce(channel, int(given.salt, 16))}" if given else None

    def as_paid(self, headers: Mapping[str, str], quote: Quote) -> Quote:
        """The quote of a request without one: its payment says which way it takes."""
        return quote.model_copy(update={"scheme": SCHEME}) if _pays(headers) else quote

    @property
    def open(self) -> bool:
        """Whether channels are taken at all."""
        return self._offers.channels

    def requirements(self, terms: Terms) -> RequirementsV2:
        """The way to pay by a channel."""
        return channel_requirements(terms, self._offer)

    def ask(
        self,
        terms: Terms,
        *,
        exact: bool,
        error: str,
        failure: PaymentRequired | None = None,
        payer: str | None = None,
        challenge: SeedChallenge | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """The 402 of what may be paid by a channel, and with ``exact`` by a transfer as well.

        Args:
            failure: why the payment that was presented is refused, if one was.
            challenge, extensions: see ``payment_required``.
        """
        return channel_required(
            terms,
            self._offer,
            error=error,
            failure=failure,
            payer=payer,
            exact=exact,
            challenge=challenge,
            extensions=extensions,
        )

    def read(self, headers: Mapping[str, str], terms: Terms) -> PresentedChannel | None:
        """The channel payment that a request carries, or None.

        Raises:
            BadRequest: malformed.
            PaymentRequired: for other terms, or of another scheme.
        """
        lower = {name.lower() for name in headers}
        presented = read_channel_payment(headers, terms, self._offer)
        if presented is None and lower & {HEADER_PAYMENT_V1.lower(), HEADER_PAYMENT_V2.lower()}:
            raise refused(Reason.INVALID_SCHEME, f"Only the scheme {SCHEME!r} is taken here.")
        return presented

    async def charge(
        self,
        presented: PresentedChannel,
        terms: Terms,
        *,
        binding: str,
        subject: str,
        before_charge: Callable[[], None],
    ) -> Charge:
        """Take the payment: as ``Settlements.settle`` does, and with what it raises."""
        self._taking[subject] += 1
        try:
            return await self._channels.pay(
                presented,
                terms,
                binding=binding,
                subject=subject,
                before_broadcast=before_charge,
            )
        finally:
            self._taking[subject] -= 1
            self._taking += Counter()  # forgets what came to nothing

    async def give_back(self, presented: PresentedChannel) -> ChannelRefund:
        """Answer a buyer who asks for what is left of his deposit."""
        return await self._channels.refund(presented)

    def keep_reply(self, charge: Charge, reply: bytes) -> Charge:
        """Keep the reply to the paid request; the first one stays."""
        return self._channels.set_reply(charge, reply)

    def under_way(self, subject: str, name: str) -> bool:
        """Whether a payment may yet be taken: a deposit also from before a restart."""
        return subject in self._taking or self._channels.under_way(subject, name)


def _document(headers: Mapping[str, str]) -> dict[str, Any]:
    lower = {name.lower(): value for name, value in headers.items()}
    header = lower.get(HEADER_PAYMENT_V2.lower())
    return decode_header(header) if header else {}


def _pays(headers: Mapping[str, str]) -> bool:
    try:
        accepted = _document(headers).get("accepted")
    except BadRequest:
        return False
    return isinstance(accepted, dict) and accepted.get("scheme") == SCHEME
