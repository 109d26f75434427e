"""The seller's view of what jobs cost on their channels, and of all that was moved on chain."""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.payments.channels.charges import JobAccount, Movement
from computeswarm.payments.channels.deposit_store import DepositStore
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.store import ChannelStore


@dataclass(frozen=True, slots=True)
class Accounts:
    """Reads the seller's record of channels."""

    channels: ChannelStore
    deposits: DepositStore
    payouts: PayoutStore

    def of_job(self, job_id: str) -> JobAccount | None:
        """What a job cost on its channel, and where the money went."""
        sums = self.channels.job_sums(job_id)
        if sums is None:
            return None
        channel_id, charged, ticks = sums
        channel = self.channels.get(channel_id)
        deposits = self.deposits.of_channel(channel_id)
        claim = self.payouts.last_claim(channel_id)
        refund = self.payouts.last_refund(channel_id)
        claimed, refunded = self.payouts.sums(channel_id)
        return JobAccount(
            job_id=job_id,
            channel_id=channel_id,
            payer=channel.config.payer,
            state=channel.state.value,
            ticks=ticks,
            charged=charged,
            signed=channel.signed_max,
            deposited=sum(row.amount for row in deposits),
            deposit_transaction=deposits[0].transaction if deposits else "",
            claimed=claimed,
            claim_transaction=claim.transaction if claim else "",
            refunded=refunded,
            refund_transaction=refund.transaction if refund else "",
        )

    def movements(self, since: float) -> list[Movement]:
        """What was moved on chain since a moment (unix seconds), oldest first."""
        found = [
            Movement(
                "deposit",
                row.channel_id,
                row.subject.partition("#")[0],
                row.amount,
                row.transaction,
                row.settled_at or 0.0,
            )
            for row in self.deposits.settled_since(since)
        ]
        for payout in self.payouts.done_since(since):
            at, tx = payout.done_at or 0.0, payout.transaction
            for item in payout.items:
                name = item.channel_id
                job_id = next(iter(self.channels.jobs_of(name)), "")
                if item.claimed:
                    found.append(Movement("claim", name, job_id, item.claimed, tx, at))
                if item.refunded:
                    found.append(Movement("refund", name, job_id, item.refunded, tx, at))
            if payout.settled:
                found.append(Movement("settle", "", "", payout.settled, tx, at))
        return sorted(found, key=lambda movement: movement.at)
