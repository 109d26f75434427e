"""A short way to run a script in an executor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import MIB, Exit, Launch, Limits, Running, Workspace
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.images import Image, host_python

AnyExecutor = BubblewrapExecutor | DockerExecutor | ProcessExecutor
SMALL = Limits(memory_bytes=96 * MIB, pids=32, disk_bytes=8 * MIB, inodes=256)


@dataclass
class Result:
    exit: Exit
    stdout: bytes
    stderr: bytes
    truncated: bool
    workdir: Path

    @property
    def text(self) -> str:
        return self.stdout.decode()


@dataclass
class Bench:
    """Starts scripts in one executor and cleans up after them."""

    executor: AnyExecutor
    home: Path
    image: Image = field(default_factory=host_python)
    _spaces: list[Workspace] = field(default_factory=list)
    _jobs: list[Running] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start(
        self,
        script: str,
        *,
        limits: Limits = SMALL,
        env: Mapping[str, str] | None = None,
        gpus: tuple[GPUInfo, ...] = (),
        command: tuple[str, ...] = ("python", "main.py"),
        files: Mapping[str, str] | None = None,
    ) -> tuple[Running, Workspace]:
        job_id = f"job-{next(self._numbers)}"
        space = await self.executor.prepare(job_id, limits, image=self.image, gpus=gpus)
        self._spaces.append(space)
        for name, content in {"main.py": script, **(files or {})}.items():
            (space.path / name).write_text(content)
        launch = Launch(job_id, command, env or {}, space.path, self.image, limits, gpus)
        job = await self.executor.start(launch)
        self._jobs.append(job)
        return job, space

    async def run(self, script: str, **options: object) -> Result:
        job, space = await self.start(script, **options)  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            streams = await read_all(job)
            ended = await job.wait()
        return Result(ended, streams["stdout"], streams["stderr"], job.truncated, space.path)

    async def close(self) -> None:
        for job in self._jobs:
            with contextlib.suppress(ExecutorError):
                await job.kill()
        for space in self._spaces:
            await space.close()
        await self.executor.close()


async def read_all(job: Running) -> dict[str, bytes]:
    streams = {"stdout": b"", "stderr": b""}
    async for name, chunk in job.output():
        streams[name] += chunk
    return streams


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll ``condition()`` until it is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - other processes set no event here
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
