"""Reading a presented payment, and the checks that need no chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from computeswarm.chain.usdc import Authorization
from computeswarm.core.crypto import recover_address, same_address
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.errors import BadRequest, PaymentRequired
from computeswarm.core.signing import describe_validation
from computeswarm.core.x402 import (
    HEADER_PAYMENT_V1,
    HEADER_PAYMENT_V2,
    ExactPayload,
    PaymentV1,
    PaymentV2,
    Reason,
    decode_header,
)
from computeswarm.payments.terms import Terms

SETTLEMENT_MARGIN_SECONDS = 6
"""Three blocks on Base: what is left of an authorization's window must last for the settlement."""
MAX_WINDOW_SECONDS = 7_200
"""What is open for longer would have to be watched for longer, and its events be searched for in
more blocks than nodes tell of at once."""
_MAX_UINT256 = 2**256
PaymentT = TypeVar("PaymentT", PaymentV1, PaymentV2)


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed payment whose requirements are ours; its signature is not checked yet."""

    version: Literal[1, 2]
    authorization: Authorization
    signature: bytes

    @property
    def payer(self) -> str:
        """Who claims to pay."""
        return self.authorization.from_


def refused(reason: str, sentence: str) -> PaymentRequired:
    """A 402 with one of the standard's error codes."""
    return PaymentRequired(sentence, reason=reason)


def read_payment(headers: Mapping[str, str], terms: Terms) -> Presented | None:
    """The payment a request carries, or None.

    Raises:
        BadRequest: malformed.
        PaymentRequired: well-formed, but for other terms; ``extra['reason']`` says which.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if header := lower.get(HEADER_PAYMENT_V2.lower()):
        return _read_v2(_document(header), terms)
    if header := lower.get(HEADER_PAYMENT_V1.lower()):
        return _read_v1(_document(header), terms)
    return None


def _document(header: str) -> dict[str, Any]:
    try:
        return decode_header(header)
    except BadRequest as error:
        raise _malformed(error.detail) from None


def _malformed(sentence: str) -> BadRequest:
    return BadRequest(sentence, reason=Reason.INVALID_PAYLOAD)


def named_authorization(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Payer and nonce of the payment that a request carries; None where none can be read.

    Nothing of it is checked: only good for finding out whether it was presented before.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        if header := lower.get(HEADER_PAYMENT_V2.lower()):
            payload = _parse(PaymentV2, decode_header(header)).payload
        elif header := lower.get(HEADER_PAYMENT_V1.lower()):
            payload = _parse(PaymentV1, decode_header(header)).payload
        else:
            return None
    except BadRequest:
        return None
    return payload.authorization.from_, payload.authorization.nonce.lower()


def _read_v2(document: dict[str, Any], terms: Terms) -> Presented:
    if document.get("x402Version") != 2:
        raise refused(Reason.INVALID_VERSION, f"The header {HEADER_PAYMENT_V2} is version 2's.")
    payment = _parse(PaymentV2, document)
    accepted, wanted = payment.accepted, terms.requirements_v2()
    if accepted.scheme != wanted.scheme:
        raise refused(Reason.INVALID_SCHEME, "Only the scheme 'exact' is taken here.")
    if accepted.network != wanted.network:
        raise refused(Reason.INVALID_NETWORK, f"Only {wanted.network} is taken here.")
    if accepted != wanted:
        raise refused(
            Reason.INVALID_REQUIREMENTS,
            "The payment was made for other terms; ask again and pay what the answer says.",
        )
    return _presented(2, payment.payload)


def _read_v1(document: dict[str, Any], terms: Terms) -> Presented:
    if document.get("x402Version") != 1:
        raise refused(Reason.INVALID_VERSION, f"The header {HEADER_PAYMENT_V1} is version 1's.")
    if document.get("scheme") != "exact":
        raise refused(Reason.INVALID_SCHEME, "Only the scheme 'exact' is taken here.")
    payment = _parse(PaymentV1, document)
    if payment.network != terms.chain.slug:
        raise refused(Reason.INVALID_NETWORK, f"Only {terms.chain.slug} is taken here.")
    return _presented(1, payment.payload)


def _parse(model: type[PaymentT], document: dict[str, Any]) -> PaymentT:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _malformed(describe_validation(error)) from None


def _presented(version: Literal[1, 2], payload: ExactPayload) -> Presented:
    given = payload.authorization
    numbers = tuple(int(n) for n in (given.value, given.valid_after, given.valid_before))
    if any(number >= _MAX_UINT256 for number in numbers):
        raise _malformed("A number in the payment is larger than 256 bits.")
    value, after, before = numbers
    return Presented(
        version,
        Authorization(given.from_, given.to, value, after, before, given.nonce.lower()),
        bytes.fromhex(payload.signature[2:]),
    )


def check_authorization(presented: Presented, terms: Terms, *, now: float) -> None:
    """Recipient, value and window (unix seconds), as the standard's verifiers check them.

    Raises:
        PaymentRequired: with the standard's reason.
    """
    given = presented.authorization
    if not same_address(given.to, terms.pay_to):
        raise refused(Reason.RECIPIENT_MISMATCH, f"The payment is not to {terms.pay_to}.")
    if given.value != terms.amount:
        raise refused(Reason.VALUE_MISMATCH, f"The payment is not of {terms.amount} atoms.")
    if given.valid_after >= int(now):
        raise refused(Reason.VALID_AFTER, "The payment is not valid yet; check your clock.")
    if given.valid_before < int(now) + SETTLEMENT_MARGIN_SECONDS:
        raise refused(Reason.VALID_BEFORE, "The payment is no longer valid; sign a new one.")
    if given.valid_before > int(now) + MAX_WINDOW_SECONDS:
        raise refused(
            Reason.VALID_BEFORE,
            f"The payment is valid for more than {MAX_WINDOW_SECONDS // 3600} hours;"
            f" sign one for {terms.max_timeout_seconds} s.",
        )


def signed_by_payer(presented: Presented, terms: Terms) -> bool:
    """Whether the payer's own key made the signature; a contract wallet's has to be asked for."""
    given = presented.authorization
    digest = transfer_authorization_digest(
        terms.chain,
        from_=given.from_,
        to=given.to,
        value=given.value,
        valid_after=given.valid_after,
        valid_before=given.valid_before,
        nonce=given.nonce,
    )
    found = recover_address(digest, presented.signature)
    return found is not None and same_address(found, given.from_)
