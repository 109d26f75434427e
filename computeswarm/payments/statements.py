"""What sellers have signed for the buyer's payments: the offer before, the receipt after.

Kept beside the payments, by their nonces, and only where the wallet that is paid has signed it: so
each entry proves to anybody what was asked and that it was paid.
"""

from __future__ import annotations

import json
from typing import Any

from computeswarm.core.chains import CHAINS, ChainInfo
from computeswarm.core.x402 import SettleResponse
from computeswarm.payments.challenge import Challenge, Option
from computeswarm.payments.extensions.offer_receipt import offer_of, receipt_of
from computeswarm.payments.journal import PaymentJournal, SignedPayment
from computeswarm.payments.storage import transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS statements (
    nonce TEXT PRIMARY KEY,
    offer TEXT NOT NULL DEFAULT '',
    receipt TEXT NOT NULL DEFAULT ''
);
"""
_MAX_BYTES = 8_192


class Statements:
    """Offers and receipts in the payment journal's file."""

    def __init__(self, journal: PaymentJournal) -> None:
        self._db = journal.database
        self._db.executescript(_SCHEMA)

    def offered(self, payment: SignedPayment, challenge: Challenge, option: Option) -> None:
        """Keep the signed offer that a payment takes, if there is one; within ``exclusive``."""
        way = offered_way(challenge, option)
        offer = offer_of(challenge.extensions, payment.url, way, now=payment.created_at)
        if (text := _text(offer)) is not None:
            self._db.execute(
                "INSERT INTO statements (nonce, offer) VALUES (?, ?)"
                " ON CONFLICT (nonce) DO UPDATE SET offer = excluded.offer",
                (payment.nonce, text),
            )

    def received(self, payment: SignedPayment, chain: ChainInfo, response: SettleResponse) -> None:
        """Keep the signed receipt for a payment, if the answer has one."""
        receipt = receipt_of(
            response.extensions,
            network=chain.caip2,
            resource_url=payment.url,
            payer=payment.payer,
            pay_to=payment.pay_to,
        )
        if (text := _text(receipt)) is not None:
            with transaction(self._db) as db:
                db.execute(
                    "INSERT INTO statements (nonce, receipt) VALUES (?, ?)"
                    " ON CONFLICT (nonce) DO UPDATE SET receipt = excluded.receipt",
                    (payment.nonce, text),
                )

    def of(self, nonce: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The offer and the receipt of one payment."""
        row = self._db.execute(
            "SELECT offer, receipt FROM statements WHERE nonce = ?", (nonce,)
        ).fetchone()
        if row is None:
            return None, None
        return tuple(json.loads(text) if text else None for text in row)  # type: ignore[return-value]


def offered_way(challenge: Challenge, option: Option) -> dict[str, Any]:
    """One way to pay as offers name it: in version 2's words, whichever version said it."""
    if challenge.version == 2:
        return option.wire
    return {
        "scheme": option.scheme,
        "network": _CAIP2.get(option.network, option.network),
        "asset": option.asset,
        "payTo": option.pay_to,
        "amount": str(option.amount),
    }


_CAIP2 = {chain.slug: chain.caip2 for chain in CHAINS.values()}


def _text(statement: dict[str, Any] | None) -> str | None:
    if statement is None:
        return None
    text = json.dumps(statement, separators=(",", ":"))
    return text if len(text) <= _MAX_BYTES else None
