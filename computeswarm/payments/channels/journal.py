"""The buyer's record of channels, in the payments journal's own file and under its lock.

A deposit is a payment of that journal, so it counts against every cap; here stand the channel's
identity, the newest voucher that was ever signed for it, and what the chain says became of it.
Ticks change one row, however many there are. Sums in atoms, times in unix seconds.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.tx import SignedTx
from computeswarm.core.channels import ChannelConfig
from computeswarm.payments.channels.records import config_json, parse_config
from computeswarm.payments.journal import Fate, PaymentJournal
from computeswarm.payments.storage import transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS channels (
    channel_id TEXT PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    job_id TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    config TEXT NOT NULL,
    accepted TEXT NOT NULL,
    resource TEXT NOT NULL,
    deposited INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    agreed INTEGER NOT NULL,
    vouched INTEGER NOT NULL,
    slice INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    voucher INTEGER NOT NULL,
    signature BLOB NOT NULL,
    answered INTEGER NOT NULL,
    state TEXT NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    balance INTEGER NOT NULL DEFAULT 0,
    withdraw_at INTEGER NOT NULL DEFAULT 0,
    refund_tx TEXT NOT NULL DEFAULT '',
    seen_at REAL NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS channels_by_state ON channels (state);
CREATE TABLE IF NOT EXISTS channel_transactions (
    id INTEGER PRIMARY KEY,
    channel_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    raw BLOB,
    tx TEXT NOT NULL,
    tx_nonce INTEGER NOT NULL,
    state TEXT NOT NULL,
    amount INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
);
CREATE VIEW IF NOT EXISTS channel_steps AS
WITH sums AS (
    SELECT c.*, json_extract(c.config, '$.payer') AS wallet,
        json_extract(c.config, '$.receiver') AS peer,
        (SELECT COALESCE(SUM(p.amount), 0) FROM payments p WHERE p.channel = c.channel_id
            AND p.state IN ('settled', 'spent')) AS landed,
        (SELECT COALESCE(SUM(t.amount), 0) FROM channel_transactions t
            WHERE t.channel_id = c.channel_id AND t.kind = 'finalize' AND t.state = 'done')
            AS withdrawn
    FROM channels c
)
SELECT p.created_at AS at, 'deposit' AS kind, p.channel AS channel_id, p.job_id AS job_id,
    p.pay_to AS peer, p.payer AS wallet, p.chain_id AS chain_id, p.amount AS amount, p.tx AS tx,
    CASE WHEN p.state IN ('settled', 'spent') THEN 'done'
        WHEN p.state = 'expired' THEN 'failed' ELSE 'sent' END AS state
FROM payments p WHERE p.channel != ''
UNION ALL
SELECT seen_at, 'claim', channel_id, job_id, peer, wallet, chain_id, claimed, '', 'done'
FROM sums WHERE claimed > 0
UNION ALL
SELECT seen_at, 'refund', channel_id, job_id, peer, wallet, chain_id,
    landed - balance - withdrawn, refund_tx, 'done'
FROM sums WHERE seen_at > 0 AND landed - balance - withdrawn > 0
UNION ALL
SELECT t.created_at, 'withdrawal', t.channel_id, s.job_id, s.peer, s.wallet, s.chain_id, t.amount,
    t.tx, t.state
FROM channel_transactions t JOIN sums s ON s.channel_id = t.channel_id WHERE t.kind = 'finalize';
"""


class BuyerChannelState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    """Nothing of ours is in it any more, as the chain says."""


@dataclass(frozen=True, slots=True)
class BuyerChannel:
    """One channel of the buyer's.

    ``charged`` is what the seller has charged as far as his answers are consistent, ``agreed`` the
    sum of all that was ever to be paid, ``vouched`` the highest voucher that was ever signed: all
    that the seller can take. ``voucher`` is the newest, for slice ``slice`` at ``amount``.
    ``claimed``, ``balance`` and ``withdraw_at`` (0: no withdrawal) are what the chain said last.
    """

    channel_id: str
    chain_id: int
    job_id: str
    url: str
    config: ChannelConfig
    accepted: dict[str, Any]
    resource: dict[str, Any] | None
    deposited: int
    charged: int
    agreed: int
    vouched: int
    slice: int
    amount: int
    voucher: int
    signature: bytes
    answered: bool
    state: BuyerChannelState
    claimed: int
    balance: int
    withdraw_at: int
    created_at: float


