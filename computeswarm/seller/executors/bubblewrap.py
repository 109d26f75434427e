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
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from computeswarm.core.errors import ExecutorError, Unprocessable
from computeswarm.core.nodes import Isolation
from computeswarm.seller.executors import devices, layout, seccomp
from computeswarm.seller.executors.base import Exit, Launch, Limits, Problem
from computeswarm.seller.executors.cgroups import Group, Hierarchy, find_hierarchy
from computeswarm.seller.executors.running import ChildRunning, Ended, spawn
from computeswarm.seller.executors.workspace import (
    DirectoryWorkspace,
    MountedWorkspace,
    Places,
    hand_over,
    is_root,
    measure,
)

_JOIN_AND_RUN = """\
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 97; shift; n=$((n-1)); done
ulimit -c 0 && ulimit -n "$1" && shift && exec "$@"
"""
"""Run by sh as the agent's user: join the control groups, set limits, become bubblewrap."""
_WATCH_SECONDS = 0.25
_LAST_SIGNAL = 64


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
        self._spaces: dict[str, MountedWorkspace | DirectoryWorkspace] = {}

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

    async def prepare(self, job_id: str, limits: Limits) -> MountedWorkspace | DirectoryWorkspace:
        space = await self._places.workspace(job_id, limits)
        self._spaces[job_id] = space
        return space

    async def start(self, launch: Launch) -> ChildRunning:
        space = self._spaces.get(launch.job_id)
        if space is None or space.path != launch.workdir:
            raise ExecutorError(f"The workspace of job {launch.job_id} was not prepared here.")
        if launch.network:
            raise Unprocessable("Jobs have no network on this node; send the data as inputs.")
        if not launch.command:
            raise Unprocessable("The job has no command; name a script.")
        group = self._hierarchy().create(launch.job_id, launch.limits)
        try:
            return self._spawn(launch, space, group)
        except BaseException:
            group.destroy()
            raise

    def _spawn(
        self, launch: Launch, space: MountedWorkspace | DirectoryWorkspace, group: Group
    ) -> ChildRunning:
        found = devices.find(launch.gpus, root=self._device_root)
        argv = [shutil.which("bwrap") or "bwrap"]
        if isinstance(space, MountedWorkspace):
            hand_over(space.path, space.uid)
            argv = [*layout.drop_to(space.uid, found.groups), *argv]
        with contextlib.ExitStack() as fds:
            status_read, status_write = os.pipe()
            fds.callback(os.close, status_write)
            filter_fd = _memory_file(fds, "filter", seccomp.build_filter())
            inside = layout.arguments(launch, self._places, found)
            inside += ["--seccomp", str(filter_fd), "--json-status-fd", str(status_write)]
            packed = b"".join(os.fsencode(a) + b"\0" for a in inside)
            args_fd = _memory_file(fds, "arguments", packed)
            command = layout.command(launch)
            argv += ["--args", str(args_fd), "--", *command]
            status = _Status(status_read)
            process, out, err = spawn(
                _joining(group, launch.limits, argv),
                env={"PATH": os.defpath},
                cwd="/",
                pass_fds=(filter_fd, status_write, args_fd),
            )
        job = _Job(group, process.pid, status, space, launch.limits)
        return ChildRunning(
            process,
            out,
            err,
            output_bytes=launch.limits.output_bytes,
            signal_tree=job.signal,
            finish=job.start_watching(),
        )


def _joining(group: Group, limits: Limits, argv: Sequence[str]) -> list[str]:
    files = [str(f) for f in group.join_files]
    head = ["/bin/sh", "-c", _JOIN_AND_RUN, "sh", str(len(files)), *files]
    return [*head, str(limits.open_files), *argv]


def _memory_file(fds: contextlib.ExitStack, name: str, content: bytes) -> int:
    fd = os.memfd_create(name)
    fds.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Status:
    """What bubblewrap says of itself on ``--json-status-fd``."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._text = b""

    def _read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._fd, 4096):
                self._text += chunk
        return self._text

    @property
    def init(self) -> int | None:
        """Host pid of the sandbox's process 1."""
        found = re.search(rb'"child-pid": *(\d+)', self._read())
        return int(found[1]) if found else None

    @property
    def exit_code(self) -> int | None:
        """``None``: the command was never run."""
        found = re.search(rb'"exit-code": *(\d+)', self._read())
        return int(found[1]) if found else None

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class _Job:
    group: Group
    pid: int
    status: _Status
    space: MountedWorkspace | DirectoryWorkspace
    limits: Limits
    killed: bool = False

    def signal(self, number: int) -> None:
        if number == SIGKILL:
            self.killed = True
            self.group.signal(SIGKILL)
            return
        # A signal to bubblewrap itself would end the job at once instead of asking it to end.
        own = {self.pid, self.status.init or self.pid}
        self.group.signal(number, skip=own)

    def start_watching(self) -> Callable[[Ended], Awaitable[Exit]]:
        watch = None
        if isinstance(self.space, DirectoryWorkspace):
            watch = asyncio.create_task(self._watch_disk())
        return functools.partial(self.finish, watch)

    async def _watch_disk(self) -> None:
        """Where no file system caps the job directory, end a job that outgrows it."""
        while True:
            used, entries = await asyncio.to_thread(measure, self.space.path)
            if used > self.limits.disk_bytes or entries > self.limits.inodes:
                self.signal(SIGKILL)
                return
            await asyncio.sleep(_WATCH_SECONDS)

    async def finish(self, watch: asyncio.Task[None] | None, ended: Ended) -> Exit:
        if watch is not None:
            watch.cancel()
        oom, code = self.group.oom_killed(), self.status.exit_code
        self.status.close()
        usage = self.group.usage()
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
