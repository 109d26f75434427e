"""The seller's side of payment channels: deposits, vouchers, and what becomes of the money.

Money first, as with ``settlement``: what a payment buys is started only after its deposit is proven
or its voucher is on disk; each voucher buys one thing; whoever presents it again gets the same
answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import ChainUnavailable, PaymentRequired
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.accounts import Accounts
from computeswarm.payments.channels.charges import (
    ChannelRefund,
    Charge,
    JobAccount,
    Movement,
)
from computeswarm.payments.channels.commits import TickCommits
from computeswarm.payments.channels.deposit_checks import DepositChecks, Reverts
from computeswarm.payments.channels.deposit_fate import Confirm, DepositFate
from computeswarm.payments.channels.deposit_store import DepositStore
from computeswarm.payments.channels.deposits import Deposits, turned_away
from computeswarm.payments.channels.gate import VoucherGate, mismatch
from computeswarm.payments.channels.give_back import GiveBack
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.payouts import PayoutPolicy, PayoutWorker
from computeswarm.payments.channels.present import PresentedChannel, signed_voucher
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import Channel, DepositRow
from computeswarm.payments.channels.store import ChannelStore
from computeswarm.payments.channels.terms import ChannelOffer
from computeswarm.payments.policy import GasPolicy
from computeswarm.payments.present import refused
from computeswarm.payments.terms import Terms

__all__ = ["ChannelRefund", "Charge", "JobAccount", "Movement", "PayoutPolicy", "SellerChannels"]

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
"""How long a request waits for its deposit or refund; after that it goes on without it."""
FRESH_SECONDS = 60.0
"""The age at which our mirror of a channel is renewed; see ``gate`` for why older is sound."""
CLAIM_SECONDS = 8.0
"""How long closing may take to claim what stands open."""

OnCharged = Callable[[Charge], Awaitable[None]]
OnClosed = Callable[[JobAccount], Awaitable[None]]


class SellerChannels:
    """All channels to one wallet on one chain. One instance per wallet and file.

    Args:
        sender: the account of the offer's receiver authorizer.
        on_charged: takes over what was paid for, durably; called again for the same payment after
            a crash, a failure or a repetition, so it must be idempotent.
        on_closed: told when the money of a finished job has moved.
        confirm: waits until a receipt is as sure as a payment of so many atoms has to be. What a
            deposit that is taken back can cost is only what it was served for: its first charge,
            and what is charged until our mirror shows it.
        gas: bounds what a deposit may cost us by its size; None where gas costs nothing.
        settle_seconds: how long ``pay`` and ``refund`` wait before they answer "pending".
    """

    def __init__(
        self,
        path: Path,
        rpc: RpcClient,
        contract: BatchSettlement,
        usdc: Usdc,
        sender: TxSender,
        clock: Clock,
        *,
        offer: ChannelOffer,
        on_charged: OnCharged,
        on_closed: OnClosed | None = None,
        policy: PayoutPolicy = PayoutPolicy(),  # noqa: B008 - frozen
        confirm: Confirm | None = None,
        gas: GasPolicy | None = None,
        fresh_seconds: float = FRESH_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        if not same_address(sender.address, offer.receiver_authorizer):
            raise ValueError("claims and refunds are sent by the channels' own authorizer")
        chain = usdc.chain
        self.offer = offer
        self.available = False
        self._chain = chain
        self._contract = contract
        self._clock = clock
        self._on_charged = on_charged
        self._on_closed = on_closed
        self._store = ChannelStore(path, chain)
        self._commits = TickCommits(self._store, path)
        self._deposit_rows = DepositStore(self._store, chain)
        self._payout_rows = PayoutStore(self._store)
        self._gate = VoucherGate(self._store, contract, chain, clock, fresh_seconds=fresh_seconds)
        reverts = Reverts(clock)
        fate = DepositFate(
            *(self._deposit_rows, self._gate, rpc, contract, usdc, sender, clock, reverts),
            confirm=confirm,
        )
        self._deposits = Deposits(
            self._deposit_rows,
            self._gate,
            DepositChecks(contract, usdc, sender, clock, reverts, gas),
            fate,
            sender,
            clock,
            on_deposited=self._deposited,
            on_turned_away=lambda: self._payouts.wake(),
            settle_seconds=settle_seconds,
        )
        self._payouts = PayoutWorker(
            self._store,
            self._payout_rows,
            rpc,
            contract,
            sender,
            clock,
            policy,
            on_round=self._round,
            on_moved=self._tell_closed,
            revisit=fate.revisit,
        )
        self._accounts = Accounts(self._store, self._deposit_rows, self._payout_rows)
        self._give_back = GiveBack(
            chain,
            self._store,
            self._payout_rows,
            self._gate,
            self._payouts,
            settle_seconds=settle_seconds,
        )

    async def start(self) -> None:
        """Find out whether the chain has the contract, take up what a crash left behind, and begin
        to watch and claim."""
        try:
            self.available = await self._contract.deployed()
        except ChainUnavailable as error:
            _log.warning("starting without the chain: %s", error.detail)
        await self._tell_again()
        self._deposits.start()
        self._payouts.start()

    async def close(self, *, claim_seconds: float = CLAIM_SECONDS) -> None:
        """Claim what stands open if that is quick, and stop; the next start goes on."""
        await self._deposits.close()
        await self._payouts.close(claim_seconds=claim_seconds)
        await self._gate.close()
        self._commits.close()
        self._store.close()

    async def pay(
        self,
        payment: PresentedChannel,
        terms: Terms,
        *,
        binding: str,
        subject: str,
        before_broadcast: Callable[[], None],
    ) -> Charge:
        """Take a deposit or a voucher for a request that costs ``terms.amount``.

        All who present the same payment with the same ``binding`` get the same charge; use its
        ``subject``, which is the first's. ``before_broadcast`` runs once, after verification and
        before a deposit is sent or a voucher is committed.

        Raises:
            PaymentRequired: it does not pay; ``extra['reason']`` is the standard's code, and
                ``extra['corrective']`` the channel's true state where that is what is wrong.
            AuthorizationReused: the deposit was presented with another request.
            PaymentPending: not known yet; present the same payment again.
            Unavailable: the chain doesn't answer, or refuses our transaction; nothing was taken.
        """
        if payment.kind == "deposit":
            row = await self._deposits.take(
                payment,
                terms.amount,
                min_deposit=self.offer.min_deposit,
                binding=binding,
                subject=subject,
                before_broadcast=before_broadcast,
            )
            return self._deposit_charge(row)
        if payment.kind != "voucher":
            raise refused(ChannelReason.PAYLOAD_TYPE, "A refund pays for nothing.")
        async with self._gate.lock(payment.channel_id, patient=False):
            channel = await self._gate.channel(payment)
            if not self._repeated(channel, payment, binding):
                self._gate.check_voucher(channel, payment, terms.amount)
                before_broadcast()
                channel = await self._commit(payment, terms.amount, subject, binding)
            charge = self._last_charge(channel)
            await self._on_charged(charge)
        return charge

    async def _commit(
        self, payment: PresentedChannel, amount: int, subject: str, binding: str
    ) -> Channel:
        try:
            return await self._commits.charge(
                payment,
                amount=amount,
                subject=subject,
                binding=binding,
                check=lambda now: self._gate.check_sums(now, payment, amount),
            )
        except PaymentRequired:
            # one who went away while his was committed may have presented the same
            channel = self._store.get(payment.channel_id)
            if not self._repeated(channel, payment, binding):
                raise
            return channel

    def _repeated(self, channel: Channel, payment: PresentedChannel, binding: str) -> bool:
        """Whether this is the voucher we took last, for the same request."""
        return (
            bool(channel.last_subject)
            and payment.max_claimable == channel.signed_max
            and binding == channel.last_binding
            and signed_voucher(
                channel.config,
                channel.channel_id,
                payment.max_claimable,
                payment.signature,
                self._chain,
            )
        )

    def set_reply(self, charge: Charge, reply: bytes) -> Charge:
        """Keep the reply to a paid request, until the channel's next one; the first one stays."""
        self._store.set_reply(charge.channel_id, charge.subject, reply)
        row = self._deposit_of(charge)
        if row is not None:
            return replace(charge, reply=self._deposit_rows.set_reply(row, reply).reply)
        channel = self._store.get(charge.channel_id)
        kept = channel.last_reply if channel.last_subject == charge.subject else None
        return replace(charge, reply=kept or reply)

    def under_way(self, subject: str, name: str | None = None) -> bool:
        """Whether a deposit for a subject (the one of that name) may yet land, or has landed and
        is not taken over yet."""
        rows = self._deposit_rows.under_way(subject)
        return any(
            name is None or f"{row.payer}:{row.nonce}".lower() == name.lower() for row in rows
        )

    def finish(self, job_id: str, used: int, *, refund: bool = True) -> int:
        """A job is over: durably, charge ``used`` atoms at most, claim them, and (``refund``) give
        the channel's rest back. A second call changes nothing, and says the same.

        Returns:
            atoms that were claimed beyond that already: the seller owes them by a transfer.
        """
        owed = self._store.finish(job_id, used, refund=refund)
        self._payouts.wake()
        return owed

    def account(self, job_id: str) -> JobAccount | None:
        """What a job cost on its channel, and where the money went."""
        return self._accounts.of_job(job_id)

    def movements(self, since: float = 0) -> list[Movement]:
        """What was moved on chain since a moment (unix seconds), oldest first."""
        return self._accounts.movements(since)

    async def refund(self, payment: PresentedChannel) -> ChannelRefund:
        """Give a buyer back what he asks for of his channel, and claim what he owes.

        Asked again after a lost reply, a whole refund is answered as it was.

        Raises:
            PaymentRequired: he can't have it; see ``pay``.
            PaymentPending: it is on its way; ask again.
        """
        return await self._give_back.refund(payment)

    def unclaimed(self) -> int:
        """Atoms that are vouched for, and not claimed yet."""
        return sum(channel.unclaimed for channel in self._store.owing())

    async def _tell_again(self) -> None:
        """Tell of what was charged for jobs that have no end: a crash may have come before."""
        for job_id, channel in self._store.unfinished():
            if self._deposit_rows.under_way(job_id):
                continue  # told with its transaction
            charge = self._last_charge(channel)
            if charge.subject.partition("#")[0] != job_id:
                charge = replace(charge, subject=job_id, reply=None)
            try:
                await self._on_charged(charge)
            except Exception:  # the others don't wait for it, and the next start tells it again
                _log.exception("a charge for %s can't be told now", job_id)

    async def _deposited(self, row: DepositRow) -> None:
        await self._on_charged(self._deposit_charge(row))

    def _deposit_charge(self, row: DepositRow) -> Charge:
        channel = self._store.get(row.channel_id)
        if turned_away(row):
            raise refused(
                Reason.NONCE_USED,
                "This deposit came when it was refused, so it goes back; sign a new one.",
            )
        if row.charged is None:
            raise mismatch(channel)
        return Charge(
            chain=self._chain,
            channel=channel,
            subject=row.subject,
            amount=row.price,
            cumulative=row.charged,
            deposit=row.amount,
            transaction=row.transaction,
            reply=row.reply,
        )

    def _last_charge(self, channel: Channel) -> Charge:
        return Charge(
            chain=self._chain,
            channel=channel,
            subject=channel.last_subject,
            amount=channel.last_amount,
            cumulative=channel.signed_max,
            reply=channel.last_reply,
        )

    def _deposit_of(self, charge: Charge) -> DepositRow | None:
        if not charge.transaction:
            return None
        rows = self._deposit_rows.of_channel(charge.channel_id)
        return next((row for row in rows if row.transaction == charge.transaction), None)

    async def _round(self) -> None:
        if not self.available:
            self.available = await self._contract.deployed()
        await self._tell_closed()

    async def _tell_closed(self) -> None:
        """Tell of finished jobs whose money has moved, once each."""
        for job_id in self._store.untold():
            account = self.account(job_id)
            assert account is not None
            if self._on_closed is not None:
                try:
                    await self._on_closed(account)
                except Exception:  # whoever listens must not keep the claims from being made
                    _log.exception("a channel's end can't be told now")
                    continue
            self._store.tell(job_id)
