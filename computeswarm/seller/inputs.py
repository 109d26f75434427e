"""Uploaded inputs: streamed to disk under caps, kept by digest until their job has ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from computeswarm.core.errors import BadRequest, NotFound, StorageFull, TooLarge, TooManyRequests
from computeswarm.core.jobs import InputFile, JobSpec

_AT_ONCE = 2
"""Copies of one input under way: a client may try again before we know that his line broke."""


class InputStore:
    """Files of jobs that wait, below one folder, ``limit`` bytes in all."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._promised: dict[str, int] = {}
        self._arriving: Counter[Path] = Counter()

    def missing(self, job_id: str, spec: JobSpec) -> tuple[str, ...]:
        """Digests that have to be uploaded still, each once."""
        wanted = dict.fromkeys(file.sha256 for file in spec.inputs if file.content is None)
        if not wanted:
            return ()
        try:
            here = set(os.listdir(self._folder / job_id))  # noqa: PTH208 - one call for all
        except FileNotFoundError:
            here = set()
        return tuple(digest for digest in wanted if digest not in here)

    def promise(self, job_id: str, spec: JobSpec) -> None:
        """Keep room for a job's uploads.

        Raises:
            StorageFull: there is none.
        """
        size = uploaded_bytes(spec)
        others = sum(n for known, n in self._promised.items() if known != job_id)
        if others + size > self._limit:
            raise StorageFull("This seller has no room for the inputs now; try again later.")
        self._promised[job_id] = size

    async def receive(
        self,
        job_id: str,
        spec: JobSpec,
        sha256: str,
        chunks: AsyncIterator[bytes],
        progress: Callable[[], None],
    ) -> None:
        """Store one upload, once size and digest are right; a repetition is fine.

        Raises:
            NotFound: not an input of this job.
            TooLarge, BadRequest: not the bytes that were announced.
            TooManyRequests: the same input comes in several times over.
        """
        file = next((f for f in spec.inputs if f.sha256 == sha256 and f.content is None), None)
        if file is None:
            raise NotFound("The job has no such input; see missing_inputs.")
        target = self._path(job_id, sha256)
        if self._arriving[target] >= _AT_ONCE:
            raise TooManyRequests("This input is being sent already; wait for that.")
        self._arriving[target] += 1
        try:
            await self._store(file, target, chunks, progress)
        finally:
            self._arriving[target] -= 1
            if not self._arriving[target]:
                del self._arriving[target]

    @staticmethod
    async def _store(
        file: InputFile, target: Path, chunks: AsyncIterator[bytes], progress: Callable[[], None]
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        try:
            await _copy(file, chunks, part, progress)
            progress()  # a job that ended meanwhile has no folder any more
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    async def place(self, job_id: str, spec: JobSpec, workdir: Path) -> None:
        """Write all inputs of a job into its fresh folder.

        Raises:
            StorageFull: they don't fit, by their bytes, their number or their names.
        """
        if not spec.inputs:
            return
        try:
            await asyncio.to_thread(self._place, job_id, spec, workdir)
        except OSError as error:
            raise StorageFull(f"The inputs don't fit into the job: {error.strerror}.") from error

    def forget(self, job_id: str) -> None:
        """Remove a job's uploads."""
        self._promised.pop(job_id, None)
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def keep_only(self, job_ids: set[str]) -> None:
        """Remove what a crash left of other jobs."""
        with contextlib.suppress(FileNotFoundError):
            for folder in self._folder.iterdir():
                if folder.name not in job_ids:
                    shutil.rmtree(folder, ignore_errors=True)

    def _place(self, job_id: str, spec: JobSpec, workdir: Path) -> None:
        for file in spec.inputs:
            target = workdir / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.data()
            if data is None:
                shutil.copyfile(self._path(job_id, file.sha256), target)
            else:
                target.write_bytes(data)

    def _path(self, job_id: str, sha256: str) -> Path:
        return self._folder / job_id / sha256


def uploaded_bytes(spec: JobSpec) -> int:
    """Bytes that come as uploads, equal files once."""
    return sum({f.sha256: f.size for f in spec.inputs if f.content is None}.values())


async def _copy(
    file: InputFile, chunks: AsyncIterator[bytes], part: Path, progress: Callable[[], None]
) -> None:
    digest, size = hashlib.sha256(), 0
    with part.open("xb") as out:
        async for chunk in chunks:
            size += len(chunk)
            if size > file.size:
                raise TooLarge(f"The input is longer than its {file.size} bytes; nothing was kept.")
            digest.update(chunk)
            out.write(chunk)
            progress()
    if size != file.size or digest.hexdigest() != file.sha256:
        raise BadRequest("The input is not what the job announced; send the right file.")
