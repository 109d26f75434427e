"""Deposits as the seller keeps them: one row for each authorization that was ever presented.

Unique by chain, token, payer and nonce, bound to one request for good, and not forgotten once it
may have paid; the discipline is that of ``payments.claims``.
"""

from __future__ import annotations

import sqlite3

from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.tx import SignedTx
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.payments.channels.present import DepositGiven, PresentedChannel
from computeswarm.payments.channels.records import DepositRow, channel_row, config_json, deposit_row
from computeswarm.payments.channels.states import ChannelState, DepositState, check_deposit
from computeswarm.payments.channels.store import ChannelStore

MAX_UNSENT = 10_000
"""Failed deposits without a transaction of ours that are kept at most."""
_KEEP_SECONDS = 86_400
_NEVER = 2**62
"""In unix seconds; a window may be open until the end of 256 bits, which no column holds."""
_UNSENT = "state = 'failed' AND tx = ''"
TURNED_AWAY = "turned away"


class DepositStore:
    """The deposits in the channels' file."""

    def __init__(self, channels: ChannelStore, chain: ChainInfo) -> None:
        self._channels = channels
        self._chain = chain

    def find(self, payer: str, nonce: str) -> DepositRow | None:
        """The row of an authorization."""
        return self._one("payer = ? AND nonce = ?", payer.lower(), nonce)

    def get(self, row_id: int) -> DepositRow:
        """The row as it stands now."""
        found = self._one("id = ?", row_id)
        assert found is not None
        return found

    def is_reserved(self, row: DepositRow) -> bool:
        """Whether it is still there, and nothing was sent for it."""
        found = self._one("id = ? AND state = 'reserved'", row.id)
        return found is not None

    def in_state(self, *states: DepositState) -> list[DepositRow]:
        """All rows in these states, oldest first."""
        marks = ",".join("?" * len(states))
        return self._many(f"state IN ({marks}) ORDER BY id", *map(str, states))

    def shallow(self) -> list[DepositRow]:
        """Those whose block may yet be taken back."""
        return self._many("state IN ('settled', 'consumed') AND raw IS NOT NULL ORDER BY id")

    def of_channel(self, channel_id: str) -> list[DepositRow]:
        """What was paid into a channel, oldest first."""
        return self._many(
            "channel_id = ? AND state IN ('settled', 'consumed') ORDER BY id", channel_id
        )

    def settled_since(self, since: float) -> list[DepositRow]:
        """What was paid into any channel since a moment, oldest first."""
        return self._many("state IN ('settled', 'consumed') AND settled_at > ? ORDER BY id", since)

    def under_way(self, subject: str) -> list[DepositRow]:
        """Deposits for a subject that may yet land."""
        return self._many("subject = ? AND state IN ('reserved', 'broadcast', 'settled')", subject)

    def insert(
        self,
        payment: PresentedChannel,
        *,
        binding: str,
        subject: str,
        price: int,
        now: float,
    ) -> DepositRow:
        """Reserve an authorization for one request; it must not be known yet."""
        given = _given(payment)
        with self._channels.write(durable=False) as db:  # nothing is sent for it yet
            cursor = db.execute(
                "INSERT INTO deposits (chain_id, token, payer, nonce, channel_id, binding, subject,"
                " amount, valid_before, max_claimable, signature, price, config, state, created_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,'reserved',?)",
                (
                    *(self._chain.chain_id, self._chain.usdc.address),
                    *(payment.payer.lower(), given.nonce, payment.channel_id, binding, subject),
                    *(given.amount, min(given.valid_before, _NEVER), payment.max_claimable),
                    *(payment.signature, price, config_json(payment.config), now),
                ),
            )
        return self.get(int(cursor.lastrowid or 0))

    def retry(
        self, row: DepositRow, payment: PresentedChannel, *, subject: str, price: int
    ) -> DepositRow:
        """Take up again what did not get as far as the chain, with the voucher and the price as
        they now are."""
        if row.state is not DepositState.RESERVED:
            check_deposit(row.state, DepositState.RESERVED)
        return self._update(
            row,
            "state = 'reserved', subject = ?, max_claimable = ?, signature = ?, price = ?,"
            " reason = ''",
            *(subject, payment.max_claimable, payment.signature, price),
        )

    def broadcast(self, row: DepositRow, tx: SignedTx) -> DepositRow:
        """Keep the signed transaction: from here on the same bytes are sent, and no others."""
        check_deposit(row.state, DepositState.BROADCAST)
        return self._update(
            row, "state = 'broadcast', raw = ?, tx = ?, tx_nonce = ?", tx.raw, tx.hash, tx.nonce
        )

    def note_gas(self, receipt: Receipt) -> None:
        """Write down what a mined transaction of ours cost."""
        self._channels.note_gas(receipt)

    def fail(self, row: DepositRow, reason: str) -> DepositRow:
        """It surely did not pay."""
        check_deposit(row.state, DepositState.FAILED)
        return self._update(row, "state = 'failed', reason = ?, raw = NULL", reason)

    def forget(self, row: DepositRow) -> None:
        """Drop a row whose signatures proved to be nobody's: it binds nobody."""
        with self._channels.write(durable=False) as db:
            db.execute("DELETE FROM deposits WHERE id = ? AND state = 'reserved'", (row.id,))

    def settle(
        self,
        row: DepositRow,
        tx: str,
        block: int,
        state: OnChain,
        now: float,
        *,
        turn_away: bool,
    ) -> DepositRow:
        """A receipt proved it: the money is in the channel, and pays for its request where the
        voucher with it still continues the channel.

        Our own transaction proves it again after a power cut, so that nobody waits for the disk.
        """
        check_deposit(row.state, DepositState.SETTLED)
        payment = as_payment(row)
        keep = tx == row.transaction
        with self._channels.write(durable=not keep) as db:
            db.execute(
                "UPDATE deposits SET state = 'settled', tx = ?, block = ?, settled_at = ?,"
                " reason = ?, raw = CASE WHEN ? THEN raw END WHERE id = ?",
                (tx, block, now, TURNED_AWAY if turn_away else "", keep, row.id),
            )
            self._channels.insert(db, payment, state, now)
            self._credit(db, row, payment, state, now, turn_away=turn_away)
        return self.get(row.id)

    def _credit(
        self,
        db: sqlite3.Connection,
        row: DepositRow,
        payment: PresentedChannel,
        state: OnChain,
        now: float,
        *,
        turn_away: bool,
    ) -> None:
        db.execute(
            "UPDATE channels SET balance = ?, total_claimed = ?, withdraw_amount = ?,"
            " withdraw_requested_at = ?, refund_nonce = ?, synced_at = ?,"
            " charged = MAX(charged, ?) WHERE channel_id = ?",
            (
                *(state.balance, state.total_claimed, state.withdraw_amount),
                *(state.withdraw_requested_at, state.refund_nonce, now),
                *(state.total_claimed, row.channel_id),
            ),
        )
        found = db.execute("SELECT * FROM channels WHERE channel_id = ?", (row.channel_id,))
        channel = channel_row(found.fetchone())
        if channel.state is ChannelState.CLOSED:
            self._channels.write_state(db, channel, ChannelState.OPEN)
        if turn_away:
            if channel.state is not ChannelState.CLOSING and self._channels.idle(row.channel_id):
                db.execute(
                    "UPDATE channels SET state = 'closing' WHERE channel_id = ?", (row.channel_id,)
                )
            return
        continues = channel.charged + row.price == row.max_claimable <= channel.available
        if continues and channel.state is not ChannelState.CLOSING:
            self._channels.write_charge(
                db, payment, amount=row.price, subject=row.subject, binding=row.binding
            )
            db.execute("UPDATE deposits SET charged = ? WHERE id = ?", (row.max_claimable, row.id))

    def consume(self, row: DepositRow) -> DepositRow:
        """What it paid for has been taken over by whoever serves it."""
        check_deposit(row.state, DepositState.CONSUMED)
        return self._update(row, "state = 'consumed'", durable=False)

    def deep(self, row: DepositRow) -> None:
        """Its block can't be taken back any more."""
        self._update(row, "raw = NULL")

    def moved(self, row: DepositRow, block: int) -> None:
        """Mined again in another block after a reorg."""
        self._update(row, "block = ?", block)

    def set_reply(self, row: DepositRow, reply: bytes) -> DepositRow:
        """Keep the reply, unless there is one: the first stays."""
        return self._update(row, "reply = COALESCE(reply, ?)", reply)

    def prune(self, now: float) -> None:
        """Drop failed rows that nothing of ours was ever sent for: anybody makes them for free."""
        with self._channels.write(durable=False) as db:
            db.execute(
                f"DELETE FROM deposits WHERE {_UNSENT} AND valid_before < ?",  # noqa: S608
                (now - _KEEP_SECONDS,),
            )
            db.execute(
                f"DELETE FROM deposits WHERE {_UNSENT} AND id <= (SELECT id FROM deposits"  # noqa: S608
                f" WHERE {_UNSENT} ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (MAX_UNSENT,),
            )

    def _update(
        self, row: DepositRow, assignments: str, *values: object, durable: bool = True
    ) -> DepositRow:
        with self._channels.write(durable=durable) as db:
            db.execute(f"UPDATE deposits SET {assignments} WHERE id = ?", (*values, row.id))  # noqa: S608
        return self.get(row.id)

    def _one(self, where: str, *values: object) -> DepositRow | None:
        found = self._many(where, *values)
        return found[0] if found else None

    def _many(self, where: str, *values: object) -> list[DepositRow]:
        rows = self._channels.db.execute(
            f"SELECT * FROM deposits WHERE {where}",  # noqa: S608
            values,
        )
        return [deposit_row(row) for row in rows]


def as_payment(row: DepositRow) -> PresentedChannel:
    """The voucher that came with a deposit, as it was presented."""
    return PresentedChannel("deposit", row.config, row.channel_id, row.max_claimable, row.signature)


def _given(payment: PresentedChannel) -> DepositGiven:
    assert payment.deposit is not None
    return payment.deposit
