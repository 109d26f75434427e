"""Claims: what the seller knows of each authorization that was ever presented to him.

A claim is unique by chain, token, payer and nonce, belongs to one request for good, and is not
forgotten once it may have paid: that is what makes a payment buy one thing once, across races and
restarts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import Authorization
from computeswarm.core.chains import ChainInfo, chain_by_id
from computeswarm.core.errors import InvalidTransition
from computeswarm.payments.storage import connect, transaction
from computeswarm.payments.terms import response_headers


class ClaimState(StrEnum):
    RESERVED = "reserved"
    BROADCAST = "broadcast"
    SETTLED = "settled"
    CONSUMED = "consumed"
    REFUNDED = "refunded"
    FAILED = "failed"

    @property
    def paid(self) -> bool:
        """Whether the money is ours, proven by a receipt."""
        return self in (ClaimState.SETTLED, ClaimState.CONSUMED, ClaimState.REFUNDED)


_S = ClaimState
CLAIM_TRANSITIONS: dict[ClaimState, frozenset[ClaimState]] = {
    # settled without a broadcast of ours: a third party submitted the authorization first
    _S.RESERVED: frozenset({_S.BROADCAST, _S.SETTLED, _S.FAILED}),
    _S.BROADCAST: frozenset({_S.SETTLED, _S.FAILED}),
    _S.SETTLED: frozenset({_S.CONSUMED, _S.REFUNDED}),
    _S.CONSUMED: frozenset({_S.REFUNDED}),
    _S.REFUNDED: frozenset(),
    # only what surely did not pay has failed: the same request may try again (topped up, say)
    _S.FAILED: frozenset({_S.RESERVED}),
}

MAX_UNSENT = 10_000
"""Failed claims without a transaction of ours that are kept at most, some 10 MB."""
_UNSENT = "state = 'failed' AND tx = ''"
_KEEP_SECONDS = 86_400
_TURNED_AWAY = "turned away"
SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
    id INTEGER PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    token TEXT NOT NULL,
    payer TEXT NOT NULL,
    nonce TEXT NOT NULL,
    binding TEXT NOT NULL,
    subject TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    amount INTEGER NOT NULL,
    authorization TEXT NOT NULL,
    signature BLOB NOT NULL,
    state TEXT NOT NULL,
    raw BLOB,
    tx TEXT NOT NULL DEFAULT '',
    tx_nonce INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    reply BLOB,
    created_at REAL NOT NULL,
    settled_at REAL,
    UNIQUE (chain_id, token, payer, nonce)
);
CREATE INDEX IF NOT EXISTS claims_by_subject ON claims (subject);
CREATE INDEX IF NOT EXISTS claims_by_state ON claims (state);
CREATE INDEX IF NOT EXISTS claims_by_time ON claims (settled_at);
CREATE TABLE IF NOT EXISTS refunds (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL UNIQUE,
    recipient TEXT NOT NULL,
    amount INTEGER NOT NULL,
    batch INTEGER,
    created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS refunds_by_batch ON refunds (batch);
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL,
    amount INTEGER NOT NULL,
    raw BLOB NOT NULL,
    tx TEXT NOT NULL,
    tx_nonce INTEGER NOT NULL,
    state TEXT NOT NULL,
    done_at REAL
);
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """One authorization as it stands; ``amount`` in atoms, times in unix seconds.

    ``subject`` is what it pays for: the seller's job id, with ``#n`` for slice n. ``transaction``
    is the one that proves the payment, or the last one that was to bring it; ``signed_tx`` is there
    while that is on its way.
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

    @property
    def chain(self) -> ChainInfo:
        """The chain it was paid on."""
        return chain_by_id(self.chain_id)

    @property
    def turned_away(self) -> bool:
        """Whether the money came although what it was for was refused."""
        return self.state.paid and self.reason == _TURNED_AWAY

    def receipt_headers(self) -> dict[str, str]:
        """The receipt headers of both x402 versions for a settled claim."""
        return response_headers(
            self.chain,
            success=True,
            payer=self.payer,
            transaction=self.transaction,
            amount=self.amount,
        )


