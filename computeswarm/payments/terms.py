"""What the seller asks for one request, and the 402 that says so in every dialect at once.

The requirements are a pure function of the terms: clients and servers compare them member by
member when the payment comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.x402 import (
    HEADER_REQUIRED_V2,
    HEADER_RESPONSE_V1,
    HEADER_RESPONSE_V2,
    PaymentRequiredV1,
    PaymentRequiredV2,
    RequirementsV1,
    RequirementsV2,
    ResourceInfo,
    SeedChallenge,
    SettleResponse,
    encode_header,
)

OFFER_RECEIPT = "offer-receipt"
_MIME = "application/json"
_SERVICE = "ComputeSwarm"
_TAGS = ("compute", "gpu")


@dataclass(frozen=True, slots=True)
class Terms:
    """One price for one request. ``amount`` in atoms, ``max_timeout_seconds`` in seconds,
    ``expires_at`` in unix seconds (0: no end). ``challenge_job_id`` only appears in the original
    protocol's challenge.
    """

    chain: ChainInfo
    pay_to: str
    amount: int
    resource_url: str
    description: str = ""
    max_timeout_seconds: int = 60
    challenge_job_id: str | None = None
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


def payment_required(
    terms: Terms,
    *,
    error: str,
    reason: str | None = None,
    payer: str | None = None,
    also: tuple[RequirementsV2, ...] = (),
    exact: bool = True,
    challenge: SeedChallenge | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and JSON body of the 402, for versions 1 and 2 and the original protocol.

    Args:
        error: a sentence for people.
        reason: the standard's error code where a payment was presented and refused; it then
            stands in ``error``, and the receipt headers say that nothing was settled.
        payer: who presented it.
        also: further ways to pay; only version 2 knows any.
        exact: whether a plain transfer is one of the ways.
        challenge: the original protocol's, which rides in the body.
        extensions: what version 2 says besides, by the names of its extensions; of version 1's
            clients some know ``offer-receipt``.
    """
    signed = {name: value for name, value in (extensions or {}).items() if name == OFFER_RECEIPT}
    v2 = PaymentRequiredV2(
        error=reason or error,
        resource=ResourceInfo(
            url=terms.resource_url,
            description=terms.description,
            mime_type=_MIME,
            service_name=_SERVICE,
            tags=_TAGS,
        ),
        extensions=dict(extensions) if extensions else None,
        accepts=(*((terms.requirements_v2(),) if exact else ()), *also),
    )
    v1_accepts = (terms.requirements_v1(),) if exact else ()
    v1 = PaymentRequiredV1(
        error=reason or error, accepts=v1_accepts, payer=payer, extensions=signed or None
    )
    headers = {HEADER_REQUIRED_V2: encode_header(v2.wire())}
    if reason is not None:
        headers |= response_headers(
            terms.chain, success=False, payer=payer, reason=reason, message=error
        )
    body = {**v1.wire(), "detail": error}
    if challenge is not None:
        body["challenge"] = challenge.model_dump(mode="json", exclude_none=True)
    return headers, body


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
