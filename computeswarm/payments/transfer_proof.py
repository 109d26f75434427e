"""The original protocol's challenge and proof: a transfer that the buyer broadcast himself.

A challenge is kept nowhere. Its id carries its time, its price and a MAC under the seller's secret
over everything it was made for, so a seller who restarted still knows it, and nobody else can make
one. The buyer sends a plain USDC transfer of exactly that price and then signs, with the same
wallet, the text ``challenge_id|transaction_hash|timestamp`` (EIP-191), because what is on the chain
anybody could claim to have sent.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import from_json

from computeswarm.core.clock import Clock
from computeswarm.core.crypto import personal_digest, recover_address
from computeswarm.core.errors import BadRequest
from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.x402 import PaymentDetails, PaymentProof, Reason, SeedChallenge
from computeswarm.payments.present import refused
from computeswarm.payments.terms import Terms

CHALLENGE_SECONDS = 300
PROOF_MEMBER = "payment_proof"
_PREFIX = "chg_"
_MAC_BYTES = 16
_ID_BYTES = 5 + 5 + 8 + _MAC_BYTES
_PURPOSE = b"computeswarm challenge 1"


@dataclass(frozen=True, slots=True)
class TransferProof:
    """A proof for a challenge of ours, signed by ``payer``. The chain was not asked yet.

    ``amount`` (atoms) is what the challenge asked for, ``issued_at`` and ``expires_at`` are its
    times (unix seconds).
    """

    payer: str
    transaction_hash: str
    challenge_id: str
    amount: int
    issued_at: int
    expires_at: int
    timestamp: str
    signature: bytes

    @property
    def name(self) -> str:
        """One name for each transfer, of the shape that authorizations have."""
        return f"{self.payer}:{self.transaction_hash}"


def proof_text(challenge_id: str, transaction_hash: str, timestamp: str) -> str:
    """What the payer signs (EIP-191), each part exactly as it stands in the proof."""
    return f"{challenge_id}|{transaction_hash}|{timestamp}"


def body_without_proof(body: bytes) -> bytes:
    """What a challenge is bound to: the request's body in one spelling, without the proof.

    Raises:
        BadRequest: it is no JSON object.
    """
    try:
        document = from_json(body)  # not json's: its depth is bounded whatever the process allows
        if not isinstance(document, dict):
            raise BadRequest("The request's body is not a JSON object.")
        document.pop(PROOF_MEMBER, None)
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    except ValueError:
        raise BadRequest("The request's body can't be read as JSON.") from None


class Challenges:
    """Makes challenges and recognises them.

    Args:
        secret: 32 bytes that stay the same for the seller's life.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._key = hmac.digest(secret, _PURPOSE, "sha256")
        self._clock = clock

    def issue(self, terms: Terms, binding: str) -> SeedChallenge:
        """The challenge for one request.

        Args:
            binding: ``request_binding`` of the request without its proof.
        """
        issued = int(self._clock.now())
        expires = min(terms.expires_at or issued + CHALLENGE_SECONDS, issued + CHALLENGE_SECONDS)
        head = issued.to_bytes(5) + expires.to_bytes(5) + terms.amount.to_bytes(8)
        return SeedChallenge(
            challenge_id=_PREFIX + (head + self._mac(head, terms, binding)).hex(),
            amount_usd=terms.amount / ATOMS_PER_USDC,
            amount_usdc=str(terms.amount),
            seller_address=terms.pay_to,
            job_id=terms.challenge_job_id,
            expires_at=datetime.fromtimestamp(expires, UTC).isoformat(),
            payment_details=PaymentDetails(
                chain=terms.chain.slug,
                token=terms.chain.usdc.symbol,
                contract=terms.chain.usdc.address,
            ),
        )

    def read(self, proof: PaymentProof, terms: Terms, binding: str) -> TransferProof:
        """The proof, once its challenge is known to be ours and for this request.

        Its price need not be that of ``terms`` any more: the money may be here already, and must
        not be lost because the price has changed since.

        Raises:
            BadRequest: the timestamp is no time.
            PaymentRequired: no challenge of ours for this request, or signed by nobody.
        """
        raw = _raw(proof.challenge_id)
        head = raw[:-_MAC_BYTES]
        if not raw or not hmac.compare_digest(self._mac(head, terms, binding), raw[-_MAC_BYTES:]):
            raise refused(
                Reason.INVALID_REQUIREMENTS,
                "The challenge is not one of this seller's for this request; present the proof "
                "with the same body that was answered with the challenge.",
            )
        try:
            datetime.fromisoformat(proof.timestamp)
        except ValueError:
            raise BadRequest("The proof's timestamp is no ISO 8601 time.") from None
        payer = _signer(proof)
        if payer is None:
            raise refused(Reason.BAD_SIGNATURE, "The proof's signature is not valid.")
        return TransferProof(
            payer=payer,
            transaction_hash=proof.transaction_hash.lower(),
            challenge_id=proof.challenge_id,
            amount=int.from_bytes(head[10:18]),
            issued_at=int.from_bytes(head[:5]),
            expires_at=int.from_bytes(head[5:10]),
            timestamp=proof.timestamp,
            signature=bytes.fromhex(proof.signature[2:]),
        )

    def claimed_name(self, proof: PaymentProof) -> str | None:
        """The name of the transfer that a proof claims, checked only for its signature."""
        payer = _signer(proof)
        return None if payer is None else f"{payer}:{proof.transaction_hash.lower()}"

    def _mac(self, head: bytes, terms: Terms, binding: str) -> bytes:
        about = (
            *(terms.chain.caip2, terms.chain.usdc.address, terms.pay_to),
            *(terms.challenge_job_id or "", binding),
        )
        text = head + "|".join(about).encode()
        return hmac.digest(self._key, text, "sha256")[:_MAC_BYTES]


def _signer(proof: PaymentProof) -> str | None:
    text = proof_text(proof.challenge_id, proof.transaction_hash, proof.timestamp)
    return recover_address(personal_digest(text), bytes.fromhex(proof.signature[2:]))


def _raw(challenge_id: str) -> bytes:
    try:
        raw = bytes.fromhex(challenge_id.removeprefix(_PREFIX))
    except ValueError:
        return b""
    return raw if len(raw) == _ID_BYTES and challenge_id.startswith(_PREFIX) else b""
