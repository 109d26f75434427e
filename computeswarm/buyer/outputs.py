"""Fetching what a job wrote: every digest checked, nothing written outside the chosen folder.

The list comes from a stranger. Its paths are safe by their model, but the folder may hold links
that were not: each part is opened below the one before it, and links are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from computeswarm.buyer.http.seller import Access, SellerClient
from computeswarm.buyer.progress import Progress, Report
from computeswarm.core.errors import ComputeSwarmError, SellerUnavailable, TooLarge
from computeswarm.core.jobs import OutputFile
from computeswarm.core.text import clean_line

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1024 * 1024


async def fetch_outputs(
    seller: SellerClient, access: Access, dest: Path, *, max_bytes: int, report: Report
) -> list[Path]:
    """All outputs below ``dest``, which is made; files that are there already are not fetched.

    Args:
        max_bytes: more than that is refused before a byte is fetched: the job's own disk limit.

    Raises:
        TooLarge: the seller lists more.
        SellerUnavailable: he broke off, or sent other bytes than he listed.
        ComputeSwarmError: a file can't be written.
    """
    listed = await seller.outputs(access)
    total = sum(file.size for file in listed.files)
    if total > max_bytes:
        raise TooLarge(f"The outputs are {total} bytes; this job may have at most {max_bytes}.")
    done, written = 0, []
    for file in listed.files:
        report(Progress("downloading", done, total))
        try:
            written.append(await _fetch(seller, access, dest, file))
        except OSError as error:
            place = clean_line(str(dest / file.path))
            if error.errno is not None and error.filename is None:
                error.filename = place  # the last resort names the file, and tells a full disk
            raise
        done += file.size
    report(Progress("downloading", total, total))
    return written


async def _fetch(seller: SellerClient, access: Access, dest: Path, file: OutputFile) -> Path:
    *folders, name = file.path.split("/")
    with _open_below(dest, folders) as folder:
        if not await asyncio.to_thread(_is_there, folder, name, file):
            temporary = f".{secrets.token_hex(8)}.part"
            try:
                descriptor = os.open(temporary, _NEW_FILE, 0o644, dir_fd=folder)
                with os.fdopen(descriptor, "wb") as target:
                    digest, size = hashlib.sha256(), 0
                    async with seller.download(access, file.path) as chunks:
                        async for chunk in chunks:
                            size += len(chunk)
                            if size > file.size:
                                break
                            digest.update(chunk)
                            target.write(chunk)
                if size != file.size or digest.hexdigest() != file.sha256:
                    raise SellerUnavailable(
                        f"The seller sent other bytes for {clean_line(file.path)} than he listed; "
                        "fetch the outputs again."
                    )
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
    return dest.joinpath(*folders, name)


@contextlib.contextmanager
def _open_below(dest: Path, folders: list[str]) -> Iterator[int]:
    """A descriptor of the folder below ``dest``; the folders on the way are made."""
    dest.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=descriptor)
            try:
                below = os.open(part, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise ComputeSwarmError(
                    f"{clean_line(str(dest / part))} is no folder of its own; move it away, or "
                    "choose another folder for the outputs."
                ) from None
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _is_there(folder: int, name: str, file: OutputFile) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as present:
        if os.fstat(descriptor).st_size != file.size:
            return False
        digest = hashlib.sha256()
        while block := present.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == file.sha256
