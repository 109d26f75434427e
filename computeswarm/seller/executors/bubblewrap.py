"""Jobs behind Linux namespaces: bubblewrap, control groups and a seccomp filter.

Traps this file is shaped by:

- bubblewrap started as root leaves the job host root; it is started as a user of the job's own.
- rlimits don't cap memory: without a memory control group nothing is started, and the group is
  joined before anything of the job's runs.
- bubblewrap's own process 1 is the job's user too and writable through ``/proc/1/mem``; an empty
  directory is mounted over it.
- A command line is readable for all users of the machine; arguments and environment go through a
  memory file instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import platform
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

from computeswarm.core.errors import ExecutorError, Unprocessable
from computeswarm.core.nodes import GPUInfo, Isolation
from computeswarm.seller.executors import devices, layout, seccomp
from computeswarm.seller.executors.base import Exit, Launch, Limits, Problem
from computeswarm.seller.executors.cgroups import Group, Hierarchy, find_hierarchy
from computeswarm.seller.executors.holder import Holder, Status
from computeswarm.seller.executors.network import Network, attach
from computeswarm.seller.executors.running import ChildRunning, Ended
from computeswarm.seller.executors.workspace import (
    DirectoryWorkspace,
    MountedWorkspace,
    Places,
    checked_job_id,
    hand_over,
    is_root,
    watch_size,
)
from computeswarm.seller.images import Image

_LAST_SIGNAL = 64
_LOOK_SECONDS = 0.002

Directory = MountedWorkspace | DirectoryWorkspace


class BubblewrapExecutor:
    """See the protocol ``Executor``.

    Args:
        home: the seller's state directory; workspaces live below it.
        device_root: where /dev, /proc and /sys are looked up for GPUs; another path in tests.
    """

    name = "bubblewrap"
    isolation = Isolation.NAMESPACE
    owner_only = False

    def __init__(self, home: Path, *, device_root: Path = Path("/")) -> None:
        self._places = Places.of(home / "bubblewrap")
        self._device_root = device_root
        self._spaces: dict[str, BubblewrapWorkspace] = {}

    async def check(self) -> list[Problem]:
        return await asyncio.to_thread(self._problems)

    def _problems(self) -> list[Problem]:
        if platform.system() != "Linux":
            return [Problem("bubblewrap needs Linux.", "Use Docker or the process executor.")]
        found = []
        if platform.machine() not in seccomp.MACHINES:
            found.append(Problem(f"No seccomp table for {platform.machine()}.", "Use Docker."))
        needed = {"bwrap": "bubblewrap", "setpriv": "util-linux"}
        missing = [package for tool, package in needed.items() if shutil.which(tool) is None]
        if missing:
            packages = " ".join(missing)
            found.append(
                Problem(f"{packages} isn't installed.", f"Run `apt-get install {packages}`.")
            )
        try:
            self._hierarchy()
        except ExecutorError as error:
            found.append(Problem("No memory limit can be set.", error.detail))
        return found or self._try_namespaces()

    @staticmethod
    def _try_namespaces() -> list[Problem]:
        argv = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns"]
        argv += ["--ro-bind", "/", "/", "--", "/bin/true"]
        if is_root():
            argv = [*layout.drop_to(65534, ()), *argv]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode == 0:
            return []
        why = done.stderr.strip().splitlines()[-1:] or ["bwrap failed"]
        return [
            Problem(
                f"No user namespace can be made ({why[0]}).",
                "Allow them: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu, "
                "`sysctl -w user.max_user_namespaces=10000` elsewhere.",
            )
        ]

    @functools.cache  # noqa: B019 - one executor lives as long as its agent
    def _hierarchy(self) -> Hierarchy:
        hierarchy = find_hierarchy(f"computeswarm-{self._places.tag}")
        self._remember(hierarchy)
        return hierarchy

    @property
    def _memory_file(self) -> Path:
        return self._places.home / "cgroups.json"

    def _remembered(self) -> list[Hierarchy]:
        try:
            known = json.loads(self._memory_file.read_text())
        except (OSError, ValueError):
            return []
        return [Hierarchy({c: Path(p) for c, p in bases.items()}) for bases in known]

    def _remember(self, hierarchy: Hierarchy) -> None:
        """Note where groups are made: the next agent may start elsewhere in the tree."""
        known = self._remembered()
        if hierarchy not in known:
            known.append(hierarchy)
        rows = [{c: str(p) for c, p in h.bases.items()} for h in known]
        self._places.make()
        self._memory_file.write_text(json.dumps(rows))

    async def reap(self) -> None:
        await asyncio.to_thread(self._reap)

    def _reap(self) -> None:
        present = self._hierarchy()
        self._end_jobs([h for h in self._remembered() if h != present])
        for group in present.leftovers():
            group.destroy()
        self._memory_file.unlink(missing_ok=True)
        self._remember(present)
        self._places.remove_all()

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for space in self._spaces.values():
            if space.holder is not None:
                space.holder.discard()
                space.holder = None
        self._end_jobs(self._remembered())
        self._memory_file.unlink(missing_ok=True)
        self._places.leave()

    @staticmethod
    def _end_jobs(hierarchies: Sequence[Hierarchy]) -> None:
        """Kill what runs below these and remove them."""
        for hierarchy in hierarchies:
            for group in hierarchy.leftovers():
                group.destroy()
            for base in hierarchy.bases.values():
                with contextlib.suppress(OSError):
                    base.rmdir()

    async def expect(self, image: Image, limits: Limits, gpus: Sequence[GPUInfo] = ()) -> None:
        """Nothing takes long enough here to be made ahead."""

    async def prepare(
        self,
        job_id: str,
        limits: Limits,
        *,
        image: Image | None = None,
        gpus: Sequence[GPUInfo] = (),
    ) -> BubblewrapWorkspace:
        checked_job_id(job_id)
        holder = self._hold(job_id, limits)
        try:
            inner = await self._places.workspace(job_id, limits)
        except BaseException:
            await asyncio.to_thread(holder.discard)
            raise
        self._spaces[job_id] = space = BubblewrapWorkspace(inner, holder, self._spaces)
        return space

    def _hold(self, job_id: str, limits: Limits) -> Holder:
        group = self._hierarchy().create(job_id, limits)
        try:
            return Holder(group, limits, seccomp.build_filter())
        except BaseException:
            group.destroy()
            raise

    async def start(self, launch: Launch) -> ChildRunning:
        space = self._spaces.get(launch.job_id)
        if space is None or space.path != launch.workdir:
            raise ExecutorError(f"The workspace of job {launch.job_id} was not prepared here.")
        if not launch.command:
            raise Unprocessable("The job has no command; name a script.")
        holder, space.holder = space.holder, None
        if holder is not None and holder.limits != launch.limits:
            await asyncio.to_thread(holder.discard)
            holder = None
        holder = holder or self._hold(launch.job_id, launch.limits)
        try:
            running, job = self._start(launch, space.inner, holder)
        except BaseException:
            await asyncio.to_thread(holder.discard)
            raise
        if launch.network:
            try:
                await job.connect(running)
            except BaseException:
                with contextlib.suppress(ExecutorError):
                    await running.kill()
                raise
            finally:
                holder.release()
        return running

    def _start(self, launch: Launch, space: Directory, holder: Holder) -> tuple[ChildRunning, _Job]:
        found = devices.find(launch.gpus, root=self._device_root)
        prefix: list[str] = []
        if isinstance(space, MountedWorkspace):
            hand_over(space.path, space.uid)
            prefix = layout.drop_to(space.uid, found.groups)
        inside = layout.arguments(launch, self._places, found)
        holder.become(prefix, inside, layout.command(launch))
        if not launch.network:
            holder.release()
        job = _Job(holder.group, holder.process.pid, holder.status, space, launch.limits)
        process, out, err = holder.streams()
        running = ChildRunning(
            process,
            out,
            err,
            output_bytes=launch.limits.output_bytes,
            signal_tree=job.signal,
            freeze_tree=job.freeze,
            finish=job.start_watching(),
        )
        return running, job


@dataclass
class BubblewrapWorkspace:
    """A job's directory, and until it starts the shell that will become its sandbox."""

    inner: Directory
    holder: Holder | None
    registry: dict[str, BubblewrapWorkspace] = field(repr=False)

    @property
    def job_id(self) -> str:
        return self.inner.job_id

    @property
    def path(self) -> Path:
        return self.inner.path

    async def close(self) -> None:
        holder, self.holder = self.holder, None
        if holder is not None:
            await asyncio.to_thread(holder.discard)
        if self.registry.get(self.job_id) is self:
            del self.registry[self.job_id]
        await self.inner.close()


