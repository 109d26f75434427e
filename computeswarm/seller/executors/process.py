"""Jobs with no wall at all, as the seller's own user: for the demo and one's own jobs only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from computeswarm.core.errors import ExecutorError, StorageFull, Unprocessable
from computeswarm.core.nodes import GPUInfo, Isolation
from computeswarm.seller.executors import supervisor
from computeswarm.seller.executors.base import (
    MIB,
    OUTPUTS_DIR,
    Exit,
    Launch,
    Limits,
    Problem,
    Usage,
)
from computeswarm.seller.executors.environment import job_environment
from computeswarm.seller.executors.running import ChildRunning, Ended, spawn
from computeswarm.seller.executors.workspace import DirectoryWorkspace, checked_job_id
from computeswarm.seller.images import Image


class ProcessExecutor:
    """See the protocol ``Executor``. Limits other than open files and output are not kept.

    Each job has a supervisor process that buries the job's whole tree (on macOS: its process
    group), also when the agent dies.
    """

    name = "process"
    isolation = Isolation.NONE
    owner_only = True

    def __init__(self, home: Path) -> None:
        self._jobs = home / "process"
        self._spaces: dict[str, DirectoryWorkspace] = {}

    async def check(self) -> list[Problem]:
        if os.name != "posix":
            return [Problem("The process executor needs Linux or macOS.", "Use WSL.")]
        return []

    async def reap(self) -> None:
        """Processes end with their agent; only directories can be left."""
        await asyncio.to_thread(shutil.rmtree, self._jobs, ignore_errors=True)

    async def close(self) -> None:
        await self.reap()

    async def expect(self, image: Image, limits: Limits, gpus: Sequence[GPUInfo] = ()) -> None:
        """Nothing takes long enough here to be made ahead."""

    async def prepare(
        self,
        job_id: str,
        limits: Limits,
        *,
        image: Image | None = None,
        gpus: Sequence[GPUInfo] = (),
    ) -> DirectoryWorkspace:
        path = self._jobs / checked_job_id(job_id)
        try:
            (path / OUTPUTS_DIR).mkdir(parents=True)
        except FileExistsError as error:
            raise ExecutorError(f"The workspace of job {job_id} exists already.") from error
        except OSError as error:
            raise StorageFull(f"{path} can't be made: {error.strerror}.") from error
        if shutil.disk_usage(path).free < limits.disk_bytes:
            shutil.rmtree(path)
            raise StorageFull(
                f"The job asks for {limits.disk_bytes // MIB} MiB of disk; free some."
            )
        space = DirectoryWorkspace(job_id, path)
        self._spaces[job_id] = space
        return space

    def walled(self, launch: Launch, command: Sequence[str]) -> list[str]:
        """The command as it is started, behind what wall there is; here there is none."""
        return list(command)

    async def start(self, launch: Launch) -> ChildRunning:
        space = self._spaces.get(launch.job_id)
        if space is None or space.path != launch.workdir:
            raise ExecutorError(f"The workspace of job {launch.job_id} was not prepared here.")
        if not launch.command:
            raise Unprocessable("The job has no command; name a script.")
        first, *rest = launch.command
        python = str(launch.image.python)
        command = [python if first in ("python", "python3") else first, *rest]
        watch_read, watch_write = os.pipe()
        try:
            process, out, err = spawn(
                [
                    *(sys.executable, "-I", "-S", supervisor.__file__),
                    *(str(launch.limits.open_files), *self.walled(launch, command)),
                ],
                env=_environment(launch),
                cwd=launch.workdir,
                stdin=watch_read,
            )
        except BaseException:
            os.close(watch_write)
            raise
        finally:
            os.close(watch_read)
        job = _Job(process, watch_write)
        finish: Callable[[Ended], Awaitable[Exit]] = job.finish
        return ChildRunning(
            process,
            out,
            err,
            output_bytes=launch.limits.output_bytes,
            signal_tree=job.signal,
            freeze_tree=job.freeze,
            finish=finish,
        )


def _environment(launch: Launch) -> dict[str, str]:
    image = launch.image
    # the machine's own /tmp outlives the job, and behind macOS's wall it can't be written
    own = {"TMPDIR": str(launch.workdir)}
    if image.site:
        own["PYTHONPATH"] = str(image.site)
    return job_environment(
        launch,
        home=str(launch.workdir),
        outputs=str(launch.workdir / OUTPUTS_DIR),
        path=f"{image.python.parent}:/usr/local/bin:/usr/bin:/bin",
        own=own,
    )


@dataclass
class _Job:
    process: subprocess.Popen[bytes]
    lifeline: int
    """While this pipe is open, the supervisor lets the job live."""

    def signal(self, number: int) -> None:
        if number == SIGKILL:
            self._cut()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def freeze(self, still: bool) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self.lifeline >= 0:
                os.write(self.lifeline, supervisor.FREEZE if still else supervisor.THAW)

    def _cut(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    async def finish(self, ended: Ended) -> Exit:
        self._cut()
        usage = Usage(ended.cpu_seconds, ended.max_memory_bytes)
        return Exit(ended.code, ended.signal, False, usage)
