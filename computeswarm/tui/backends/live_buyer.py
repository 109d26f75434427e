"""The buyer's façade as the screens want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.conditions import conditions
from computeswarm.buyer.journal import JobRecord
from computeswarm.buyer.offer import Offer
from computeswarm.buyer.progress import Progress
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    NoNodeFits,
    RealMoneyRefused,
    SellerUnavailable,
    WalletError,
)
from computeswarm.core.events import EndEvent
from computeswarm.core.quotes import scheme_of
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.text import clean_line
from computeswarm.payments.wallet import open_wallet
from computeswarm.tui.backend import Report
from computeswarm.tui.backends.live_market import LiveMarket
from computeswarm.tui.backends.mapping import (
    EventReader,
    deposit,
    payments,
    phases,
    refund,
)
from computeswarm.tui.backends.market_mapping import node_item
from computeswarm.tui.draft import JobDraft
from computeswarm.tui.views import (
    REFUSED,
    Balance,
    Download,
    FacetItem,
    Identity,
    JobItem,
    LogLine,
    Meter,
    NodePage,
    OfferItem,
    PriceTrend,
)

SELLERS_ASKED = 3
"""So many of the cheapest nodes are asked for a quote before giving up."""


class LiveBuyer:
    """One buyer; without a key it looks around, and ``unlock`` brings the key."""

    def __init__(self, settings: Settings, paths: Paths, key: PrivateKey | None = None) -> None:
        self._settings, self._paths = settings, paths
        self._buyer = Buyer(settings, paths, key)
        self._locked = key is None
        self._market = LiveMarket(lambda: self._buyer)
        self._offers: dict[str, Offer] = {}
        self._buying: dict[str, asyncio.Event] = {}
        self._steps: dict[str, str] = {}

    async def open(self) -> None:
        """Open journals and connections."""
        await self._buyer.__aenter__()

    @property
    def identity(self) -> Identity:
        try:
            address = self._buyer.address
        except WalletError:
            address = ""
        chain = self._buyer.chain
        return Identity(
            address=address,
            network=chain.title,
            usdc=chain.usdc.address,
            market=self._settings.market,
            real_money=chain.real_money,
            barred=self._barred(),
            locked=self._locked,
            pay=self._settings.pay,
        )

    def _barred(self) -> str:
        try:
            self._settings.spending_chain()
        except RealMoneyRefused as error:
            return error.detail
        return ""

    async def unlock(self, password: str) -> None:
        """Bring the wallet's key.

        Raises:
            WrongPassword, WalletError, RealMoneyRefused.
        """
        key = await asyncio.to_thread(open_wallet, self._settings, self._paths.wallet, password)
        fresh = Buyer(self._settings, self._paths, key)
        await fresh.__aenter__()
        self._buyer, old = fresh, self._buyer
        self._locked = False
        await old.close()

    # -- the market

    async def nodes(self, query: str, *, sort: str, limit: int, cursor: str = "") -> NodePage:
        return await self._market.nodes(query, sort=sort, limit=limit, cursor=cursor)

    async def facets(self, query: str) -> list[FacetItem]:
        return await self._market.facets(query)

    def watch(self, query: str) -> AsyncIterator[bool]:
        return self._market.watch(query)

    async def prices(self, model: str) -> PriceTrend:
        return await self._market.prices(model)

    # -- buying

    async def balance(self) -> Balance:
        usdc, _ = await self._buyer.balance()
        return Balance(usdc)

    async def jobs(self) -> list[JobItem]:
        return [self._item(record) for record in self._buyer.jobs()]

    async def offer(self, draft: JobDraft) -> OfferItem:
        plan = await asyncio.to_thread(
            plan_job,
            Path(draft.script).expanduser(),
            draft.arguments,
            inputs=draft.input_paths,
            env=draft.environment,
            image=draft.image,
            gpu_count=int(draft.gpus or 0),
            max_seconds=draft.max_seconds,
            secrets=await asyncio.to_thread(draft.secret_map),
            network=draft.network,
        )
        offer = await self._quote(draft, plan)
        self._offers[offer.job_id] = offer
        return self._offer_item(offer, draft.budget_atoms)

    async def _quote(self, draft: JobDraft, plan: JobPlan) -> Offer:
        if draft.node_id:
            node = self._market.seen(draft.node_id) or await self._buyer.node(draft.node_id)
            return await self._buyer.quote(node, plan, scheme=scheme_of(draft.pay))
        fitting = await self._buyer.candidates(
            draft.query,
            image=plan.spec.image,
            gpu_count=plan.spec.gpu_count,
            max_seconds=plan.spec.max_seconds,
            network=plan.spec.network,
            secrets=bool(plan.secrets),
        )
        silent: SellerUnavailable | None = None
        for node in fitting[:SELLERS_ASKED]:
            try:
                return await self._buyer.quote(node, plan, scheme=scheme_of(draft.pay))
            except SellerUnavailable as error:
                silent = error
        if silent is not None:
            raise silent
        raise NoNodeFits(
            f"No idle node has the image {plan.spec.image!r} with {plan.spec.gpu_count} GPUs for "
            "this long. Ask for less in the wizard's Resources step (n), or try again in a while."
        )

    def _offer_item(self, offer: Offer, budget: int) -> OfferItem:
        quote, chain = offer.quote, self._buyer.chain
        return OfferItem(
            key=offer.job_id,
            node=node_item(offer.node),
            job_name=clean_line(offer.spec.name, limit=80),
            price_per_hour=quote.price_per_hour,
            first_amount=offer.first_amount,
            slice_seconds=quote.slice_length(0),
            max_seconds=quote.max_seconds,
            budget=budget,
            most=offer.most(budget),
            at_risk=offer.at_risk(budget),
            pay_to=quote.pay_to,
            expires_at=float(quote.expires_at),
            network=chain.title,
            usdc=quote.asset,
            real_money=chain.real_money,
            deposit=offer.most(budget) if offer.by_channel else 0,
            conditions=tuple(conditions(quote)),
        )

    async def buy(self, offer: OfferItem, report: Report) -> str:
        held = self._offers[offer.key]

        def tell(progress: Progress) -> None:
            self._steps[held.job_id] = progress.phase
            report(progress.phase, progress.done, progress.total)

        done = self._buying.setdefault(held.job_id, asyncio.Event())
        try:
            record = await self._buyer.start(held, budget=offer.budget, report=tell)
        finally:
            self._steps.pop(held.job_id, None)
            self._buying.pop(held.job_id, None)
            done.set()
        return record.job_id

    async def follow(self, job_id: str) -> AsyncIterator[LogLine | Meter | JobItem]:
        if job_id in self._buying:  # carrying on with a purchase that is being made would spoil it
            await self._buying[job_id].wait()
        reader = EventReader()
        notes: list[str] = []
        last_at = 0
        async with aclosing(self._buyer.follow(job_id, note=notes.append)) as events:
            async for event in events:
                last_at = event.at
                while notes:
                    yield LogLine(clean_line(notes.pop(0), limit=500), "warn", event.at)
                for item in reader.read(event):
                    yield item
                if isinstance(event, EndEvent):
                    break
        for item in reader.rest(last_at):
            yield item
        yield self._item(self._buyer.job(job_id))

    async def refresh(self, job_id: str) -> JobItem:
        return self._item(await self._buyer.refresh(job_id))

    async def cancel(self, job_id: str) -> None:
        await self._buyer.cancel(job_id)

    async def download(
        self, job_id: str, folder: Path, report: Report, *, overwrite: bool = False
    ) -> Download:
        def tell(progress: Progress) -> None:
            report(progress.phase, progress.done, progress.total)

        files = await self._buyer.outputs(job_id, folder, tell, overwrite=overwrite)
        return Download(tuple(files), folder)

    async def close(self) -> None:
        with suppress(OSError):
            await self._buyer.close()

    def _item(self, record: JobRecord) -> JobItem:
        view = record.view
        step = self._steps.get(record.job_id, "")
        if view is not None and view.missing_inputs and not step:
            step = "uploading"
        elif not step and self._buyer.refused(record):
            step = REFUSED
        return JobItem(
            job_id=record.job_id,
            name=clean_line(record.name, limit=80),
            node_id=record.node_id,
            node_name=clean_line(record.node_name, limit=60),
            state=record.state,
            created_at=record.created_at,
            budget=record.budget,
            price=record.price_per_hour,
            reason=clean_line(record.reason or (view.reason if view else ""), limit=500),
            step=step,
            paid=record.paid,
            cost=record.cost,
            metered_ms=view.metered_ms if view else 0,
            exit_code=record.exit_code,
            payments=payments(view) if view else (),
            slices=view.slices_paid if view else 0,
            deposit=deposit(view) if view else None,
            refund=refund(view) if view else None,
            phases=phases(view.phases) if view else (),
            outputs_ready=view.outputs_ready if view else False,
            paused=view.paused if view else False,
        )
