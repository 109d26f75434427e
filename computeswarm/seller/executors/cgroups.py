"""Memory, process and CPU limits by control groups, version 1 and version 2.

Groups are made below the agent's own, so that a limit put on the agent holds for its jobs too.
Rules from the kernel's ``Documentation/admin-guide/cgroup-v1`` and ``cgroup-v2.rst``.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors.base import Limits, Usage

_PERIOD_US = 100_000
_REMOVE_SECONDS = 5.0
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
_REQUIRED = ("memory", "pids")


@dataclass(frozen=True)
class Group:
    """One job's groups: one directory in version 2, one for each controller in version 1."""

    directories: tuple[Path, ...]
    version: int

    @property
    def join_files(self) -> tuple[Path, ...]:
        """A process that writes ``0`` to each of these has joined."""
        return tuple(d / "cgroup.procs" for d in self.directories)

    def pids(self) -> set[int]:
        found: set[int] = set()
        for directory in self.directories:
            try:
                found.update(int(p) for p in (directory / "cgroup.procs").read_text().split())
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        # 0 is a process of another PID namespace; as the target of a signal it is our own group
        return found - {0}

    def signal(self, number: int, skip: Collection[int] = ()) -> bool:
        """Send a signal to every member but ``skip``; true if there was any."""
        members = self.pids() - set(skip)
        for pid in members:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return bool(members)

    def freeze(self, still: bool) -> None:
        """Have every member stand still, or go on; blocks for milliseconds, 5 s at most.

        Raises:
            ExecutorError: a member does not stop.
        """
        file = self.directories[0] / "cgroup.freeze"
        if self.version == 2 and file.exists():
            try:
                file.write_text("1" if still else "0")
            except OSError as error:
                raise ExecutorError(f"The job can't be paused: {error}.") from error
            return
        if not still:
            self.signal(signal.SIGCONT)
            return
        deadline = time.monotonic() + _REMOVE_SECONDS
        before: set[int] | None = None
        # what forks while it is being stopped leaves a child that is not, so they have to be the
        # same ones twice
        while (now := self.pids()) != before or not all(_stopped(pid) for pid in now):
            before = now
            self.signal(signal.SIGSTOP)
            if time.monotonic() > deadline:
                self.signal(signal.SIGCONT)
                raise ExecutorError("The job can't be paused: a process of it does not stop.")
            time.sleep(0.001)

    def usage(self) -> Usage:
        if self.version == 2:
            cpu = _field(self.directories[0] / "cpu.stat", "usage_usec") / 1e6
            return Usage(cpu, _number(self.directories[0] / "memory.peak"))
        cpu_ns = max(_number(d / "cpuacct.usage") for d in self.directories)
        peak = max(_number(d / "memory.max_usage_in_bytes") for d in self.directories)
        return Usage(cpu_ns / 1e9, peak)

    def oom_killed(self) -> bool:
        """Whether the kernel killed a member because the group was out of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return any(_field(d / name, "oom_kill") > 0 for d in self.directories)

    def destroy(self) -> None:
        """Kill every member and remove the groups.

        Blocks for as long as the kernel takes to bury the members: milliseconds, 5 s at most.

        Raises:
            ExecutorError: a member can't be killed.
        """
        deadline = time.monotonic() + _REMOVE_SECONDS
        left = list(self.directories)
        while left:
            self.signal(signal.SIGKILL)
            left = [d for d in left if not _removed(d)]
            if left and time.monotonic() > deadline:
                raise ExecutorError(
                    f"Processes of a job can't be killed; look at {left[0]}/cgroup.procs."
                )
            if left:
                time.sleep(0.001)


@dataclass(frozen=True)
class Hierarchy:
    """Where groups are made: one base directory for each mounted hierarchy."""

    bases: dict[str, Path]
    """Controller name → base directory; ``unified`` alone for version 2."""

    @property
    def version(self) -> int:
        return 2 if "unified" in self.bases else 1

    def create(self, name: str, limits: Limits) -> Group:
        """Make the groups of one job with its limits set.

        Raises:
            ExecutorError: the kernel refuses.
        """
        directories = tuple(dict.fromkeys(base / name for base in self.bases.values()))
        group = Group(directories, self.version)
        try:
            for directory in directories:
                directory.mkdir(parents=True)
            for file, value in self._settings(name, limits):
                file.write_text(value)
        except OSError as error:
            group.destroy()
            raise ExecutorError(f"The job's limits can't be set: {error}.") from error
        return group

    def _settings(self, name: str, limits: Limits) -> list[tuple[Path, str]]:
        memory, quota = str(limits.memory_bytes), str(int(limits.cpus * _PERIOD_US))
        if self.version == 2:
            directory = self.bases["unified"] / name
            settings = [
                (directory / "memory.max", memory),
                (directory / "memory.swap.max", "0"),
                (directory / "pids.max", str(limits.pids)),
                (directory / "cpu.max", f"{quota} {_PERIOD_US}"),
            ]
            return [s for s in settings if s[0].exists() or s[0].name != "memory.swap.max"]
        in_memory, in_pids = self.bases["memory"] / name, self.bases["pids"] / name
        settings = [(in_memory / "memory.limit_in_bytes", memory)]
        swap = in_memory / "memory.memsw.limit_in_bytes"
        if swap.exists():
            settings.append((swap, memory))
        settings.append((in_pids / "pids.max", str(limits.pids)))
        if "cpu" in self.bases:
            in_cpu = self.bases["cpu"] / name
            settings.append((in_cpu / "cpu.cfs_period_us", str(_PERIOD_US)))
            settings.append((in_cpu / "cpu.cfs_quota_us", quota))
        return settings

    def leftovers(self) -> list[Group]:
        """Groups of jobs below these bases, whoever made them."""
        names = {d.name for b in self.bases.values() if b.is_dir() for d in b.iterdir()}
        found = []
        for name in names:
            directories = [b / name for b in self.bases.values() if (b / name).is_dir()]
            if directories:
                found.append(Group(tuple(dict.fromkeys(directories)), self.version))
        return found


def find_hierarchy(
    name: str, *, proc: Path = Path("/proc/self"), root: bool | None = None
) -> Hierarchy:
    """Find where this process may make groups; they go below a directory called ``name``.

    Raises:
        ExecutorError: there is no place; the sentence says why and what to do.
    """
    mounts = _mounts(proc / "mountinfo")
    own = _own_paths(proc / "cgroup")
    if all(c in mounts for c in _REQUIRED):
        bases = {}
        for controller in _CONTROLLERS:
            if controller in mounts:
                parent = mounts[controller] / own.get(controller, "/").lstrip("/")
                base = parent if parent.is_dir() else mounts[controller]
                bases[controller] = base / name
        return _usable(Hierarchy(bases))
    if "unified" not in mounts:
        raise ExecutorError("No control groups are mounted here; mount cgroup2 on /sys/fs/cgroup.")
    is_root = os.geteuid() == 0 if root is None else root
    parent = mounts["unified"] / own.get("unified", "/").lstrip("/")
    if not _sole_member(parent, os.getpid()):
        # Version 2 allows no processes beside child groups, and the other members aren't ours to
        # move; root may use the top instead.
        if not is_root:
            raise ExecutorError(
                "No control group is delegated to this process; start the seller with "
                "`systemd-run --user --scope -p Delegate=yes computeswarm seller`."
            )
        parent = mounts["unified"]
    return _usable(Hierarchy({"unified": _delegate(parent, name)}))


def group_of(pid: int) -> Group | None:
    """The groups that a process is in, to be read only; None where they can't be found."""
    mounts = _mounts(Path("/proc/self/mountinfo"))
    try:
        own = _own_paths(Path(f"/proc/{pid}/cgroup"))
    except OSError:
        return None
    version = 1 if all(c in mounts for c in _REQUIRED) else 2
    wanted = _CONTROLLERS if version == 1 else ("unified",)
    found = tuple(
        mounts[c] / own[c].lstrip("/") for c in wanted if c in mounts and own.get(c, "/") != "/"
    )
    return Group(found, version) if found and all(d.is_dir() for d in found) else None