class ClaimStore:
    """The claims in one SQLite file, which the refunds share. One process at a time."""

    def __init__(self, path: Path) -> None:
        self.db = connect(path, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def write(self) -> AbstractContextManager[sqlite3.Connection]:
        """One durable transaction."""
        return transaction(self.db)

    def find(self, chain: ChainInfo, authorization: Authorization) -> Claim | None:
        """The claim of an authorization."""
        return self._one(
            "chain_id = ? AND token = ? AND payer = ? AND nonce = ?", *_key(chain, authorization)
        )

    def get(self, claim_id: int) -> Claim:
        """The claim as it stands now."""
        found = self._one("id = ?", claim_id)
        assert found is not None
        return found

    def by_subject(self, subject: str) -> Claim | None:
        """The newest claim for exactly this subject, a paid one before others."""
        paid = "state IN ('settled', 'consumed', 'refunded')"
        return self._one(f"subject = ? ORDER BY {paid} DESC, id DESC", subject)

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
    ) -> Claim:
        """Reserve an authorization for one request; it must not be known yet."""
        given = authorization
        with self.write() as db:
            cursor = db.execute(
                "INSERT INTO claims (chain_id, token, payer, nonce, binding, subject, pay_to,"
                " amount, authorization, signature, state, created_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,'reserved',?)",
                (
                    *_key(chain, given),
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
        )

    def broadcast(self, claim: Claim, tx: SignedTx) -> Claim:
        """Keep the signed transaction: from here on the same bytes are sent, and no others."""
        check_claim(claim.state, ClaimState.BROADCAST)
        return self._update(
            claim,
            "state = 'broadcast', raw = ?, tx = ?, tx_nonce = ?",
            *(tx.raw, tx.hash, tx.nonce),
        )

    def settle(self, claim: Claim, tx: str, now: float) -> Claim:
        """A receipt proved it."""
        check_claim(claim.state, ClaimState.SETTLED)
        return self._update(claim, "state = 'settled', tx = ?, settled_at = ?", tx, now)

    def turn_away(self, claim: Claim, tx: str, now: float) -> Claim:
        """A receipt proved it, but what it was for was refused: it is to go back whole.

        It leaves its subject, which may be another's job, for one of its own.
        """
        check_claim(claim.state, ClaimState.SETTLED)
        return self._update(
            claim,
            "state = 'settled', tx = ?, settled_at = ?, subject = ?, reason = ?",
            *(tx, now, f"refused-{claim.id}", _TURNED_AWAY),
        )

    def fail(self, claim: Claim, reason: str) -> Claim:
        """It surely did not pay."""
        check_claim(claim.state, ClaimState.FAILED)
        return self._update(claim, "state = 'failed', reason = ?, raw = NULL", reason)

    def consume(self, claim: Claim) -> Claim:
        """What it paid for has been taken over by whoever serves it."""
        check_claim(claim.state, ClaimState.CONSUMED)
        return self._update(claim, "state = 'consumed'")

    def forget(self, claim: Claim) -> None:
        """Drop a claim whose signature proved to be nobody's: it binds nobody."""
        with self.write() as db:
            db.execute("DELETE FROM claims WHERE id = ? AND state = 'reserved'", (claim.id,))

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

    def _update(self, claim: Claim, assignments: str, *values: object) -> Claim:
        with self.write() as db:
            db.execute(f"UPDATE claims SET {assignments} WHERE id = ?", (*values, claim.id))  # noqa: S608
        return self.get(claim.id)

    def _one(self, where: str, *values: object) -> Claim | None:
        row = self.db.execute(f"SELECT * FROM claims WHERE {where}", values).fetchone()  # noqa: S608
        return None if row is None else _claim(row)

    def _many(self, where: str, *values: object) -> list[Claim]:
        rows: Iterable[sqlite3.Row] = self.db.execute(
            f"SELECT * FROM claims WHERE {where}",  # noqa: S608
            values,
        )
        return [_claim(row) for row in rows]


def check_claim(old: ClaimState, new: ClaimState) -> None:
    """Allow exactly one step of the table.

    Raises:
        InvalidTransition: the table has no such step.
    """
    if new not in CLAIM_TRANSITIONS[old]:
        raise InvalidTransition(f"A payment that is {old} can't become {new}.", state=str(old))


def _key(chain: ChainInfo, authorization: Authorization) -> tuple[int, str, str, str]:
    return (
        chain.chain_id,
        chain.usdc.address,
        authorization.from_.lower(),
        authorization.nonce.lower(),
    )


def _dump(authorization: Authorization) -> str:
    return json.dumps(asdict(authorization))


def _claim(row: sqlite3.Row) -> Claim:
    authorization = Authorization(**json.loads(row["authorization"]))
    signed = None
    if row["state"] == ClaimState.BROADCAST:
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
    )