@dataclass(frozen=True, slots=True)
class OwnTransaction:
    """A withdrawal's transaction, from before it was broadcast."""

    id: int
    channel_id: str
    kind: str
    signed: SignedTx


class ChannelJournal:
    """The channels in a payments journal.

    Raises:
        StorageFull: the disk is full; whatever was to be written was not.
    """

    def __init__(self, journal: PaymentJournal) -> None:
        self.payments = journal
        self._db = journal.database
        self._db.executescript(_SCHEMA)

    def tick(self) -> AbstractContextManager[sqlite3.Connection]:
        """The journal's ``exclusive`` for a voucher. It does not wait for the disk: the same slice
        gets the same signature again, and its deposit counts whole against the caps anyway."""
        return transaction(self._db, durable=False)

    def find(self, channel_id: str) -> BuyerChannel | None:
        """The channel, if it is ours."""
        return self._one("channel_id = ?", channel_id.lower())

    def of_job(self, job_id: str) -> BuyerChannel | None:
        """The channel that pays for a job."""
        return self._one("job_id = ?", job_id)

    def all(self) -> list[BuyerChannel]:
        """Every channel, newest first."""
        return self._many("TRUE ORDER BY created_at DESC")

    def open(self) -> list[BuyerChannel]:
        """Those in which something of ours may be, oldest first."""
        return self._many("state = 'open' ORDER BY created_at")

    def write_opened(self, channel: BuyerChannel) -> None:
        """Add a channel, or its new deposit where an earlier one never landed; only within the
        journal's ``exclusive``."""
        self._db.execute(
            "INSERT INTO channels (channel_id, chain_id, job_id, url, config, accepted, resource,"
            " deposited, charged, agreed, vouched, slice, amount, voucher, signature, answered,"
            " state, claimed, balance, created_at)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
            " ON CONFLICT (job_id) DO UPDATE SET channel_id = excluded.channel_id,"
            " config = excluded.config, accepted = excluded.accepted,"
            " resource = excluded.resource, deposited = excluded.deposited,"
            " agreed = MAX(agreed, excluded.agreed), vouched = MAX(vouched, excluded.vouched),"
            " slice = excluded.slice, amount = excluded.amount, voucher = excluded.voucher,"
            " signature = excluded.signature, answered = 0, state = 'open'",
            (
                *(channel.channel_id, channel.chain_id, channel.job_id, channel.url),
                *(config_json(channel.config), json.dumps(channel.accepted)),
                *(json.dumps(channel.resource), channel.deposited, channel.charged),
                *(channel.agreed, channel.vouched, channel.slice, channel.amount),
                *(channel.voucher, channel.signature, channel.answered, str(channel.state)),
                *(channel.claimed, channel.balance, channel.created_at),
            ),
        )

    def write_voucher(
        self,
        channel: BuyerChannel,
        *,
        slice_: int,
        amount: int,
        voucher: int,
        signature: bytes,
        agreed: int,
        charged: int,
    ) -> None:
        """Keep a fresh voucher; only within ``tick``, before it leaves."""
        self._db.execute(
            "UPDATE channels SET slice = ?, amount = ?, voucher = ?, signature = ?, agreed = ?,"
            " charged = ?, vouched = MAX(vouched, ?), answered = 0 WHERE channel_id = ?",
            (slice_, amount, voucher, signature, agreed, charged, voucher, channel.channel_id),
        )

    def answered(self, channel: BuyerChannel, charged: int) -> None:
        """The seller has served what the newest voucher was for; ``charged`` is the new sum."""
        with transaction(self._db, durable=False):  # lost, it is asked for again
            self._db.execute(
                "UPDATE channels SET answered = 1, charged = ? WHERE channel_id = ? AND voucher = ?"
                " AND NOT answered",
                (charged, channel.channel_id, channel.voucher),
            )

    def adopt(self, channel: BuyerChannel, charged: int) -> None:
        """The seller has proved what he charged in all."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE channels SET charged = ? WHERE channel_id = ?",
                (charged, channel.channel_id),
            )

    def note_refund(self, channel_id: str, tx: str) -> None:
        """The transaction in which the seller gave the rest back, as he says; the sum is what the
        chain shows."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE channels SET refund_tx = ?1 WHERE channel_id = ?2 AND refund_tx != ?1",
                (tx[:66], channel_id),
            )

    def sync(
        self, channel: BuyerChannel, state: OnChain, now: float, *, landed: bool
    ) -> BuyerChannel:
        """Keep what the chain says. Where nothing is left of a deposit that had landed, the channel
        is closed, and what came back is free to be spent again.

        Args:
            landed: the chain had shown, before it was asked for ``state``, that each deposit is in
                the channel: what it doesn't show yet may come, whatever anybody said.
        """
        delay = channel.config.withdraw_delay
        withdraw_at = state.withdraw_requested_at + delay if state.withdraw_amount else 0
        closed = landed and state.balance <= state.total_claimed
        with transaction(self._db):
            self._db.execute(
                "UPDATE channels SET claimed = ?, balance = ?, withdraw_at = ?, seen_at = ?,"
                " state = ? WHERE channel_id = ?",
                (
                    *(state.total_claimed, state.balance, withdraw_at, now),
                    *("closed" if closed else "open", channel.channel_id),
                ),
            )
        if closed:
            self.payments.release(channel.channel_id, state.total_claimed)
        found = self.find(channel.channel_id)
        assert found is not None
        return found

    def deposits(self, channel_id: str) -> dict[str, Fate]:
        """The nonces of all deposits of a channel that have, or may have, landed."""
        rows = self._db.execute(
            "SELECT nonce, state FROM payments WHERE channel = ? AND state != 'expired'",
            (channel_id,),
        )
        return {row[0]: Fate(row[1]) for row in rows}

    def landed(self, nonce: str, fate: Fate) -> None:
        """The chain shows that a deposit, of this fate as far as was known, is in its channel."""
        if fate in (Fate.OPEN, Fate.REFUSED):
            self.payments.set_fate(nonce, Fate.SETTLED if fate is Fate.OPEN else Fate.SPENT)

    def drop_void(self) -> None:
        """Close channels whose every deposit has expired unused: they never came to be."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE channels SET state = 'closed' WHERE state = 'open' AND balance = 0"
                " AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.channel = channels.channel_id"
                " AND p.state != 'expired')"
            )

    def begin(self, channel_id: str, kind: str, signed: SignedTx, now: float) -> OwnTransaction:
        """Keep a transaction of our own before it is broadcast."""
        with transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO channel_transactions (channel_id, kind, raw, tx, tx_nonce, state,"
                " created_at) VALUES (?,?,?,?,?,'sent',?)",
                (channel_id, kind, signed.raw, signed.hash, signed.nonce, now),
            )
        return OwnTransaction(int(cursor.lastrowid or 0), channel_id, kind, signed)

    def sent(self, channel_id: str, kind: str) -> OwnTransaction | None:
        """The one whose fate is not known yet."""
        row = self._db.execute(
            "SELECT * FROM channel_transactions WHERE channel_id = ? AND kind = ?"
            " AND state = 'sent' ORDER BY id LIMIT 1",
            (channel_id, kind),
        ).fetchone()
        if row is None:
            return None
        signed = SignedTx(row["raw"], row["tx"], row["tx_nonce"])
        return OwnTransaction(row["id"], channel_id, kind, signed)

    def end(self, transaction_: OwnTransaction, *, done: bool, amount: int = 0) -> None:
        """Its receipt is there: it moved ``amount`` atoms, or failed."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE channel_transactions SET state = ?, amount = ?, raw = NULL WHERE id = ?",
                ("done" if done else "failed", amount, transaction_.id),
            )

    def _one(self, where: str, value: object) -> BuyerChannel | None:
        found = self._many(where, value)
        return found[0] if found else None

    def _many(self, where: str, *values: object) -> list[BuyerChannel]:
        rows = self._db.execute(f"SELECT * FROM channels WHERE {where}", values)  # noqa: S608
        return [_channel(row) for row in rows]


def _channel(row: sqlite3.Row) -> BuyerChannel:
    return BuyerChannel(
        channel_id=row["channel_id"],
        chain_id=row["chain_id"],
        job_id=row["job_id"],
        url=row["url"],
        config=parse_config(row["config"]),
        accepted=json.loads(row["accepted"]),
        resource=json.loads(row["resource"]),
        deposited=row["deposited"],
        charged=row["charged"],
        agreed=row["agreed"],
        vouched=row["vouched"],
        slice=row["slice"],
        amount=row["amount"],
        voucher=row["voucher"],
        signature=row["signature"],
        answered=bool(row["answered"]),
        state=BuyerChannelState(row["state"]),
        claimed=row["claimed"],
        balance=row["balance"],
        withdraw_at=row["withdraw_at"],
        created_at=row["created_at"],
    )
