"""The seller's life: recover, listen, queue, run, hand back, leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from computeswarm.chain.rpc import RpcClient
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import Conflict, Unavailable
from computeswarm.core.events import MeterEvent
from computeswarm.core.jobs import JobSpec
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import Heartbeat
from computeswarm.core.settings import Settings
from computeswarm.core.states import JobState
from computeswarm.payments.channels.seller import SellerChannels
from computeswarm.payments.extensions.payment_identifier import Marks
from computeswarm.payments.settlement import Settlements
from computeswarm.payments.transfer_proof import Challenges
from computeswarm.seller.accepting import Acceptance
from computeswarm.seller.accounts import JobAccounts
from computeswarm.seller.asking import Asking
from computeswarm.seller.bookkeeping import Bookkeeper
from computeswarm.seller.checkout import Checkout
from computeswarm.seller.config import SellerConfig
from computeswarm.seller.connector import MarketConnector
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.dispatch import Dispatcher
from computeswarm.seller.executors.base import Executor
from computeswarm.seller.gpus import GpuMonitor
from computeswarm.seller.health import Health
from computeswarm.seller.holding import Holds
from computeswarm.seller.images import ImageStore
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.intake import Intake
from computeswarm.seller.intake_channels import ChannelTill
from computeswarm.seller.job import Job
from computeswarm.seller.leaving import hand_back
from computeswarm.seller.machine import MachineWatch
from computeswarm.seller.notices import Notices
from computeswarm.seller.offers import Offers
from computeswarm.seller.owner import OwnerStatus
from computeswarm.seller.owner_use import OwnerUse
from computeswarm.seller.queue import JobQueue
from computeswarm.seller.readings import meter_event
from computeswarm.seller.recovery import recover
from computeswarm.seller.reload import reload
from computeswarm.seller.runner import JobRun, Order, Tools
from computeswarm.seller.slots import Slots, disk_for_jobs
from computeswarm.seller.status import StatusPage
from computeswarm.seller.store import JobStore
from computeswarm.seller.takings import Takings
from computeswarm.seller.upkeep import Upkeep
from computeswarm.seller.vault import Vault
from computeswarm.seller.warmth import Warmth

_EVICTED = "The seller ended the job; everything paid goes back."

_MOST_IMAGES = 64
"""As many as a node's record holds."""


