"""x402 wire models, versions 1 and 2, as the published clients and servers write them.

Sources: the x402 specification (v1, v2) and the packages ``x402`` (PyPI) and ``@x402/*`` (npm).
Numbers that may exceed 2**53 travel as decimal strings.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from computeswarm.core.errors import BadRequest
from computeswarm.core.nodes import Address

HEADER_REQUIRED_V2 = "PAYMENT-REQUIRED"
HEADER_PAYMENT_V2 = "PAYMENT-SIGNATURE"
HEADER_RESPONSE_V2 = "PAYMENT-RESPONSE"
HEADER_PAYMENT_V1 = "X-PAYMENT"
HEADER_RESPONSE_V1 = "X-PAYMENT-RESPONSE"
MAX_HEADER_BYTES = 16 * 1024

DecimalString = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,77})$")]
Bytes32 = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{64}$")]


class _Wire(BaseModel):
    """camelCase on the wire; unknown members are ignored; None members are left out."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )

    def wire(self) -> dict[str, Any]:
        """The JSON object as it travels (a None member makes public clients refuse it)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Authorization(_Wire):
    """EIP-3009 ``TransferWithAuthorization``; value in atoms, times in unix seconds."""

    from_: Address = Field(alias="from")
    to: Address
    value: DecimalString
    valid_after: DecimalString
    valid_before: DecimalString
    nonce: Bytes32


class ExactPayload(_Wire):
    """Payload of the ``exact`` scheme. Signatures of contract wallets may be longer."""

    signature: str = Field(pattern=r"^0x([0-9a-fA-F]{2}){1,4096}$")
    authorization: Authorization


class RequirementsV1(_Wire):
    scheme: str = Field(max_length=60)
    network: str = Field(max_length=60)
    max_amount_required: DecimalString
    resource: str = Field(max_length=2_000)
    description: str = Field(default="", max_length=2_000)
    mime_type: str = Field(default="application/json", max_length=200)
    pay_to: Address
    max_timeout_seconds: int = Field(ge=1, le=86400)
    asset: Address
    extra: dict[str, Any] | None = None


class RequirementsV2(_Wire):
    scheme: str = Field(max_length=60)
    network: str = Field(max_length=60)
    amount: DecimalString
    asset: Address
    pay_to: Address
    max_timeout_seconds: int = Field(ge=1, le=86400)
    extra: dict[str, Any] = Field(default_factory=dict)


class ResourceInfo(_Wire):
    url: str = Field(max_length=2_000)
    description: str | None = Field(default=None, max_length=2_000)
    mime_type: str | None = Field(default=None, max_length=200)
    service_name: str | None = Field(default=None, max_length=200)
    tags: tuple[str, ...] | None = Field(default=None, max_length=5)


class PaymentRequiredV2(_Wire):
    x402_version: Literal[2] = 2
    error: str | None = Field(default=None, max_length=2_000)
    resource: ResourceInfo
    accepts: tuple[RequirementsV2, ...] = Field(max_length=32)
    extensions: dict[str, Any] | None = None


class PaymentDetails(BaseModel):
    """``payment_details`` of the original protocol's challenge."""

    chain: str
    token: str
    contract: str


class SeedChallenge(BaseModel):
    """The original protocol's challenge. ``amount_usdc`` is in atoms, as a string."""

    challenge_id: str
    amount_usd: float
    amount_usdc: str
    seller_address: str
    buyer_address: str | None = None
    job_id: str | None = None
    expires_at: str
    payment_details: PaymentDetails


class PaymentProof(BaseModel):
    """The original protocol's proof, ``payment_proof`` in a request's body: a transfer that the
    payer broadcast himself. ``signature`` is his (EIP-191) over the text
    ``challenge_id|transaction_hash|timestamp``, each part as it is written here.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    challenge_id: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")
    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")
    transaction_hash: Bytes32
    timestamp: str = Field(min_length=1, max_length=40, pattern=r"^[0-9A-Za-z:.+-]+$")


class PaymentRequiredV1(_Wire):
    """The 402 body: version 1's, with the original protocol's challenge beside it."""

    x402_version: Literal[1] = 1
    error: str = Field(max_length=2_000)
    accepts: tuple[RequirementsV1, ...] = Field(max_length=32)
    payer: str | None = None
    extensions: dict[str, Any] | None = None


class PaymentV1(_Wire):
    x402_version: Literal[1]
    scheme: Literal["exact"]
    network: str = Field(max_length=60)
    payload: ExactPayload


class PaymentV2(_Wire):
    x402_version: Literal[2]
    payload: ExactPayload
    accepted: RequirementsV2
    resource: ResourceInfo | None = None
    extensions: dict[str, Any] | None = None


class SettleResponse(_Wire):
    """The receipt header. ``transaction`` is empty where nothing was settled."""

    success: bool
    error_reason: str | None = Field(default=None, max_length=200)
    error_message: str | None = Field(default=None, max_length=2_000)
    payer: str | None = Field(default=None, max_length=100)
    transaction: str = Field(default="", max_length=100)
    network: str = Field(max_length=60)
    amount: str | None = Field(default=None, max_length=80)
    extra: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


class Reason:
    """The standard's error codes that we answer with."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    BAD_SIGNATURE = "invalid_exact_evm_payload_signature"
    RECIPIENT_MISMATCH = "invalid_exact_evm_payload_recipient_mismatch"
    VALID_AFTER = "invalid_exact_evm_payload_authorization_valid_after"
    VALID_BEFORE = "invalid_exact_evm_payload_authorization_valid_before"
    VALUE_MISMATCH = "invalid_exact_evm_payload_authorization_value_mismatch"
    NONCE_USED = "invalid_exact_evm_nonce_already_used"
    INVALID_NETWORK = "invalid_network"
    INVALID_SCHEME = "invalid_scheme"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_REQUIREMENTS = "invalid_payment_requirements"
    INVALID_VERSION = "invalid_x402_version"
    SIMULATION_FAILED = "invalid_exact_evm_transaction_simulation_failed"
    SETTLEMENT_PENDING = "settlement_pending"
    SETTLEMENT_FAILED = "invalid_transaction_state"
    UNEXPECTED_VERIFY = "unexpected_verify_error"


def encode_header(value: dict[str, Any]) -> str:
    """Base64 of the JSON, as every x402 header carries it."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def decode_header(text: str) -> dict[str, Any]:
    """The JSON object in a header.

    Raises:
        BadRequest: too long, not base64, or not a JSON object.
    """
    if len(text) > MAX_HEADER_BYTES:
        raise BadRequest("The payment header is longer than 16 KiB.")
    try:
        # not json's loads: its depth is bounded, whatever this process allows itself
        value = from_json(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest("The payment header is not base64 of JSON.") from None
    if not isinstance(value, dict):
        raise BadRequest("The payment header is not a JSON object.")
    return value
