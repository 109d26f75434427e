"""Job directories with a hard cap, and read-only views of paths that a job's user can't walk to.

As root a job directory is an ext4 file system in a sparse file (18 ms), where loop devices are
missing a tmpfs. Without root it is a plain directory and the executor has to watch it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from computeswarm.core.errors import ExecutorError, StorageFull, Unprocessable
from computeswarm.seller.executors.base import MIB, OUTPUTS_DIR, Limits

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_INODE_BYTES = 256
_FIRST_UID = 0x7E000000
_UIDS = 0x00100000
_MNT_DETACH = 2
_WATCH_SECONDS = 0.25


def is_root() -> bool:
    return os.geteuid() == 0


def checked_job_id(job_id: str) -> str:
    """Job ids become file and cgroup names.

    Raises:
        Unprocessable: the id has other characters than letters, digits, ``-`` and ``_``.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise Unprocessable(f"{job_id[:64]!r} can't be a job id; use letters, digits and dashes.")
    return job_id


@dataclass
class DirectoryWorkspace:
    """A plain directory; nothing but the executor's watching caps it."""

    job_id: str
    path: Path

    async def close(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)


@dataclass
class MountedWorkspace:
    """A file system of its own, owned by a user of its own."""

    job_id: str
    path: Path
    uid: int
    image: Path | None
    """The file behind the file system; ``None`` for a tmpfs."""
    uids: set[int] = field(repr=False)

    async def close(self) -> None:
        await asyncio.to_thread(self._remove)
        self.uids.discard(self.uid)

    def _remove(self) -> None:
        unmount(self.path)
        if self.image is not None:
            self.image.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.rmdir()


@dataclass
class Places:
    """Where one seller keeps its sandboxes' directories.

    ``home`` may lie below a directory that only the seller's user can enter, such as /root. What a
    job's user has to reach is therefore mounted below ``run`` first.
    """

    home: Path
    run: Path
    uids: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, home: Path) -> Places:
        tag = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
        root = Path("/run/computeswarm") if is_root() else Path(tempfile.gettempdir())
        name = tag if is_root() else f"computeswarm-{os.geteuid()}-{tag}"
        return cls(home, root / name)

    @property
    def tag(self) -> str:
        return self.run.name

    @property
    def jobs(self) -> Path:
        return self.run / "jobs"

    def make(self) -> None:
        """Make the directories; others may walk through them but not list them."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.run, self.jobs, self.run / "views"):
            directory.mkdir(parents=True, exist_ok=True)
            if directory.stat().st_uid != os.geteuid() or directory.is_symlink():
                raise ExecutorError(f"{directory} belongs to somebody else; remove it.")
            directory.chmod(0o711)
        if is_root():
            self.run.parent.chmod(0o711)

    async def workspace(self, job_id: str, limits: Limits) -> MountedWorkspace | DirectoryWorkspace:
        """Make a job directory capped in bytes and inodes (as root).

        Raises:
            ExecutorError, StorageFull, Unprocessable.
        """
        checked_job_id(job_id)
        self.make()
        if not is_root():
            path = self.jobs / job_id
            _require_space(self.run, limits.disk_bytes)
            (path / OUTPUTS_DIR).mkdir(parents=True)
            return DirectoryWorkspace(job_id, path)
        uid = self._take_uid(job_id)
        try:
            return await asyncio.to_thread(self._mounted, job_id, limits, uid)
        except BaseException:
            self.uids.discard(uid)
            raise

    def _take_uid(self, job_id: str) -> int:
        number = int.from_bytes(hashlib.sha256(f"{self.tag}/{job_id}".encode()).digest()[:4], "big")
        while (uid := _FIRST_UID + number % _UIDS) in self.uids:
            number += 1
        self.uids.add(uid)
        return uid

    def _mounted(self, job_id: str, limits: Limits, uid: int) -> MountedWorkspace:
        path = self.jobs / job_id
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise ExecutorError(f"The workspace of job {job_id} exists already.") from error
        image: Path | None = self.home / "workspaces" / f"{job_id}.img"
        space = MountedWorkspace(job_id, path, uid, image, self.uids)
        try:
            if image is not None and loop_mounts_work():
                image.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _require_space(image.parent, limits.disk_bytes)
                _mount_loop(image, path, limits, uid)
            else:
                space.image = None
                _mount_tmpfs(path, limits, uid)
            outputs = path / OUTPUTS_DIR
            outputs.mkdir()
            os.chown(outputs, uid, uid)
        except BaseException:
            space._remove()
            raise
        return space

    def view(self, path: Path) -> Path:
        """A path to the same directory that any user can walk, mounted read-only if need be."""
        real = path.resolve()
        if not real.is_dir():
            raise ExecutorError(f"{path} is gone; build the image anew.")
        if not is_root() or _open_to_all(real):
            return real
        tag = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
        view = self.run / "views" / tag
        view.mkdir(exist_ok=True)
        if os.path.samestat(view.stat(), real.stat()):
            return view
        if view in _mounted_below(view.parent):
            unmount(view)  # the image was built anew and this is the old directory
        _run(["mount", "--bind", str(real), str(view)])
        _run(["mount", "-o", "remount,bind,ro,nosuid,nodev", str(view)])
        return view

    def remove_all(self) -> None:
        """Unmount and remove all workspaces and views, whoever made them."""
        for where in sorted(_mounted_below(self.run), key=lambda p: len(p.parts), reverse=True):
            unmount(where)
        for directory in (self.jobs, self.run / "views"):
            for left in directory.glob("*"):
                shutil.rmtree(left, ignore_errors=True)
        for image in (self.home / "workspaces").glob("*.img"):
            image.unlink(missing_ok=True)
        self.uids.clear()

    def leave(self) -> None:
        """Remove everything outside ``home``."""
        self.remove_all()
        shutil.rmtree(self.run, ignore_errors=True)


def hand_over(path: Path, uid: int) -> None:
    """Give the input files, which the agent wrote, to the job's user.

    No job has run here yet, so that nothing in the tree is hostile.
    """
    for entry in path.rglob("*"):
        os.lchown(entry, uid, uid)


async def watch_size(path: Path, limits: Limits, end: Callable[[], Awaitable[object]]) -> None:
    """Where no file system caps a job's directory: end a job that outgrows it."""
    while True:
        used, entries = await asyncio.to_thread(measure, path)
        if used > limits.disk_bytes or entries > limits.inodes:
            await end()
            return
        await asyncio.sleep(_WATCH_SECONDS)