class ImageNames:
    """An image store by its names."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self._store.offered())[:_MOST_IMAGES]

    def to_pull(self) -> tuple[str, ...]:
        return tuple(self._store.to_pull())[:_MOST_IMAGES]


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
        settings: Settings | None = None,
    ) -> None:
        self.config = config
        self.settings = settings
        """What it was started with, or last reloaded."""
        self.executor = executor
        self.clock = clock
        self.notices = Notices(clock)
        self.notes = notes
        self.machine = MachineWatch(config.hardware, monitor, clock, self.notices)
        self.ready = False
        """All that a crash left is recovered."""
        self.stopping = False
        self.gas_wei: int | None = None
        self.chain_problem = ""
        """Why the chain does not answer; empty while it does."""
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
        self.takings = Takings(self)
        self.settlements: Settlements = settle(
            on_settled=self.takings.settled,
            on_refunded=self.takings.refunded,
            on_lost=self.takings.lost,
        )
        self.channels: SellerChannels = open_channels(
            on_charged=self.takings.charged, on_closed=self.takings.closed
        )
        self.inputs = InputStore(
            config.folder / "inputs",
            clock,
            limit=config.upload_bytes,
            keep=config.keep_inputs,
            buyer_of=lambda job_id: self.desk.store.get(job_id).buyer,
        )
        self.market = MarketConnector(
            config.market,
            self.node_id,
            enrol=self.offers.enrol,
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
            expect=lambda job_id: (
                self.queue.position(job_id),
                self.dispatcher.outlook.starts_in(job_id),
            ),
            asks=lambda job_id: (self.asking.said(job_id), self.asking.decide_by(job_id)),
        )
        vault = Vault(key, self.desk.store)
        self.offers.secrets_key = vault.public_key
        self.acceptance = Acceptance(self)
        self.owner_use = OwnerUse(self)
        self.asking = Asking(self)
        self.holds = Holds(self)
        self.warmth = Warmth(executor, images, config.job_cpus)
        self.dispatcher = Dispatcher(
            self,
            Slots(config.slots, hardware.gpus, hardware.memory_bytes, disk_for_jobs(hardware)),
            Tools(config, executor, images, self.inputs, self.desk, clock, vault, self.warmth),
        )
        self.offers.expect = self.dispatcher.outlook.of_offer
        self.machine.holder = self.slots.holder
        self.machine.use.ours = self.dispatcher.pids
        self.bookkeeper = Bookkeeper(self)
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
            self.acceptance.check,
            secret,
            executor.owner_only,
            till,
            checkout,
            vault,
        )
        self._status = StatusPage(self)
        self._upkeep = Upkeep(self, rpc)
        self.health = Health(self)

    @property
    def node_id(self) -> str:
        return self.offers.node_id

    @property
    def running(self) -> int:
        """Jobs that have a place."""
        return self.slots.running

    @property
    def queue(self) -> JobQueue:
        """Jobs that wait for one."""
        return self.dispatcher.queue

    @property
    def slots(self) -> Slots:
        """The places."""
        return self.dispatcher.slots

    def unwell_gpus(self) -> set[int]:
        """GPUs that take no job now: the driver lost them, they could not be cleaned, or their
        owner uses or holds them."""
        owners = self.owner_use.gpus | self.holds.gpus
        return self.machine.faulty() | self.dispatcher.unclean | owners

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
        await recover(self)
        await self.settlements.start()
        await self.channels.start()
        self.offers.channels = self.channels.available
        for job in self.desk.store.unfiled_refunds():
            await self.desk.close_account(job)
        self.intake.sweep()
        for note in self.notes:
            self.notices.tell(note, "warning")
        self.acceptance.recall()
        self.holds.recall()
        await self._upkeep.look_at_gas()
        await self.machine.restore_power(self._power_note)  # a killed seller's
        if self.config.power_limit_watts:
            await self.machine.limit_power(self.config.power_limit_watts, self._power_note)
        await self.machine.look()  # who uses the GPUs, before any is overwritten
        await self.dispatcher.clean_late()
        self.machine.start()
        self.bookkeeper.start()
        self.market.start()
        self.owner_use.start()
        self.asking.start()
        self._upkeep.start()
        self.health.start()
        self.ready = True
        self.notices.tell(f"Selling as {self.node_id} at {self.offers.endpoint}.", "good")
        self.dispatcher.schedule()
        self.warmth.prepare()

    async def stop(self, grace: float = 0.0) -> None:
        """Take nothing new, let running jobs finish for ``grace`` seconds, hand back the rest with
        a full refund, leave the market and close. Again does nothing."""
        if self.stopping:
            return
        self.stopping = True
        self.market.refresh()
        try:
            await hand_back(self, grace)
        finally:
            await self._close()

    def _has_live(self, job_id: str) -> bool:
        job = self.desk.store.find(job_id)
        return job is not None and job.state.live

    async def _close(self) -> None:
        await self._upkeep.close()
        await self.health.close()
        await self.owner_use.close()
        await self.asking.close()
        await self.dispatcher.close()
        await self.warmth.close()
        await self.bookkeeper.close()
        await self.executor.close()
        await self.market.close(leave=self.ready)
        await self.channels.close()
        await self.settlements.close()
        await self.machine.restore_power(self._power_note)
        await self.machine.close()
        self.intake.close()
        self.desk.close()

    def status(self) -> OwnerStatus:
        """Everything the owner's screen shows."""
        return self._status.make()

    def check_started(self) -> None:
        """Raises Unavailable: a payment would meet what is still being recovered."""
        if not self.ready:
            raise Unavailable("The seller starts just now; present the same payment again.")

    def check_accepting(self, spec: JobSpec | None = None) -> None:
        """Raises Unavailable, Unprocessable: no new job is taken now, or not this one, and why."""
        self.acceptance.check(spec)

    @property
    def paused(self) -> bool:
        """The owner wants no new jobs."""
        return self.acceptance.choices.paused

    def pause(self, paused: bool, reason: str = "") -> None:
        """Take no new jobs, or take them again; also after a restart."""
        if paused:
            self.acceptance.pause(reason)
        else:
            self.acceptance.resume()

    def drain(self, reason: str = "", *, then_stop: bool = False) -> None:
        """Take no new jobs, finish those that are paid, then say so, and stop if wanted."""
        self.acceptance.drain(reason, then_stop=then_stop)

    def set_price(self, price_per_hour: int) -> None:
        """Ask another price from now on, also after a restart; quotes that are out keep theirs."""
        self.offers.price_per_hour = price_per_hour
        self.acceptance.choose(price=price_per_hour, price_set=self.config.price_per_hour)
        self.notices.tell(f"The price is {format_usdc(price_per_hour)} USDC an hour now.")
        self.market.refresh(record=True)

    @property
    def _power_note(self) -> Path:
        return self.config.folder / "power-limits.json"

    async def reload(self, settings: Settings) -> list[str]:
        """Take over what may change while it runs; what changed, and what waits for a restart.

        Raises:
            ConfigError: a setting that can't be used; nothing was changed.
        """
        told = reload(self, settings)
        if any(text.startswith("power_limit_watts") for text in told):
            await self.machine.limit_power(self.config.power_limit_watts, self._power_note)
        return told

    async def cancel(self, job_id: str) -> Job:
        """The buyer's wish: end the job, give back what is unused. Returns once it has ended.

        Raises:
            Conflict: its payment is not settled yet.
        """
        return await self.dispatcher.end(
            job_id, Order(JobState.CANCELLED, "Cancelled by the buyer.")
        )

    async def evict(self, job_id: str) -> Job:
        """The owner's wish: end the job, give back everything.

        Raises:
            Conflict: it has ended, or is not paid yet.
        """
        if self.desk.store.get(job_id).state.terminal:
            raise Conflict("The job has ended already.")
        return await self.dispatcher.end(job_id, Order(JobState.SELLER_LOST, _EVICTED, free=True))

    def meter(self, job_id: str) -> MeterEvent | None:
        """Where a running job's meter stands; None when it does not run."""
        return meter_event(self, job_id)

    def uploaded(self, job_id: str) -> None:
        """An input came in whole, or a part of one.

        Raises:
            Conflict: the job takes none any more.
        """
        self.dispatcher.uploaded(job_id)

    def queue_up(self, job_id: str) -> None:
        """A job is paid for: give it a place in the queue."""
        self.asking.write_down(job_id)
        self.dispatcher.enqueue(self.desk.step(job_id, JobState.QUEUED))
        self.dispatcher.schedule()

    def run_of(self, job_id: str) -> JobRun | None:
        """The run of a job that has a place."""
        return self.dispatcher.runs.get(job_id)

    def _pulse(self) -> Heartbeat:
        return Heartbeat.model_validate(
            {
                "status": self.acceptance.status(),
                "queued": len(self.queue),
                "running": self.running,
                "utilization_pct": self.machine.utilization(),
            }
        )
