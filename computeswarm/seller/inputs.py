"""Uploaded inputs: resumable, checked by their digest, and kept for their buyer's next job."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from computeswarm.core.behind import BLOCK_BYTES, Behind
from computeswarm.core.clock import Clock
from computeswarm.core.errors import NotFound, StorageFull, TooLarge, TooManyRequests
from computeswarm.core.jobs import InputFile, InputState, JobSpec
from computeswarm.seller.inputcache import InputCache, Key
from computeswarm.seller.parts import Part

JOB_UPLOADS = 8
"""Uploads of one job under way; each holds two blocks in memory."""
ALL_UPLOADS = 48
_FICLONE = 0x40049409
"""Linux's request to share a file's blocks until one of the two is written to."""


class InputStore:
    """What jobs need of files, below one folder.

    Args:
        limit: bytes in all.
        keep: seconds for which an input stays after its last use, for its buyer's next job.
        buyer_of: the wallet that pays for a job.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        limit: int,
        keep: float,
        buyer_of: Callable[[str], str],
    ) -> None:
        self._cache = InputCache(folder, clock, limit=limit, keep=keep)
        self._buyer_of = buyer_of
        self._jobs: dict[str, tuple[str, dict[Key, int]]] = {}
        """Of live jobs: the wallet, and what they have pinned."""
        self._arriving: Counter[str] = Counter()

    def missing(self, job_id: str, spec: JobSpec) -> tuple[str, ...]:
        """Digests that have to be uploaded still, each once."""
        wanted = {file.sha256: file.size for file in spec.inputs if file.content is None}
        if not wanted:
            return ()
        wallet = self._wallet(job_id)
        return tuple(d for d, size in wanted.items() if not self._cache.has((wallet, d), size))

    def state(self, job_id: str, spec: JobSpec, sha256: str) -> InputState:
        """How much of an input is here.

        Raises:
            NotFound: not an input of this job.
        """
        file = _uploaded(spec, sha256)
        received = self._cache.received((self._wallet(job_id), sha256), file.size)
        return InputState(sha256=sha256, size=file.size, received=min(received, file.size))

    def promise(self, job_id: str, spec: JobSpec) -> None:
        """Keep what a job needs and has here already, and room for the rest of its uploads.

        Raises:
            StorageFull: there is none.
        """
        if job_id in self._jobs or not uploaded_bytes(spec):
            return
        wallet = self._wallet(job_id)
        wanted = {(wallet, f.sha256): f.size for f in spec.inputs if f.content is None}
        self._jobs[job_id] = (wallet, wanted)
        self._cache.pin(wanted)

    async def receive(
        self,
        job_id: str,
        spec: JobSpec,
        sha256: str,
        span: tuple[int, int],
        chunks: AsyncIterator[bytes],
        progress: Callable[[], None],
    ) -> InputState:
        """Take the bytes of an upload from ``span[0]`` to before ``span[1]``, which is the file's
        size unless more requests follow. What came is kept if the line breaks.

        ``progress`` is called for each block, and stops the upload by what it raises.

        Raises:
            NotFound: not an input of this job.
            Conflict: ``span`` is not where to go on (``extra['received']`` is), or another
                request sends this input now.
            TooLarge, BadRequest: not the bytes that were announced; nothing of them is kept.
            TooManyRequests: too many uploads at once.
            StorageFull: the disk is full; what is here stays.
        """
        file = _uploaded(spec, sha256)
        key = (self._wallet(job_id), sha256)
        if self._arriving[job_id] >= JOB_UPLOADS or self._arriving.total() >= ALL_UPLOADS:
            raise TooManyRequests("Many inputs are being sent just now; wait for some of them.")
        self._arriving[job_id] += 1
        try:
            if not self._cache.has(key, file.size):  # else it came by another line meanwhile
                await self._take(key, file, span, chunks, progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._cache.make_room()
            raise StorageFull("The seller's disk is full; go on with this input later.") from error
        finally:
            self._arriving -= Counter({job_id: 1})
        return self.state(job_id, spec, sha256)

    async def _take(
        self,
        key: Key,
        file: InputFile,
        span: tuple[int, int],
        chunks: AsyncIterator[bytes],
        progress: Callable[[], None],
    ) -> None:
        part, writer = self._cache.part(key, file.size), object()
        await asyncio.to_thread(part.begin, writer, span[0])
        try:
            await _write(part, writer, chunks, progress)
        except TooLarge:
            await asyncio.to_thread(part.remove)
            raise
        if span[1] < file.size:
            return  # the rest is to come
        progress()  # a job that ended meanwhile takes none
        await asyncio.to_thread(part.finish, writer, self._cache.path(key))
        self._cache.completed(key, file.size)

    async def place(self, job_id: str, spec: JobSpec, workdir: Path) -> None:
        """Write all inputs of a job into its fresh folder, as copies of its own.

        Raises:
            StorageFull: they don't fit, by their bytes, their number or their names.
        """
        if not spec.inputs:
            return
        wallet = self._wallet(job_id)
        self._cache.touch((wallet, f.sha256) for f in spec.inputs if f.content is None)
        try:
            await asyncio.to_thread(self._place, wallet, spec, workdir)
        except OSError as error:
            raise StorageFull(f"The inputs don't fit into the job: {error.strerror}.") from error

    def forget(self, job_id: str) -> None:
        """A job needs its inputs no more; they stay for a while."""
        _, wanted = self._jobs.pop(job_id, ("", {}))
        self._cache.unpin(wanted)

    def tidy(self) -> None:
        """Remove inputs whose time is over."""
        self._cache.tidy()

    def _place(self, wallet: str, spec: JobSpec, workdir: Path) -> None:
        for file in spec.inputs:
            target = workdir / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.data()
            if data is None:
                _clone(self._cache.path((wallet, file.sha256)), target)
            else:
                target.write_bytes(data)

    def _wallet(self, job_id: str) -> str:
        known = self._jobs.get(job_id)
        return known[0] if known is not None else self._buyer_of(job_id).lower()


def uploaded_bytes(spec: JobSpec) -> int:
    """Bytes that come as uploads, equal files once."""
    return sum({f.sha256: f.size for f in spec.inputs if f.content is None}.values())


def _uploaded(spec: JobSpec, sha256: str) -> InputFile:
    file = next((f for f in spec.inputs if f.sha256 == sha256 and f.content is None), None)
    if file is None:
        raise NotFound("The job has no such input; see missing_inputs.")
    return file


async def _write(
    part: Part, writer: object, chunks: AsyncIterator[bytes], progress: Callable[[], None]
) -> None:
    """Chunks to disk by the block. What has come is on it, however this ends."""
    behind = Behind()
    block: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            block.append(chunk)
            size += len(chunk)
            if size >= BLOCK_BYTES:
                progress()
                full, block, size = block, [], 0
                await behind.then(part.append, writer, full)
        last, block = block, []
        await behind.then(part.append, writer, last)
        await behind.wait()
    except BaseException:
        with contextlib.suppress(Exception):
            await behind.then(part.append, writer, block)
            await behind.wait()
        raise


def _clone(source: Path, target: Path) -> None:
    """A copy that shares no byte with its source once either is written to: the job may do with it
    what it likes. Not a second name of the same file, which the job could change."""
    with source.open("rb") as old, target.open("wb") as new:
        if _share_blocks(old.fileno(), new.fileno()):
            return
    shutil.copyfile(source, target)


def _share_blocks(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False  # another file system, or one that can't
    return True