def _delegate(parent: Path, name: str) -> Path:
    try:
        if _sole_member(parent, os.getpid()):
            leaf = parent / "computeswarm-agent"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text(str(os.getpid()))
        for directory in (parent, parent / name):
            directory.mkdir(exist_ok=True)
            (directory / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    except OSError as error:
        raise ExecutorError(
            f"The memory controller can't be used in {parent} ({error.strerror}); run the seller "
            "as root or in a scope with Delegate=yes."
        ) from error
    return parent / name


def _usable(hierarchy: Hierarchy) -> Hierarchy:
    for base in hierarchy.bases.values():
        try:
            base.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExecutorError(
                f"Control groups can't be made in {base.parent} ({error.strerror}); run the seller "
                "as root, outside a container."
            ) from error
    return hierarchy


def _mounts(mountinfo: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        where = Path(before.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault("unified", where)
        elif kind == "cgroup":
            for option in options.split(" ")[-1].split(","):
                if option in _CONTROLLERS:
                    found.setdefault(option, where)
    return found


def _own_paths(cgroup: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in cgroup.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ["unified"]:
            found[controller] = path
    return found


def _sole_member(group: Path, pid: int) -> bool:
    try:
        members = (group / "cgroup.procs").read_text().split()
    except OSError:
        return False
    return members == [str(pid)] and os.access(group / "cgroup.procs", os.W_OK)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _stopped(pid: int) -> bool:
    """Whether a process stands still, or is dead and not buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False  # it has ended, and may have left a child
    return state in "TtZX"


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0  # not every kernel has every statistic


def _field(file: Path, key: str) -> int:
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return next((int(r[1]) for r in rows if len(r) == 2 and r[0] == key), 0)
    except OSError:
        return 0
