"""Where a job's steps are taken: on disk, in its event log, and in what the market hears of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from computeswarm.core.clock import Clock
from computeswarm.core.errors import StorageFull
from computeswarm.core.events import (
    CHUNK_BYTES,
    EndEvent,
    FilesEvent,
    OutputEvent,
    PaymentEvent,
    StateEvent,
    encode_output,
)
from computeswarm.core.jobs import (
    JobUpdate,
    JobView,
    OutputFile,
    OutputList,
    Payment,
    StreamName,
)
from computeswarm.core.logs import get_logger
from computeswarm.core.states import JobState
from computeswarm.seller.accounts import JobAccounts
from computeswarm.seller.config import SellerConfig
from computeswarm.seller.eventlog import EventLog
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.job import Job
from computeswarm.seller.jobview import JobViews
from computeswarm.seller.liveoutputs import LiveOutputs
from computeswarm.seller.meter import Meter
from computeswarm.seller.notices import Notices
from computeswarm.seller.store import JobStore

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import Charge

_log = get_logger("seller")
_RETRY_SECONDS = 2.0
_OPEN_LOGS = 160
"""More than the owner's screen looks at each second: all that wait or run, and 50 that ended."""


class JobDesk:
    """All jobs of this seller as they stand.

    Args:
        report: tells the market.
        expect: a waiting job's place, and the seconds until it starts at most.
        asks: what the buyer of a job is told that waits for the owner's yes, and until when.
    """

    def __init__(
        self,
        config: SellerConfig,
        node_id: str,
        store: JobStore,
        inputs: InputStore,
        accounts: JobAccounts,
        clock: Clock,
        notices: Notices,
        *,
        report: Callable[[str, JobUpdate], None],
        expect: Callable[[str], tuple[int | None, int | None]],
        asks: Callable[[str], tuple[str, int | None]],
    ) -> None:
        self.store = store
        self.meters: dict[str, Meter] = {}
        """Of jobs that run."""
        self.metered_at: dict[str, int] = {}
        """When their time began to cost, in unix milliseconds."""
        self.live: dict[str, LiveOutputs] = {}
        """Of running jobs whose outputs are streamed."""
        shutil.rmtree(config.folder / "live", ignore_errors=True)  # what a crash left
        self._config = config
        self._inputs = inputs
        self._accounts = accounts
        self._clock = clock
        self._notices = notices
        self._report = report
        self._views = JobViews(node_id, inputs, accounts, expect, asks)
        self._logs: dict[str, EventLog] = {}

    def close(self) -> None:
        """Close all files."""
        for log in self._logs.values():
            log.close()
        self.store.close()

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._clock.now() * 1000)

    def log(self, job_id: str) -> EventLog:
        """A job's events."""
        log = self._logs.pop(job_id, None)
        if log is None:
            self._close_idle_logs()
            log = self._logs[job_id] = EventLog(self._events_path(job_id))
            job = self.store.find(job_id)
            if job is not None and job.state.terminal and not log.ended:
                self._write_end(job)  # a crash came between the last step and its event
        self._logs[job_id] = log  # the last used stand last
        return log

    def step(self, job_id: str, state: JobState, *, durable: bool = True) -> Job:
        """Take a step that is not the last."""
        job = self.store.advance(job_id, state, at_ms=self.now_ms(), durable=durable)
        self._write(job_id, StateEvent, state=state)
        _log.info("job_step", job_id=job_id, state=str(state), paid_atoms=job.paid)
        self._report(job_id, JobUpdate(state=state, paid=job.paid))
        return job

    def step_back(self, job_id: str, reason: str) -> Job:
        """After a crash a job that was starting waits again."""
        job = self.store.step_back(job_id)
        self._write(job_id, StateEvent, state=job.state, reason=reason)
        self._report(job_id, JobUpdate(state=job.state, paid=job.paid))
        return job

    def say(self, job_id: str, reason: str, *, paused: bool = False) -> None:
        """Tell the buyer something without a step."""
        state = self.store.get(job_id).state
        self._write(job_id, StateEvent, state=state, reason=reason, paused=paused)

    def output(self, job_id: str, stream: StreamName, data: bytes) -> int:
        """Write what a job printed; bytes that it takes on disk.

        Raises:
            OSError: the disk is full.
        """
        log, size = self.log(job_id), 0
        for start in range(0, len(data), CHUNK_BYTES):
            text, encoding = encode_output(data[start : start + CHUNK_BYTES])
            log.append(OutputEvent, at=self.now_ms(), stream=stream, data=text, encoding=encoding)
            size += len(text)
        return size

    def paid(self, job_id: str, payment: Payment) -> Job:
        """A slice was settled."""
        job = self.store.pay(job_id, payment)
        if (meter := self.meters.get(job_id)) is not None:
            meter.paid_slices = job.slices_paid
        self._write(
            job_id,
            PaymentEvent,
            direction="paid",
            amount=payment.amount,
            transaction=payment.transaction,
            slice=payment.slice,
        )
        return job

    def unpaid(self, job_id: str, payment: Payment) -> Job:
        """The chain took a slice's payment back for good: its time is not paid for."""
        job = self.store.unpay(job_id, payment)
        if (meter := self.meters.get(job_id)) is not None:
            meter.paid_slices = job.slices_paid
        self.say(job_id, f"The chain took back the payment of slice {payment.slice + 1}.")
        return job

    def deposited(self, job_id: str, charge: Charge) -> Job:
        """A channel was opened for a job, and its first slice is vouched for."""
        job = self.store.open_channel(job_id, charge.channel_id, charge.deposit, charge.transaction)
        self._write(
            job_id,
            PaymentEvent,
            direction="paid",
            amount=charge.amount,
            transaction=charge.transaction,
            slice=0,
        )
        return job

    def ticked(self, job_id: str, index: int) -> Job:
        """A voucher pays slice ``index``. No event: the meter tells of it, and at a few seconds
        each they would fill the log."""
        job = self.store.tick(job_id, index)
        if (meter := self.meters.get(job_id)) is not None:
            meter.paid_slices = job.slices_paid
        return job

    async def end(
        self,
        job_id: str,
        state: JobState,
        *,
        reason: str = "",
        exit_code: int | None = None,
        metered_ms: int = 0,
        cost: int = 0,
        outputs: OutputList | None = None,
    ) -> Job:
        """The last step: what was not used goes back. Tries until the disk takes it.

        Once this returns or is cancelled, the refund is owed on disk or the next start owes it.
        """
        changes: dict[str, Any] = {
            "reason": reason[:500],
            "exit_code": exit_code,
            "metered_ms": metered_ms,
            "outputs_until": int(self._clock.now() + self._config.keep_outputs),
        }
        if outputs is not None:
            changes["outputs"] = outputs.model_dump_json()
        if (metered := self.metered_at.get(job_id)) is not None:
            changes["phases"] = {"metered": metered}
        while True:
            paid = self.store.get(job_id).paid
            kept = min(cost, paid)
            try:
                self.log(job_id)  # opened later, it would be taken for one that a crash cut short
                job = self.store.advance(
                    job_id,
                    state,
                    at_ms=self.now_ms(),
                    cost=kept,
                    refund=paid - kept,
                    **changes,
                )
                break
            except (StorageFull, OSError) as error:
                self._notices.tell(f"The end of {job_id} can't be kept yet: {error}", "error")
                await asyncio.sleep(_RETRY_SECONDS)
        self.meters.pop(job_id, None)
        self.metered_at.pop(job_id, None)
        self._inputs.forget(job_id)
        job = await self.close_account(job)
        if (back := self._accounts.refund(job)) is not None:
            self._write(job_id, PaymentEvent, direction="refunded", amount=back.amount)
        self._write(job_id, StateEvent, state=state, reason=job.reason)
        self._write_end(job)
        _log.info(
            "job_completed",
            job_id=job_id,
            state=str(state),
            exit_code=exit_code,
            duration_ms=job.metered_ms,
            total_ms=(job.phases.ended or 0) - (job.phases.created or 0),
            cost_atoms=job.cost,
            paid_atoms=job.paid,
            refund_atoms=job.refund,
            buyer=job.buyer,
            image=job.spec.image,
            gpus=job.spec.gpu_count,
        )
        self._report(
            job_id,
            JobUpdate(
                state=state,
                exit_code=exit_code if exit_code is None else max(-255, min(255, exit_code)),
                metered_ms=job.metered_ms,
                paid=job.paid,
                refunded=job.refund,
            ),
        )
        return job

    async def close_account(self, job: Job) -> Job:
        """Hand what an ended job cost, and what goes back, to the payments; again is fine."""
        if job.refund_filed or not (job.refund or job.channel):
            return job
        await self._accounts.close(job)
        return self.store.update(job.job_id, refund_filed=True)

    async def pay_back_late(self, job: Job, payment: Payment) -> None:
        """A slice that settled when the job had ended, or was paid twice, goes back whole."""
        await self._accounts.pay_back(job, payment)
        if self.store.payment(job.job_id, payment.slice) is not None:
            return
        job = self.store.pay(job.job_id, payment)
        if job.state.terminal:
            self.store.update(job.job_id, refund=job.refund + payment.amount)

    def view(self, job: Job, *, next_seq: bool = False) -> JobView:
        """A job as its buyer and its owner see it."""
        return self._views.make(
            job,
            self.meters.get(job.job_id),
            now=self._clock.monotonic(),
            metered_at=self.metered_at.get(job.job_id, job.phases.metered),
            last_seq=self.log(job.job_id).last_seq + (1 if next_seq else 0),
        )

    def outputs_folder(self, job_id: str) -> Path:
        """Where a job's outputs are kept."""
        return self._config.folder / "outputs" / job_id

    def live_folder(self, job_id: str) -> Path:
        """Where copies of a running job's settled outputs lie."""
        return self._config.folder / "live" / job_id

    def settled(self, job_id: str, files: Sequence[OutputFile]) -> None:
        """Tell the buyer of new versions that he can fetch."""
        self._write(job_id, FilesEvent, files=tuple(files))

    def kept_bytes(self, job: Job) -> int:
        """What an ended job's outputs and log take on the disk."""
        files = OutputList.model_validate_json(job.outputs).files if job.outputs else ()
        try:
            log = self._events_path(job.job_id).stat().st_size
        except FileNotFoundError:
            log = 0
        return log + sum(file.size for file in files)

    async def forget(self, job_id: str) -> None:
        """Remove an ended job's outputs, and all of its log but the end."""
        folder = self.outputs_folder(job_id)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self.store.update(job_id, outputs="", outputs_until=None)
        self.log(job_id).shrink()

    def drop_unpaid(self, job_id: str) -> None:
        """Forget a job whose payment surely failed."""
        self.store.forget_unpaid(job_id)
        self._inputs.forget(job_id)
        if (log := self._logs.pop(job_id, None)) is not None:
            log.close()
        self._events_path(job_id).unlink(missing_ok=True)

    def _write(self, job_id: str, event: type[Any], **members: Any) -> None:
        """An event that has to wait for nobody: a full disk costs the line, not the job."""
        try:
            self.log(job_id).append(event, at=self.now_ms(), **members)
        except OSError as error:
            self._notices.tell(f"The log of {job_id} can't be written: {error.strerror}.", "error")

    def _write_end(self, job: Job) -> None:
        self._write(job.job_id, EndEvent, job=self.view(job, next_seq=True))

    def _close_idle_logs(self) -> None:
        for job_id in list(self._logs):
            if len(self._logs) < _OPEN_LOGS:
                return
            if self._logs[job_id].ended:
                self._logs.pop(job_id).close()

    def _events_path(self, job_id: str) -> Path:
        return self._config.folder / "events" / f"{job_id}.jsonl"
