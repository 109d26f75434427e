"""The buyer as the screens use it: search, quote, buy, follow, cancel, fetch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

from computeswarm.buyer.accounts import ChannelAccounts
from computeswarm.buyer.announce import announce
from computeswarm.buyer.cashier import PRESENT_SECONDS, Cashier
from computeswarm.buyer.channels import ChannelPurse
from computeswarm.buyer.following import Follower
from computeswarm.buyer.funds import Funds
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.http.stream import LOST_SECONDS
from computeswarm.buyer.http.web import WebRequest
from computeswarm.buyer.journal import JobJournal, JobRecord, Stage
from computeswarm.buyer.offer import Offer, check_quote
from computeswarm.buyer.outputs import fetch_outputs
from computeswarm.buyer.progress import Progress, Report, ignore
from computeswarm.buyer.purchase import Purchases, access, check_view
from computeswarm.buyer.shop import Agree, Bought, Shop
from computeswarm.buyer.spec import JobPlan
from computeswarm.buyer.visitor import Visitor
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    ComputeSwarmError,
    PolicyRefused,
    Unavailable,
    WalletError,
)
from computeswarm.core.events import JobEvent
from computeswarm.core.jobs import (
    JobView,
    OutputList,
)
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.quotes import Scheme
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.channels.payer import ChannelPayer
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.ledger.entries import is_hash
from computeswarm.payments.ledger.refunds import Promise, RefundBook
from computeswarm.payments.payer import Payer

_RECONCILE_SECONDS = 5.0
_BACK_SECONDS = 10.0
_BACK_PAUSE = 0.3


class Buyer(Visitor):
    """One wallet at one market. An async context manager; every journal lies below ``paths.buyer``.

    Args:
        key: the unlocked wallet; without it everything works but paying.
        lost_seconds: how long a seller may be silent before he counts as gone.
        present_seconds: how long an unanswered payment is presented again before giving up.
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        key: PrivateKey | None = None,
        *,
        clock: Clock | None = None,
        lost_seconds: float = LOST_SECONDS,
        present_seconds: float = PRESENT_SECONDS,
    ) -> None:
        super().__init__(settings, paths, key, clock=clock)
        self._lost_seconds = lost_seconds
        self._present_seconds = present_seconds
        self._sellers: dict[str, SellerClient] = {}

    async def __aenter__(self) -> Self:
        if self._key is not None:
            self.settings.spending_chain()
        self._enter()
        self._refunds = RefundBook(self.paths.buyer / "payments.db")
        self._journal = JobJournal(self.paths.buyer / "jobs.db", on_view=self._keep_refund)
        self._payments = PaymentJournal(self.paths.buyer / "payments.db")
        self._funds = Funds(self.settings.rpc_urls, self.chain)
        self._purchases: Purchases | None = None
        self._payer: Payer | None = None
        self._cashier: Cashier | None = None
        self._purse: ChannelPurse | None = None
        if self._key is not None:
            self._payer = Payer(self._key, self.chain, self._payments, self._policy, self._clock)
            self._cashier = Cashier(
                self._payer,
                self._clock,
                present_seconds=self._present_seconds,
                reconcile=self._reconcile,
            )
            self._purse = ChannelPurse(
                self._payer,
                ChannelPayer(self._payer, self._key, self.chain, self._payments, self._clock),
                self._funds.channels,
                self._clock,
                present_seconds=self._present_seconds,
                reconcile=self._reconcile,
            )
            self._purchases = Purchases(
                self._key.address, self._journal, self._cashier_of, self._clock
            )
        self.channels = ChannelAccounts(
            self._payments,
            self._journal,
            self._funds,
            self._key,
            self._purse,
            self._seller,
            self._clock,
        )
        self._follower = Follower(
            self._journal,
            self._payments,
            self._cashier,
            self._purse,
            self._clock,
            lost_seconds=self._lost_seconds,
        )
        await self._reconcile()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and files."""
        await self._market.close()
        for seller in self._sellers.values():
            await seller.close()
        await self._funds.close()
        self._journal.close()
        self._payments.close()
        self._refunds.close()

    # Money

    async def balance(self) -> tuple[int, int]:
        """USDC in atoms and the chain's own coin in wei.

        Raises:
            ConfigError: no RPC address is set.
            ChainUnavailable: the chain doesn't answer.
        """
        return await self._funds.balance(self.address)

    def spent_today(self) -> int:
        """Atoms gone or at risk in the last 24 hours."""
        return self._payments.spent_day(self._clock.now(), self.chain.chain_id)

    # Buying

    async def quote(
        self,
        node: ComputeNode,
        plan: JobPlan,
        *,
        scheme: Scheme = "exact",
        offer_per_hour: int | None = None,
    ) -> Offer:
        """The node's signed offer for a job, checked against its signed record.

        Args:
            scheme: a transfer for each slice (``exact``), or one deposit and a voucher for every
                few seconds (``batch-settlement``).
            offer_per_hour: atoms for a GPU and hour, more than is asked, for a better place in the
                queue. The whole job is at that price.

        Raises:
            SellerUnavailable, Unprocessable, Unauthorized, PolicyRefused, QuoteExpired.
        """
        self._payable([node] if self._key is not None else [])  # nobody else is told of the job
        signed = await self._seller(node.info.endpoint).quote(plan.spec, scheme, offer_per_hour)
        return check_quote(
            signed,
            node,
            plan,
            chain=self.chain,
            now=self._clock.now(),
            scheme=scheme,
            offer_per_hour=offer_per_hour,
        )

    async def start(self, offer: Offer, *, budget: int, report: Report = ignore) -> JobRecord:
        """Buy the first slice and start the job. The same offer again carries on with the same
        purchase: nothing is paid twice.

        Args:
            budget: most atoms for the whole job.

        Raises:
            PolicyRefused, InsufficientFunds, QuoteExpired: nothing was paid.
            PaymentPending: signed, and its fate unknown; ``resume`` presents the same again.
            Unavailable: nothing was paid where the journal says ``abandoned``.
        """
        purchases = self._paying()
        if offer.first_amount > budget:
            raise PolicyRefused(
                f"The first slice costs {format_usdc(offer.first_amount)} USDC, the budget is "
                f"{format_usdc(budget)}; nothing was paid.",
                rule="budget",
            )
        record = purchases.open(offer, budget)
        if record.stage in (Stage.QUOTED, Stage.PAYING):
            report(Progress("submitting"))
            beside = self._announced(offer, budget, report)
            record = await purchases.pay(record, self._seller(record.endpoint), beside)
        return await self._deliver(record, report)

    async def _announced(self, offer: Offer, budget: int, report: Report) -> None:
        assert self._key is not None
        paid_now = offer.paid_now(budget)
        await announce(offer, self._key, self.chain, self._market, self._funds, paid_now)
        report(Progress("paying"))

    async def _deliver(self, record: JobRecord, report: Report) -> JobRecord:
        seller = self._seller(record.endpoint)
        try:
            return await self._paying().upload(record, seller, report)
        except Unavailable:
            raise
        except ComputeSwarmError:
            # paid, but can't run: stop it, so that the money comes back at once
            with contextlib.suppress(ComputeSwarmError):
                self._journal.see(check_view(record, await seller.cancel(access(record))))
            raise

    async def resume(self, job_id: str | None = None) -> list[JobRecord]:
        """Carry on with what a crash interrupted: the same payment is presented again, inputs that
        are missing are sent. What was never signed is abandoned.

        Raises:
            what ``start`` raises, when one job is named; otherwise each job's trouble waits.
        """
        await self._reconcile()
        if job_id is not None:
            return [await self._carry_on(self._journal.find(job_id))]
        carried = []
        for record in self._journal.unfinished():
            try:
                carried.append(await self._carry_on(record))
            except ComputeSwarmError:
                carried.append(self._journal.get(record.job_id))
        return carried

    async def _reconcile(self) -> None:
        """Ask the chain what became of payments whose window has closed; if it's down, later."""
        if self._payer is not None and self._payer.overdue():
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_RECONCILE_SECONDS):
                    await self._payer.reconcile(self._funds.usdc)
        await self._funds.prove(self._refunds, self._clock.now())

    def _keep_refund(self, record: JobRecord, view: JobView) -> None:
        """What a seller owes, or sent, goes into the books: he may be gone tomorrow."""
        if view.refund is None or not view.state.terminal:
            return
        paid = self._payments.of_job(record.job_id)
        if not paid:
            return
        if channel := paid[0].channel:  # how much came back, the chain itself tells
            if is_hash(view.refund.transaction):
                self.channels.note_refund(channel, view.refund.transaction.lower())
            return
        promise = Promise(
            job_id=record.job_id,
            peer=record.seller,
            wallet=paid[0].payer,
            chain_id=paid[0].chain_id,
            amount=min(view.refund.amount, sum(payment.amount for payment in paid)),
            transaction=view.refund.transaction,
        )
        if promise.amount:
            self._refunds.told(promise, self._clock.now())

    async def _carry_on(self, record: JobRecord) -> JobRecord:
        if record.stage in (Stage.ENDED, Stage.ABANDONED):
            return record
        if record.stage is Stage.PAID:
            record = await self.refresh(record.job_id)
            return record if self._purchases is None else await self._deliver(record, ignore)
        purchases = self._paying()
        if not purchases.signed(record):
            tried = self._payments.of_job(record.job_id)
            reason = (
                "The seller did not take the payment, and its time is up."
                if tried
                else "Interrupted before anything was paid."
            )
            return self._journal.step(record.job_id, Stage.ABANDONED, reason=reason)
        record = await purchases.pay(record, self._seller(record.endpoint), None)
        return await self._deliver(record, ignore)

    def fetch(
        self, request: WebRequest, *, most: int, agree: Agree
    ) -> AbstractAsyncContextManager[Bought]:
        """Ask any x402 server (version 1 or 2) for something and pay what it costs, once.

        Args:
            most: atoms that it may cost.
            agree: whether to pay this; nothing is signed where it says no.

        Raises:
            what ``Shop.fetch`` raises.
        """
        if self._payer is None:
            raise WalletError("The wallet is locked; unlock it to pay.")
        shop = Shop(
            self._payer,
            self._payments,
            self.chain,
            self._clock,
            present_seconds=self._present_seconds,
            reconcile=self._reconcile,
        )
        return shop.fetch(request, most=most, agree=agree)

    # What was bought

    def jobs(self) -> list[JobRecord]:
        """All jobs of this wallet's journal, newest first; asks nobody."""
        return self._journal.all()

    def owed_jobs(self) -> list[str]:
        """The jobs of which a seller still owes something, and has not named the transaction."""
        return self._refunds.owed_jobs()

    def refused(self, record: JobRecord) -> bool:
        """Whether the seller refused the first payment, and could still take it: whoever wants the
        job nevertheless calls ``start`` or ``resume``, and nobody else should."""
        if record.stage is not Stage.PAYING or self._purchases is None:
            return False
        payment = self._purchases.refused(record)
        return payment is not None and payment.valid_before > self._clock.now()

    def job(self, prefix: str) -> JobRecord:
        """The job whose id starts so.

        Raises:
            JobNotFound: none, or several.
        """
        return self._journal.find(prefix)

    async def refresh(self, job_id: str) -> JobRecord:
        """Ask the seller how the job stands.

        Raises:
            SellerUnavailable: no answer; what is known stays.
        """
        record = self._journal.find(job_id)
        if record.stage not in (Stage.PAID, Stage.ENDED):
            return record
        view = await self._seller(record.endpoint).job(access(record))
        record = self._journal.see(check_view(record, view))
        await self._funds.prove(self._refunds, self._clock.now())
        return record

    async def events(self, job_id: str, since: int = 0) -> AsyncGenerator[JobEvent, None]:
        """The events so far, without waiting for more."""
        record = self._journal.find(job_id)
        while page := await self._seller(record.endpoint).events(access(record), since):
            fresh = [event for event in page if event.seq > since]
            for event in fresh:
                since = max(since, event.seq)
                yield event
            if not fresh:
                return

    async def follow(
        self, job_id: str, since: int = 0, *, note: Callable[[str], None] = lambda _: None
    ) -> AsyncGenerator[JobEvent, None]:
        """Every event after ``since``, to the end event; the next slices are paid meanwhile.

        ``note`` gets sentences on why no further slice is paid.

        Raises:
            SellerUnavailable: he is gone; the sentence says what may be lost.
        """
        record = self._journal.find(job_id)
        if record.stage in (Stage.QUOTED, Stage.PAYING):
            (record,) = await self.resume(record.job_id)
        if record.stage is Stage.ABANDONED:
            raise ComputeSwarmError(f"{record.job_id} was never paid. {record.reason}".strip())
        stream = self._follower.follow(record, self._seller(record.endpoint), since, note)
        async with contextlib.aclosing(stream):
            async for event in stream:
                yield event

    def _cashier_of(self, record: JobRecord) -> Cashier:
        assert self._purse is not None
        assert self._cashier is not None
        return self._purse.cashier(record) if record.by_channel else self._cashier

    async def cancel(self, job_id: str) -> JobRecord:
        """Stop a job; the seller sends back what was not used.

        Raises:
            SellerUnavailable: he doesn't answer; slices are no longer paid when nobody follows.
        """
        record = self._journal.find(job_id)
        if record.stage is Stage.PAYING and self._paying().refused(record) is not None:
            # presenting it again would buy what nobody wants any more
            reason = "Cancelled after the seller had refused the payment."
            return self._journal.step(record.job_id, Stage.ABANDONED, reason=reason)
        if record.stage in (Stage.QUOTED, Stage.PAYING):
            (record,) = await self.resume(record.job_id)
        if record.stage is not Stage.PAID:
            return record
        view = await self._seller(record.endpoint).cancel(access(record))
        return self._journal.see(check_view(record, view))

    async def money_back(self, job_id: str, *, seconds: float = _BACK_SECONDS) -> JobRecord:
        """Look at an ended job until the transaction of what goes back is known, for a while.

        Raises:
            SellerUnavailable: no answer; what is known stays.
        """
        give_up = self._clock.monotonic() + seconds
        while True:
            record = await self.refresh(job_id)
            back = record.view.refund if record.view else None
            if back is None or back.transaction or self._clock.monotonic() > give_up:
                break
            await asyncio.sleep(_BACK_PAUSE)
        if record.by_channel:
            await self.channels.sync()
        return record

    async def output_list(self, job_id: str) -> OutputList:
        """What the job has left at the seller."""
        record = self._journal.find(job_id)
        return await self._seller(record.endpoint).outputs(access(record))

    async def outputs(
        self,
        job_id: str,
        dest: Path,
        report: Report = ignore,
        *,
        overwrite: bool = False,
        ours: dict[str, str] | None = None,
    ) -> list[Path]:
        """Fetch what the job wrote to ``dest``, digests checked; again carries on.

        Args:
            overwrite: replace other files of the same names.
            ours: digests, by path, of what was fetched to ``dest`` before: those are replaced too.

        Raises:
            WouldOverwrite: other files of these names are there; nothing was fetched.
            TooLarge, SellerUnavailable, NotFound, Gone.
        """
        record = self._journal.find(job_id)
        return await fetch_outputs(
            self._seller(record.endpoint),
            access(record),
            dest,
            max_bytes=record.disk_bytes,
            report=report,
            overwrite=overwrite,
            ours=ours,
        )

    def _paying(self) -> Purchases:
        if self._purchases is None:
            raise WalletError("Paying needs the wallet; make one with `computeswarm wallet new`.")
        return self._purchases

    def _seller(self, endpoint: str) -> SellerClient:
        if endpoint not in self._sellers:
            self._sellers[endpoint] = SellerClient(endpoint)
        return self._sellers[endpoint]
