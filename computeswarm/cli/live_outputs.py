"""``run --stream-outputs``: a job's files on our disk while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.events import FilesEvent, JobEvent

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer


class LiveOutputs:
    """Fetches new versions beside the stream of events, which has to be read on meanwhile."""

    def __init__(self, buyer: Buyer, job_id: str, folder: Path, *, overwrite: bool) -> None:
        self.ours: dict[str, str] = {}
        """Digests, by path, of what was fetched: older versions are ours to replace."""
        self._buyer = buyer
        self._job_id = job_id
        self._folder = folder
        self._overwrite = overwrite
        self._fresh = asyncio.Event()

    def see(self, event: JobEvent) -> None:
        """Take note of an event of the job."""
        if isinstance(event, FilesEvent):
            self._fresh.set()

    @asynccontextmanager
    async def fetching(self) -> AsyncIterator[None]:
        """Within it, files come in."""
        task = asyncio.create_task(self._fetch(), name="live-outputs")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _fetch(self) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            # a version that is gone again, or a broken line: the next event or the job's end has it
            with contextlib.suppress(ComputeSwarmError):
                await self._buyer.outputs(
                    self._job_id, self._folder, overwrite=self._overwrite, ours=self.ours
                )
