"""The extension ``offer-receipt``: offers and receipts that their seller's wallet has signed.

Source: the x402 specification's extension-offer-and-receipt, format ``eip712``, in the form that
the package ``@x402/extensions`` 2.27 sends. We sign with the wallet that is paid, and as a buyer
believe no other: whose key else speaks for a server is for registries to say that we don't know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from computeswarm.core.crypto import PrivateKey, recover_address, same_address
from computeswarm.core.eip712 import x402_offer_digest, x402_receipt_digest
from computeswarm.core.x402 import RequirementsV2, decode_header, encode_header
from computeswarm.payments.terms import OFFER_RECEIPT

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAX_OFFERS = 32
_SAME = ("scheme", "network", "amount")
_ADDRESSES = ("asset", "payTo")


class _Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _OfferPayload(_Artifact):
    version: int = Field(ge=1, lt=2**31)
    resourceUrl: str = Field(max_length=2_000)
    scheme: str = Field(max_length=60)
    network: str = Field(max_length=60)
    asset: str = Field(max_length=100)
    payTo: str = Field(max_length=100)
    amount: str = Field(max_length=78)
    validUntil: int = Field(ge=0, lt=2**53)


class _ReceiptPayload(_Artifact):
    version: int = Field(ge=1, lt=2**31)
    network: str = Field(max_length=60)
    resourceUrl: str = Field(max_length=2_000)
    payer: str = Field(max_length=100)
    issuedAt: int = Field(ge=0, lt=2**53)
    transaction: str = Field(default="", max_length=100)


def signed_offers(
    key: PrivateKey, resource_url: str, accepts: Iterable[RequirementsV2], *, issued_at: int
) -> dict[str, Any]:
    """What stands under ``extensions["offer-receipt"]`` of a 402: an offer for each way to pay."""
    offers = []
    for index, way in enumerate(accepts):
        payload = {
            "version": 1,
            "resourceUrl": resource_url,
            "scheme": way.scheme,
            "network": way.network,
            "asset": way.asset,
            "payTo": way.pay_to,
            "amount": way.amount,
            "validUntil": issued_at + way.max_timeout_seconds,
        }
        signed = _signed(key, payload, x402_offer_digest(payload))
        offers.append(signed | {"acceptIndex": index})
    return _extension("offers", {"type": "array"}, offers)


def signed_receipt(
    key: PrivateKey, *, network: str, resource_url: str, payer: str, transaction: str,
    issued_at: int,
) -> dict[str, Any]:  # fmt: skip
    """What stands under ``extensions["offer-receipt"]`` of a settlement's response.

    Args:
        network: the chain's CAIP-2 name, in both versions.
        issued_at: unix seconds of the settlement, so that a repeated reply is the same bytes.
    """
    payload = {
        "version": 1,
        "network": network,
        "resourceUrl": resource_url,
        "payer": payer,
        "issuedAt": issued_at,
        "transaction": transaction,
    }
    signed = _signed(key, payload, x402_receipt_digest(payload))
    return _extension("receipt", {"type": "object"}, signed)


def with_receipt(headers: Mapping[str, str], extension: Mapping[str, Any]) -> dict[str, str]:
    """The receipt headers of both versions, with the signed receipt in them."""
    return {
        name: encode_header(decode_header(value) | {"extensions": {OFFER_RECEIPT: extension}})
        for name, value in headers.items()
    }


def offer_of(
    extensions: Mapping[str, Any] | None, resource_url: str, way: Mapping[str, Any], *, now: float
) -> dict[str, Any] | None:
    """The offer for one way to pay (an entry of version 2's ``accepts``), if the wallet to be paid
    has signed it for this address and it still holds (``now`` in unix seconds); else None.
    """
    info = _info(extensions)
    offers = info.get("offers")
    for offer in offers[:_MAX_OFFERS] if isinstance(offers, list) else ():
        payload = _payload(offer, _OfferPayload)
        if payload is None or payload.resourceUrl != resource_url or payload.validUntil < now:
            continue
        same = all(getattr(payload, name) == way.get(name) for name in _SAME) and all(
            getattr(payload, name).lower() == str(way.get(name)).lower() for name in _ADDRESSES
        )
        if same and _made_by(offer, payload, x402_offer_digest, payload.payTo):
            return dict(offer)
    return None


def receipt_of(
    extensions: Mapping[str, Any] | None, *, network: str, resource_url: str, payer: str,
    pay_to: str,
) -> dict[str, Any] | None:  # fmt: skip
    """The receipt for a payment, if the wallet that was paid has signed it; else None."""
    receipt = _info(extensions).get("receipt")
    payload = _payload(receipt, _ReceiptPayload)
    if payload is None or not isinstance(receipt, dict):
        return None
    ours = (payload.network, payload.resourceUrl) == (network, resource_url)
    if not ours or not same_address(payload.payer, payer):
        return None
    return dict(receipt) if _made_by(receipt, payload, x402_receipt_digest, pay_to) else None


def _extension(name: str, kind: dict[str, str], value: object) -> dict[str, Any]:
    return {
        "info": {name: value},
        "schema": {
            "$schema": _DIALECT,
            "type": "object",
            "properties": {name: kind},
            "required": [name],
        },
    }


def _signed(key: PrivateKey, payload: dict[str, Any], digest: bytes) -> dict[str, Any]:
    signature = "0x" + key.sign_digest(digest).hex()
    return {"format": "eip712", "payload": payload, "signature": signature}


def _info(extensions: Mapping[str, Any] | None) -> Mapping[str, Any]:
    extension = (extensions or {}).get(OFFER_RECEIPT)
    info = extension.get("info") if isinstance(extension, dict) else None
    return info if isinstance(info, dict) else {}


def _payload(artifact: object, model: type[Any]) -> Any:
    if not isinstance(artifact, dict) or artifact.get("format") != "eip712":
        return None
    try:
        return model.model_validate(artifact.get("payload"))
    except (ValidationError, RecursionError):
        return None


def _made_by(artifact: Mapping[str, Any], payload: Any, digest: Any, wallet: str) -> bool:
    signature = artifact.get("signature")
    if not isinstance(signature, str) or not re.fullmatch(r"0x[0-9a-fA-F]{130}", signature):
        return False
    try:
        wanted = digest(payload.model_dump())
    except UnicodeEncodeError:
        return False
    found = recover_address(wanted, bytes.fromhex(signature[2:]))
    return found is not None and same_address(found, wallet)
