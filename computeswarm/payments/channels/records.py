"""What the seller keeps of channels: the tables, and their rows as objects.

Sums are atoms, times unix seconds. A job's ticks are one row of sums, however many there are.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from computeswarm.chain.tx import SignedTx
from computeswarm.core.chains import ChainInfo, chain_by_id
from computeswarm.core.channels import ChannelConfig
from computeswarm.payments.channels.states import ChannelState, DepositState, PayoutState

SCHEMA = """
CREATE TABLE IF NOT EXISTS channels (
    channel_id TEXT PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    charged INTEGER NOT NULL,
    signed_max INTEGER NOT NULL,
    signature BLOB NOT NULL,
    last_subject TEXT NOT NULL DEFAULT '',
    last_binding TEXT NOT NULL DEFAULT '',
    last_amount INTEGER NOT NULL DEFAULT 0,
    last_reply BLOB,
    balance INTEGER NOT NULL,
    total_claimed INTEGER NOT NULL,
    withdraw_amount INTEGER NOT NULL DEFAULT 0,
    withdraw_requested_at INTEGER NOT NULL DEFAULT 0,
    refund_nonce INTEGER NOT NULL DEFAULT 0,
    synced_at REAL NOT NULL,
    refund_asked INTEGER NOT NULL DEFAULT 0,
    refunding INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS channels_owing ON channels (created_at) WHERE charged > total_claimed;
CREATE INDEX IF NOT EXISTS channels_closing ON channels (created_at) WHERE state = 'closing';
CREATE INDEX IF NOT EXISTS channels_asked ON channels (created_at) WHERE refund_asked != 0;
CREATE TABLE IF NOT EXISTS channel_jobs (
    job_id TEXT NOT NULL,
    channel_id TEXT NOT NULL,
    charged INTEGER NOT NULL,
    ticks INTEGER NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0,
    owed INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, channel_id)
);
CREATE INDEX IF NOT EXISTS channel_jobs_by_channel ON channel_jobs (channel_id);
CREATE INDEX IF NOT EXISTS channel_jobs_untold ON channel_jobs (channel_id)
    WHERE finished AND NOT told;
CREATE TABLE IF NOT EXISTS deposits (
    id INTEGER PRIMARY KEY,
    chain_id INTEGER NOT NULL,
    token TEXT NOT NULL,
    payer TEXT NOT NULL,
    nonce TEXT NOT NULL,
    channel_id TEXT NOT NULL,
    binding TEXT NOT NULL,
    subject TEXT NOT NULL,
    amount INTEGER NOT NULL,
    valid_before INTEGER NOT NULL,
    max_claimable INTEGER NOT NULL,
    signature BLOB NOT NULL,
    price INTEGER NOT NULL,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    charged INTEGER,
    raw BLOB,
    tx TEXT NOT NULL DEFAULT '',
    tx_nonce INTEGER,
    block INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    reply BLOB,
    created_at REAL NOT NULL,
    settled_at REAL,
    UNIQUE (chain_id, token, payer, nonce)
);
CREATE INDEX IF NOT EXISTS deposits_by_state ON deposits (state);
CREATE INDEX IF NOT EXISTS deposits_by_channel ON deposits (channel_id);
CREATE TABLE IF NOT EXISTS payouts (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    raw BLOB,
    tx TEXT NOT NULL DEFAULT '',
    tx_nonce INTEGER,
    block INTEGER,
    settled INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    done_at REAL
);
CREATE INDEX IF NOT EXISTS payouts_by_state ON payouts (state);
CREATE TABLE IF NOT EXISTS payout_items (
    payout INTEGER NOT NULL,
    channel_id TEXT NOT NULL,
    claim_from INTEGER NOT NULL,
    claim_to INTEGER NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    refund INTEGER NOT NULL,
    refunded INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (payout, channel_id)
);
CREATE INDEX IF NOT EXISTS payout_items_by_channel ON payout_items (channel_id);
-- what our own mined transactions cost, in wei
CREATE TABLE IF NOT EXISTS gas (tx TEXT PRIMARY KEY, wei INTEGER NOT NULL);
CREATE VIEW IF NOT EXISTS channel_steps AS
WITH moves AS (
    SELECT COALESCE(p.done_at, p.created_at) AS at, p.tx, i.*, c.chain_id,
        json_extract(c.config, '$.payer') AS peer, json_extract(c.config, '$.receiver') AS wallet,
        (SELECT j.job_id FROM channel_jobs j WHERE j.channel_id = i.channel_id
            ORDER BY j.rowid LIMIT 1) AS job_id,
        CASE WHEN p.state IN ('mined', 'final') THEN 'done'
            WHEN p.state = 'lost' THEN 'failed' ELSE 'sent' END AS state
    FROM payout_items i JOIN payouts p ON p.id = i.payout
        JOIN channels c ON c.channel_id = i.channel_id
    WHERE p.tx != ''
)
SELECT COALESCE(settled_at, created_at) AS at, 'deposit' AS kind, channel_id,
    CASE WHEN instr(subject, '#') THEN substr(subject, 1, instr(subject, '#') - 1) ELSE subject END
        AS job_id,
    json_extract(config, '$.payer') AS peer, json_extract(config, '$.receiver') AS wallet, chain_id,
    amount, tx,
    CASE WHEN state IN ('settled', 'consumed') THEN 'done'
        WHEN state = 'failed' THEN 'failed' ELSE 'sent' END AS state
