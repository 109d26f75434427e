"""The seller's life: recover, listen, queue, run, hand back, leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from computeswarm.chain.rpc import RpcClient
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    Conflict,
    JobNotFound,
    StorageFull,
    Unavailable,
)
from computeswarm.core.events import MeterEvent
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import Heartbeat, NodeStatus
from computeswarm.core.states import JobState
from computeswarm.payments.channels.seller import SellerChannels
from computeswarm.payments.extensions.payment_identifier import Marks
from computeswarm.payments.settlement import Settlements
from computeswarm.payments.transfer_proof import Challenges
from computeswarm.seller.accounts import JobAccounts
from computeswarm.seller.checkout import Checkout
from computeswarm.seller.config import SellerConfig
from computeswarm.seller.connector import MarketConnector
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.executors.base import Executor
from computeswarm.seller.gpus import GpuMonitor
from computeswarm.seller.images import ImageStore
from computeswarm.seller.inputs import InputStore, uploaded_bytes
from computeswarm.seller.intake import Intake
from computeswarm.seller.intake_channels import ChannelTill
from computeswarm.seller.job import Job
from computeswarm.seller.machine import MachineWatch
from computeswarm.seller.notices import Notices
from computeswarm.seller.offers import Offers
from computeswarm.seller.owner import EventLevel, OwnerStatus
from computeswarm.seller.runner import JobRun, Order, Tools
from computeswarm.seller.slots import Slots
from computeswarm.seller.status import StatusPage
from computeswarm.seller.store import JobStore
from computeswarm.seller.takings import Takings
from computeswarm.seller.upkeep import Upkeep

_log = logging.getLogger(__name__)
_REFUND_WAIT_SECONDS = 10.0
_DISK_SECONDS = 2.0
_SLOWEST_UPLOAD = 64 * 1024
"""Bytes a second."""
_EVICTED = "The seller ended the job; everything paid goes back."
_STOPPED = "The seller stopped; everything paid goes back."
_CRASHED = "The seller was interrupted while the job ran; everything paid goes back."


class ImageNames:
    """An image store by its names."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self._store.list())


