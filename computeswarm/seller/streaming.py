"""Outputs to the buyer while the job runs: looks, events, and when it is enough."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.seller.desk import JobDesk
from computeswarm.seller.job import Job
from computeswarm.seller.liveoutputs import LOOK_SECONDS, REST, LiveOutputs

_log = logging.getLogger(__name__)
_MAX_FILES = 10_000
_TOLD_VERSIONS = 20_000
"""Of one job: each is some hundred bytes in its log."""


@asynccontextmanager
async def streamed(desk: JobDesk, job: Job, outputs: Path) -> AsyncIterator[None]:
    """Meanwhile the settled files below ``outputs`` can be fetched, if the job wants that."""
    if not job.spec.stream_outputs:
        yield
        return
    store = desk.live_folder(job.job_id)
    live = LiveOutputs(outputs, store, max_files=_MAX_FILES, max_bytes=job.spec.disk_bytes)
    desk.live[job.job_id] = live
    looking = asyncio.create_task(_look(desk, job.job_id, live))
    try:
        yield
    finally:
        live.stop()  # the folder is taken down next: nothing may be open in it
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        del desk.live[job.job_id]
        await asyncio.to_thread(live.close)


async def _look(desk: JobDesk, job_id: str, live: LiveOutputs) -> None:
    told, pause = 0, LOOK_SECONDS
    while told < _TOLD_VERSIONS:
        await asyncio.sleep(pause)
        began = time.monotonic()
        look = asyncio.ensure_future(asyncio.to_thread(live.look))
        try:
            fresh = await asyncio.shield(look)
        except asyncio.CancelledError:
            await asyncio.wait({look})
            raise
        except ComputeSwarmError as error:
            desk.say(job_id, f"Outputs come when the job has ended: {error.detail}")
            return
        except Exception:
            _log.exception("outputs of %s", job_id)
            return
        if fresh:
            told += len(fresh)
            desk.settled(job_id, fresh)
        pause = max(LOOK_SECONDS, REST * (time.monotonic() - began))
    desk.say(job_id, f"More than {_TOLD_VERSIONS} versions of files; the rest comes at the end.")