def measure(path: Path) -> tuple[int, int]:
    """Bytes on disk and number of entries below a directory that a job may be changing."""
    used = entries = 0
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            entries += 1
            with contextlib.suppress(OSError):
                used += Path(directory, name).lstat().st_blocks * 512
    return used, entries


def loop_mounts_work() -> bool:
    return Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


def unmount(path: Path) -> None:
    """Unmount; at once if nobody is in it, else as soon as the last one has left."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = os.fsencode(path)
    if libc.umount2(name, 0) != 0:
        libc.umount2(name, _MNT_DETACH)


def _mount_loop(image: Path, path: Path, limits: Limits, uid: int) -> None:
    size = limits.disk_bytes + limits.inodes * _INODE_BYTES + 4 * MIB
    with image.open("xb") as file:
        file.truncate(size)
    owner = f"root_owner={uid}:{uid},nodiscard,lazy_itable_init=1"
    features = ["-O", "^has_journal,^resize_inode", "-I", str(_INODE_BYTES), "-m", "0"]
    inodes = ["-N", str(limits.inodes)]
    _run(["mkfs.ext4", "-q", "-F", *features, *inodes, "-E", owner, str(image)])
    options = "loop,nosuid,nodev,noatime,noinit_itable"
    _run(["mount", "-t", "ext4", "-o", options, str(image), str(path)])
    path.chmod(0o700)
    with contextlib.suppress(FileNotFoundError):
        (path / "lost+found").rmdir()


def _mount_tmpfs(path: Path, limits: Limits, uid: int) -> None:
    size = f"size={limits.disk_bytes},nr_inodes={limits.inodes}"
    options = f"nosuid,nodev,{size},uid={uid},gid={uid},mode=0700"
    _run(["mount", "-t", "tmpfs", "-o", options, "computeswarm", str(path)])


def _require_space(where: Path, needed: int) -> None:
    free = shutil.disk_usage(where).free
    if free < needed:
        raise StorageFull(
            f"{where} has {free // MIB} MiB left and the job asks for {needed // MIB} MiB; "
            "free some space or ask for less."
        )


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExecutorError(f"A job directory can't be made: {argv[0]}: {why[-1]}.")


def _open_to_all(path: Path) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    if path.stat().st_mode & needed != needed:
        return False
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _mounted_below(root: Path) -> Iterable[Path]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        where = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]))
        if root in where.parents:
            yield where
