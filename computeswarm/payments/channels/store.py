"""The seller's record of channels: every sum is written down before anybody acts on it.

One process at a time. Each method is one transaction, and none of them waits for anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.payments.channels.present import PresentedChannel
from computeswarm.payments.channels.records import (
    SCHEMA,
    Channel,
    channel_row,
    config_json,
)
from computeswarm.payments.channels.states import ChannelState, check_channel
from computeswarm.payments.storage import connect, transaction


class ChannelStore:
    """Channels and the jobs they pay for, in one SQLite file that deposits and payouts share."""

    def __init__(self, path: Path, chain: ChainInfo) -> None:
        self.db = connect(path, SCHEMA)
        self._chain = chain

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def write(self, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction; for ``durable`` see ``storage.transaction``."""
        return transaction(self.db, durable=durable)

    def note_gas(self, receipt: Receipt) -> None:
        """Write down what a mined transaction of ours cost."""
        with self.write(durable=False) as db:
            db.execute(
                "INSERT OR REPLACE INTO gas VALUES (?,?)",
                (receipt.tx_hash, receipt.gas_used * receipt.gas_price),
            )

    def find(self, channel_id: str) -> Channel | None:
        """The channel, if we know it."""
        row = self.db.execute(
            "SELECT * FROM channels WHERE channel_id = ?", (channel_id,)
        ).fetchone()
        return None if row is None else channel_row(row)

    def get(self, channel_id: str) -> Channel:
        """The channel as it stands now."""
        found = self.find(channel_id)
        assert found is not None
        return found

    def owing(self) -> list[Channel]:
        """Channels of which something was charged and is not claimed yet."""
        return self._many("charged > total_claimed")

    def of_job(self, job_id: str) -> Channel | None:
        """The channel that paid for a job."""
        found = self._many(
            "channel_id IN (SELECT channel_id FROM channel_jobs WHERE job_id = ?)", job_id
        )
        return found[0] if found else None

    def idle(self, channel_id: str) -> bool:
        """Whether no unfinished job is paid by the channel."""
        row = self.db.execute(
            "SELECT 1 FROM channel_jobs WHERE channel_id = ? AND NOT finished LIMIT 1",
            (channel_id,),
        ).fetchone()
        return row is None

    def finished(self, job_id: str, channel_id: str) -> bool:
        """Whether a job has ended, so that nothing more is charged for it."""
        row = self.db.execute(
            "SELECT finished FROM channel_jobs WHERE job_id = ? AND channel_id = ?",
            (job_id, channel_id),
        ).fetchone()
        return row is not None and bool(row[0])

    def adopt(self, payment: PresentedChannel, state: OnChain, now: float) -> Channel:
        """Take up a channel that we know only from the chain: what was charged and never claimed is
        forfeited, as the scheme wants it; the voucher is no evidence of it."""
        with self.write(durable=False) as db:
            self.insert(db, payment, state, now)
        return self.get(payment.channel_id)

    def insert(
        self, db: sqlite3.Connection, payment: PresentedChannel, state: OnChain, now: float
    ) -> None:
        """``adopt`` within a transaction; what is known already stays."""
        db.execute(
            "INSERT OR IGNORE INTO channels (channel_id, chain_id, config, state, charged,"
            " signed_max, signature, balance, total_claimed, withdraw_amount,"
            " withdraw_requested_at, refund_nonce, synced_at, created_at)"
            " VALUES (?,?,?,'open',?,?,?,?,?,?,?,?,?,?)",
            (
                *(payment.channel_id, self._chain.chain_id, config_json(payment.config)),
                *(state.total_claimed, state.total_claimed, b""),
                *(state.balance, state.total_claimed, state.withdraw_amount),
                *(state.withdraw_requested_at, state.refund_nonce, now, now),
            ),
        )

    def write_charge(
        self,
        db: sqlite3.Connection,
        payment: PresentedChannel,
        *,
        amount: int,
        subject: str,
        binding: str,
    ) -> None:
        """Commit a voucher and what it pays for, within the transaction it was checked in."""
        changed = db.execute(
            "UPDATE channels SET state = CASE state WHEN 'closed' THEN 'open' ELSE state END,"
            " charged = charged + ?, signed_max = ?, signature = ?,"
            " last_subject = ?, last_binding = ?, last_amount = ?, last_reply = NULL"
            " WHERE channel_id = ? AND charged + ? = ?",
            (
                *(amount, payment.max_claimable, payment.signature),
                *(subject, binding, amount),
                *(payment.channel_id, amount, payment.max_claimable),
            ),
        ).rowcount
        assert changed == 1, "a voucher was committed that doesn't continue its channel"
        db.execute(
            "INSERT INTO channel_jobs (job_id, channel_id, charged, ticks) VALUES (?,?,?,1)"
            " ON CONFLICT (job_id, channel_id) DO UPDATE SET"
            " charged = charged + excluded.charged, ticks = ticks + 1",
            (subject.partition("#")[0], payment.channel_id, amount),
        )

    def set_reply(self, channel_id: str, subject: str, reply: bytes) -> None:
        """Keep the reply to the newest charge; the first one stays."""
        with self.write() as db:
            db.execute(
                "UPDATE channels SET last_reply = COALESCE(last_reply, ?)"
                " WHERE channel_id = ? AND last_subject = ?",
                (reply, channel_id, subject),
            )

    def keep_voucher(self, payment: PresentedChannel) -> Channel:
        """Keep the buyer's own latest voucher where it says no more than we charged."""
        with self.write() as db:
            db.execute(
                "UPDATE channels SET signed_max = charged, signature = ? WHERE channel_id = ?"
                " AND charged = ?",
                (payment.signature, payment.channel_id, payment.max_claimable),
            )
        return self.get(payment.channel_id)

    def sync(self, channel_id: str, state: OnChain, now: float) -> Channel:
        """Mirror what the chain says, and never charge less than it has claimed."""
        with self.write(durable=False) as db:
            db.execute(
                "UPDATE channels SET balance = ?, total_claimed = ?, withdraw_amount = ?,"
                " withdraw_requested_at = ?, refund_nonce = ?, synced_at = ?,"
                " charged = MAX(charged, ?) WHERE channel_id = ?",
                (
                    *(state.balance, state.total_claimed, state.withdraw_amount),
                    *(state.withdraw_requested_at, state.refund_nonce, now),
                    *(state.total_claimed, channel_id),
                ),
            )
        return self.get(channel_id)

    def finish(self, job_id: str, used: int, *, refund: bool) -> int:
        """The job is over and costs ``used`` at most: the rest of its charges is taken back.

        Where it was its channel's last job, the channel is closed (``refund``), or only claimed.
        A second call changes nothing, and says the same.

        Returns:
            what was claimed already beyond that, or is being claimed: the seller owes it.
        """
        with self.write() as db:
            row = db.execute("SELECT * FROM channel_jobs WHERE job_id = ?", (job_id,)).fetchone()
            if row is None or row["finished"]:
                return 0 if row is None else int(row["owed"])
            found = db.execute("SELECT * FROM channels WHERE channel_id = ?", (row["channel_id"],))
            channel = channel_row(found.fetchone())
            unused = max(0, row["charged"] - max(0, used))
            floor = max(channel.total_claimed, self._claiming(db, channel.channel_id))
            taken_back = min(unused, max(0, channel.charged - floor))
            db.execute(
                "UPDATE channel_jobs SET finished = 1, charged = charged - ?, owed = ?"
                " WHERE job_id = ? AND channel_id = ?",
                (taken_back, unused - taken_back, job_id, channel.channel_id),
            )
            db.execute(
                "UPDATE channels SET charged = charged - ? WHERE channel_id = ?",
                (taken_back, channel.channel_id),
            )
            if refund:
                self._close_if_idle(db, channel)
        return int(unused - taken_back)

    def _claiming(self, db: sqlite3.Connection, channel_id: str) -> int:
        """The total that a payout on its way claims."""
        row = db.execute(
            "SELECT MAX(i.claim_to) FROM payout_items i JOIN payouts p ON p.id = i.payout"
            " WHERE i.channel_id = ? AND p.state IN ('planned', 'broadcast')",
            (channel_id,),
        ).fetchone()
        return int(row[0] or 0)

    def _close_if_idle(self, db: sqlite3.Connection, channel: Channel) -> None:
        if channel.state is ChannelState.OPEN and self.idle(channel.channel_id):
            self.write_state(db, channel, ChannelState.CLOSING)

    def write_state(self, db: sqlite3.Connection, channel: Channel, state: ChannelState) -> None:
        """One step of the table, within a transaction."""
        check_channel(channel.state, state)
        db.execute(
            "UPDATE channels SET state = ? WHERE channel_id = ?", (str(state), channel.channel_id)
        )

    def ask_refund(self, channel_id: str, amount: int) -> Channel:
        """Note that the buyer wants ``amount`` back (``ALL_THAT_IS_LEFT``: the rest)."""
        with self.write() as db:
            db.execute(
                "UPDATE channels SET refund_asked = ? WHERE channel_id = ?", (amount, channel_id)
            )
        return self.get(channel_id)

    def job_sums(self, job_id: str) -> tuple[str, int, int] | None:
        """(channel id, atoms charged, ticks) of a job."""
        row = self.db.execute(
            "SELECT channel_id, charged, ticks FROM channel_jobs WHERE job_id = ?", (job_id,)
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def unfinished(self) -> list[tuple[str, Channel]]:
        """Jobs without an end, and the channel that pays each."""
        rows = self.db.execute(
            "SELECT job_id, channel_id FROM channel_jobs WHERE NOT finished ORDER BY rowid"
        ).fetchall()
        return [(job_id, self.get(channel_id)) for job_id, channel_id in rows]

    def untold(self) -> list[str]:
        """Finished jobs whose money has moved, and whose owner was not told yet."""
        rows = self.db.execute(
            "SELECT job_id, channel_id FROM channel_jobs WHERE finished AND NOT told"
        ).fetchall()
        return [job_id for job_id, channel_id in rows if self._moved(self.get(channel_id))]

    def _moved(self, channel: Channel) -> bool:
        return channel.state is not ChannelState.CLOSING and not channel.unclaimed

    def tell(self, job_id: str) -> None:
        """Its owner knows."""
        with self.write(durable=False) as db:
            db.execute("UPDATE channel_jobs SET told = 1 WHERE job_id = ?", (job_id,))

    def jobs_of(self, channel_id: str) -> list[str]:
        """The jobs that a channel paid for."""
        rows = self.db.execute(
            "SELECT job_id FROM channel_jobs WHERE channel_id = ? ORDER BY rowid", (channel_id,)
        )
        return [row[0] for row in rows]

    def _many(self, where: str, *values: object) -> list[Channel]:
        rows: Iterable[sqlite3.Row] = self.db.execute(
            f"SELECT * FROM channels WHERE {where}",  # noqa: S608
            values,
        )
        return [channel_row(row) for row in rows]