FROM deposits WHERE tx != ''
UNION ALL
SELECT at, 'claim', channel_id, job_id, peer, wallet, chain_id,
    CASE WHEN state = 'done' THEN claimed ELSE claim_to - claim_from END, tx, state
FROM moves WHERE CASE WHEN state = 'done' THEN claimed ELSE claim_to END > 0
UNION ALL
SELECT at, 'refund', channel_id, job_id, peer, wallet, chain_id,
    CASE WHEN state = 'done' THEN refunded ELSE refund END, tx, state
FROM moves WHERE CASE WHEN state = 'done' THEN refunded ELSE refund END > 0
UNION ALL
SELECT p.done_at, 'settle', '', '', '', m.wallet, m.chain_id, p.settled, p.tx, 'done'
FROM payouts p JOIN moves m ON m.payout = p.id WHERE p.settled > 0 GROUP BY p.id;
"""

ALL_THAT_IS_LEFT = -1
"""A refund that was asked for without an amount."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel as it stands. ``balance`` and what follows mirror the chain at ``synced_at``."""

    channel_id: str
    config: ChannelConfig
    state: ChannelState
    charged: int
    signed_max: int
    signature: bytes
    last_subject: str
    last_binding: str
    last_amount: int
    last_reply: bytes | None
    balance: int
    total_claimed: int
    withdraw_amount: int
    withdraw_requested_at: int
    refund_nonce: int
    synced_at: float
    refund_asked: int
    refunding: int

    @property
    def available(self) -> int:
        """What vouchers may come to in all: not what is on its way back to the payer."""
        return self.balance - self.withdraw_amount - self.refunding

    @property
    def unclaimed(self) -> int:
        """What was charged and is not ours yet."""
        return max(0, self.charged - self.total_claimed)


@dataclass(frozen=True, slots=True)
class DepositRow:
    """One deposit, from its reservation on. ``price`` is what the request with it costs;
    ``charged`` the channel's sum after that charge, None while it was not made."""

    id: int
    chain_id: int
    payer: str
    nonce: str
    channel_id: str
    config: ChannelConfig
    binding: str
    subject: str
    amount: int
    valid_before: int
    max_claimable: int
    signature: bytes
    price: int
    state: DepositState
    charged: int | None
    transaction: str
    block: int | None
    reason: str
    reply: bytes | None
    created_at: float
    settled_at: float | None
    signed_tx: SignedTx | None

    @property
    def chain(self) -> ChainInfo:
        """The chain it is on."""
        return chain_by_id(self.chain_id)


@dataclass(frozen=True, slots=True)
class PayoutItem:
    """One channel's part of a payout: claim from ``claim_from`` up to ``claim_to`` in all (0:
    nothing), then give ``refund`` back. ``claimed`` and ``refunded`` are what the receipt says was
    moved.
    """

    channel_id: str
    claim_from: int
    claim_to: int
    refund: int
    claimed: int = 0
    refunded: int = 0


@dataclass(frozen=True, slots=True)
class Payout:
    """A transaction that claims, settles and refunds. ``settled`` is what reached the wallet."""

    id: int
    state: PayoutState
    signed_tx: SignedTx | None
    transaction: str
    block: int | None
    settled: int
    done_at: float | None
    items: tuple[PayoutItem, ...]


def config_json(config: ChannelConfig) -> str:
    """A config as it is stored."""
    return json.dumps(config.wire(), separators=(",", ":"))


@lru_cache(maxsize=1024)
def parse_config(text: str) -> ChannelConfig:
    """A stored config."""
    return ChannelConfig.parse(json.loads(text))


def channel_row(row: sqlite3.Row) -> Channel:
    """A row of ``channels``."""
    return Channel(
        channel_id=row["channel_id"],
        config=parse_config(row["config"]),
        state=ChannelState(row["state"]),
        charged=row["charged"],
        signed_max=row["signed_max"],
        signature=row["signature"],
        last_subject=row["last_subject"],
        last_binding=row["last_binding"],
        last_amount=row["last_amount"],
        last_reply=row["last_reply"],
        balance=row["balance"],
        total_claimed=row["total_claimed"],
        withdraw_amount=row["withdraw_amount"],
        withdraw_requested_at=row["withdraw_requested_at"],
        refund_nonce=row["refund_nonce"],
        synced_at=row["synced_at"],
        refund_asked=row["refund_asked"],
        refunding=row["refunding"],
    )


def deposit_row(row: sqlite3.Row) -> DepositRow:
    """A row of ``deposits``."""
    return DepositRow(
        id=row["id"],
        chain_id=row["chain_id"],
        payer=row["payer"],
        nonce=row["nonce"],
        channel_id=row["channel_id"],
        config=parse_config(row["config"]),
        binding=row["binding"],
        subject=row["subject"],
        amount=row["amount"],
        valid_before=row["valid_before"],
        max_claimable=row["max_claimable"],
        signature=row["signature"],
        price=row["price"],
        state=DepositState(row["state"]),
        charged=row["charged"],
        transaction=row["tx"],
        block=row["block"],
        reason=row["reason"],
        reply=row["reply"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        signed_tx=signed_tx(row),
    )


def signed_tx(row: sqlite3.Row) -> SignedTx | None:
    """The bytes that were broadcast, while they may have to be sent again."""
    return None if row["raw"] is None else SignedTx(row["raw"], row["tx"], row["tx_nonce"])
