"""Sending a job's inputs: what the seller has already is not sent again, what broke off goes on."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from computeswarm.buyer.http.seller import Access, SellerClient
from computeswarm.buyer.progress import Flow, Report
from computeswarm.core.behind import BLOCK_BYTES
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)

AT_ONCE = 4
"""Files on their way at the same time. Ranges of one file are not sent side by side: on one line
the bytes arrive no sooner, and a digest is taken from the front."""
_TRIES = 6
"""Without a byte of progress."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A local file that a job needs."""

    sha256: str
    size: int
    path: Path


async def send_inputs(
    seller: SellerClient,
    access: Access,
    uploads: list[Upload],
    report: Report,
    *,
    there: int,
) -> None:
    """Send all of them, several at once. A broken line is made again, and goes on where it broke.

    Args:
        there: further inputs that the seller has already, for the report.

    Raises:
        BadRequest: a file is gone or has changed since the job was planned.
        Conflict: the job takes no inputs any more.
        Unavailable: the seller takes none.
    """
    total = sum(upload.size for upload in uploads)
    flow = Flow("uploading", total, report, files=len(uploads), there=there)
    flow.tell()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(upload: Upload) -> None:
        async with gate:
            await _Sending(seller, access, upload, flow).run()
        flow.file_done()

    tasks = [asyncio.ensure_future(one(upload)) for upload in uploads]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    flow.tell()


def uploads_of(
    missing: tuple[str, ...], sizes: Mapping[str, int], sources: Mapping[str, Path]
) -> list[Upload]:
    """What of the ``missing`` digests is an input of the job: a seller can't ask for other files.

    The largest come first, so that the last one does not go alone.
    """
    wanted = [Upload(d, sizes[d], sources[d]) for d in missing if d in sources and d in sizes]
    return sorted(wanted, key=lambda upload: upload.size, reverse=True)


class _Sending:
    """One file, until the seller has it."""

    def __init__(self, seller: SellerClient, access: Access, upload: Upload, flow: Flow) -> None:
        self._seller, self._access, self._flow = seller, access, flow
        self._upload = upload
        self._counted = 0
        """Bytes of this file that the flow has been told of."""

    async def run(self) -> None:
        size, tries, best, refused = self._upload.size, 0, -1, False
        # to ask takes as long as to send a small file, of which hardly a part is there
        start = await self._ask() if size > BLOCK_BYTES else 0
        while True:
            self._flow.found(start - self._counted)
            self._counted = start
            try:
                await self._seller.upload(
                    self._access, self._upload.sha256, start, size, self._blocks(start)
                )
            except (Unavailable, TooManyRequests, StorageFull) as error:
                trouble: ComputeSwarmError = error
            except Conflict as error:
                if "received" not in error.extra:
                    raise  # the job takes none any more
                trouble = error
            except (BadRequest, Unprocessable, TooLarge) as error:
                await asyncio.to_thread(self._see_unchanged)
                if refused:
                    raise
                refused, trouble = True, error  # the line may have spoilt it
            else:
                return
            tries = 0 if start > best else tries + 1
            best = max(best, start)
            if tries >= _TRIES:
                raise trouble
            await asyncio.sleep(min(0.1 * 2**tries, 3))
            start = await self._ask()
            if start == size and size:
                return

    async def _ask(self) -> int:
        """Where to go on."""
        try:
            state = await self._seller.input_state(self._access, self._upload.sha256)
        except ComputeSwarmError:
            return 0  # he keeps no parts; whatever else is wrong, the upload itself tells
        return state.received if state.received <= self._upload.size else 0

    async def _blocks(self, start: int) -> AsyncGenerator[bytes, None]:
        """The file from ``start`` on; while one block is sent, the next is read."""
        size = self._upload.size
        file = self._open()
        reading: asyncio.Future[bytes] | None = None
        try:
            position = start
            while position < size:
                if reading is None:
                    reading = _pread(file, size, position)
                block = await reading
                reading = None
                if not block:
                    raise self._changed()
                position += len(block)
                if position < size:
                    reading = _pread(file, size, position)
                self._flow.moved(position - self._counted)
                self._counted = position
                yield block
        finally:
            if reading is not None:
                await asyncio.wait({reading})
            file.close()

    def _open(self) -> BinaryIO:
        """The file, as long as it was.

        Raises:
            BadRequest: it is gone, or longer or shorter than before.
        """
        try:
            file = self._upload.path.open("rb", buffering=0)
        except OSError as error:
            text = f"{self._upload.path} can't be read any more: {error.strerror}."
            raise BadRequest(text) from None
        if os.fstat(file.fileno()).st_size != self._upload.size:
            file.close()
            raise self._changed()
        return file

    def _see_unchanged(self) -> None:
        """Raises BadRequest: the seller is right, it is not the file that the job was planned with.

        Only looked at once he refuses it: reading a file twice for each upload would cost more.
        """
        digest, position = hashlib.sha256(), 0
        with self._open() as file:
            while block := os.pread(file.fileno(), BLOCK_BYTES, position):
                digest.update(block)
                position += len(block)
        if digest.hexdigest() != self._upload.sha256:
            raise self._changed()

    def _changed(self) -> BadRequest:
        return BadRequest(
            f"{self._upload.path} has changed since the job was planned; run it again."
        )


def _pread(file: BinaryIO, size: int, position: int) -> asyncio.Future[bytes]:
    count = min(BLOCK_BYTES, size - position)
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(None, os.pread, file.fileno(), count, position)
