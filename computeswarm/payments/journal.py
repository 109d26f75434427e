"""The buyer's journal: every authorization that was ever signed, on disk before it leaves.

A signed authorization is money in a stranger's hand until its window closes, whatever he says of
it. So as long as it stands, it is presented again rather than another signed for the same purpose,
and it counts against the caps until the chain shows that it expired unused.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from computeswarm.core.x402 import HEADER_PAYMENT_V1, HEADER_PAYMENT_V2, encode_header
from computeswarm.payments.storage import connect, connect_to_read, transaction

CLOCK_JUMP_SECONDS = 600
"""So far a machine's clock may be off, or be set while we run."""
DAY_SECONDS = 86_400 + 2 * CLOCK_JUMP_SECONDS
"""A day for the cap, and room for a clock that went from too slow to too fast meanwhile."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    slice INTEGER NOT NULL,
    url TEXT NOT NULL,
    method TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    payer TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    amount INTEGER NOT NULL,
    nonce TEXT NOT NULL UNIQUE,
    valid_before INTEGER NOT NULL,
    version INTEGER NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    channel TEXT NOT NULL DEFAULT '',
    locked INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0,
    tx TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS one_standing ON payments (job_id, slice)
    WHERE state IN ('open', 'settled', 'refused');
CREATE INDEX IF NOT EXISTS by_time ON payments (created_at);
CREATE INDEX IF NOT EXISTS undecided ON payments (id)
    WHERE state IN ('open', 'refused', 'written_off');
"""
_STANDING = "state IN ('open', 'settled', 'refused', 'spent')"
_UNDECIDED = "state IN ('open', 'refused', 'written_off')"


class Fate(StrEnum):
    """What became of an authorization, as far as we know."""

    OPEN = "open"
    SETTLED = "settled"
    REFUSED = "refused"
    """So the seller says; nothing keeps him from using it while its window is open."""
    EXPIRED = "expired"
    """The chain has shown that it can't be used any more and never was: the only fate that frees
    what it might have cost."""
    SPENT = "spent"
    """Refused, and yet used on chain: gone, and it bought nothing so far."""
    WRITTEN_OFF = "written_off"
    """Refused, its window over, and no chain at hand to ask: taken for gone."""


