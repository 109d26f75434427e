"""What the seller asks for one request, and the 402 that says so in every dialect at once.

The requirements are a pure function of the terms: clients and servers compare them member by
member when the payment comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import keccak256
from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.x402 import (
    HEADER_REQUIRED_V2,
    HEADER_RESPONSE_V1,
    HEADER_RESPONSE_V2,
    PaymentDetails,
    PaymentRequiredV1,
    PaymentRequiredV2,
    RequirementsV1,
    RequirementsV2,
    ResourceInfo,
    SeedChallenge,
    SettleResponse,
    encode_header,
)

_MIME = "application/json"


@dataclass(frozen=True, slots=True)
class Terms:
    """One price for one request. ``amount`` in atoms, ``max_timeout_seconds`` in seconds,
    ``expires_at`` in unix seconds (0: no end). ``challenge_job_id`` and ``buyer`` only appear in
    the original protocol's challenge.
    """

    chain: ChainInfo
    pay_to: str
    amount: int
    resource_url: str
    description: str = ""
    max_timeout_seconds: int = 60
    challenge_job_id: str | None = None
    buyer: str | None = None
    expires_at: int = 0

    @property
    def extra(self) -> dict[str, Any]:
        """The EIP-712 domain, and that we settle before we serve."""
        usdc = self.chain.usdc
        return {
            "name": usdc.name,
            "version": usdc.version,
            "assetTransferMethod": "eip3009",
            "paymentFlow": "upfront",
        }

    def requirements_v1(self) -> RequirementsV1:
        """The ``accepts`` entry of version 1."""
        return RequirementsV1(
            scheme="exact",
            network=self.chain.slug,
            max_amount_required=str(self.amount),
            resource=self.resource_url,
            description=self.description,
            mime_type=_MIME,
            pay_to=self.pay_to,
            max_timeout_seconds=self.max_timeout_seconds,
            asset=self.chain.usdc.address,
            extra=self.extra,
        )

    def requirements_v2(self) -> RequirementsV2:
        """The ``accepts`` entry of version 2."""
        return RequirementsV2(
            scheme="exact",
            network=self.chain.caip2,
            amount=str(self.amount),
            asset=self.chain.usdc.address,
            pay_to=self.pay_to,
            max_timeout_seconds=self.max_timeout_seconds,
            extra=self.extra,
        )

    def challenge(self) -> SeedChallenge:
        """The original protocol's challenge; its id follows from the terms."""
        basis = f"{self.chain.caip2}|{self.pay_to}|{self.amount}|{self.resource_url}"
        basis += f"|{self.challenge_job_id}|{self.expires_at}"
        return SeedChallenge(
            challenge_id="ch-" + keccak256(basis.encode())[:12].hex(),
            amount_usd=self.amount / ATOMS_PER_USDC,
            amount_usdc=str(self.amount),
            seller_address=self.pay_to,
            buyer_address=self.buyer,
            job_id=self.challenge_job_id,
            expires_at=datetime.fromtimestamp(self.expires_at, UTC).isoformat(),
            payment_details=PaymentDetails(
                chain=self.chain.slug,
                token=self.chain.usdc.symbol,
                contract=self.chain.usdc.address,
            ),
        )


def payment_required(
    terms: Terms,
    *,
    error: str,
    reason: str | None = None,
    payer: str | None = None,
    also: tuple[RequirementsV2, ...] = (),
    exact: bool = True,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and JSON body of the 402, for versions 1 and 2 and the original protocol.

    Args:
        error: a sentence for people.
        reason: the standard's error code where a payment was presented and refused; it then
            stands in ``error``, and the receipt headers say that nothing was settled.
        payer: who presented it.
        also: further ways to pay; only version 2 knows any.
        exact: whether a plain transfer is one of the ways.
    """
    v2 = PaymentRequiredV2(
        error=reason or error,
        resource=ResourceInfo(
            url=terms.resource_url, description=terms.description, mime_type=_MIME
        ),
        accepts=(*((terms.requirements_v2(),) if exact else ()), *also),
    )
    v1_accepts = (terms.requirements_v1(),) if exact else ()
    v1 = PaymentRequiredV1(error=reason or error, accepts=v1_accepts, payer=payer)
    headers = {HEADER_REQUIRED_V2: encode_header(v2.wire())}
    if reason is not None:
        headers |= response_headers(
            terms.chain, success=False, payer=payer, reason=reason, message=error
        )
    challenge = terms.challenge().model_dump(mode="json", exclude_none=True)
    return headers, {**v1.wire(), "detail": error, "challenge": challenge}


def response_headers(
    chain: ChainInfo,
    *,
    success: bool,
    payer: str | None = None,
    transaction: str = "",
    amount: int | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> dict[str, str]:
    """The receipt headers of both versions."""
    v2 = SettleResponse(
        success=success,
        payer=payer,
        transaction=transaction,
        network=chain.caip2,
        amount=None if amount is None else str(amount),
        error_reason=reason,
        error_message=message,
    )
    v1 = v2.model_copy(update={"network": chain.slug})
    return {
        HEADER_RESPONSE_V2: encode_header(v2.wire()),
        HEADER_RESPONSE_V1: encode_header(v1.wire()),
    }
