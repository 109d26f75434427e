"""One payment as it was presented, and how it stands."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import Authorization
from computeswarm.core.chains import ChainInfo, chain_by_id
from computeswarm.payments.claim_states import ClaimState
from computeswarm.payments.terms import response_headers

TURNED_AWAY = "turned away"
TRANSFER = "tx"
"""Stands for the payer of a buyer's own transfer, so that its hash alone has to be new."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One authorization as it stands; ``amount`` in atoms, times in unix seconds.

    ``subject`` is what it pays for: the seller's job id, with ``#n`` for slice n. ``transaction``
    is the one that proves the payment, or the last one that was to bring it; ``signed_tx`` is there
    as long as we may have to send that again. ``request`` is what an external facilitator was
    handed instead. ``by_transfer``: the buyer sent a transfer of his own, and ``authorization``
    only describes it (its nonce is the transaction's hash). ``reorged_at`` is set while the chain
    has taken back the block that proved it.
    """

    id: int
    chain_id: int
    payer: str
    pay_to: str
    amount: int
    binding: str
    subject: str
    authorization: Authorization
    signature: bytes
    state: ClaimState
    transaction: str
    reason: str
    reply: bytes | None
    created_at: float
    settled_at: float | None
    signed_tx: SignedTx | None
    request: bytes | None
    by_transfer: bool
    reorged_at: float | None

    @property
    def chain(self) -> ChainInfo:
        """The chain it was paid on."""
        return chain_by_id(self.chain_id)

    @property
    def turned_away(self) -> bool:
        """Whether the money came although what it was for was refused."""
        return self.state.paid and self.reason == TURNED_AWAY

    def receipt_headers(self) -> dict[str, str]:
        """The receipt headers of both x402 versions for a settled claim."""
        return response_headers(
            self.chain,
            success=True,
            payer=self.payer,
            transaction=self.transaction,
            amount=self.amount,
        )


def claim_of(row: sqlite3.Row) -> Claim:
    """The claim in a row of ``claims`` joined with ``sent``."""
    authorization = Authorization(**json.loads(row["authorization"]))
    signed = None
    if row["raw"] is not None:
        signed = SignedTx(row["raw"], row["tx"], row["tx_nonce"])
    return Claim(
        id=row["id"],
        chain_id=row["chain_id"],
        payer=authorization.from_,
        pay_to=row["pay_to"],
        amount=row["amount"],
        binding=row["binding"],
        subject=row["subject"],
        authorization=authorization,
        signature=row["signature"],
        state=ClaimState(row["state"]),
        transaction=row["tx"],
        reason=row["reason"],
        reply=row["reply"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        signed_tx=signed,
        request=row["request"],
        by_transfer=row["payer"] == TRANSFER,
        reorged_at=row["reorged_at"],
    )
