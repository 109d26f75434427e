"""Payouts as the seller keeps them: what a transaction is to claim and give back, before it goes.

From the moment a refund is planned, no voucher may count on its sum: that is in the same write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from computeswarm.chain.tx import SignedTx
from computeswarm.payments.channels.records import (
    ALL_THAT_IS_LEFT,
    Channel,
    Payout,
    PayoutItem,
    channel_row,
    signed_tx,
)
from computeswarm.payments.channels.states import ChannelState, PayoutState, check_payout
from computeswarm.payments.channels.store import ChannelStore


class PayoutStore:
    """The payouts in the channels' file."""

    def __init__(self, channels: ChannelStore) -> None:
        self._channels = channels

    def in_state(self, *states: PayoutState) -> list[Payout]:
        """All payouts in these states, oldest first."""
        marks = ",".join("?" * len(states))
        return self._many(f"state IN ({marks}) ORDER BY id", *map(str, states))

    def shallow(self) -> list[Payout]:
        """Those whose block may yet be taken back."""
        return self.in_state(PayoutState.MINED)

    def last_claim(self, channel_id: str) -> Payout | None:
        """The newest proven payout that claimed something of a channel."""
        return self._last("claimed > 0", channel_id)

    def last_refund(self, channel_id: str) -> Payout | None:
        """The newest proven payout that gave something of a channel back."""
        return self._last("refunded > 0", channel_id)

    def _last(self, moved: str, channel_id: str) -> Payout | None:
        found = self._many(
            "state IN ('mined', 'final') AND id IN (SELECT payout FROM payout_items"  # noqa: S608
            f" WHERE channel_id = ? AND {moved}) ORDER BY id DESC LIMIT 1",
            channel_id,
        )
        return found[0] if found else None

    def sums(self, channel_id: str) -> tuple[int, int]:
        """(claimed, refunded) of a channel by proven payouts, in atoms."""
        row = self._channels.db.execute(
            "SELECT COALESCE(SUM(i.claimed), 0), COALESCE(SUM(i.refunded), 0)"
            " FROM payout_items i JOIN payouts p ON p.id = i.payout"
            " WHERE i.channel_id = ? AND p.state IN ('mined', 'final')",
            (channel_id,),
        ).fetchone()
        return int(row[0]), int(row[1])

    def done_since(self, since: float) -> list[Payout]:
        """Proven payouts since a moment, oldest first."""
        return self._many("state IN ('mined', 'final') AND done_at > ? ORDER BY id", since)

    def plan(self, wanted: Iterable[tuple[str, bool]], now: float) -> Payout | None:
        """Write down the next payout; None where there is nothing to move.

        Args:
            wanted: channels, and whether each may be given its rest back now.
        """
        items = []
        with self._channels.write(durable=False) as db:
            for channel_id, may_refund in wanted:
                row = db.execute("SELECT * FROM channels WHERE channel_id = ?", (channel_id,))
                channel = channel_row(row.fetchone())
                item = self._item(channel, may_refund=may_refund)
                if item.claim_to or item.refund:
                    items.append(item)
                elif may_refund:
                    self._nothing_left(db, channel)
            if not items:
                return None
            cursor = db.execute(
                "INSERT INTO payouts (state, created_at) VALUES ('planned', ?)", (now,)
            )
            payout_id = int(cursor.lastrowid or 0)
            for item in items:
                db.execute(
                    "INSERT INTO payout_items (payout, channel_id, claim_from, claim_to, refund)"
                    " VALUES (?,?,?,?,?)",
                    (payout_id, item.channel_id, item.claim_from, item.claim_to, item.refund),
                )
                db.execute(
                    "UPDATE channels SET refunding = ? WHERE channel_id = ?",
                    (item.refund, item.channel_id),
                )
        return self._get(payout_id)

    def _item(self, channel: Channel, *, may_refund: bool) -> PayoutItem:
        claim_to = claimable(channel, whole=self._claim_whole(channel))
        refund = 0
        left = max(0, channel.balance - max(channel.charged, channel.total_claimed))
        if may_refund and channel.state is ChannelState.CLOSING:
            refund = left
        elif may_refund and channel.refund_asked:
            asked = channel.refund_asked
            refund = left if asked == ALL_THAT_IS_LEFT else min(left, asked)
        return PayoutItem(channel.channel_id, channel.total_claimed, claim_to, refund)

    def _claim_whole(self, channel: Channel) -> bool:
        """The last charge of a running job may be partly given back at its end."""
        return (
            channel.withdraw_amount > 0
            or channel.state is ChannelState.CLOSING
            or self._channels.idle(channel.channel_id)
        )

    def due(self, exposure: int, dust: int) -> list[Channel]:
        """Channels with something to do now.

        Args:
            exposure: the atoms that may stand unclaimed in all.
            dust: what is not worth a transaction of its own, in atoms.
        """
        rows = self._channels.db.execute(
            "SELECT * FROM channels WHERE charged > total_claimed"
            " UNION SELECT * FROM channels WHERE state = 'closing'"
            " UNION SELECT * FROM channels WHERE refund_asked != 0 ORDER BY created_at"
        )
        channels = [channel_row(row) for row in rows]
        too_much = sum(channel.unclaimed for channel in channels) > exposure
        return [channel for channel in channels if self._is_due(channel, too_much, dust)]

    def _is_due(self, channel: Channel, too_much: bool, dust: int) -> bool:
        if channel.state is ChannelState.CLOSING or channel.refund_asked:
            return True
        whole = self._claim_whole(channel)
        if not claimable(channel, whole=whole):
            return False
        if channel.withdraw_amount or too_much:
            return True
        return whole and channel.unclaimed >= dust

    def _nothing_left(self, db: sqlite3.Connection, channel: Channel) -> None:
        db.execute(
            "UPDATE channels SET refund_asked = 0, refunding = 0 WHERE channel_id = ?",
            (channel.channel_id,),
        )
        if channel.state is ChannelState.CLOSING:
            self._channels.write_state(db, channel, ChannelState.CLOSED)

    def broadcast(self, payout: Payout, tx: SignedTx) -> Payout:
        """Keep the signed transaction: from here on the same bytes are sent, and no others."""
        return self._step(
            payout,
            PayoutState.BROADCAST,
            "raw = ?, tx = ?, tx_nonce = ?",
            tx.raw,
            tx.hash,
            tx.nonce,
        )

    def lose(self, payout: Payout) -> None:
        """It surely moved nothing: its channels are free to be planned anew."""
        check_payout(payout.state, PayoutState.LOST)
        with self._channels.write() as db:
            db.execute("UPDATE payouts SET state = 'lost', raw = NULL WHERE id = ?", (payout.id,))
            for item in payout.items:
                db.execute(
                    "UPDATE channels SET refunding = 0 WHERE channel_id = ?", (item.channel_id,)
                )

    def mined(
        self,
        payout: Payout,
        moved: dict[str, tuple[int | None, int | None]],
        *,
        settled: int,
        block: int,
        now: float,
    ) -> Payout:
        """A receipt proved it.

        Args:
            moved: by channel, the new total claimed and the atoms given back, where there are any.
        """
        check_payout(payout.state, PayoutState.MINED)
        with self._channels.write(durable=False) as db:  # else it is read from the chain again
            db.execute(
                "UPDATE payouts SET state = 'mined', settled = ?, block = ?, done_at = ?"
                " WHERE id = ?",
                (settled, block, now, payout.id),
            )
            for item in payout.items:
                total, refunded = moved.get(item.channel_id, (None, None))
                self._apply(db, payout, item, total, refunded or 0)
        return self._get(payout.id)

    def _apply(
        self,
        db: sqlite3.Connection,
        payout: Payout,
        item: PayoutItem,
        total: int | None,
        refunded: int,
    ) -> None:
        row = db.execute("SELECT * FROM channels WHERE channel_id = ?", (item.channel_id,))
        channel = channel_row(row.fetchone())
        claimed = 0 if total is None else max(0, total - item.claim_from)
        db.execute(
            "UPDATE payout_items SET claimed = ?, refunded = ? WHERE payout = ? AND channel_id = ?",
            (claimed, refunded, payout.id, item.channel_id),
        )
        if not item.refund:
            db.execute(
                "UPDATE channels SET total_claimed = MAX(total_claimed, ?) WHERE channel_id = ?",
                (total or 0, item.channel_id),
            )
            return
        db.execute(
            "UPDATE channels SET total_claimed = MAX(total_claimed, ?), balance = ?,"
            " refund_asked = 0, refunding = 0, withdraw_amount = MAX(0, withdraw_amount - ?)"
            " WHERE channel_id = ?",
            (total or 0, channel.balance - refunded, refunded, item.channel_id),
        )
        if channel.state is ChannelState.CLOSING:
            self._channels.write_state(db, channel, ChannelState.CLOSED)

    def again(self, payout: Payout) -> Payout:
        """A reorg took its block: the same bytes are on their way again."""
        return self._step(payout, PayoutState.BROADCAST, "block = NULL")

    def final(self, payout: Payout) -> None:
        """Its block can't be taken back any more."""
        self._step(payout, PayoutState.FINAL, "raw = NULL")

    def _step(
        self, payout: Payout, state: PayoutState, assignments: str, *values: object
    ) -> Payout:
        check_payout(payout.state, state)
        with self._channels.write() as db:
            db.execute(
                f"UPDATE payouts SET state = ?, {assignments} WHERE id = ?",  # noqa: S608
                (str(state), *values, payout.id),
            )
        return self._get(payout.id)

    def _get(self, payout_id: int) -> Payout:
        return self._many("id = ?", payout_id)[0]

    def _many(self, where: str, *values: object) -> list[Payout]:
        rows = self._channels.db.execute(
            f"SELECT * FROM payouts WHERE {where}",  # noqa: S608
            values,
        ).fetchall()
        return [_payout(row, self._items(row["id"])) for row in rows]

    def _items(self, payout_id: int) -> tuple[PayoutItem, ...]:
        rows = self._channels.db.execute(
            "SELECT channel_id, claim_from, claim_to, refund, claimed, refunded FROM payout_items"
            " WHERE payout = ? ORDER BY rowid",
            (payout_id,),
        )
        return tuple(PayoutItem(*row) for row in rows)


def claimable(channel: Channel, *, whole: bool) -> int:
    """The total up to which a claim makes sense now, or 0.

    Args:
        whole: also the last charge, which a running job may not have used up yet.
    """
    up_to = channel.charged if whole else channel.charged - channel.last_amount
    up_to = min(up_to, channel.balance, channel.signed_max)
    return up_to if up_to > channel.total_claimed else 0


def _payout(row: sqlite3.Row, items: tuple[PayoutItem, ...]) -> Payout:
    return Payout(
        id=row["id"],
        state=PayoutState(row["state"]),
        signed_tx=signed_tx(row),
        transaction=row["tx"],
        block=row["block"],
        settled=row["settled"],
        done_at=row["done_at"],
        items=items,
    )