@dataclass
class _Job:
    group: Group
    pid: int
    status: Status
    space: Directory
    limits: Limits
    killed: bool = False
    network: Network | None = None

    async def connect(self, running: ChildRunning) -> None:
        """Give it a network, while its command waits.

        Raises:
            ExecutorError: it can't have one.
        """
        ended = asyncio.ensure_future(running.wait())
        try:
            while (inside := self.status.init) is None and not ended.done():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
            if inside is None:
                return  # there is no sandbox, as whoever waits for its end hears
            self.network = await attach(inside)
            if ended.done():
                await self.network.close()
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    def signal(self, number: int) -> None:
        if number == SIGKILL:
            self.killed = True
            self.group.signal(SIGKILL)
            return
        # A signal to bubblewrap itself would end the job at once instead of asking it to end.
        own = {self.pid, self.status.init or self.pid}
        self.group.signal(number, skip=own)

    def freeze(self, still: bool) -> None:
        self.group.freeze(still)

    def start_watching(self) -> Callable[[Ended], Awaitable[Exit]]:
        watch = None
        if isinstance(self.space, DirectoryWorkspace):
            watch = asyncio.create_task(watch_size(self.space.path, self.limits, self._kill))
        return functools.partial(self.finish, watch)

    async def _kill(self) -> None:
        self.signal(SIGKILL)

    async def finish(self, watch: asyncio.Task[None] | None, ended: Ended) -> Exit:
        if watch is not None:
            watch.cancel()
        oom, code = self.group.oom_killed(), self.status.exit_code
        self.status.close()
        usage = self.group.usage()
        if self.network is not None:
            await self.network.close()
        await asyncio.to_thread(self.group.destroy)
        if code is None and not self.killed and not oom:
            raise ExecutorError(
                "The sandbox could not be made; its reason is the end of the job's stderr."
            )
        if code is None:
            return Exit(None, SIGKILL, oom, usage)
        if 128 < code <= 128 + _LAST_SIGNAL:
            return Exit(None, code - 128, oom, usage)
        return Exit(code, None, oom, usage)
