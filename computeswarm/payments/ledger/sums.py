"""The seller's books in sums: what came in, went back and is owed, by quarter of an hour and job.

Local days begin at a full quarter of an hour everywhere, so any day's sums can be made of these.
They agree to the atom with the entries of the ledger, and cost one pass of SQLite rather than an
object for each entry.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

QUARTER = 900
"""Seconds."""
_JOB = (
    "CASE instr(subject, '#') WHEN 0 THEN subject"
    " ELSE substr(subject, 1, instr(subject, '#') - 1) END"
)
_CLAIMS = f"""
SELECT CAST(settled_at / {QUARTER} AS INTEGER), {_JOB} AS job,
    SUM(CAST(amount AS INTEGER)), COUNT(*)
FROM claims INDEXED BY claims_by_time
WHERE state IN ('settled', 'consumed', 'refunded') AND reorged_at IS NULL
    AND settled_at >= ? AND chain_id = ?
GROUP BY 1, 2
"""  # noqa: S608
_REFUNDS = f"""
SELECT CAST(COALESCE(b.done_at, r.created_at) / {QUARTER} AS INTEGER), {_JOB} AS job,
    SUM(CASE WHEN b.state = 'done' THEN CAST(r.amount AS INTEGER) ELSE 0 END),
    SUM(CASE WHEN b.state = 'done' THEN 0 ELSE CAST(r.amount AS INTEGER) END)
FROM refunds r LEFT JOIN batches b ON b.id = r.batch
WHERE COALESCE(b.done_at, r.created_at) >= ?
    AND COALESCE((SELECT chain_id FROM claims WHERE subject = r.subject LIMIT 1), ?2) = ?2
GROUP BY 1, 2
"""  # noqa: S608
# a transaction that carries several entries cost its gas once: it stands on the first of them
_GAS = f"""
SELECT CAST(at / {QUARTER} AS INTEGER), {_JOB} AS job, SUM(wei) FROM (
    SELECT MIN(COALESCE(c.settled_at, c.created_at)) AS at, c.subject, c.chain_id,
        r.gas_used * r.gas_price AS wei
    FROM claims c JOIN receipts r ON r.tx = c.tx
    WHERE r.own AND (c.settled_at >= ?1 OR (c.settled_at IS NULL AND c.created_at >= ?1))
    GROUP BY c.tx
    UNION ALL
    SELECT MIN(COALESCE(b.done_at, d.created_at)), d.subject,
        (SELECT chain_id FROM claims WHERE subject = d.subject LIMIT 1),
        r.gas_used * r.gas_price
    FROM batches b JOIN receipts r ON r.tx = b.tx JOIN refunds d ON d.batch = b.id
    WHERE r.own GROUP BY b.tx
) WHERE at >= ?1 AND COALESCE(chain_id, ?2) = ?2 GROUP BY 1, 2
"""  # noqa: S608
_CHANNEL_GAS = f"""
SELECT CAST(at / {QUARTER} AS INTEGER), job_id, wei FROM (
    SELECT s.at, s.job_id, s.chain_id, g.wei,
        ROW_NUMBER() OVER (PARTITION BY s.tx ORDER BY s.at, s.kind) AS place
    FROM gas g JOIN channel_steps s ON s.tx = g.tx
) WHERE place = 1 AND at >= ?1 AND chain_id = ?2
"""  # noqa: S608


@dataclass(slots=True)
class Piece:
    """Sums of one job within one quarter of an hour, in atoms; ``gas_wei`` in wei.

    ``owed`` is what still has to go back: not sent, or sent and not proven.
    """

    quarter: int
    """Unix seconds divided by 900."""
    job_id: str
    received: int = 0
    refunded: int = 0
    owed: int = 0
    payments: int = 0
    gas_wei: int = 0

    @property
    def kept(self) -> int:
        """What stays once everything owed is paid back."""
        return self.received - self.refunded - self.owed


def pieces(
    payments: sqlite3.Connection | None,
    channels: sqlite3.Connection | None,
    chain_id: int,
    since: float = 0.0,
) -> list[Piece]:
    """The pieces of one chain from ``since`` (unix seconds) on, oldest first."""
    found: dict[tuple[int, str], Piece] = {}

    def at(quarter: int, job_id: str) -> Piece:
        return found.setdefault((quarter, job_id), Piece(quarter, job_id))

    if payments is not None:
        for quarter, job_id, amount, count in payments.execute(_CLAIMS, (since, chain_id)):
            piece = at(quarter, job_id)
            piece.received += amount
            piece.payments += count
        for quarter, job_id, back, owed in payments.execute(_REFUNDS, (since, chain_id)):
            piece = at(quarter, job_id)
            piece.refunded += back
            piece.owed += owed
        for quarter, job_id, wei in payments.execute(_GAS, (since, chain_id)):
            at(quarter, job_id).gas_wei += wei
    if channels is not None:
        for done_at, job_id, amount in _settles(channels, chain_id):
            if done_at >= since:
                piece = at(int(done_at // QUARTER), job_id)
                piece.received += amount
                piece.payments += 1
        if channels.execute("SELECT 1 FROM sqlite_master WHERE name = 'gas'").fetchone():
            for quarter, job_id, wei in channels.execute(_CHANNEL_GAS, (since, chain_id)):
                at(quarter, job_id or "").gas_wei += wei
    return [found[key] for key in sorted(found)]


@dataclass(slots=True)
class _Due:
    """What was charged for a job on a channel, and has not come in yet."""

    job_id: str
    atoms: int


def _settles(db: sqlite3.Connection, chain_id: int) -> Iterator[tuple[float, str, int]]:
    """(when, job, atoms) of what channels brought in.

    One settle moves what several channels owed, and a channel may pay several jobs: its money goes
    to them in their order, each up to what was charged for it. What is left over is the last one's.
    """
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'payouts'").fetchone():
        return
    jobs: defaultdict[str, list[_Due]] = defaultdict(list)
    for row in db.execute("SELECT channel_id, job_id, charged FROM channel_jobs ORDER BY rowid"):
        jobs[row[0]].append(_Due(row[1], row[2]))
    claimed: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    rows = db.execute("SELECT payout, channel_id, claimed FROM payout_items WHERE claimed > 0")
    for payout, channel_id, amount in rows:
        claimed[payout].append((channel_id, amount))
    settles = db.execute(
        "SELECT p.id, p.done_at, p.settled FROM payouts p WHERE p.settled > 0 AND p.done_at"
        " IS NOT NULL AND EXISTS (SELECT 1 FROM payout_items i JOIN channels c"
        " ON c.channel_id = i.channel_id WHERE i.payout = p.id AND c.chain_id = ?) ORDER BY p.id",
        (chain_id,),
    )
    for payout, done_at, settled in settles:
        left = settled
        job_id = ""
        for channel_id, amount in claimed[payout]:
            for job_id, part in _share(jobs[channel_id], min(amount, left)):
                left -= part
                yield done_at, job_id, part
        if left:
            yield done_at, job_id, left


def _share(jobs: list[_Due], amount: int) -> Iterator[tuple[str, int]]:
    """Hand ``amount`` to the jobs of a channel, and take it off what is due for them."""
    for job in jobs:
        part = amount if job is jobs[-1] else min(amount, job.atoms)
        if part > 0:
            job.atoms -= part
            amount -= part
            yield job.job_id, part
    if amount:
        yield "", amount
