"""The tables of the seller's payments: one SQLite file for claims, transactions and refunds."""

from __future__ import annotations

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
    tx TEXT NOT NULL DEFAULT '',
    request BLOB,
    reason TEXT NOT NULL DEFAULT '',
    reply BLOB,
    created_at REAL NOT NULL,
    settled_at REAL,
    reorged_at REAL,
    reorgs INTEGER NOT NULL DEFAULT 0,
    reverted_at REAL,
    told INTEGER NOT NULL DEFAULT 1,
    UNIQUE (chain_id, token, payer, nonce)
);
CREATE INDEX IF NOT EXISTS claims_by_subject ON claims (subject);
CREATE INDEX IF NOT EXISTS claims_by_state ON claims (state);
CREATE INDEX IF NOT EXISTS claims_by_time ON claims (settled_at);
CREATE INDEX IF NOT EXISTS claims_by_tx ON claims (tx);
CREATE INDEX IF NOT EXISTS claims_reorged ON claims (id)
    WHERE reorged_at IS NOT NULL OR told = 0;
-- transactions of ours that carry claims; their bytes are kept until their block is final
CREATE TABLE IF NOT EXISTS sent (
    tx TEXT PRIMARY KEY,
    raw BLOB,
    tx_nonce INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS sent_for (
    claim INTEGER NOT NULL,
    tx TEXT NOT NULL,
    PRIMARY KEY (claim, tx)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_for_by_tx ON sent_for (tx);
-- what is known of mined transactions that moved our money; own: our key sent them
CREATE TABLE IF NOT EXISTS receipts (
    tx TEXT PRIMARY KEY,
    block INTEGER NOT NULL,
    block_hash TEXT NOT NULL,
    gas_used INTEGER NOT NULL,
    gas_price INTEGER NOT NULL,
    own INTEGER NOT NULL,
    final INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS receipts_not_final ON receipts (block) WHERE final = 0;
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