_BEFORE: dict[Fate, tuple[Fate, ...]] = {
    Fate.SETTLED: (Fate.OPEN, Fate.REFUSED, Fate.SPENT),
    Fate.REFUSED: (Fate.OPEN, Fate.REFUSED),
    Fate.EXPIRED: (Fate.OPEN, Fate.REFUSED, Fate.WRITTEN_OFF),
    Fate.SPENT: (Fate.REFUSED, Fate.WRITTEN_OFF),
    Fate.WRITTEN_OFF: (Fate.REFUSED,),
}
"""From which fates another may follow; every other change is ignored."""


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A stored authorization and how it travels. ``amount`` in atoms, times in unix seconds.

    ``channel`` is the id of the payment channel that it is a deposit into, or empty.
    """

    job_id: str
    slice: int
    url: str
    method: str
    chain_id: int
    payer: str
    pay_to: str
    amount: int
    nonce: str
    valid_before: int
    version: int
    payload: dict[str, Any]
    state: Fate
    created_at: float
    channel: str = ""
    transaction: str = ""
    reason: str = ""

    def headers(self) -> dict[str, str]:
        """The header that presents it."""
        name = HEADER_PAYMENT_V2 if self.version == 2 else HEADER_PAYMENT_V1
        return {name: encode_header(self.payload)}


class PaymentJournal:
    """The journal in one SQLite file; several processes may share it.

    Raises:
        StorageFull: the disk is full; whatever was to be written was not.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA)

    @classmethod
    def reading(cls, path: Path) -> Self:
        """The journal as it stands now, beside whoever writes it; it can't be written to.

        Raises:
            ConfigError: it can't be read.
        """
        journal = cls.__new__(cls)
        journal._db = connect_to_read(path)
        return journal

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def database(self) -> sqlite3.Connection:
        """The file itself, for what is kept beside the payments and under the same lock."""
        return self._db

    def exclusive(self) -> AbstractContextManager[sqlite3.Connection]:
        """A context in which no other process can sign: sums hold until the payment is added."""
        return transaction(self._db)

    def add(self, payment: SignedPayment) -> None:
        """Store a fresh one; only within ``exclusive``."""
        self._db.execute(
            "INSERT INTO payments (job_id, slice, url, method, chain_id, payer, pay_to, amount,"
            " nonce, valid_before, version, payload, state, created_at, channel, locked)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(payment.job_id, payment.slice, payment.url, payment.method, payment.chain_id),
                *(payment.payer, payment.pay_to, payment.amount, payment.nonce),
                *(payment.valid_before, payment.version, json.dumps(payment.payload)),
                *(str(payment.state), payment.created_at, payment.channel, bool(payment.channel)),
            ),
        )

    def standing(self, job_id: str, slice_: int) -> SignedPayment | None:
        """The payment of one slice that was handed out and may be, or was, taken."""
        found = self._select(
            f"job_id = ? AND slice = ? AND {_STANDING} ORDER BY id DESC LIMIT 1", job_id, slice_
        )
        return found[0] if found else None

    def set_fate(self, nonce: str, fate: Fate, *, tx: str = "", reason: str = "") -> None:
        """Record what became of a payment, where that can follow on what is known of it."""
        before = ",".join(f"'{old}'" for old in _BEFORE[fate])
        with transaction(self._db):
            self._db.execute(
                "UPDATE payments SET state = ?, tx = ?, reason = ?"  # noqa: S608 - our own words
                f" WHERE nonce = ? AND state IN ({before})",
                (str(fate), tx, reason[:500], nonce),
            )

    def release(self, channel: str, claimed: int) -> None:
        """A channel is closed, and the chain has shown that ``claimed`` atoms of it are gone: the
        rest of its deposits came back and is free to be spent again.

        A deposit that the chain has not shown to have landed frees nothing yet, and then no more
        than if all of the claim had been on it.
        """
        with transaction(self._db):
            for deposit in self._select("channel = ? AND state != 'expired' ORDER BY id", channel):
                kept = min(deposit.amount, claimed)
                if deposit.state in (Fate.SETTLED, Fate.SPENT):
                    claimed -= kept
                self._db.execute(
                    "UPDATE payments SET locked = 0, returned = ? WHERE nonce = ?",
                    (deposit.amount - kept, deposit.nonce),
                )

    def undecided(self) -> list[SignedPayment]:
        """Those whose fate only the chain can tell: nobody's word but its own decides it."""
        return self._select(f"{_UNDECIDED} ORDER BY id")

    def pending(self) -> list[SignedPayment]:
        """The open ones, oldest first."""
        return self._select("state = 'open' ORDER BY id")

    def of_job(self, job_id: str) -> list[SignedPayment]:
        """All of one job, oldest first."""
        return self._select("job_id = ? ORDER BY id", job_id)

    def spent_job(self, job_id: str) -> int:
        """Atoms gone or still at risk for one job."""
        return self._sum("job_id = ?", job_id)

    def spent_day(self, now: float, chain_id: int) -> int:
        """Atoms of one chain gone or still at risk in the last 24 hours, or locked in a channel.

        What was signed shortly before counts as well, so that setting the clock frees nothing.
        """
        return self._sum(
            "(created_at > ? OR locked = 1) AND chain_id = ?", now - DAY_SECONDS, chain_id
        )

    def at_risk(self, chain_id: int) -> int:
        """Atoms signed and not locked of which the chain has not told yet whether they are gone."""
        return self._sum(f"{_UNDECIDED} AND locked = 0 AND chain_id = ?", chain_id)

    def locked(self, chain_id: int) -> int:
        """Atoms in channels, or signed to go there."""
        return self._sum("locked = 1 AND chain_id = ?", chain_id)

    def _select(self, where: str, *values: object) -> list[SignedPayment]:
        rows = self._db.execute(f"SELECT * FROM payments WHERE {where}", values)  # noqa: S608
        return [_payment(row) for row in rows]

    def _sum(self, where: str, *values: object) -> int:
        query = (
            "SELECT COALESCE(SUM(amount - CASE WHEN state IN ('settled', 'spent') THEN returned"  # noqa: S608
            " ELSE 0 END), 0) FROM payments"
            f" WHERE {where} AND state != 'expired'"
        )
        return int(self._db.execute(query, values).fetchone()[0])


def _payment(row: sqlite3.Row) -> SignedPayment:
    return SignedPayment(
        job_id=row["job_id"],
        slice=row["slice"],
        url=row["url"],
        method=row["method"],
        chain_id=row["chain_id"],
        payer=row["payer"],
        pay_to=row["pay_to"],
        amount=row["amount"],
        nonce=row["nonce"],
        valid_before=row["valid_before"],
        version=row["version"],
        payload=json.loads(row["payload"]),
        state=Fate(row["state"]),
        created_at=row["created_at"],
        channel=row["channel"],
        transaction=row["tx"],
        reason=row["reason"],
    )
