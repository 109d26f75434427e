"""One ``run`` from the agreed offer to the receipt: paying, streaming, Ctrl+C, outputs."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.buyer.journal import JobRecord, Stage
from computeswarm.buyer.progress import Progress
from computeswarm.cli.fetching import fetch, show_flow
from computeswarm.cli.following import Interrupts, Printer
from computeswarm.cli.live_outputs import LiveOutputs
from computeswarm.cli.output import exit_code, job_document, receipt_lines
from computeswarm.core.errors import ComputeSwarmError, ExitCode, Gone, NotFound
from computeswarm.core.text import clean_line

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.offer import Offer
    from computeswarm.cli.context import Context


class Run:
    """A job that is bought and watched by one command."""

    def __init__(self, context: Context, buyer: Buyer, offer: Offer, budget: int) -> None:
        self._context = context
        self._buyer = buyer
        self._offer = offer
        self._budget = budget
        self._printer = Printer(context)
        self._live: LiveOutputs | None = None
        if context.args.stream_outputs:
            folder = Path(context.args.output)
            self._live = LiveOutputs(buyer, offer.job_id, folder, overwrite=context.args.overwrite)
        self._starting: asyncio.Task[JobRecord] | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._started = False
        self._shown = ""

    async def to_end(self) -> int:
        """The exit code.

        Raises:
            ComputeSwarmError: it could not be bought, or the seller is gone.
        """
        with Interrupts(self._first_interrupt, self._farewell) as interrupts:
            self._starting = asyncio.create_task(
                self._buyer.start(self._offer, budget=self._budget, report=self._progress)
            )
            try:
                await self._starting
            except asyncio.CancelledError:
                if not interrupts.count:
                    raise
                self._note("interrupted; nothing was paid.")
                return ExitCode.INTERRUPTED
            self._started = True
            if interrupts.count:
                self._cancel()
            async with self._live.fetching() if self._live else contextlib.nullcontext():
                await self._watch()
            await self._fetch()
            with contextlib.suppress(ComputeSwarmError):
                await self._see_refund()
            return self._receipt(interrupted=bool(interrupts.count))

    async def _see_refund(self) -> None:
        """It may be on its way by now; a deposit, most of which comes back, is waited for."""
        if self._offer.by_channel:
            await self._buyer.money_back(self._offer.job_id)
        else:
            await self._buyer.refresh(self._offer.job_id)

    async def _watch(self) -> None:
        stream = self._buyer.follow(self._offer.job_id, note=self._note)
        try:
            async with contextlib.aclosing(stream):
                async for event in stream:
                    if self._live is not None:
                        self._live.see(event)
                    await self._printer.show(event)
        except BrokenPipeError:
            # as for any command in a pipe, nobody wants the rest: stop paying for it
            await self._stop()
            raise
        await self._printer.finish()
        if self._cancelling is not None:
            await self._cancelling

    def _first_interrupt(self) -> None:
        if self._started:
            self._cancel()
            return
        unsigned = (Stage.QUOTED, Stage.ABANDONED)
        jobs = {record.job_id: record for record in self._buyer.jobs()}
        record = jobs.get(self._offer.job_id)
        if self._starting is not None and (record is None or record.stage in unsigned):
            self._starting.cancel()
        else:
            self._note("the payment is on its way; the job is cancelled as soon as it is there.")

    def _cancel(self) -> None:
        self._note("cancelling; Ctrl+C again leaves at once.")
        self._cancelling = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        try:
            await self._buyer.cancel(self._offer.job_id)
        except ComputeSwarmError as error:
            self._note(error.detail)

    def _farewell(self) -> str:
        job = self._offer.job_id
        return (
            f"computeswarm: left. No more is paid for {job}; `computeswarm logs {job} -f` carries "
            f"on, `computeswarm cancel {job}` stops it."
        )

    async def _fetch(self) -> None:
        """Outputs to where they were asked for, or a word on how to get them."""
        job_id = self._offer.job_id
        try:
            if not (folder := self._context.args.output):
                listed = await self._buyer.output_list(job_id)
                if listed.files:
                    count = len(listed.files)
                    self._note(f"{count} output file(s): `computeswarm outputs {job_id}`.")
                return
            ours = self._live.ours if self._live else None
            paths = await fetch(self._context, self._buyer, job_id, Path(folder), ours=ours)
            self._note(f"{len(paths)} output file(s) in {clean_line(str(folder))}.")
        except NotFound:
            self._note("the job left no outputs.")
        except Gone as error:
            self._note(f"outputs: {error.detail}")
        except ComputeSwarmError as error:
            # the job's own result stands; its files can be fetched again
            self._note(f"outputs: {error.detail} `computeswarm outputs {job_id}` tries again.")

    def _receipt(self, *, interrupted: bool) -> int:
        record = self._buyer.job(self._offer.job_id)
        if self._context.json:
            money = self._buyer.chain.document()
            self._context.document({"type": "receipt", **job_document(record), **money})
        self._context.note(f"Job      {record.job_id}")
        for line in receipt_lines(record):
            self._context.note(line)
        return exit_code(record, interrupted=interrupted)

    def _progress(self, progress: Progress) -> None:
        # one line for each phase: stderr carries the job's own lines too
        if progress.phase != self._shown:
            self._shown = progress.phase
            self._note(f"{progress.phase}")
            if progress.there:
                count = progress.there + progress.files
                self._note(f"{progress.there} of {count} inputs are already there")
        show_flow(self._context, progress)

    def _note(self, line: str) -> None:
        self._context.note(f"computeswarm: {line}")
