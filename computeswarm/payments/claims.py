"""Claims: what the seller knows of each authorization that was ever presented to him.

A claim is unique by chain, token, payer and nonce, belongs to one request for good, and is not
forgotten once it may have paid: that is what makes a payment buy one thing once, across races and
restarts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import Authorization
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.core.x402 import Reason
from computeswarm.payments.claim import TRANSFER, TURNED_AWAY, Claim, claim_of
from computeswarm.payments.claim_schema import SCHEMA
from computeswarm.payments.claim_states import CLAIM_TRANSITIONS, ClaimState, check_claim
from computeswarm.payments.receipts import note_receipt
from computeswarm.payments.storage import connect, transaction

__all__ = ["CLAIM_TRANSITIONS", "Claim", "ClaimState", "ClaimStore", "check_claim"]

MAX_UNSENT = 10_000
"""Failed claims without a transaction of ours that are kept at most, some 10 MB."""
_UNSENT = "state = 'failed' AND tx = ''"
_KEEP_SECONDS = 86_400
_SELECT = (
    "SELECT claims.*, sent.raw AS raw, sent.tx_nonce AS tx_nonce"
    " FROM claims LEFT JOIN sent ON sent.tx = claims.tx"
)


class ClaimStore:
    """The claims in one SQLite file, which the refunds share. One process at a time."""

    def __init__(self, path: Path) -> None:
        self.db = connect(path, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def write(self, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction; one that is not ``durable`` survives a crash of ours, but a power cut
        only with the next that is. For what says nothing yet, or could be said again."""
        return transaction(self.db, durable=durable)

    def find(
        self, chain: ChainInfo, authorization: Authorization, *, by_transfer: bool = False
    ) -> Claim | None:
        """The claim of an authorization, or of a buyer's own transfer."""
        return self._one(
            "chain_id = ? AND token = ? AND payer = ? AND nonce = ?",
            *_key(chain, authorization, by_transfer),
        )

    def known(self, chain: ChainInfo, payer: str, nonce: str) -> bool:
        """Whether an authorization was ever presented."""
        row = self.db.execute(
            "SELECT 1 FROM claims WHERE chain_id = ? AND token = ? AND payer = ? AND nonce = ?",
            (chain.chain_id, chain.usdc.address, payer.lower(), nonce.lower()),
        )
        return row.fetchone() is not None

    def get(self, claim_id: int) -> Claim:
        """The claim as it stands now."""
        found = self._one("id = ?", claim_id)
        assert found is not None
        return found

    def by_subject(self, subject: str) -> Claim | None:
        """The newest claim for exactly this subject, a paid one before others."""
        paid = "state IN ('settled', 'consumed', 'refunded')"
        return self._one(f"subject = ? ORDER BY {paid} DESC, id DESC", subject)

    def of_subject(self, subject: str) -> list[Claim]:
        """The claims for exactly this subject, oldest first."""
        return self._many("subject = ? ORDER BY id", subject)

    def of_job(self, job_id: str) -> list[Claim]:
        """The claims for a job and its slices, oldest first."""
        return self._many("subject = ? OR subject GLOB ? ORDER BY id", job_id, f"{job_id}#*")

    def in_state(self, *states: ClaimState) -> list[Claim]:
        """All claims in these states, oldest first."""
        marks = ",".join("?" * len(states))
        return self._many(f"state IN ({marks}) ORDER BY id", *map(str, states))

    def insert(
        self,
        chain: ChainInfo,
        authorization: Authorization,
        signature: bytes,
        *,
        binding: str,
        subject: str,
        now: float,
        by_transfer: bool = False,
    ) -> Claim:
        """Reserve an authorization (or a transfer) for one request; it must not be known yet."""
        given = authorization
        with self.write(durable=False) as db:
            cursor = db.execute(
                "INSERT INTO claims (chain_id, token, payer, nonce, binding, subject, pay_to,"
                " amount, authorization, signature, state, created_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,'reserved',?)",
                (
                    *_key(chain, given, by_transfer),
                    *(binding, subject, given.to, given.value),
                    *(_dump(given), signature, now),
                ),
            )
        return self.get(int(cursor.lastrowid or 0))

    def retry(self, claim: Claim, signature: bytes, *, subject: str) -> Claim:
        """Take up again what did not get as far as the chain, for the job as it is now called."""
        if claim.state is not ClaimState.RESERVED:
            check_claim(claim.state, ClaimState.RESERVED)
        return self._update(
            claim,
            "state = 'reserved', subject = ?, signature = ?, reason = ''",
            subject,
            signature,
            durable=False,
        )

    def broadcast(self, claim: Claim, tx: SignedTx) -> Claim:
        """Keep the signed transaction: from here on the same bytes are sent, and no others."""
        return self.broadcast_all([claim], tx)[0]

    def broadcast_all(self, claims: Sequence[Claim], tx: SignedTx) -> list[Claim]:
        """Keep a signed transaction that brings several payments, for all of them or for none."""
        for claim in claims:
            check_claim(claim.state, ClaimState.BROADCAST)
        with self.write() as db:
            self._keep_sent(db, claims, tx)
            db.executemany(
                "UPDATE claims SET state = 'broadcast', tx = ? WHERE id = ?",
                [(tx.hash, claim.id) for claim in claims],
            )
        return [self.get(claim.id) for claim in claims]

    def resend(self, claim: Claim, tx: SignedTx) -> Claim:
        """Keep another transaction for a payment whose own was taken back by the chain."""
        with self.write() as db:
            self._keep_sent(db, [claim], tx)
            db.execute("UPDATE claims SET tx = ? WHERE id = ?", (tx.hash, claim.id))
        return self.get(claim.id)

    def hand_over(self, claim: Claim, request: bytes) -> Claim:
        """Keep what an external facilitator is handed: from here on its fate is unknown."""
        check_claim(claim.state, ClaimState.BROADCAST)
        return self._update(claim, "state = 'broadcast', tx = '', request = ?", request)

    def settle(self, claim: Claim, tx: str, now: float, receipt: Receipt | None = None) -> Claim:
        """A receipt proved it.

        That of the transaction we wrote down before could be asked for again after a power cut,
        whenever that is; another's might not be found any more.
        """
        check_claim(claim.state, ClaimState.SETTLED)
        with self.write(durable=tx != claim.transaction) as db:
            note_receipt(db, receipt)
            db.execute(
                "UPDATE claims SET state = 'settled', tx = ?, settled_at = ? WHERE id = ?",
                (tx, now, claim.id),
            )
        return self.get(claim.id)

    def turn_away(self, claim: Claim, tx: str, now: float, receipt: Receipt | None = None) -> Claim:
        """A receipt proved it, but what it was for was refused: it is to go back whole.

        It leaves its subject, which may be another's job, for one of its own.
        """
        check_claim(claim.state, ClaimState.SETTLED)
        with self.write() as db:
            note_receipt(db, receipt)
            db.execute(
                "UPDATE claims SET state = 'settled', tx = ?, settled_at = ?, subject = ?,"
                " reason = ?, reverted_at = NULL WHERE id = ?",
                (tx, now, f"refused-{claim.id}", TURNED_AWAY, claim.id),
            )
        return self.get(claim.id)

    def fail(self, claim: Claim, reason: str, receipt: Receipt | None = None) -> Claim:
        """It surely did not pay."""
        check_claim(claim.state, ClaimState.FAILED)
        with self.write() as db:
            note_receipt(db, receipt)
            db.execute(
                "UPDATE claims SET state = 'failed', reason = ?, request = NULL WHERE id = ?",
                (reason, claim.id),
            )
            db.execute(
                "UPDATE sent SET raw = NULL WHERE tx = ? AND NOT EXISTS (SELECT 1 FROM claims"
                " WHERE claims.tx = sent.tx AND state != 'failed')"
                " AND NOT EXISTS (SELECT 1 FROM receipts WHERE receipts.tx = sent.tx)",
                (claim.transaction,),
            )
        return self.get(claim.id)

    def sent_for(self, claim: Claim) -> frozenset[str]:
        """All transactions of ours that were to bring it."""
        rows = self.db.execute("SELECT tx FROM sent_for WHERE claim = ?", (claim.id,))
        return frozenset(row[0] for row in rows)

    def shared(self, claim: Claim) -> bool:
        """Whether its transaction carries other payments as well."""
        rows = self.db.execute("SELECT 1 FROM sent_for WHERE tx = ? LIMIT 2", (claim.transaction,))
        return len(rows.fetchall()) > 1

    def reverts_of(self, payer: str, since: float) -> int:
        """How many transactions were mined at our expense for payments that this payer's claims
        of since then did not bring."""
        row = self.db.execute(
            "SELECT COUNT(*) FROM claims JOIN sent_for ON sent_for.claim = claims.id"
            " JOIN receipts ON receipts.tx = sent_for.tx WHERE claims.payer = ?"
            " AND claims.state IN ('failed', 'reserved') AND claims.created_at >= ?",
            (payer.lower(), since),
        )
        return int(row.fetchone()[0])

    def refund_job(self, db: sqlite3.Connection, job_id: str) -> None:
        """All that was paid for a job goes back: within the write that makes it a debt."""
        db.execute(
            "UPDATE claims SET state = 'refunded' WHERE state IN ('settled', 'consumed')"
            " AND (subject = ? OR subject GLOB ?)",
            (job_id, f"{job_id}#*"),
        )

    def reorged(self) -> list[Claim]:
        """Paid ones whose block the chain has taken back."""
        return self._many("reorged_at IS NOT NULL ORDER BY claims.id")

    def remined(self, claim: Claim, receipt: Receipt) -> Claim:
        """It is in a block again."""
        with self.write() as db:
            note_receipt(db, receipt)
            db.execute(
                "UPDATE claims SET tx = ?, reorged_at = NULL WHERE id = ?",
                (receipt.tx_hash, claim.id),
            )
        return self.get(claim.id)

    def revert(self, claim: Claim, now: float) -> Claim:
        """It was taken back, and can't be made any more. What was to go back of it stays here."""
        check_claim(claim.state, ClaimState.REVERTED)
        job = claim.subject.partition("#")[0]
        with self.write() as db:
            db.execute(
                "UPDATE claims SET state = 'reverted', reorged_at = NULL, reverted_at = ?,"
                " told = 0 WHERE id = ?",
                (now, claim.id),
            )
            db.execute(
                "DELETE FROM refunds WHERE subject = ? AND batch IS NULL AND amount <= ?",
                (job, claim.amount),
            )
            db.execute(
                "UPDATE refunds SET amount = amount - ? WHERE subject = ? AND batch IS NULL",
                (claim.amount, job),
            )
        return self.get(claim.id)

    def untold(self) -> list[Claim]:
        """Reverted ones of which the seller has not been told."""
        return self._many("told = 0 ORDER BY claims.id")

    def reverted(self, since: float) -> list[Claim]:
        """What was lost since then, and the seller knows of."""
        return self._many("state = 'reverted' AND told = 1 AND reverted_at >= ?", since)

    def told(self, claim: Claim) -> None:
        """The seller knows."""
        self._update(claim, "told = 1")

    def consume(self, claim: Claim) -> Claim:
        """What it paid for has been taken over by whoever serves it."""
        check_claim(claim.state, ClaimState.CONSUMED)
        return self._update(claim, "state = 'consumed'", durable=False)

    def forget(self, claim: Claim) -> None:
        """Drop a claim whose signature proved to be nobody's: it binds nobody."""
        with self.write() as db:
            db.execute("DELETE FROM claims WHERE id = ? AND state = 'reserved'", (claim.id,))

    def release(self, claim: Claim) -> None:
        """What ended before anything was sent for it has failed, if nothing said so yet."""
        with self.write(durable=False) as db:
            db.execute(
                "UPDATE claims SET state = 'failed', reason = ?"
                " WHERE id = ? AND state = 'reserved'",
                (Reason.UNEXPECTED_VERIFY, claim.id),
            )

    def prune(self, now: float) -> None:
        """Drop failed claims that nothing of ours was ever sent for: anybody makes them for free.

        They go a day after their window closed, the oldest of too many before: none of them bought
        anything, so one that is presented again is simply new.
        """
        with self.write() as db:
            db.execute(
                f"DELETE FROM claims WHERE {_UNSENT}"  # noqa: S608
                " AND json_extract(authorization, '$.valid_before') < ?",
                (now - _KEEP_SECONDS,),
            )
            db.execute(
                f"DELETE FROM claims WHERE {_UNSENT} AND id <= (SELECT id FROM claims"  # noqa: S608
                f" WHERE {_UNSENT} ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (MAX_UNSENT,),
            )

    def set_reply(self, claim: Claim, reply: bytes) -> Claim:
        """Keep the reply, unless there is one: the first stays."""
        return self._update(claim, "reply = COALESCE(reply, ?)", reply)

    def _update(
        self, claim: Claim, assignments: str, *values: object, durable: bool = True
    ) -> Claim:
        with self.write(durable=durable) as db:
            db.execute(f"UPDATE claims SET {assignments} WHERE id = ?", (*values, claim.id))  # noqa: S608
        return self.get(claim.id)

    def _keep_sent(self, db: sqlite3.Connection, claims: Sequence[Claim], tx: SignedTx) -> None:
        db.execute(
            "INSERT OR REPLACE INTO sent (tx, raw, tx_nonce) VALUES (?,?,?)",
            (tx.hash, tx.raw, tx.nonce),
        )
        db.executemany(
            "INSERT OR IGNORE INTO sent_for (claim, tx) VALUES (?,?)",
            [(claim.id, tx.hash) for claim in claims],
        )

    def _one(self, where: str, *values: object) -> Claim | None:
        row = self.db.execute(f"{_SELECT} WHERE {where}", values).fetchone()
        return None if row is None else claim_of(row)

    def _many(self, where: str, *values: object) -> list[Claim]:
        rows: Iterable[sqlite3.Row] = self.db.execute(
            f"{_SELECT} WHERE {where}",
            values,
        )
        return [claim_of(row) for row in rows]


def _key(
    chain: ChainInfo, authorization: Authorization, by_transfer: bool
) -> tuple[int, str, str, str]:
    return (
        chain.chain_id,
        chain.usdc.address,
        TRANSFER if by_transfer else authorization.from_.lower(),
        authorization.nonce.lower(),
    )


def _dump(authorization: Authorization) -> str:
    return json.dumps(asdict(authorization))
