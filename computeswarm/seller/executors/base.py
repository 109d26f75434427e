"""The protocol every executor speaks: prepare a job directory, start a command in it, follow it.

An executor knows nothing of payments, buyers or the market. The agent decides *who* may run and
*for how long*; the executor decides *what the job can touch*. ``docker`` and others come in behind
these same types.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from computeswarm.core.nodes import GPUInfo, Isolation
    from computeswarm.seller.images import Image

Stream = Literal["stdout", "stderr"]

OUTPUTS_ENV = "COMPUTESWARM_OUTPUTS"
"""Environment variable with the path, as the job sees it, of the directory for its outputs."""
OUTPUTS_DIR = "outputs"
"""The name of that directory below ``Launch.workdir``."""

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use.

    ``wall_seconds`` is kept by the agent, because paid slices prolong a running job; everything
    else is kept by the executor.
    """

    cpus: float = 1.0
    """CPU cores; fractions are allowed."""
    memory_bytes: int = 2 * GIB
    """Anonymous memory, page cache, /tmp and shared memory together."""
    pids: int = 256
    """Processes and threads together."""
    disk_bytes: int = 1 * GIB
    """Size of the job directory, inputs and outputs together."""
    inodes: int = 16_384
    """Files and directories in the job directory."""
    wall_seconds: float = 3600.0
    output_bytes: int = 64 * MIB
    """stdout and stderr together; what comes after is read and dropped."""
    open_files: int = 4096


@dataclass(frozen=True, slots=True)
class Launch:
    """One command to run in a prepared workspace."""

    job_id: str
    command: tuple[str, ...]
    """``python`` or ``python3`` as its first word stands for the image's own interpreter."""
    env: Mapping[str, str]
    """The whole of the buyer's environment; nothing of the agent's own is added to it."""
    workdir: Path
    """``Workspace.path``, already filled with the input files. It is the job's home and current
    directory (``/job`` inside a sandbox)."""
    image: Image
    limits: Limits
    gpus: tuple[GPUInfo, ...] = ()
    network: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More of the job's environment, that must be seen by the job alone: never on a command line,
    in a container's description, in a log or in an error."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used; from containers as last seen, half a second before their end at most."""

    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job ended: ``code`` if it exited, else the ``signal`` that ended it."""

    code: int | None
    signal: int | None = None
    oom: bool = False
    """The kernel killed a process of the job because the job was out of memory."""
    usage: Usage = field(default_factory=Usage)

    @property
    def status(self) -> int:
        """The exit status as a shell shows it: the code, or 128 + signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an executor (or an image) can't be used here, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what} {self.fix}"


class Workspace(Protocol):
    """A job's directory on the host, capped in bytes and inodes."""

    @property
    def job_id(self) -> str: ...

    @property
    def path(self) -> Path:
        """Filled by the agent before the start and read (see ``seller.outputs``) after the end.

        ``path / OUTPUTS_DIR`` exists from the beginning.
        """
        ...

    async def close(self) -> None:
        """Remove the directory and all that is in it. May be called twice."""
        ...


class Running(Protocol):
    """A started job."""

    @property
    def pid(self) -> int:
        """Process id, on the host, of the process that stands for the job."""
        ...

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Chunks as the job writes them, until both streams end. To be iterated once.

        Nothing is read ahead: a consumer that does not come back stops the job at its next write.
        Bytes are as written; they may be cut in mid-character and need not be UTF-8.
        """
        ...

    @property
    def truncated(self) -> bool:
        """More than ``Limits.output_bytes`` was written and the rest has been dropped."""
        ...

    async def wait(self) -> Exit:
        """Wait until the job and everything it started is gone. May be called many times.

        The output must be read (or the job killed) for a job that writes much to ever end.

        Raises (as ``terminate`` and ``kill`` do):
            ExecutorError: the sandbox could not be made, so that nothing of the job was run: the
                seller's fault.
        """
        ...

    async def terminate(self, grace: float) -> Exit:
        """SIGTERM to the whole tree, and SIGKILL to what is left after ``grace`` seconds."""
        ...

    async def kill(self) -> Exit:
        """SIGKILL to the whole tree."""
        ...

    async def freeze(self) -> None:
        """Have the whole tree stand still; it keeps its memory, on the GPU too. Again is fine.

        ``terminate`` and ``kill`` end a job that stands still as any other.

        Raises (as ``thaw`` does):
            ExecutorError: this sandbox can't do it.
        """
        ...

    async def thaw(self) -> None:
        """Have it go on. Again is fine."""
        ...


class Executor(Protocol):
    """One way of running jobs on this machine.

    If the agent dies, however it dies, its running jobs die too.
    """

    @property
    def name(self) -> str: ...

    @property
    def isolation(self) -> Isolation:
        """What a buyer is told about the walls round a job."""
        ...

    @property
    def owner_only(self) -> bool:
        """There is no wall: only jobs paid by the seller's own wallets may be run."""
        ...

    async def check(self) -> list[Problem]:
        """What is missing on this machine; an empty list means usable."""
        ...

    async def reap(self) -> None:
        """Remove what a killed agent left: processes, mounts, cgroups, directories.

        Called once, before the first ``prepare``.
        """
        ...

    async def close(self) -> None:
        """End all jobs and give back what is kept between them. The last call."""
        ...

    async def expect(self, image: Image, limits: Limits, gpus: Sequence[GPUInfo] = ()) -> None:
        """Have a sandbox ready for the next job, which will probably be of this kind. It is used
        once; where a sandbox takes no time to make, nothing is done.

        Raises:
            ExecutorError: none can be made.
        """
        ...

    async def prepare(
        self,
        job_id: str,
        limits: Limits,
        *,
        image: Image | None = None,
        gpus: Sequence[GPUInfo] = (),
    ) -> Workspace:
        """Make the job's directory, and what more of its sandbox can be made ahead.

        Args:
            image, gpus: what ``start`` will be given, where that is known.

        Raises:
            ExecutorError: it can't be made.
            StorageFull: the disk has no room for ``limits.disk_bytes``.
        """
        ...

    async def start(self, launch: Launch) -> Running:
        """Start the command.

        Raises:
            ExecutorError: the sandbox could not be made, or ``workdir`` was not prepared here.
            Unprocessable: the launch asks for what this executor does not offer.
        """
        ...
