"""What nobody waits for: uploads that never came, old outputs and logs, gas, failed payments."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from computeswarm.chain.rpc import RpcClient
from computeswarm.core.errors import ChainUnavailable
from computeswarm.core.states import JobState
from computeswarm.seller.runner import Order

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_log = logging.getLogger(__name__)
_ROUND_SECONDS = 2.0
_GAS_SECONDS = 60.0
_NO_GAS_SECONDS = 5.0


class Upkeep:
    """A round every two seconds."""

    def __init__(self, agent: SellerAgent, rpc: RpcClient) -> None:
        self._agent = agent
        self._rpc = rpc
        self._task: asyncio.Task[None] | None = None
        self._gas_at: float | None = None
        self._sizes: dict[str, int] = {}
        """Of what is kept of each ended job: an ended job does not grow."""
        self._images: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def start(self) -> None:
        """Begin the rounds."""
        self._images = self._agent.offers.image_state()
        self._task = asyncio.create_task(self._rounds(), name="seller-upkeep")

    async def close(self) -> None:
        """End them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look_at_gas(self) -> None:
        """Ask for the wallet's native balance once a minute, more often while there is none."""
        agent, now = self._agent, self._agent.clock.monotonic()
        well = agent.gas_wei and not agent.chain_problem
        every = _GAS_SECONDS if well else _NO_GAS_SECONDS
        if self._gas_at is not None and now - self._gas_at < every:
            return
        self._gas_at = now
        try:
            found = await self._rpc.native_balance(agent.wallet)
        except ChainUnavailable as error:
            agent.chain_problem = error.detail
            agent.notices.tell(error.detail, "warning")
            return
        agent.chain_problem = ""
        changed = (found == 0) != (agent.gas_wei == 0)
        agent.gas_wei = found
        if changed:
            agent.market.refresh()
            if found == 0:
                text = f"{agent.wallet} has no ETH for gas: payments can't be settled; send some."
                agent.notices.tell(text, "error")

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            try:
                await self._end_late_uploads()
                await self._agent.acceptance.look_at_hours()
                await self._agent.dispatcher.clean_late()
                self._agent.dispatcher.schedule()  # a GPU may be well again
                self._agent.acceptance.look_if_drained()
                self._agent.intake.sweep()
                # known late where the chain was silent at the start
                self._agent.offers.channels = self._agent.channels.available
                await self._drop_old()
                self._agent.inputs.tidy()
                self._tell_of_images()
                await self.look_at_gas()
            except Exception:
                _log.exception("upkeep")  # the next round may do better

    def _tell_of_images(self) -> None:
        """The market learns of an image that was built, named, pulled or removed meanwhile."""
        found = self._agent.offers.image_state()
        if found != self._images:
            self._images = found
            self._agent.market.refresh(record=True)

    async def _end_late_uploads(self) -> None:
        agent = self._agent
        patience = agent.config.inputs_seconds
        for job_id in list(agent.queue):
            job = agent.desk.store.get(job_id)
            if not agent.inputs.missing(job_id, job.spec):
                continue
            now = agent.clock.monotonic()
            if now - agent.dispatcher.upload_seen.get(job_id, 0.0) > patience:
                text = f"No input came for {patience:g} s; everything goes back."
            elif now > agent.dispatcher.upload_until.get(job_id, 0.0):
                text = "The inputs came too slowly; everything goes back."
            else:
                continue
            await agent.dispatcher.end_queued(job_id, Order(JobState.FAILED, text, free=True))

    async def _drop_old(self) -> None:
        """What is kept of ended jobs has its time, and all of it together its size."""
        agent = self._agent
        kept = agent.desk.store.kept()
        for job_id, _ in kept:
            if job_id not in self._sizes:
                self._sizes[job_id] = agent.desk.kept_bytes(agent.desk.store.get(job_id))
        total = sum(self._sizes.values())
        for job_id, until in kept:
            if until > agent.clock.now() and total <= agent.config.store_bytes:
                return
            total -= self._sizes.pop(job_id)
            await agent.desk.forget(job_id)
