"""Fetching what a job wrote: several files at once, every digest checked, broken lines resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from computeswarm.buyer.folder import PartFile, WouldOverwrite, open_below, standing
from computeswarm.buyer.http.bulk import Body
from computeswarm.buyer.http.seller import Access, SellerClient
from computeswarm.buyer.progress import Flow, Report
from computeswarm.core.behind import BLOCK_BYTES, Behind
from computeswarm.core.errors import SellerUnavailable, TooLarge, TooManyRequests, Unavailable
from computeswarm.core.jobs import OutputFile
from computeswarm.core.text import clean_line

AT_ONCE = 4
_TRIES = 6
"""Without a byte of progress."""


@dataclass
class Fetching:
    """One seller's outputs of one job into one folder.

    Args:
        overwrite: replace other files of the same names.
        ours: digests, by path, of what an earlier fetch of this run has written: older versions
            of an output are replaced without asking.
    """

    seller: SellerClient
    access: Access
    dest: Path
    report: Report
    overwrite: bool = False
    ours: dict[str, str] = field(default_factory=dict)

    async def fetch(self, files: Iterable[OutputFile]) -> list[Path]:
        """The files, below ``dest``; those that are there already are not fetched again.

        Raises:
            WouldOverwrite: other files of these names are there; nothing was fetched.
            SellerUnavailable: he broke off, or sent other bytes than he listed.
            NotFound, Conflict: he has another version of a file by now.
            ComputeSwarmError, OSError: a file can't be written.
        """
        wanted = list(files)
        found = {file.path: await asyncio.to_thread(standing, self.dest, file) for file in wanted}
        self._check(wanted, found)
        todo = [file for file in wanted if found[file.path] != file.sha256]
        flow = Flow(
            "downloading",
            sum(file.size for file in todo),
            self.report,
            files=len(todo),
            there=len(wanted) - len(todo),
        )
        flow.tell()
        await self._all(sorted(todo, key=lambda file: file.size, reverse=True), flow)
        flow.tell()
        self.ours |= {file.path: file.sha256 for file in wanted}
        return [self.dest.joinpath(*file.path.split("/")) for file in wanted]

    def _check(self, wanted: list[OutputFile], found: Mapping[str, str]) -> None:
        other = [f.path for f in wanted if found[f.path] not in ("", f.sha256)]
        if not self.overwrite and (theirs := [path for path in other if path not in self.ours]):
            raise WouldOverwrite.of(self.dest, theirs)

    async def _all(self, files: list[OutputFile], flow: Flow) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(file: OutputFile) -> None:
            async with gate:
                await self._named(file, flow)
            flow.file_done()

        tasks = [asyncio.ensure_future(one(file)) for file in files]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _named(self, file: OutputFile, flow: Flow) -> None:
        try:
            *folders, name = file.path.split("/")
            with open_below(self.dest, folders) as folder:
                await self._one(folder, name, file, flow)
        except OSError as error:
            if error.errno is not None and error.filename is None:
                # the last resort names the file, and tells a full disk
                error.filename = clean_line(str(self.dest / file.path))
            raise

    async def _one(self, folder: int, name: str, file: OutputFile, flow: Flow) -> None:
        part, keep = PartFile(folder, name, file), True
        try:
            await asyncio.to_thread(part.open)
            flow.found(earlier := part.received)
            await self._receive(part, file, flow)
            if earlier and not part.right:  # what an earlier try left may be the fault
                flow.moved(-part.received)
                part.restart()
                await self._receive(part, file, flow)
            if not part.right:
                keep = False
                raise SellerUnavailable(
                    f"The seller sent other bytes for {clean_line(file.path)} than he listed; "
                    "fetch the outputs again."
                )
            ours = self.overwrite or file.path in self.ours
            if not await asyncio.to_thread(part.place, overwrite=ours):
                raise WouldOverwrite.of(self.dest, [file.path])
            keep = False
            self.ours[file.path] = file.sha256  # also where another file of this fetch fails
        finally:
            part.close(keep=keep)

    async def _receive(self, part: PartFile, file: OutputFile, flow: Flow) -> None:
        """The rest of a file; a broken line is made again, and goes on where it broke."""
        tries = 0
        while part.received < file.size or not tries:
            before = part.received
            try:
                async with self.seller.download(self.access, file, part.received) as body:
                    if part.received and not _goes_on(body, part.received):
                        flow.moved(-part.received)
                        part.restart()
                    await _write(part, file, body, flow)
                    if part.received < file.size:
                        raise SellerUnavailable("The seller broke off; fetch the outputs again.")
            except (Unavailable, TooManyRequests):
                tries = 1 if part.received > before else tries + 1
                if tries >= _TRIES:
                    raise
                await asyncio.sleep(min(0.1 * 2**tries, 3))
            else:
                return


def _goes_on(body: Body, start: int) -> bool:
    return body.status == 206 and body.headers.get("content-range", "").startswith(
        f"bytes {start}-"
    )


async def _write(part: PartFile, file: OutputFile, body: Body, flow: Flow) -> None:
    """A body to disk by the block; what has come is on it, however this ends."""
    behind, block, size = Behind(), list[bytes](), 0
    left = file.size - part.received
    try:
        async for chunk in body.chunks:
            flow.moved(len(chunk))
            block.append(chunk)
            size += len(chunk)
            left -= len(chunk)
            if left < 0:
                break  # more than listed: its digest is wrong
            if size >= BLOCK_BYTES:
                full, block, size = block, [], 0
                await behind.then(part.write, full)
    finally:
        full, block = block, []
        await behind.then(part.write, full)
        await behind.wait()


async def fetch_outputs(
    seller: SellerClient,
    access: Access,
    dest: Path,
    *,
    max_bytes: int,
    report: Report,
    overwrite: bool = False,
    ours: dict[str, str] | None = None,
) -> list[Path]:
    """All outputs below ``dest``, which is made; files that are there already are not fetched.

    Args:
        max_bytes: more than that is refused before a byte is fetched: the job's own disk limit.

    Raises:
        TooLarge: the seller lists more.
        what ``Fetching.fetch`` raises.
    """
    listed = await seller.outputs(access)
    total = sum(file.size for file in listed.files)
    if total > max_bytes:
        raise TooLarge(f"The outputs are {total} bytes; this job may have at most {max_bytes}.")
    fetching = Fetching(seller, access, dest, report, overwrite, ours if ours is not None else {})
    return await fetching.fetch(listed.files)
