"""One job from its place to its end: sandbox, output, meter, limits, collection."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass
from typing import Any

from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.jobs import OutputList
from computeswarm.core.nodes import GPUInfo
from computeswarm.core.states import JobState
from computeswarm.seller.coalesce import coalesced
from computeswarm.seller.config import MIB, SellerConfig
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.executors.base import (
    OUTPUTS_DIR,
    Executor,
    Exit,
    Launch,
    Limits,
    Running,
    Stream,
    Workspace,
)
from computeswarm.seller.images import Image
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.job import Job
from computeswarm.seller.meter import Meter
from computeswarm.seller.outputs import OutputsTooLarge, collect
from computeswarm.seller.streaming import streamed
from computeswarm.seller.vault import Vault
from computeswarm.seller.warmth import ReadyImages, Warmth

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 5.0
_PAUSE_SECONDS = 60.0
"""A job that stands still is woken by whoever has it go on."""
_MAX_FILES = 10_000
_LOOK_SECONDS = 60.0
_LOG_RATIO = 4
"""The log on disk may be so many times as large as the output that is kept."""


@dataclass(frozen=True, slots=True)
class Order:
    """Why a running job has to end. ``free``: the seller's doing, so it costs nothing."""

    state: JobState
    reason: str
    free: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run needs."""

    config: SellerConfig
    executor: Executor
    images: ReadyImages
    inputs: InputStore
    desk: JobDesk
    clock: Clock
    vault: Vault
    warmth: Warmth


class JobRun:
    """One run. ``run`` returns when the job has ended and all of it is gone."""

    def __init__(self, tools: Tools, job: Job, gpus: tuple[GPUInfo, ...], cpus: float) -> None:
        self.job_id = job.job_id
        self._tools = tools
        self._job = job
        self._gpus = gpus
        self._cpus = cpus
        self._meter = Meter(job.quote, job.slices_paid)
        self._order: Order | None = None
        self._wake = asyncio.Event()
        self._warned = False
        self._kept_bytes = 0
        self._full = False
        self._running: Running | None = None

    @property
    def pid(self) -> int | None:
        """The process that stands for the job, while it runs."""
        return None if self._running is None else self._running.pid

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._meter.paused

    async def freeze(self) -> bool:
        """Have the job stand still, at no cost from now on; False while there is nothing to stop.

        Raises:
            ExecutorError: this sandbox can't do it; the meter goes on.
        """
        if self._running is None or self._order is not None or self.frozen:
            return False
        self._meter.pause(self._tools.clock.monotonic())
        try:
            await self._running.freeze()
        except BaseException:
            self._meter.resume(self._tools.clock.monotonic())
            raise
        self._wake.set()
        return True

    async def thaw(self) -> None:
        """Have it go on."""
        if self._running is None or not self.frozen:
            return
        await self._running.thaw()
        self._meter.resume(self._tools.clock.monotonic())
        self._wake.set()

    def end(self, order: Order) -> None:
        """Have the job ended; the first order counts."""
        if self._order is None:
            self._order = order
            self._meter.end(self._tools.clock.monotonic())
            self._wake.set()

    def paid(self) -> None:
        """A slice more was paid."""
        self._warned = False
        self._wake.set()

    async def run(self) -> None:
        """From starting to the end."""
        tools = self._tools
        try:
            tools.desk.step(self.job_id, JobState.STARTING, durable=False)
            with tools.images.using(self._job.spec.image):
                exit_, outputs = await self._in_workspace()
        except ComputeSwarmError as error:
            await self._close(Order(JobState.FAILED, error.detail, free=True), None, None)
        except Exception:
            _log.exception("job %s", self.job_id)
            reason = "The seller met an error it did not expect; the job cost nothing."
            await self._close(Order(JobState.FAILED, reason, free=True), None, None)
        else:
            await self._close(self._order, exit_, outputs)

    async def _in_workspace(self) -> tuple[Exit | None, OutputList | None]:
        tools, spec = self._tools, self._job.spec
        limits = Limits(
            cpus=self._cpus,
            memory_bytes=spec.memory_bytes,
            disk_bytes=spec.disk_bytes,
            wall_seconds=spec.max_seconds,
            output_bytes=2**62,  # the log below has its own cap, and says so in the log
        )
        image = await self._image()
        if image is None:
            return None, None
        tools.warmth.note(spec.image, limits, self._gpus)
        workspace = await tools.executor.prepare(self.job_id, limits, image=image, gpus=self._gpus)
        try:
            await tools.inputs.place(self.job_id, spec, workspace.path)
            if self._order is not None:
                return None, None
            launch = Launch(
                job_id=self.job_id,
                command=spec.command,
                env=spec.env,
                workdir=workspace.path,
                image=image,
                limits=limits,
                gpus=self._gpus,
                network=spec.network,
                secrets=tools.vault.open(self._job),
            )
            async with streamed(tools.desk, self._job, workspace.path / OUTPUTS_DIR):
                exit_ = await self._supervise(await tools.executor.start(launch))
                return exit_, await self._collect(workspace)
        finally:
            await workspace.close()

    async def _image(self) -> Image | None:
        """The job's image, pulled if need be, which costs nothing; None once the job has to end."""
        tools = self._tools

        def tell(text: str) -> None:
            tools.desk.say(self.job_id, text)

        ensuring = asyncio.create_task(tools.images.ensure(self._job.spec.image, tell))
        try:
            while not ensuring.done() and self._order is None:
                self._wake.clear()
                await self._rest(ensuring, _LOOK_SECONDS)
            return await ensuring if self._order is None else None
        finally:
            ensuring.cancel()
            await asyncio.gather(ensuring, return_exceptions=True)

    async def _supervise(self, running: Running) -> Exit:
        clock, desk = self._tools.clock, self._tools.desk
        launched = clock.monotonic()
        pump = asyncio.create_task(self._pump(running))
        ended = asyncio.create_task(running.wait())
        try:
            self._meter.paid_slices = desk.store.get(self.job_id).slices_paid
            desk.meters[self.job_id] = self._meter
            self._meter.launch()
            self._running = running
            desk.step(self.job_id, JobState.RUNNING, durable=False)
            while not ended.done() and self._order is None:
                self._wake.clear()
                pause = self._look(clock.monotonic(), launched)
                if self._order is None:
                    await self._rest(ended, pause)
            if not ended.done():
                await running.terminate(self._tools.config.term_seconds)
            exit_ = await ended
            self._meter.end(clock.monotonic())
            await asyncio.wait({pump}, timeout=_DRAIN_SECONDS)
            return exit_
        finally:
            self._running = None
            if not ended.done():
                await running.kill()
            for task in (pump, ended):
                task.cancel()
            await asyncio.gather(pump, ended, return_exceptions=True)

    def _look(self, now: float, launched: float) -> float:
        """Give the order that is due, or the seconds until one may be."""
        meter, config = self._meter, self._tools.config
        if meter.paused:
            return _PAUSE_SECONDS
        grace = self._job.quote.grace_seconds
        if not meter.begun:
            silent_until = launched + config.silent_start
            if now < silent_until:
                return silent_until - now
            self._begin(launched)
        limit, funds = meter.limit_at, meter.funds_at
        assert limit is not None
        if now >= limit:
            text = f"The time limit of {self._job.quote.max_seconds} s is over."
            self.end(Order(JobState.TIMED_OUT, text))
            return 0
        if funds is None or now < funds:
            return min(limit, funds or limit) - now
        if now >= funds + grace:
            text = "The paid time was used up and no further slice was paid."
            self.end(Order(JobState.OUT_OF_FUNDS, text))
            return 0
        # a voucher that is a little late is nothing to write down each time
        patience = grace / 2 if self._job.channel else 0.0
        if now < funds + patience:
            return min(limit, funds + patience) - now
        if not self._warned:
            self._warned = True
            text = f"The paid time is used up; the job ends in {grace - patience:g} s."
            self._tools.desk.say(self.job_id, text)
        return min(limit, funds + grace) - now

    async def _rest(self, ended: asyncio.Task[Any], seconds: float) -> None:
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait(
                {ended, woken}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()

    def _begin(self, at: float) -> None:
        clock, desk = self._tools.clock, self._tools.desk
        self._meter.begin(at)
        desk.metered_at[self.job_id] = desk.now_ms() - int((clock.monotonic() - at) * 1000)
        self._wake.set()

    async def _pump(self, running: Running) -> None:
        """Output to the log. Nothing is read ahead, so the disk sets the pace of the job."""
        async for stream, data in coalesced(running.output()):
            if not self._meter.begun:
                self._begin(self._tools.clock.monotonic())
            try:
                self._keep(stream, data)
            except OSError:
                text = "The seller's disk is full; the job cost nothing."
                self.end(Order(JobState.FAILED, text, free=True))

    def _keep(self, stream: Stream, data: bytes) -> None:
        limit, desk = self._tools.config.output_bytes, self._tools.desk
        if self._full:
            return
        self._kept_bytes += desk.output(self.job_id, stream, data[: limit - self._kept_bytes])
        log_bytes = desk.log(self.job_id).size  # many times the output's where lines are short
        self._full = self._kept_bytes >= limit or log_bytes >= _LOG_RATIO * limit
        if self._full:
            note = f"\n[computeswarm] more than {limit // MIB} MiB of output; the rest is dropped\n"
            desk.output(self.job_id, "stderr", note.encode())

    async def _collect(self, workspace: Workspace) -> OutputList:
        folder = self._tools.desk.outputs_folder(self.job_id)
        source = workspace.path / OUTPUTS_DIR
        most = self._job.spec.disk_bytes
        try:
            found = await asyncio.to_thread(
                collect, source, max_files=_MAX_FILES, max_bytes=most, store=folder
            )
        except OutputsTooLarge as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            return OutputList(job_id=self.job_id, truncated=error.detail[:500])
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        text = " ".join(found.refused)[:500]
        return OutputList(job_id=self.job_id, files=found.files, truncated=text)

    async def _close(
        self, order: Order | None, exit_: Exit | None, outputs: OutputList | None
    ) -> None:
        now = self._tools.clock.monotonic()
        self._meter.end(now)
        code = None
        if order is None:
            assert exit_ is not None
            order, code = self._judge(exit_), exit_.status
        await self._tools.desk.end(
            self.job_id,
            order.state,
            reason=order.reason,
            exit_code=code,
            metered_ms=self._meter.milliseconds(now),
            cost=0 if order.free else self._meter.cost(now),
            outputs=outputs,
        )

    def _judge(self, exit_: Exit) -> Order:
        if exit_.status == 0:
            return Order(JobState.SUCCEEDED, "")
        if exit_.oom:
            most = self._job.spec.memory_bytes // MIB
            return Order(JobState.FAILED, f"The job needed more than its {most} MiB of memory.")
        if exit_.code is None:
            return Order(JobState.FAILED, f"The job was ended by signal {exit_.signal}.")
        return Order(JobState.FAILED, f"The command ended with exit code {exit_.code}.")