class SellerAgent:
    """One node. ``start`` when its address is known, ``stop`` once.

    Args:
        settle: makes the settlements, given what takes over a settled payment and a sent refund.
        open_channels: makes the payment channels, given what takes over a deposit or a voucher.
    """

    def __init__(
        self,
        config: SellerConfig,
        key: PrivateKey,
        executor: Executor,
        images: ImageStore,
        monitor: GpuMonitor,
        rpc: RpcClient,
        settle: Callable[..., Settlements],
        open_channels: Callable[..., SellerChannels],
        clock: Clock,
        *,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.config = config
        self.executor = executor
        self.clock = clock
        self.notices = Notices(clock)
        self.notes = notes
        self.machine = MachineWatch(config.hardware, monitor, clock, self.notices)
        self.paused = False
        self.stopping = False
        self.gas_wei: int | None = None
        self.stop_requested = asyncio.Event()
        self.wallet = key.address
        self.offers = Offers(
            config,
            key,
            executor.isolation,
            ImageNames(images),
            clock,
            config.price_per_hour,
            config.endpoint,
        )
        hardware = config.hardware
        self.slots = Slots(config.slots, hardware.gpus, hardware.memory_bytes)
        self.queue: list[str] = []
        self.takings = Takings(self)
        self.settlements: Settlements = settle(
            on_settled=self.takings.settled,
            on_refunded=self.takings.refunded,
            on_lost=self.takings.lost,
        )
        self.channels: SellerChannels = open_channels(
            on_charged=self.takings.charged, on_closed=self.takings.closed
        )
        self.inputs = InputStore(config.folder / "inputs", limit=config.upload_bytes)
        self.market = MarketConnector(
            config.market,
            self.node_id,
            record=self.offers.record,
            pulse=self._pulse,
            clock=clock,
            notices=self.notices,
        )
        self.desk = JobDesk(
            config,
            self.node_id,
            JobStore(config.folder / "jobs.db"),
            self.inputs,
            JobAccounts(self.settlements, self.channels),
            clock,
            self.notices,
            report=self.market.report,
            waiting=lambda: self.queue,
        )
        till = ChannelTill(self.channels, self.offers)
        secret = self.desk.store.secret()
        checkout = Checkout(
            key,
            self.settlements,
            till,
            Challenges(secret, clock),
            Marks(config.folder / "marks.db"),
            clock,
            running=self._has_live,
            check_payer=lambda payer: self.intake.check_payer(payer),
        )
        self.intake = Intake(
            config,
            self.offers,
            self.desk,
            self.inputs,
            self.settlements,
            self.check_accepting,
            secret,
            executor.owner_only,
            till,
            checkout,
        )
        self._tools = Tools(config, executor, images, self.inputs, self.desk, clock)
        self._status = StatusPage(self)
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.upload_seen: dict[str, float] = {}
        """When something of a waiting job's inputs came last, on the monotonic clock."""
        self.upload_until: dict[str, float] = {}
        """When all of them have to be there, or a trickle would hold a place for ever."""
        self._ready = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._upkeep = Upkeep(self, rpc)

    @property
    def node_id(self) -> str:
        return self.offers.node_id

    @property
    def running(self) -> int:
        """Jobs that have a place."""
        return self.slots.running

    async def start(self, endpoint: str) -> None:
        """Recover what a crash left, then take jobs and tell the market.

        Args:
            endpoint: where buyers reach us.

        Raises:
            ExecutorError: the sandbox can't be used.
            ConfigError: the RPC serves another chain.
        """
        self.offers.endpoint = self.config.endpoint or endpoint
        await self.executor.reap()
        # before the settlements: what they hand over must not be mistaken for a leftover
        await self._recover()
        await self.settlements.start()
        await self.channels.start()
        self.offers.channels = self.channels.available
        for job in self.desk.store.unfiled_refunds():
            await self.desk.close_account(job)
        self.intake.sweep()
        self._check_notes()
        await self._upkeep.look_at_gas()
        self.machine.start()
        self.market.start()
        self._upkeep.start()
        self._ready = True
        self.notices.tell(f"Selling as {self.node_id} at {self.offers.endpoint}.", "good")
        self._schedule()

    async def stop(self, grace: float = 0.0) -> None:
        """Take nothing new, let running jobs finish for ``grace`` seconds, hand back the rest with
        a full refund, leave the market and close. Again does nothing."""
        if self.stopping:
            return
        self.stopping = True
        self.market.refresh()
        handed_back: list[str] = []
        try:
            for job_id in list(self.queue):
                await self.end_queued(job_id, Order(JobState.SELLER_LOST, _STOPPED, free=True))
                handed_back.append(job_id)
            if self._runs and grace > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self._idle.wait()
            for run in self._runs.values():
                run.end(Order(JobState.SELLER_LOST, _STOPPED, free=True))
                handed_back.append(run.job_id)
            await self._idle.wait()
            await self._see_refunds(handed_back)
        finally:
            await self._close()

    def _has_live(self, job_id: str) -> bool:
        job = self.desk.store.find(job_id)
        return job is not None and job.state.live

    async def _close(self) -> None:
        await self._upkeep.close()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.executor.close()
        await self.market.close(leave=self._ready)
        await self.channels.close()
        await self.settlements.close()
        await self.machine.close()
        self.intake.close()
        self.desk.close()

    def status(self) -> OwnerStatus:
        """Everything the owner's screen shows."""
        return self._status.make()

    def check_started(self) -> None:
        """Raises Unavailable: a payment would meet what is still being recovered."""
        if not self._ready:
            raise Unavailable("The seller starts just now; present the same payment again.")

    def check_accepting(self) -> None:
        """Raises Unavailable: no new job is taken now, and why."""
        if not self._ready or self.stopping:
            raise Unavailable("The seller starts or stops just now; choose another node.")
        if self.paused:
            raise Unavailable("The seller takes no jobs at present; choose another node.")
        if self.gas_wei == 0:
            raise Unavailable("The seller can't settle payments (no gas); choose another node.")
        paying = sum(
            job.state is JobState.AWAITING_PAYMENT for job in self.desk.store.live()
        )  # each of them will stand in the queue in a moment
        if len(self.queue) + paying >= self.config.queue_limit:
            raise Unavailable("The seller's queue is full; choose another node or try later.")

    def pause(self, paused: bool) -> None:
        """Take no new jobs, or take them again."""
        self.paused = paused
        self.notices.tell("Paused: no new jobs." if paused else "Taking jobs again.")
        self.market.refresh()

    def set_price(self, price_per_hour: int) -> None:
        """Ask another price from now on; quotes that are out keep theirs."""
        self.offers.price_per_hour = price_per_hour
        self.notices.tell(f"The price is {format_usdc(price_per_hour)} USDC an hour now.")
        self.market.refresh(record=True)

    async def cancel(self, job_id: str) -> Job:
        """The buyer's wish: end the job, give back what is unused. Returns once it has ended.

        Raises:
            Conflict: its payment is not settled yet.
        """
        return await self._end(job_id, Order(JobState.CANCELLED, "Cancelled by the buyer."))

    async def evict(self, job_id: str) -> Job:
        """The owner's wish: end the job, give back everything.

        Raises:
            Conflict: it has ended, or is not paid yet.
        """
        if self.desk.store.get(job_id).state.terminal:
            raise Conflict("The job has ended already.")
        return await self._end(job_id, Order(JobState.SELLER_LOST, _EVICTED, free=True))

    def meter(self, job_id: str) -> MeterEvent | None:
        """Where a running job's meter stands; None when it does not run."""
        meter, place = self.desk.meters.get(job_id), self.slots.place(job_id)
        if meter is None or place is None:
            return None
        now = self.clock.monotonic()
        readings = [self.machine.reading(index) for index in place.gpus]
        loads = [r.utilization_pct for r in readings if r.utilization_pct is not None]
        used = [r.memory_used_bytes for r in readings if r.memory_used_bytes is not None]
        return MeterEvent(
            seq=max(1, self.desk.log(job_id).last_seq),
            at=self.desk.now_ms(),
            metered_ms=meter.milliseconds(now),
            cost=meter.cost(now),
            paid=meter.paid,
            slices_paid=meter.paid_slices,
            next_payment_due_ms=meter.left_ms(now),
            utilization_pct=round(sum(loads) / len(loads)) if loads else None,
            memory_used_bytes=sum(used) if used else None,
        )

    def uploaded(self, job_id: str) -> None:
        """An input came in whole, or a part of one.

        Raises:
            Conflict: the job takes none any more.
        """
        state = self.desk.store.get(job_id).state
        if state not in (JobState.AWAITING_PAYMENT, JobState.QUEUED):
            raise Conflict(f"The job is {state}; it takes no inputs any more.")
        self.upload_seen[job_id] = self.clock.monotonic()

    def queue_up(self, job_id: str) -> None:
        """A job is paid for: give it a place in the queue."""
        self._enqueue(self.desk.step(job_id, JobState.QUEUED))
        self._schedule()

    def run_of(self, job_id: str) -> JobRun | None:
        """The run of a job that has a place."""
        return self._runs.get(job_id)

    def look_at_queue(self) -> None:
        """See whether a job can start now."""
        self._schedule()

    async def _end(self, job_id: str, order: Order) -> Job:
        job = self.desk.store.get(job_id)
        if job.state is JobState.AWAITING_PAYMENT:
            raise Conflict("The job's payment is being settled; try again in a moment.")
        if job_id in self.queue:
            await self.end_queued(job_id, order)
        elif job_id in self._runs:
            self._runs[job_id].end(order)
            await asyncio.wait({self._tasks[job_id]})
        return self.desk.store.get(job_id)

    async def end_queued(self, job_id: str, order: Order) -> None:
        """End a job that waits; everything paid for it goes back."""
        if job_id not in self.queue:
            return  # somebody else ended it
        self.queue.remove(job_id)
        await self.desk.end(job_id, order.state, reason=order.reason)
        self._waits_no_more(job_id)
        self._schedule()

    def _waits_no_more(self, job_id: str) -> None:
        self.upload_seen.pop(job_id, None)
        self.upload_until.pop(job_id, None)

    async def _recover(self) -> None:
        live = self.desk.store.live()
        self.inputs.keep_only({job.job_id for job in live})
        for job in live:
            self.takings.recount(job)
            if job.state is JobState.RUNNING:
                await self.desk.end(job.job_id, JobState.SELLER_LOST, reason=_CRASHED)
                self.notices.tell(f"{job.job_id} was running at the crash; refunded.", "warning")
            elif job.state is JobState.STARTING:
                await self.desk.end(job.job_id, JobState.SELLER_LOST, reason=_CRASHED)
            elif job.state is JobState.QUEUED:
                self._enqueue(job)
            with contextlib.suppress(StorageFull):  # it is paid for: there has to be room
                self.inputs.promise(job.job_id, job.spec)

    def _enqueue(self, job: Job) -> None:
        if job.job_id not in self.queue:
            self.queue.append(job.job_id)
            patience = self.config.inputs_seconds
            patience += uploaded_bytes(job.spec) / _SLOWEST_UPLOAD
            self.upload_until[job.job_id] = self.clock.monotonic() + patience
        self.uploaded(job.job_id)

    def _schedule(self) -> None:
        """Give places to the first in the queue that have all their inputs."""
        if self.stopping or not self._ready:
            return
        started = False
        self.slots.faulty = self.machine.faulty()
        for job_id in list(self.queue):
            job = self.desk.store.get(job_id)
            if self.inputs.missing(job_id, job.spec):
                continue
            place = self.slots.take(job_id, job.spec)
            if place is None and not self.slots.possible(job.spec):
                continue  # it waits for a GPU to be well again, which may never be
            if place is None:
                break  # nobody overtakes, or a job for many GPUs would wait for ever
            self.queue.remove(job_id)
            self._waits_no_more(job_id)
            hardware = self.config.hardware
            gpus = tuple(hardware.gpus[index] for index in place.gpus)
            cpus = max(1.0, hardware.cpu_cores / self.config.slots)
            run = self._runs[job_id] = JobRun(self._tools, job, gpus, cpus)
            self._idle.clear()
            self._tasks[job_id] = asyncio.create_task(self._run(run), name=job_id)
            started = True
        if started:
            self.market.refresh()

    async def _run(self, run: JobRun) -> None:
        try:
            await run.run()
        finally:
            self.slots.release(run.job_id)
            self._runs.pop(run.job_id, None)
            self._tasks.pop(run.job_id, None)
            if not self._runs:
                self._idle.set()
        job = self.desk.store.get(run.job_id)
        level: EventLevel = "good" if job.state is JobState.SUCCEEDED else "info"
        self.notices.tell(
            f"{run.job_id} {job.state}: earned {format_usdc(job.cost)} USDC.".replace("_", " "),
            level,
        )
        self._schedule()
        self.market.refresh()

    def _pulse(self) -> Heartbeat:
        draining = self.paused or self.stopping or self.gas_wei == 0
        busy = self.running >= self.config.slots
        status = NodeStatus.DRAINING if draining else NodeStatus.BUSY if busy else NodeStatus.IDLE
        return Heartbeat.model_validate(
            {
                "status": status,
                "queued": len(self.queue),
                "running": self.running,
                "utilization_pct": self.machine.utilization(),
            }
        )

    async def _see_refunds(self, job_ids: list[str]) -> None:
        """Give the refunds of jobs handed back some seconds to reach the chain."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUND_WAIT_SECONDS):
                while any(self._refund_open(job_id) for job_id in job_ids):
                    await self.takings.gone_back()

    def _refund_open(self, job_id: str) -> bool:
        try:
            job = self.desk.store.get(job_id)
        except JobNotFound:
            return False
        if job.channel:
            account = self.channels.account(job_id)
            return account is not None and account.state == "closing"
        rows = self.settlements.refunds(job_id)
        return job.refund >= self.config.dust and any(row.state != "done" for row in rows)

    def _check_notes(self) -> None:
        for note in self.notes:
            self.notices.tell(note, "warning")
