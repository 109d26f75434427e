"""A job that stands still: all of its tree, for as long as is wanted, and it ends as any other."""

from __future__ import annotations

import asyncio

from sandbox_bench import Bench

TREE = """
import os, sys, time
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        break
while True:
    print(os.getpid(), flush=True)
    time.sleep(0.01)
"""
FORKS = """
import os, time
if os.fork():
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.01)
while True:
    print('x', flush=True)
    if os.fork():
        os._exit(0)
"""


class Reader:
    """Counts what a job prints."""

    def __init__(self, job: object) -> None:
        self.data = b""
        self._task = asyncio.create_task(self._read(job))

    async def _read(self, job: object) -> None:
        async for _, chunk in job.output():  # type: ignore[attr-defined]
            self.data += chunk

    async def more(self) -> None:
        """Until something more is printed."""
        seen = len(self.data)
        async with asyncio.timeout(30):
            while len(self.data) == seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def silent(self) -> bool:
        """Whether nothing comes for a while, once the pipe is empty."""
        await asyncio.sleep(0.2)
        seen = len(self.data)
        await asyncio.sleep(0.5)
        return len(self.data) == seen

    async def close(self) -> None:
        """Read no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_the_whole_tree_stands_still_and_goes_on(bench: Bench) -> None:
    job, _ = await bench.start(TREE)
    reader = Reader(job)
    await reader.more()
    async with asyncio.timeout(30):
        while len(set(reader.data.split())) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(2):
        await job.freeze()
        await job.freeze()  # again is fine
        assert await reader.silent()
        await job.thaw()
        await job.thaw()
        await reader.more()
    await job.freeze()
    assert (await asyncio.wait_for(job.kill(), 30)).signal == 9  # also while it stands still
    await job.freeze()  # it has ended: nothing to stop
    await job.thaw()
    await reader.close()


async def test_what_forks_all_the_time_stops_too(walled: Bench) -> None:
    job, _ = await walled.start(FORKS)
    reader = Reader(job)
    await reader.more()
    await job.freeze()
    assert await reader.silent()
    await job.thaw()
    await reader.more()
    await job.kill()
    await reader.close()


async def test_a_job_that_stands_still_is_asked_to_end_as_any_other(bench: Bench) -> None:
    job, space = await bench.start(
        "import signal, sys, time\n"
        "def bye(*_):\n open('outputs/bye', 'w').write('x'); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, bye)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    reader = Reader(job)
    await reader.more()
    await job.freeze()
    ended = await asyncio.wait_for(job.terminate(20), 60)
    assert ended.code == 3 and (space.path / "outputs/bye").exists()
    await reader.close()
