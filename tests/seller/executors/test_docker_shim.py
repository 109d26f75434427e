"""The first two jobs of a new seller may start at once."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

from computeswarm.seller.executors.docker import DockerExecutor


async def test_two_first_jobs_find_the_shim(tmp_path: Path) -> None:
    for number in range(40):
        executor = DockerExecutor(tmp_path / str(number), socket=str(tmp_path / "none"))
        together = threading.Barrier(4)

        def first(
            executor: DockerExecutor = executor, together: threading.Barrier = together
        ) -> Path:
            together.wait(30)
            return executor._shim()

        found = await asyncio.gather(*(asyncio.to_thread(first) for _ in range(4)))
        assert len(set(found)) == 1
        assert stat.S_IMODE(found[0].stat().st_mode) == 0o444
        assert list(found[0].parent.glob(f"{found[0].name}-*")) == []
        await executor.close()
